-- A few of an account's predictions by their status, newest first, and the latest runs of a model, however many there are of
-- others.
--
-- A large site builds them beforehand without stopping writes, as `docs/operations.md` says, and this then finds them. They
-- are locked in the order in which ends lock them.
set local statement_timeout = 0;
create index if not exists predictions_by_account_and_status
    on predictions (account_id, status, created_at desc, id desc);
create index if not exists ledger_by_model on ledger (model, id);
