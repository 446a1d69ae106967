-- name: stuck
-- version: 1
-- about: Subjects that started and did not finish for longer than a span, the oldest first.
-- params: started list = DISCOVER,PROCESS; longer duration = 1h; limit int = 100
-- key: subject, category
-- map
SELECT subject, coalesce(category, '') AS category, place, type AS status
FROM segment WHERE subject IS NOT NULL
-- merge
SELECT subject, category, max(place) AS place, arg_max(status, place) AS status
FROM partials GROUP BY subject, category
-- finish
WITH waiting AS (
    SELECT subject, category, status, place FROM state
    WHERE list_contains($started, status) ORDER BY place LIMIT $limit
), timed AS (
    SELECT *, make_timestamptz((place >> 63)::BIGINT) AS since FROM waiting
)
SELECT subject, nullif(category, '') AS category, status, since,
    epoch($now) - epoch(since) AS seconds
FROM timed WHERE since < $now - $longer ORDER BY place
