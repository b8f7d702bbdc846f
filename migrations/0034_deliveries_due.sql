-- What is due of all receivers, however many have something that is not.
--
-- A large site builds it beforehand without stopping writes, as `docs/operations.md` says, and this then finds it.
set local statement_timeout = 0;
create index if not exists webhook_deliveries_due on webhook_deliveries (due_at) where state = 'pending';
