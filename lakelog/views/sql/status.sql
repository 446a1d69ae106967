-- name: status
-- version: 1
-- about: Items by their latest state: each subject of a category counts once.
-- params: category text = null
-- key: subject, category
-- by: category, status
-- map
SELECT subject, coalesce(category, '') AS category, place, type AS status
FROM segment WHERE subject IS NOT NULL
-- merge
SELECT subject, category, max(place) AS place, arg_max(status, place) AS status
FROM partials GROUP BY subject, category
-- totals
SELECT category, status, count(*) AS items FROM state GROUP BY ALL
-- finish
SELECT nullif(category, '') AS category, status, items
FROM totals WHERE $category IS NULL OR category = $category
ORDER BY items DESC, category, status
