-- Every charge ever made, appended in the transaction that ends its prediction and never changed. Rows outlive the
-- prediction's data, so the model is repeated here and there is no foreign key to what retention may delete.

create table ledger (
    id            bigint generated always as identity primary key,
    account_id    bigint not null references accounts,
    key_id        bigint not null references api_keys,
    prediction_id uuid not null,
    model         text not null,
    kind          text not null check (kind in ('charge')),
    -- Microseconds on the device, and what they cost in nano-dollars.
    device_us     bigint not null check (device_us >= 0),
    amount_nano   bigint not null check (amount_nano >= 0),
    created_at    timestamptz not null default now(),
    -- The last line against charging twice, whatever a program does.
    constraint charged_once unique (prediction_id, kind)
);

create index ledger_by_account on ledger (account_id, created_at);
