-- name: sessions
-- version: 1
-- about: Sessions of subjects, by category: events no further apart than a gap.
-- params: gap duration = 30m
-- key: subject
-- merged: yes
-- by: category
-- map
SELECT subject, category, events, len(starts) AS sessions,
    CASE WHEN events = 1 THEN 0 ELSE list_sum(ends) - list_sum(starts) END::BIGINT AS micros,
    starts, ends
FROM (
    SELECT subject, category, events,
        CASE WHEN events = 1 THEN s
        ELSE list_filter(s, lambda x, i: i = 1 OR x - s[i - 1] > epoch_us($gap)) END AS starts,
        CASE WHEN events = 1 THEN s
        ELSE list_filter(s, lambda x, i: i = len(s) OR s[i + 1] - x > epoch_us($gap)) END AS ends
    FROM (
        SELECT subject, min(coalesce(category, '')) AS category, count(*) AS events,
            list_sort(list(epoch_us(time))) AS s
        FROM segment WHERE subject IS NOT NULL GROUP BY subject
    )
)
-- merge
SELECT subject, category, events, len(starts) AS sessions,
    (list_sum(ends) - list_sum(starts))::BIGINT AS micros, starts, ends
FROM (
    -- Sorted apart, starts and ends meet where no session is open: there the next one begins.
    SELECT subject, category, events,
        list_filter(s, lambda x, i: i = 1 OR x - e[i - 1] > epoch_us($gap)) AS starts,
        list_filter(e, lambda x, i: i = len(e) OR s[i + 1] - x > epoch_us($gap)) AS ends
    FROM (
        SELECT subject, min(category) AS category, sum(events) AS events,
            list_sort(flatten(list(starts))) AS s, list_sort(flatten(list(ends))) AS e
        FROM partials GROUP BY subject
    )
)
-- totals
SELECT category, count(*) AS subjects, sum(sessions) AS sessions, sum(events) AS events,
    sum(micros) AS micros
FROM state GROUP BY category
-- finish
SELECT nullif(category, '') AS category, subjects, sessions::BIGINT AS sessions,
    events::BIGINT AS events, events / sessions AS events_each,
    micros / sessions / 1e6 AS mean_seconds
FROM totals ORDER BY sessions DESC, category
