-- What was told of one prediction: for whoever asks, and for the foreign key when a webhook is forgotten. The index on what is
-- said once serves neither, and that on logs is a part of this one.
--
-- A large site builds it beforehand without stopping writes, as `docs/operations.md` says, and this then finds it.
set local statement_timeout = 0;
-- First, for it takes the stronger lock.
drop index if exists webhook_deliveries_of_logs;
create index if not exists webhook_deliveries_by_prediction on webhook_deliveries (prediction_id);
