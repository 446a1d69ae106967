-- name: cardinality
-- version: 1
-- about: How many different values a field has, by type and in all; standard error 1.6 %.
-- params: field field = subject
-- map
SELECT type, (h & 4095)::SMALLINT AS slot,
    max(CASE WHEN h >> 12 = 0 THEN 53 ELSE 52 - floor(log2((h >> 12)::DOUBLE)) END)::TINYINT AS rank
FROM (SELECT type, hash($field) AS h FROM segment WHERE $field IS NOT NULL) GROUP BY ALL
-- merge
SELECT type, slot, max(rank) AS rank FROM partials GROUP BY ALL
-- finish
WITH each AS (
    SELECT type, slot, rank FROM state
    UNION ALL SELECT NULL, slot, max(rank) FROM state GROUP BY slot
), sums AS (
    SELECT type, 4096 - count(*) AS empty, sum(pow(2.0, -rank)) + 4096 - count(*) AS total
    FROM each GROUP BY type
)
SELECT type, round(
    CASE WHEN empty > 0 AND 12095992.1 / total <= 10240 THEN 4096 * ln(4096 / empty)
    ELSE 12095992.1 / total END)::BIGINT AS different
FROM sums ORDER BY type NULLS FIRST
