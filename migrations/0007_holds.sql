-- What an account or a key may spend. A limit is held against when a prediction is created and settled when it ends, each in
-- the statement that does it, so that no race spends the same money twice. What has no limit is not even touched: creates
-- of an unlimited account do not queue up behind a row of their account.

alter table accounts
    -- 'unlimited' is charged and never refused; 'prepaid' spends what was credited to it.
    add column mode text not null default 'unlimited' check (mode in ('unlimited', 'prepaid')),
    add column balance_nano bigint not null default 0,
    -- Of the balance, what unfinished predictions may still cost.
    add column held_nano bigint not null default 0 check (held_nano >= 0),
    -- How many predictions it may have queued and running; kept only where there is a limit.
    add column max_in_flight integer check (max_in_flight > 0),
    add column in_flight integer not null default 0 check (in_flight >= 0),
    -- Whatever a program does, nobody owes.
    add constraint balance_covers_holds check (balance_nano >= held_nano);

alter table api_keys
    add column scopes text[] not null default '{predictions:write,predictions:read,usage:read}'
        check (scopes <@ '{predictions:write,predictions:read,usage:read,admin,safety:disable}'::text[]),
    -- What the key may spend in a day or a month (UTC), and what it has in the period that began then.
    add column budget_nano bigint check (budget_nano >= 0),
    add column budget_period text check (budget_period in ('day', 'month')),
    add column period_start timestamptz,
    add column spent_nano bigint not null default 0 check (spent_nano >= 0),
    add column held_nano bigint not null default 0 check (held_nano >= 0),
    add constraint budget_has_a_period check ((budget_nano is null) = (budget_period is null)),
    -- After a rotation the secret before it still opens, for a while.
    add column previous_lookup text unique check (length(previous_lookup) = 8),
    add column previous_hash bytea check (length(previous_hash) = 32),
    add column previous_expires_at timestamptz,
    add constraint previous_secret_is_whole
        check ((previous_lookup is null) = (previous_hash is null)
               and (previous_lookup is null) = (previous_expires_at is null));

-- Keys made before there were scopes could do everything there was to do. The first one is its operator's.
update api_keys set scopes = '{predictions:write,predictions:read,usage:read,safety:disable}';
update api_keys set scopes = scopes || '{admin}'::text[] where id = (select min(id) from api_keys);

alter table predictions
    -- How long the device may work on it, which bounds its cost.
    add column time_limit_us bigint check (time_limit_us > 0),
    -- The most it can cost, and where that is held until it has ended: the account's balance, the key's budget of the
    -- period that began then, the account's places in flight.
    add column hold_nano bigint not null default 0 check (hold_nano >= 0),
    add column held_balance boolean not null default false,
    add column held_budget timestamptz,
    add column held_place boolean not null default false,
    add constraint cost_is_within_the_hold
        check (cost_nano <= hold_nano or not (held_balance or held_budget is not null));

-- Credits have no prediction; a charge says what paid it and which worker earned it.
alter table ledger
    alter column prediction_id drop not null,
    alter column key_id drop not null,
    alter column model drop not null,
    drop constraint ledger_kind_check,
    drop constraint ledger_amount_nano_check,
    add column from_balance boolean not null default false,
    add column worker_id uuid,
    add column note text,
    add constraint ledger_kind_check check (kind in ('charge', 'credit')),
    add constraint charges_are_for_something
        check (kind <> 'charge' or (prediction_id is not null and key_id is not null and model is not null
                                    and amount_nano >= 0)),
    add constraint credits_stand_alone check (kind <> 'credit' or (prediction_id is null and device_us = 0 and amount_nano <> 0));

create function ledger_is_append_only() returns trigger language plpgsql as $$
begin
    raise exception 'the ledger is only ever appended to';
end $$;

create trigger ledger_is_append_only before update or delete on ledger
    for each statement execute function ledger_is_append_only();

-- Ends a statement that would go over a limit, and with it everything the statement did.
create function refuse(what text) returns bigint language plpgsql volatile as $$
begin
    raise exception 'over the limit: %', what using errcode = 'FS402';
end $$;
