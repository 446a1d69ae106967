-- name: health
-- version: 1
-- about: One row: how much, since when, how busy lately (whole minutes), how quiet since.
-- params: failed text = FAIL
-- map
SELECT epoch_us(time) // 60000000 AS minute, count(*) AS events,
    count_if(type = $failed) AS failures, min(time) AS first, max(time) AS last
FROM segment GROUP BY ALL
-- merge
SELECT minute, sum(events) AS events, sum(failures) AS failures,
    min(first) AS first, max(last) AS last
FROM partials GROUP BY minute
-- finish
WITH recent AS (SELECT *, epoch_us($now) // 60000000 AS present FROM state)
SELECT coalesce(sum(events), 0)::BIGINT AS events, min(first) AS first, max(last) AS last,
    epoch(max(last)) - epoch(min(first)) AS uptime_seconds,
    -- Of clocks that were ahead nothing is known: their events must not hide that all are silent.
    epoch($now) - epoch(max(least(last, $now)) FILTER (minute <= present)) AS quiet_seconds,
    coalesce(sum(events) FILTER (minute > present - 60 AND minute <= present), 0)::BIGINT
        AS events_1h,
    coalesce(sum(failures) FILTER (minute > present - 60 AND minute <= present), 0)::BIGINT
        AS failures_1h,
    coalesce(sum(events) FILTER (minute > present - 1440 AND minute <= present), 0)::BIGINT
        AS events_24h
FROM recent
