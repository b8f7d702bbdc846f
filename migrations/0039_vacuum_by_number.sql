-- A share of a table that keeps years is too many dead rows for its queue, which is as short as ever: of a hundred million, one
-- in a hundred is a million, and claims look at those that died since the last vacuum. So a number is what counts, about a
-- minute's worth of a site that makes twenty predictions a second.
--
-- Vacuuming so often is cheap, however large the table: it reads the pages that were written since, and leaves the indexes alone
-- as long as few pages have something for it to take out of them.
alter table predictions set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
alter table webhook_deliveries set (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);
