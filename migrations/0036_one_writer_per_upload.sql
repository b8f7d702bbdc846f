-- Since when somebody stores an upload's bytes. One at a time: of two, the size of one would be counted and the file of
-- the other kept. Null while nobody does.
alter table uploads add column writing_since timestamptz;
