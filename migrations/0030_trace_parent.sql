-- Where the trace goes on that the request began (W3C Trace Context), for the worker that runs the prediction and for its
-- webhook's delivery. Null where nobody collects traces.
alter table predictions add column trace_parent text check (length(trace_parent) = 55);
