-- Fairness: a prediction's turn. Each account's predictions are numbered on from its last one or from the head of the queue,
-- whichever is later, and are claimed in the order of these numbers: accounts take turns, whatever each has queued.
alter table predictions add column turn bigint not null default 0;

drop index predictions_to_claim;
create index predictions_to_claim on predictions (model, priority, turn, created_at, id) where status = 'queued';

-- The last number each account was given. Written in a transaction of its own that need not wait for the disk, because it is
-- worth nothing after a crash: without it an account begins again at the head of the queue.
create unlogged table turns (
    model      text not null,
    account_id bigint not null,
    turn       bigint not null,
    primary key (model, account_id)
) with (fillfactor = 50);

-- Usage by day (UTC), key and model, added to in the statement that ends a prediction and kept for ever. Several rows for
-- the same: each database session adds to one of its own, so that finishes do not wait for each other. Readers sum.
create table usage (
    day        date not null,
    account_id bigint not null references accounts,
    key_id     bigint not null references api_keys,
    model      text not null,
    stripe     smallint not null,
    succeeded  bigint not null default 0,
    failed     bigint not null default 0,
    canceled   bigint not null default 0,
    -- What was charged: microseconds on the device, nano-dollars.
    device_us  bigint not null default 0 check (device_us >= 0),
    cost_nano  bigint not null default 0 check (cost_nano >= 0),
    primary key (account_id, day, key_id, model, stripe)
) with (fillfactor = 50);

insert into usage (day, account_id, key_id, model, stripe, succeeded, failed, canceled, device_us, cost_nano)
select (completed_at at time zone 'UTC')::date, predictions.account_id, predictions.key_id, predictions.model, 0,
       count(*) filter (where status = 'succeeded'), count(*) filter (where status = 'failed'),
       count(*) filter (where status = 'canceled'),
       coalesce(sum(ledger.device_us), 0), coalesce(sum(ledger.amount_nano), 0)
from predictions left join ledger on prediction_id = predictions.id and kind = 'charge'
where completed_at is not null
group by 1, 2, 3, 4;

-- From when to when a worker had its device, kept when the worker is gone: no more can have been billed.
create table device_sessions (
    worker_id  uuid primary key,
    started_at timestamptz not null default now(),
    seen_at    timestamptz not null default now()
);
