-- name: items
-- version: 1
-- about: The subjects last seen, each with its latest state and since when.
-- params: status text = null; category text = null; subject text = null; limit int = 100
-- key: subject
-- map
SELECT subject, place, type AS status, coalesce(category, '') AS category
FROM segment WHERE subject IS NOT NULL
-- merge
SELECT subject, max(place) AS place,
    arg_max(status, place) AS status, arg_max(category, place) AS category
FROM partials GROUP BY subject
-- finish
SELECT subject, nullif(category, '') AS category, status,
    make_timestamptz((place >> 63)::BIGINT) AS since
FROM state
WHERE ($status IS NULL OR status = $status) AND ($category IS NULL OR category = $category)
    AND ($subject IS NULL OR subject = $subject)
ORDER BY place DESC LIMIT $limit
