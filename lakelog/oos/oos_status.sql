-- name: oos_status
-- about: Items by their latest state, as the OOS log stream counted them.
-- key: subject
-- by: status
-- map
SELECT subject, place, type AS status
FROM segment WHERE subject <> '' AND type IN ({item_types})
-- merge
SELECT subject, max(place) AS place, arg_max(status, place) AS status
FROM partials GROUP BY subject
-- totals
SELECT status, count(*) AS items FROM state GROUP BY status
-- finish
SELECT status, items FROM totals
