-- name: oos_counts
-- about: Events and how they ended, by hour, by source and by error.
-- map
SELECT hour, source, error, count(*) AS events, count_if(type = 'COMPLETE') AS completed,
    count_if(type = 'FAIL') AS failed, min(time) AS first, max(time) AS last
FROM (
    SELECT time, type, (epoch_us(time) - {year_1}) // {hour} AS hour,
        coalesce(source, '') AS source,
        CASE WHEN type = 'FAIL' THEN coalesce(nullif(data ->> '$.error', ''), '{unknown}') END
            AS error
    FROM segment)
GROUP BY GROUPING SETS (hour, source, error)
-- merge
SELECT hour, source, error, sum(events) AS events, sum(completed) AS completed,
    sum(failed) AS failed, min(first) AS first, max(last) AS last
FROM partials GROUP BY ALL
-- finish
SELECT hour + {first_hour} AS hour, source, error, events::BIGINT AS events,
    completed::BIGINT AS completed, failed::BIGINT AS failed,
    epoch_us(first) AS first, epoch_us(last) AS last
FROM state
