-- How long one worker would need for all that a model has before it: what an autoscaler divides among workers. Depth alone
-- would not do, because a picture takes a hundred times as long on one model and size as on another.
--
-- Runs are guessed to take what the latest hundred charged ones took, and two seconds where there was none.
create view queue_drain as
select waiting.model, waiting.predictions,
       ceil(waiting.predictions * coalesce(run.device_us, 2000000) / 1000000)::bigint as seconds
from (
    select model, count(*) as predictions from predictions where status in ('queued', 'processing') group by model
) as waiting
left join lateral (
    select avg(device_us) as device_us
    from (
        select ledger.device_us from ledger
        where ledger.model = waiting.model and ledger.device_us > 0
        order by ledger.id desc limit 100
    ) as latest
) as run on true;
