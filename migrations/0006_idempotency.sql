-- A create that a client may repeat, under a key of its own. The key is on the prediction it made, so that both exist or
-- neither does, and is forgotten with the prediction's data.

alter table predictions
    add column idempotency_key text check (length(idempotency_key) between 1 and 255),
    -- SHA-256 of the request it was first used for: the same key with another request is a mistake.
    add column request_hash bytea check (length(request_hash) = 32),
    add constraint keyed_requests_are_known check ((idempotency_key is null) = (request_hash is null));

create unique index predictions_by_idempotency_key on predictions (account_id, idempotency_key)
    where idempotency_key is not null;
