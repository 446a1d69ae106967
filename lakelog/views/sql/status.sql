-- name: status
-- version: 1
-- about: Items by their latest state: each subject of a category counts once.
-- params: category text = null
-- key: subject, category
-- map
SELECT subject, coalesce(category, '') AS category, place, type AS status
FROM segment WHERE subject IS NOT NULL
-- merge
SELECT subject, category, max(place) AS place, arg_max(status, place) AS status
FROM partials GROUP BY subject, category
-- finish
SELECT nullif(category, '') AS category, status, count(*) AS items
FROM state WHERE $category IS NULL OR category = $category
GROUP BY ALL ORDER BY items DESC, category, status
