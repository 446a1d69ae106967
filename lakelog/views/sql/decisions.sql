-- name: decisions
-- version: 2
-- about: Decisions, each with its latest outcome, by the id of the decision.
-- params: point text = null; limit int = null
-- main: time, decision_id, point, chosen, outcome, reward
-- key: id
-- map
SELECT id, kind, place, fact
FROM (
    SELECT d ->> '$.decision_id' AS id, type AS kind, place, to_json([subject, source,
        d ->> '$.traceId', d ->> '$.decision_point', d ->> '$.options', d ->> '$.chosen',
        d ->> '$.reason', d ->> '$.confidence', d ->> '$.outcome', d ->> '$.reward'])::VARCHAR
        AS fact
    FROM (
        SELECT type, place, subject, source, coalesce(data -> '$.details', data) AS d
        FROM segment WHERE type IN ('decision', 'outcome')
    )
)
WHERE id IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY id, kind ORDER BY place DESC, fact DESC) = 1
-- merge
SELECT id, kind, place, fact FROM partials
QUALIFY row_number() OVER (PARTITION BY id, kind ORDER BY place DESC, fact DESC) = 1
-- finish
WITH pairs AS (
    SELECT id, began, ended, d, o, coalesce(d ->> '$[3]', o ->> '$[3]') AS point
    FROM (SELECT id, place AS began, fact AS d FROM state WHERE kind = 'decision')
    FULL JOIN (SELECT id, place AS ended, fact AS o FROM state WHERE kind = 'outcome') USING (id)
)
SELECT make_timestamptz((began >> 63)::BIGINT) AS time, id AS decision_id, point,
    coalesce(d ->> '$[0]', o ->> '$[0]') AS subject, d ->> '$[4]' AS options,
    coalesce(d ->> '$[5]', o ->> '$[5]') AS chosen, TRY_CAST(d ->> '$[7]' AS DOUBLE) AS confidence,
    d ->> '$[6]' AS reason, o ->> '$[8]' AS outcome, TRY_CAST(o ->> '$[9]' AS DOUBLE) AS reward,
    make_timestamptz((ended >> 63)::BIGINT) AS outcome_time,
    ((ended >> 63)::BIGINT - (began >> 63)::BIGINT) / 1e6 AS seconds,
    coalesce(d ->> '$[1]', o ->> '$[1]') AS source, d ->> '$[2]' AS trace_id
FROM pairs
WHERE $point IS NULL OR point = $point
ORDER BY coalesce(began, ended) DESC, id LIMIT $limit
