-- name: decisions
-- version: 1
-- about: Decisions, each with its latest outcome, by the id of the decision.
-- params: point text = null; limit int = null
-- main: time, decision_id, point, chosen, outcome, reward
-- key: id
-- map
SELECT id, type AS kind, max(place) AS place, arg_max(fact, (place, fact)) AS fact
FROM (
    SELECT d ->> '$.decision_id' AS id, type, place, to_json({'subject': subject,
        'source': source, 'trace_id': d ->> '$.traceId', 'point': d ->> '$.decision_point',
        'options': d ->> '$.options', 'chosen': d ->> '$.chosen', 'reason': d ->> '$.reason',
        'confidence': d ->> '$.confidence', 'outcome': d ->> '$.outcome',
        'reward': d ->> '$.reward'})::VARCHAR AS fact
    FROM (
        SELECT type, place, subject, source, coalesce(data -> '$.details', data) AS d
        FROM segment WHERE type IN ('decision', 'outcome')
    )
)
WHERE id IS NOT NULL GROUP BY id, kind
-- merge
SELECT id, kind, max(place) AS place, arg_max(fact, (place, fact)) AS fact
FROM partials GROUP BY id, kind
-- finish
WITH pairs AS (
    SELECT id, max(place) FILTER (kind = 'decision') AS began,
        max(place) FILTER (kind = 'outcome') AS ended,
        max(fact) FILTER (kind = 'decision') AS d, max(fact) FILTER (kind = 'outcome') AS o
    FROM state GROUP BY id
)
SELECT make_timestamptz((began >> 63)::BIGINT) AS time, id AS decision_id,
    coalesce(d ->> '$.point', o ->> '$.point') AS point,
    coalesce(d ->> '$.subject', o ->> '$.subject') AS subject, d ->> '$.options' AS options,
    coalesce(d ->> '$.chosen', o ->> '$.chosen') AS chosen,
    TRY_CAST(d ->> '$.confidence' AS DOUBLE) AS confidence, d ->> '$.reason' AS reason,
    o ->> '$.outcome' AS outcome, TRY_CAST(o ->> '$.reward' AS DOUBLE) AS reward,
    make_timestamptz((ended >> 63)::BIGINT) AS outcome_time,
    ((ended >> 63)::BIGINT - (began >> 63)::BIGINT) / 1e6 AS seconds,
    coalesce(d ->> '$.source', o ->> '$.source') AS source, d ->> '$.trace_id' AS trace_id
FROM pairs
WHERE $point IS NULL OR coalesce(d ->> '$.point', o ->> '$.point') = $point
ORDER BY coalesce(began, ended) DESC, id LIMIT $limit
