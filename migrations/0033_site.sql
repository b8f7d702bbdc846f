-- Which site this is. The same number is kept in a file among the stored files: a database that does not know them, because it
-- is empty, another site's, or not the one that was meant, must not delete what belongs to nothing in it.

create table site (
    is_only boolean primary key default true check (is_only),
    id      uuid not null default gen_random_uuid()
);

insert into site default values;
