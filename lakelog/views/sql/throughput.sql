-- name: throughput
-- version: 1
-- about: Events of a type in each bucket of time; type=null counts all types.
-- params: bucket duration = 1h; type text = COMPLETE
-- map
SELECT time_bucket($bucket, time) AS bucket, count(*) AS events
FROM segment WHERE $type IS NULL OR type = $type GROUP BY ALL
-- merge
SELECT bucket, sum(events) AS events FROM partials GROUP BY bucket
-- finish
SELECT bucket, events, events / epoch($bucket) AS per_second FROM state ORDER BY bucket
