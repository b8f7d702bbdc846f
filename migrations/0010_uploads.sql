-- Files that callers have sent ahead, to start predictions from. The row is there before the bytes are stored, so that a
-- crash in between leaves a row that is swept, and no file that nobody knows of.

create table uploads (
    id           uuid primary key,
    account_id   bigint not null references accounts,
    name         text not null check (name <> ''),
    content_type text not null,
    metadata     jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    -- Where the bytes are kept. Its random part is the permission to read them.
    artifact_key text not null unique,
    -- SHA-256 of what permits to send the bytes, for an upload that is announced first.
    ticket       bytea check (length(ticket) = 32),
    -- Bytes it counts for, from before they are stored.
    size         bigint not null default 0 check (size >= 0),
    sha256       bytea check (length(sha256) = 32),
    md5          bytea check (length(md5) = 16),
    created_at   timestamptz not null default now(),
    stored_at    timestamptz,
    expires_at   timestamptz not null,
    constraint stored_is_known check ((stored_at is null) = (sha256 is null) and (sha256 is null) = (md5 is null))
);

create index uploads_by_account on uploads (account_id, created_at desc, id desc);
create index uploads_to_expire on uploads (expires_at);
create index uploads_unsent on uploads (created_at) where stored_at is null;

-- What an account's uploads add up to. One row to count in, so that however many are sent at once, the quota holds; and not
-- the account's own row, which predictions are waiting for.
create table uploaded_bytes (
    account_id bigint primary key references accounts,
    bytes      bigint not null default 0 check (bytes >= 0)
);

-- Regular work that one process at a time does for all of them, and when it was last begun.
create table chores (
    name     text primary key,
    begun_at timestamptz not null
);
