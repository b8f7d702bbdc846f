-- How long a picture takes on this worker's device, microseconds: the mean of its latest. Null before the first.
alter table workers add column picture_us bigint;
