-- name: decisions
-- version: 4
-- about: Decisions, each with its latest outcome, by the id of the decision.
-- params: point text = null; limit int = null
-- main: time, decision_id, point, chosen, outcome, reward
-- key: id
-- map
SELECT details ->> '$.decision_id' AS id,
    CASE WHEN type = 'decision' THEN place END AS began,
    CASE WHEN type = 'outcome' THEN place END AS ended,
    CASE WHEN type = 'decision' THEN to_json([subject, source, details ->> '$.traceId',
        details ->> '$.decision_point', details ->> '$.options', details ->> '$.chosen',
        details ->> '$.reason', details ->> '$.confidence'])::VARCHAR END AS d,
    CASE WHEN type = 'outcome' THEN to_json([subject, source, details ->> '$.decision_point',
        details ->> '$.chosen', details ->> '$.outcome', details ->> '$.reward'])::VARCHAR END AS o
FROM (
    SELECT type, place, subject, source,
        CASE WHEN json_exists(data, '$.details.decision_id') OR json_exists(data, '$.details.chosen')
            THEN data -> '$.details' ELSE data END AS details
    FROM segment WHERE type IN ('decision', 'outcome')
)
WHERE id IS NOT NULL
-- merge
SELECT id, max(began) AS began, max(ended) AS ended, arg_max(d, began) AS d, arg_max(o, ended) AS o
FROM partials GROUP BY 1
-- finish
SELECT make_timestamptz((began >> 63)::BIGINT) AS time, id AS decision_id,
    coalesce(d ->> '$[3]', o ->> '$[2]') AS point,
    coalesce(d ->> '$[0]', o ->> '$[0]') AS subject, d ->> '$[4]' AS options,
    coalesce(d ->> '$[5]', o ->> '$[3]') AS chosen, TRY_CAST(d ->> '$[7]' AS DOUBLE) AS confidence,
    d ->> '$[6]' AS reason, o ->> '$[4]' AS outcome, TRY_CAST(o ->> '$[5]' AS DOUBLE) AS reward,
    make_timestamptz((ended >> 63)::BIGINT) AS outcome_time,
    ((ended >> 63)::BIGINT - (began >> 63)::BIGINT) / 1e6 AS seconds,
    coalesce(d ->> '$[1]', o ->> '$[1]') AS source, d ->> '$[2]' AS trace_id
FROM state
WHERE $point IS NULL OR coalesce(d ->> '$[3]', o ->> '$[2]') = $point
ORDER BY coalesce(began, ended) DESC, id LIMIT $limit
