-- name: status
-- version: 1
-- about: Items by their latest state: each subject counts once.
-- params: category text = null
-- key: subject
-- map
SELECT subject, place, type AS status, coalesce(category, '') AS category
FROM segment WHERE subject IS NOT NULL
-- merge
SELECT subject, max(place) AS place,
    arg_max(status, place) AS status, arg_max(category, place) AS category
FROM partials GROUP BY subject
-- finish
SELECT nullif(category, '') AS category, status, count(*) AS items
FROM state WHERE $category IS NULL OR category = $category
GROUP BY ALL ORDER BY items DESC, category, status
