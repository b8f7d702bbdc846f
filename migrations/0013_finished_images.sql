-- Of several images those that are finished are shown before the last one is.

alter table progress
    -- Images that are decoded; the preview is then of the latest of them, until the next step.
    add column finished_images integer not null default 0 check (finished_images >= 0);
