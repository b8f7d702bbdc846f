-- Who may call: accounts own predictions and money, keys open an account.

create table accounts (
    id         bigint generated always as identity primary key,
    name       text not null unique check (name <> ''),
    created_at timestamptz not null default now()
);

create table api_keys (
    id         bigint generated always as identity primary key,
    account_id bigint not null references accounts,
    name       text not null check (name <> ''),
    -- The public part of the key finds the row; the secret is compared by its hash, in constant time.
    lookup     text not null unique check (length(lookup) = 8),
    hash       bytea not null check (length(hash) = 32),
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    revoked_at timestamptz
);

create index api_keys_by_account on api_keys (account_id);
