-- name: durations
-- version: 1
-- about: Seconds from a subject's first event of one type to its next of another, within 1 %.
-- params: from text = DISCOVER; to text = COMPLETE
-- key: subject
-- merged: yes
-- by: slot
-- map
SELECT subject, began, ends, took,
    CASE WHEN took IS NOT NULL THEN ceil(ln(greatest(took, 1)) / ln(1.02)) END::INTEGER AS slot
FROM (
    SELECT subject, began, ends, CASE
        WHEN began IS NULL OR ends IS NULL THEN NULL
        WHEN len(ends) = 1 THEN CASE WHEN ends[1] >= began THEN ends[1] - began END
        ELSE list_min(list_filter(ends, lambda x: x >= began)) - began END AS took
    FROM (
        SELECT subject, min(epoch_us(time)) FILTER (type = $from) AS began,
            list(epoch_us(time)) FILTER (type = $to) AS ends
        FROM segment WHERE subject IS NOT NULL AND (type = $from OR type = $to)
        GROUP BY subject
    )
)
-- merge
SELECT subject, began, ends, took,
    CASE WHEN took IS NOT NULL THEN ceil(ln(greatest(took, 1)) / ln(1.02)) END::INTEGER AS slot
FROM (
    SELECT subject, began, ends, CASE
        WHEN began IS NULL OR ends IS NULL THEN NULL
        WHEN len(ends) = 1 THEN CASE WHEN ends[1] >= began THEN ends[1] - began END
        ELSE list_min(list_filter(ends, lambda x: x >= began)) - began END AS took
    FROM (
        SELECT subject, min(began) AS began,
            flatten(list(ends) FILTER (ends IS NOT NULL)) AS ends
        FROM partials GROUP BY subject
    )
)
-- totals
SELECT slot, count(*) AS n, sum(coalesce(took, 0)) AS total
FROM state WHERE began IS NOT NULL GROUP BY slot
-- finish
WITH bounds AS (SELECT min(took) AS low, max(took) AS high FROM state),
ranked AS (
    SELECT n, total, sum(n) OVER () AS total_n, sum(n) OVER (ORDER BY slot) AS upto, low, high,
        greatest(low, least(high, 2 * pow(1.02, slot) / 2.02)) / 1e6 AS middle
    FROM totals, bounds WHERE slot IS NOT NULL
)
SELECT coalesce(sum(n), 0)::BIGINT AS done,
    (SELECT coalesce(sum(n), 0)::BIGINT FROM totals WHERE slot IS NULL) AS open,
    min(low) / 1e6 AS low, min(middle) FILTER (upto >= 0.5 * total_n) AS p50,
    min(middle) FILTER (upto >= 0.9 * total_n) AS p90,
    min(middle) FILTER (upto >= 0.95 * total_n) AS p95,
    min(middle) FILTER (upto >= 0.99 * total_n) AS p99,
    max(high) / 1e6 AS high, sum(total) / sum(n) / 1e6 AS mean
FROM ranked
