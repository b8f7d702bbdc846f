-- The rows of `usage` that are one of several: when their day is over, servers add them up into one. They are added to by who
-- ends predictions, in their own row each, and never in this index's columns.
--
-- A large site builds it beforehand without stopping writes, as `docs/operations.md` says, and this then finds it.
set local statement_timeout = 0;
create index if not exists usage_to_compact on usage (day) where stripe <> 0;
