-- name: reliability
-- version: 1
-- about: How often each source ends well: completed / (completed + failed).
-- params: completed text = COMPLETE; failed text = FAIL
-- map
SELECT source, count(*) FILTER (type = $completed) AS completed,
    count(*) FILTER (type = $failed) AS failed
FROM segment WHERE type = $completed OR type = $failed GROUP BY source
-- merge
SELECT source, sum(completed) AS completed, sum(failed) AS failed FROM partials GROUP BY source
-- finish
SELECT source, completed, failed, completed + failed AS total_processed,
    completed / (completed + failed) AS success_rate
FROM state ORDER BY success_rate, source
