-- name: tool_calls
-- version: 1
-- about: Each call of a tool by a model: arguments, result, error, seconds, by the id of the call.
-- params: tool text = null; status text = null; limit int = null
-- main: time, tool, status, error, seconds
-- key: id
-- map
-- Of a call there are up to three facts: that a model made it, the span in which it ran, and the
-- result that a later request repeats with all that was said before. The first one counts, but of
-- spans the last, as a tool may have been tried again.
WITH spans AS (
    SELECT place, source, data, data ->> '$.attributes."gen_ai.operation.name"' AS operation,
        json_extract(TRY_CAST(data ->> '$.attributes."gen_ai.output.messages"' AS JSON),
            '$[*].parts[*]') AS said,
        json_extract(TRY_CAST(data ->> '$.attributes."gen_ai.input.messages"' AS JSON),
            '$[*].parts[*]') AS heard
    FROM segment WHERE type = 'span' AND data ->> '$.attributes."gen_ai.operation.name"' IS NOT NULL
), parts AS (
    SELECT place, source, data, 'called' AS kind, unnest(said) AS part,
        unnest(range(len(said))) AS n FROM spans
    UNION ALL
    SELECT place, source, data, 'answered', unnest(heard), unnest(range(len(heard))) FROM spans
), facts AS (
    SELECT coalesce(part ->> '$.id', (data ->> '$.spanId') || '/' || n) AS id, kind,
        -place AS rank, to_json({'tool': part ->> '$.name', 'source': source,
            'arguments': part ->> '$.arguments', 'result': part ->> '$.response',
            'model': data ->> '$.attributes."gen_ai.request.model"',
            'trace_id': data ->> '$.traceId', 'error': NULL, 'took': NULL})::VARCHAR AS fact
    FROM parts
    WHERE part ->> '$.type' = CASE kind WHEN 'called' THEN 'tool_call'
        ELSE 'tool_call_response' END
    UNION ALL
    SELECT coalesce(data ->> '$.attributes."gen_ai.tool.call.id"', data ->> '$.spanId'), 'ran',
        place, to_json({'tool': data ->> '$.attributes."gen_ai.tool.name"', 'source': source,
            'arguments': data ->> '$.attributes."gen_ai.tool.call.arguments"',
            'result': data ->> '$.attributes."gen_ai.tool.call.result"', 'model': NULL,
            'trace_id': data ->> '$.traceId',
            'error': CASE WHEN data ->> '$.status.code' IN ('2', 'STATUS_CODE_ERROR')
                THEN coalesce(data ->> '$.status.message',
                    data ->> '$.attributes."error.type"', 'unknown') END,
            'took': TRY_CAST(data ->> '$.endTimeUnixNano' AS BIGINT)::HUGEINT
                - TRY_CAST(data ->> '$.startTimeUnixNano' AS BIGINT)})::VARCHAR
    FROM spans WHERE operation = 'execute_tool'
)
SELECT id, kind, max(rank) AS rank, arg_max(fact, (rank, fact)) AS fact
FROM facts WHERE id IS NOT NULL GROUP BY id, kind
-- merge
SELECT id, kind, max(rank) AS rank, arg_max(fact, (rank, fact)) AS fact
FROM partials GROUP BY id, kind
-- finish
WITH calls AS (
    SELECT id, min(CASE kind WHEN 'ran' THEN rank ELSE -rank END) AS place,
        max(fact) FILTER (kind = 'called') AS called,
        max(fact) FILTER (kind = 'ran') AS ran, max(fact) FILTER (kind = 'answered') AS answered
    FROM state GROUP BY id
)
SELECT make_timestamptz((place >> 63)::BIGINT) AS time,
    coalesce(called ->> '$.tool', ran ->> '$.tool') AS tool, id,
    CASE WHEN ran ->> '$.error' IS NOT NULL THEN 'failed'
        WHEN ran IS NULL AND answered IS NULL THEN 'open' ELSE 'done' END AS status,
    coalesce(called ->> '$.arguments', ran ->> '$.arguments') AS arguments,
    coalesce(ran ->> '$.result', answered ->> '$.result') AS result, ran ->> '$.error' AS error,
    (ran ->> '$.took')::DOUBLE / 1e9 AS seconds, called ->> '$.model' AS model,
    coalesce(called ->> '$.source', ran ->> '$.source') AS source,
    coalesce(called ->> '$.trace_id', ran ->> '$.trace_id') AS trace_id
FROM calls
-- A result alone says nothing of the call: it happened before what is looked at.
WHERE (called IS NOT NULL OR ran IS NOT NULL)
    AND ($tool IS NULL OR coalesce(called ->> '$.tool', ran ->> '$.tool') = $tool)
    AND ($status IS NULL OR $status = CASE WHEN ran ->> '$.error' IS NOT NULL THEN 'failed'
        WHEN ran IS NULL AND answered IS NULL THEN 'open' ELSE 'done' END)
ORDER BY place DESC, id LIMIT $limit
