-- How far a running prediction is, and what it looks like by now: for those who watch, and gone when it ends.
--
-- Worth nothing after a crash, so it is not written ahead: an unlogged table. And not in the prediction's own row, which
-- would be copied whole for every step.

create unlogged table progress (
    prediction_id uuid primary key,
    -- Of which claim; steps of an earlier one mean nothing.
    attempt    integer not null,
    -- Calls of the UNet, over all images.
    done       integer not null check (done >= 0),
    total      integer not null check (total >= done),
    -- Microseconds since the attempt began on the device.
    elapsed_us bigint not null check (elapsed_us >= 0),
    -- A small JPEG.
    preview    bytea
) with (fillfactor = 50);
