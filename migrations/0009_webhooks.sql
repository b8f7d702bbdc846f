-- Webhooks: where to say what becomes of a prediction, what is still to be said (an outbox, written in the statement that
-- changes the prediction), how every attempt to say it went, and the secrets it is signed with.

create table webhooks (
    prediction_id uuid primary key references predictions,
    account_id    bigint not null references accounts,
    url           text not null check (length(url) between 1 and 2048),
    -- Whose receiver it is, `host:port`: so many deliveries are on their way to one at a time.
    receiver      text not null check (receiver <> ''),
    events        text[] not null check (events <> '{}' and events <@ '{start,output,logs,completed}'::text[]),
    -- Of this request alone, sealed as the store says; else the account's secret signs.
    secret        bytea,
    -- Where its client reached the server, for the URLs in what is delivered.
    server_url    text not null,
    mount         text not null,
    created_at    timestamptz not null default now(),
    -- The receiver said that it is gone for good: nothing more is posted.
    gone_at       timestamptz
);

create index webhooks_by_account on webhooks (account_id, created_at desc, prediction_id);
create index webhooks_to_forget on webhooks (created_at);

create table webhook_deliveries (
    -- What the receiver knows it by, the same at every attempt.
    id            uuid primary key default gen_random_uuid(),
    prediction_id uuid not null references webhooks on delete cascade,
    receiver      text not null,
    event         text not null check (event in ('start', 'output', 'logs', 'completed')),
    state         text not null default 'pending' check (state in ('pending', 'delivered', 'failed')),
    -- Counts attempts for good and fences their writes, as a prediction's does.
    attempt       integer not null default 0 check (attempt >= 0),
    -- Attempts that failed since it was posted, or asked for again.
    failures      integer not null default 0 check (failures >= 0),
    -- Not before then: the pause before another attempt, or the end of the lease of the one that is being made.
    due_at        timestamptz not null default now(),
    lease_until   timestamptz,
    created_at    timestamptz not null default now(),
    constraint only_pending_is_leased check (lease_until is null or state = 'pending')
) with (fillfactor = 70);

-- What happens to a prediction once is said once; its logs grow.
create unique index webhook_deliveries_said_once on webhook_deliveries (prediction_id, event) where event <> 'logs';
create index webhook_deliveries_of_logs on webhook_deliveries (prediction_id) where event = 'logs';
create index webhook_deliveries_to_make on webhook_deliveries (receiver, due_at) where state = 'pending';
create index webhook_deliveries_leased on webhook_deliveries (receiver, lease_until) where lease_until is not null;

create table webhook_attempts (
    delivery_id uuid not null references webhook_deliveries on delete cascade,
    attempt     integer not null,
    made_at     timestamptz not null default now(),
    took_us     bigint not null check (took_us >= 0),
    succeeded   boolean not null,
    status_code smallint,
    -- The beginning of the receiver's answer.
    response    text,
    -- Why there is none.
    error       text,
    primary key (delivery_id, attempt)
);

-- One secret of an account signs; those before it sign as well for a while, so that receivers may change to the new one
-- when it suits them.
create table webhook_secrets (
    id         bigint generated always as identity primary key,
    account_id bigint not null references accounts,
    secret     bytea not null,
    created_at timestamptz not null default now(),
    -- Until when it signs beside its successor.
    signs_until timestamptz
);

create unique index webhook_secrets_current on webhook_secrets (account_id) where signs_until is null;
create index webhook_secrets_by_account on webhook_secrets (account_id);
