-- What was given up, among everything that was told: for an operator who lists it, or has it told again.
--
-- A large site builds it beforehand without stopping writes, as `docs/operations.md` says, and this then finds it.
set local statement_timeout = 0;
create index if not exists webhook_deliveries_failed on webhook_deliveries (prediction_id) where state = 'failed';
