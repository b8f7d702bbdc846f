-- Since when the database is what it is. A replica that is promoted goes on as another one, on a timeline of its own: it may lack
-- the end of what was written, and no session of a worker is on it yet, though its postmaster is as old as ever. Its first sweep
-- notes the moment among the chores, as `timeline <number>`, and what was true before it is not believed.

-- Empty on a server that does not tell.
create function timeline() returns text language plpgsql stable as $$
begin
    return left(pg_walfile_name(pg_current_wal_lsn()), 8);
exception when others then
    return '';
end $$;

insert into chores (name, begun_at) values ('timeline ' || timeline(), 'epoch');
