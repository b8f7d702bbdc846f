-- The same view, which an autoscaler reads every few seconds, from the indexes of what waits and of what runs. Of both statuses in
-- one condition it read every prediction there ever was.
create or replace view queue_drain as
select waiting.model, waiting.predictions,
       ceil(waiting.predictions * coalesce(run.device_us, 2000000) / 1000000)::bigint as seconds
from (
    select model, count(*) as predictions
    from (
        select model from predictions where status = 'queued'
        union all
        select model from predictions where status = 'processing'
    ) as unfinished
    group by model
) as waiting
left join lateral (
    select avg(device_us) as device_us
    from (
        select ledger.device_us from ledger
        where ledger.model = waiting.model and ledger.device_us > 0
        order by ledger.id desc limit 100
    ) as latest
) as run on true;
