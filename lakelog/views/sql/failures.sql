-- name: failures
-- version: 1
-- about: The newest failures, at most 1,000.
-- params: type text = FAIL; limit int = 10
-- map
SELECT place, time, source, subject,
    coalesce(nullif(data ->> '$.error', ''), 'unknown') AS error, message
FROM segment WHERE type = $type ORDER BY place DESC LIMIT 1000
-- merge
SELECT place, time, source, subject, error, message
FROM partials ORDER BY place DESC LIMIT 1000
-- finish
SELECT time, source, subject, error, message FROM state ORDER BY place DESC LIMIT $limit
