-- The predictions table is the queue, the read model and the record of what ran, in one row each, so that claiming,
-- finishing and charging are each one statement and cannot disagree.
--
-- The constraints make rows impossible that no correct program would write: a bug is stopped here, not found later.

create table predictions (
    id         uuid primary key,
    account_id bigint not null references accounts,
    key_id     bigint not null references api_keys,
    -- The face it was created on; its URLs, webhooks and charging rule follow it.
    dialect    text not null check (dialect in ('native', 'replicate', 'eachlabs', 'openai')),
    model      text not null check (model <> ''),
    version    text not null,
    -- As the caller sent it, echoed back; and as it will be run, with every default and the seed filled in.
    raw_input  jsonb not null,
    input      jsonb not null,

    status     text not null default 'queued'
               check (status in ('queued', 'processing', 'succeeded', 'failed', 'canceled')),
    priority   smallint not null default 0,
    -- Not to be claimed before this moment: the pause before another attempt.
    run_after  timestamptz,
    -- Canceled if it has not finished by this moment.
    deadline   timestamptz,

    -- Counts claims and fences their writes: only the claim that holds the current number may finish the row.
    attempt    integer not null default 0 check (attempt >= 0),
    -- Counts workers that were lost while they held it. Kept apart from `attempt`, which a shutdown also raises.
    losses     smallint not null default 0 check (losses >= 0),
    -- The last worker that held it; while processing, the one that does.
    worker_id  uuid,
    lease_until timestamptz,
    cancel_requested_at timestamptz,

    -- Snapshot of the model's price at creation, nano-dollars a second.
    price_nano bigint not null check (price_nano >= 0),
    -- Microseconds on the device of the attempt that ended it.
    device_us  bigint check (device_us >= 0),
    cost_nano  bigint check (cost_nano >= 0),

    output     jsonb check (jsonb_typeof(output) = 'array'),
    failure_code    text,
    failure_message text,
    logs       text not null default '',

    created_at   timestamptz not null default now(),
    started_at   timestamptz,
    completed_at timestamptz,
    -- When retention deleted output, logs and input.
    data_removed_at timestamptz,

    -- Terminal means complete and priced; nothing else is either.
    constraint terminal_is_complete
        check ((status in ('succeeded', 'failed', 'canceled')) = (completed_at is not null)),
    constraint terminal_is_priced
        check ((completed_at is not null) = (cost_nano is not null) and (cost_nano is null) = (device_us is null)),
    -- A lease is what processing means.
    constraint processing_is_leased
        check ((status = 'processing') = (lease_until is not null)),
    constraint leased_by_a_worker
        check (lease_until is null or (worker_id is not null and attempt > 0 and started_at is not null)),
    constraint success_has_output
        check (status <> 'succeeded' or output is not null or data_removed_at is not null),
    constraint only_success_has_output
        check (output is null or status = 'succeeded'),
    constraint failure_has_a_reason
        check (status <> 'failed' or (failure_code is not null and failure_message is not null)),
    constraint failure_is_free
        check (status <> 'failed' or cost_nano = 0),
    constraint unstarted_is_free
        check (started_at is not null or coalesce(cost_nano, 0) = 0)
-- Rows are updated three or four times in a short life: leave room for it on their page.
) with (fillfactor = 70);

-- Claim: one model a query, in order.
create index predictions_to_claim on predictions (model, priority, created_at, id) where status = 'queued';
-- Sweep and renew.
create index predictions_leased on predictions (worker_id, lease_until) where status = 'processing';
create index predictions_deadlines on predictions (deadline)
    where deadline is not null and status in ('queued', 'processing');
-- List: newest first, by owner.
create index predictions_by_account on predictions (account_id, created_at desc, id desc);
-- Retention.
create index predictions_to_prune on predictions (completed_at)
    where completed_at is not null and data_removed_at is null;

-- A queue's table dies by bloat: vacuum it early and without pauses.
alter table predictions set (
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_cost_delay = 0
);
