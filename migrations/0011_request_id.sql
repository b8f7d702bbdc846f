-- The request that created a prediction, by the id in its answer's `X-Request-Id`: from the row, or from the lines of the
-- worker that ran it, to the lines of the server that took it.
alter table predictions add column request_id text check (length(request_id) <= 128);
