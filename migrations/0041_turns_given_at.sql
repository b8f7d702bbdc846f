-- When an account was last given a turn. Those that it was given a moment ago may be on their way into the queue; of older ones that
-- are not in it nothing will come.
alter table turns add column given_at timestamptz not null default now();
