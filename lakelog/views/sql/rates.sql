-- name: rates
-- version: 1
-- about: Events by bucket of time, type and source.
-- params: bucket duration = 1h; type text = null; source text = null
-- map
SELECT time_bucket($bucket, time) AS bucket, type, source, count(*) AS events
FROM segment GROUP BY ALL
-- merge
SELECT bucket, type, source, sum(events) AS events FROM partials GROUP BY ALL
-- finish
SELECT bucket, type, source, events, events / epoch($bucket) AS per_second
FROM state
WHERE ($type IS NULL OR type = $type) AND ($source IS NULL OR source = $source)
ORDER BY bucket, type, source
