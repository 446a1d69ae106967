-- name: llm_errors
-- version: 1
-- about: Calls of language models that failed, by error and model, with the newest message.
-- params: model text = null; source text = null
-- main: error, status, model, failures, last
-- map
SELECT error, status, source, provider, model, count(*) AS failures, min(time) AS first,
    max(time) AS last, max(place) AS place, arg_max(message, place) AS message
FROM (
    SELECT time, place, source, coalesce(data ->> '$.attributes."gen_ai.provider.name"',
            data ->> '$.attributes."gen_ai.system"') AS provider,
        coalesce(data ->> '$.attributes."gen_ai.request.model"',
            data ->> '$.attributes."gen_ai.response.model"') AS model,
        data ->> '$.attributes."gen_ai.operation.name"' AS operation,
        coalesce(data ->> '$.attributes."error.type"', 'unknown') AS error,
        TRY_CAST(data ->> '$.attributes."http.response.status_code"' AS INTEGER) AS status,
        coalesce(data ->> '$.status.message', '') AS message
    FROM segment
    WHERE type = 'span' AND data ->> '$.status.code' IN ('2', 'STATUS_CODE_ERROR')
)
WHERE operation IS NOT NULL AND model IS NOT NULL
    AND operation NOT IN ('invoke_agent', 'create_agent', 'invoke_workflow', 'execute_tool')
GROUP BY ALL
-- merge
SELECT error, status, source, provider, model, sum(failures) AS failures, min(first) AS first,
    max(last) AS last, max(place) AS place, arg_max(message, place) AS message
FROM partials GROUP BY ALL
-- finish
SELECT error, status, provider, model, sum(failures)::BIGINT AS failures,
    min(first) AS first, max(last) AS last, nullif(arg_max(message, place), '') AS message
FROM state
WHERE ($model IS NULL OR model = $model) AND ($source IS NULL OR source = $source)
GROUP BY error, status, provider, model
ORDER BY failures DESC, error, status, provider, model
