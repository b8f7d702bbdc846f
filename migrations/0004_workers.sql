-- What workers say of themselves: which models they run, and how far they have got with loading. An API process
-- without workers answers its readiness probe from here.
--
-- A worker is alive while its session holds the advisory lock of its id, so a killed one is noticed at once; the row
-- it leaves behind is removed by the sweep.

create table workers (
    id         uuid primary key,
    models     text[] not null,
    device     text not null,
    phase      text not null check (phase in ('loading', 'warming_up', 'ready', 'draining')),
    percent    smallint not null check (percent between 0 and 100),
    host       text not null,
    started_at timestamptz not null default now(),
    seen_at    timestamptz not null default now()
);
