-- name: funnel
-- version: 1
-- about: How many subjects reach each of several steps, in their order.
-- params: steps list = DISCOVER,PROCESS,COMPLETE
-- key: subject
-- merged: yes
-- by: reached
-- map
-- A moment is its microsecond and its step. Of the first step only the earliest can matter, of the
-- last only the latest; of those between, every one may once events from before them are merged in.
SELECT subject, first, middle, last, CASE
    WHEN first IS NULL THEN 0
    WHEN middle IS NULL AND len($steps) > 2 THEN 1
    WHEN len(middle) = 1 AND len($steps) = 3 THEN
        CASE WHEN middle[1] < first THEN 1 WHEN last > middle[1] THEN 3 ELSE 2 END
    WHEN len($steps) = 3 THEN
        CASE WHEN list_max(middle) < first THEN 1
            WHEN last > list_min(list_filter(middle, lambda x: x > first)) THEN 3 ELSE 2 END
    ELSE list_reduce(list_sort(list_concat([first], list_concat(middle, [last]))),
        lambda n, x: CASE WHEN (x & 15) = n THEN n + 1 ELSE n END, 0::BIGINT)
    END::BIGINT AS reached
FROM (
    SELECT subject, min(moment) FILTER (step = 0) AS first,
        list(moment) FILTER (step > 0 AND step < len($steps[1:15]) - 1) AS middle,
        max(moment) FILTER (step > 0 AND step = len($steps[1:15]) - 1) AS last
    FROM (
        SELECT subject, step, epoch_us(time) * 16 + step AS moment
        FROM (
            SELECT subject, time, list_position($steps, type) - 1 AS step
            FROM segment WHERE subject IS NOT NULL AND list_contains($steps[1:15], type)
        )
    )
    GROUP BY subject
)
-- merge
SELECT subject, first, middle, last, CASE
    WHEN first IS NULL THEN 0
    WHEN middle IS NULL AND len($steps) > 2 THEN 1
    WHEN len(middle) = 1 AND len($steps) = 3 THEN
        CASE WHEN middle[1] < first THEN 1 WHEN last > middle[1] THEN 3 ELSE 2 END
    WHEN len($steps) = 3 THEN
        CASE WHEN list_max(middle) < first THEN 1
            WHEN last > list_min(list_filter(middle, lambda x: x > first)) THEN 3 ELSE 2 END
    ELSE list_reduce(list_sort(list_concat([first], list_concat(middle, [last]))),
        lambda n, x: CASE WHEN (x & 15) = n THEN n + 1 ELSE n END, 0::BIGINT)
    END::BIGINT AS reached
FROM (
    SELECT subject, min(first) AS first, max(last) AS last,
        flatten(list(middle) FILTER (middle IS NOT NULL)) AS middle
    FROM partials GROUP BY subject
)
-- totals
SELECT reached, count(*) AS subjects FROM state GROUP BY reached
-- finish
WITH steps AS (
    SELECT unnest($steps) AS type, unnest(range(1, len($steps) + 1)) AS step
    WHERE CASE WHEN len($steps) > 15 OR len(list_distinct($steps)) < len($steps)
        THEN error('steps are up to 15 types, each once') ELSE true END
),
sums AS (
    SELECT step, type, coalesce(sum(subjects) FILTER (reached >= step), 0)::BIGINT AS subjects
    FROM steps LEFT JOIN totals ON true GROUP BY ALL
)
SELECT step, type, subjects,
    subjects / nullif(first_value(subjects) OVER (ORDER BY step), 0) AS of_first,
    subjects / nullif(lag(subjects) OVER (ORDER BY step), 0) AS of_before
FROM sums ORDER BY step
