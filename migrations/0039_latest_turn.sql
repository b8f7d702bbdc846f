-- The latest turn of a model, which whoever is first in an empty queue begins at, however many accounts there are.
--
-- A large site builds it beforehand without stopping writes, as `docs/operations.md` says, and this then finds it.
set local statement_timeout = 0;
create index if not exists turns_by_turn on turns (model, turn);
