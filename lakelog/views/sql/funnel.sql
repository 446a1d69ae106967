-- name: funnel
-- version: 1
-- about: How many subjects reach each of several steps, in their order.
-- params: steps list = DISCOVER,PROCESS,COMPLETE
-- key: subject
-- merged: yes
-- map
SELECT subject, moments,
    CASE WHEN len(moments) = 1 THEN (moments[1] & 15 = 0)::BIGINT ELSE
        list_reduce(moments, lambda n, x: CASE WHEN (x & 15) = n THEN n + 1 ELSE n END, 0::BIGINT)
    END AS reached
FROM (
    SELECT subject,
        list_sort(list(epoch_us(time) * 16 + list_position($steps, type) - 1)) AS moments
    FROM segment WHERE subject IS NOT NULL AND list_contains($steps[1:15], type)
    GROUP BY subject
)
-- merge
SELECT subject, moments,
    list_reduce(moments, lambda n, x: CASE WHEN (x & 15) = n THEN n + 1 ELSE n END, 0::BIGINT)
        AS reached
FROM (
    SELECT subject, list_sort(flatten(list(moments))) AS moments FROM partials GROUP BY subject
)
-- finish
WITH counts AS (SELECT reached, count(*) AS subjects FROM state GROUP BY reached),
steps AS (SELECT unnest($steps[1:15]) AS type, unnest(range(1, len($steps[1:15]) + 1)) AS step),
sums AS (
    SELECT step, type, coalesce(sum(subjects) FILTER (reached >= step), 0)::BIGINT AS subjects
    FROM steps LEFT JOIN counts ON true GROUP BY ALL
)
SELECT step, type, subjects,
    subjects / nullif(first_value(subjects) OVER (ORDER BY step), 0) AS of_first,
    subjects / nullif(lag(subjects) OVER (ORDER BY step), 0) AS of_before
FROM sums ORDER BY step
