-- name: errors
-- version: 1
-- about: Failures by what went wrong (data.error, or unknown).
-- params: type text = FAIL
-- map
SELECT coalesce(nullif(data ->> '$.error', ''), 'unknown') AS error, source,
    count(*) AS failures, min(time) AS first, max(time) AS last
FROM segment WHERE type = $type GROUP BY ALL
-- merge
SELECT error, source, sum(failures) AS failures, min(first) AS first, max(last) AS last
FROM partials GROUP BY ALL
-- finish
SELECT error, sum(failures)::BIGINT AS failures,
    sum(failures) / sum(sum(failures)) OVER () AS share,
    count(source) AS sources, min(first) AS first, max(last) AS last
FROM state GROUP BY error ORDER BY failures DESC, error
