-- name: items
-- version: 1
-- about: The subjects last seen, each with its latest state and since when.
-- params: status text = null; category text = null; subject text = null; limit int = 100
-- key: subject, category
-- map
SELECT subject, coalesce(category, '') AS category, place, type AS status
FROM segment WHERE subject IS NOT NULL
-- merge
SELECT subject, category, max(place) AS place, arg_max(status, place) AS status
FROM partials GROUP BY subject, category
-- finish
SELECT subject, nullif(category, '') AS category, status,
    make_timestamptz((place >> 63)::BIGINT) AS since
FROM state
WHERE ($status IS NULL OR status = $status) AND ($category IS NULL OR category = $category)
    AND ($subject IS NULL OR subject = $subject)
ORDER BY place DESC LIMIT $limit
