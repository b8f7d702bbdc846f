-- A foreign key is checked by locking the row it leads to. Here that is one row of an account and one of a key for all their
-- predictions: every create and every end would lock them for nothing, since the statements take both ids from rows they have
-- read. What is left to rule out is that the row goes away, and none ever does.

alter table predictions
    drop constraint predictions_account_id_fkey,
    drop constraint predictions_key_id_fkey;
alter table ledger
    drop constraint ledger_account_id_fkey,
    drop constraint ledger_key_id_fkey;
alter table usage
    drop constraint usage_account_id_fkey,
    drop constraint usage_key_id_fkey;
alter table webhooks
    drop constraint webhooks_account_id_fkey;

create function who_owns_and_pays_is_kept() returns trigger language plpgsql as $$
begin
    raise exception 'accounts and keys are never deleted, nor given another number';
end $$;

create trigger accounts_are_kept before delete or truncate on accounts
    for each statement execute function who_owns_and_pays_is_kept();
create trigger accounts_keep_their_number before update of id on accounts
    for each statement execute function who_owns_and_pays_is_kept();
create trigger keys_are_kept before delete or truncate on api_keys
    for each statement execute function who_owns_and_pays_is_kept();
create trigger keys_keep_their_number before update of id, account_id on api_keys
    for each statement execute function who_owns_and_pays_is_kept();
