-- name: percentiles
-- version: 1
-- about: Percentiles of a number by type, each within 1 % of a value that is there.
-- params: field field = duration_ms; type text = null
-- map
SELECT type, sign(x)::TINYINT AS side,
    CASE WHEN x = 0 THEN 0 ELSE ceil(ln(abs(x)) / ln(1.02)) END::INTEGER AS slot,
    -- Divided by a power of two, which loses nothing: no sum of numbers is infinite then.
    count(*) AS n, min(x) AS low, max(x) AS high, sum(x / pow(2, 64)) AS total
FROM (
    SELECT type, TRY_CAST($field AS DOUBLE) AS x FROM segment
    WHERE $type IS NULL OR type = $type
)
WHERE isfinite(x) GROUP BY ALL
-- merge
SELECT type, side, slot, sum(n) AS n, min(low) AS low, max(high) AS high, sum(total) AS total
FROM partials GROUP BY ALL
-- finish
WITH ranked AS (
    SELECT *, sum(n) OVER (PARTITION BY type) AS total_n,
        sum(n) OVER (PARTITION BY type ORDER BY side * slot + side * 100000) AS upto,
        greatest(low, least(high, side * 2 * pow(1.02, slot) / 2.02)) AS middle
    FROM state
)
SELECT type, sum(n)::BIGINT AS events, min(low) AS low,
    min(middle) FILTER (upto >= 0.5 * total_n) AS p50,
    min(middle) FILTER (upto >= 0.9 * total_n) AS p90,
    min(middle) FILTER (upto >= 0.95 * total_n) AS p95,
    min(middle) FILTER (upto >= 0.99 * total_n) AS p99,
    max(high) AS high, sum(total) / sum(n) * pow(2, 64) AS mean
FROM ranked GROUP BY type ORDER BY type
