-- name: llm_usage
-- version: 1
-- about: Calls of language models by bucket of time and model: tokens, cost, errors, seconds.
-- params: bucket duration = 1d; model text = null; source text = null
-- main: bucket, model, calls, input_tokens, output_tokens, cost
-- map
SELECT time_bucket($bucket, time) AS bucket, source, provider, model, operation,
    count(*) AS calls, count_if(failed) AS errors,
    -- No count of tokens is longer: what one span claims must not be all that the sums can hold.
    sum(TRY_CAST(input AS INTEGER)) AS input, sum(TRY_CAST(output AS INTEGER)) AS output,
    sum(TRY_CAST(cached AS INTEGER)) AS cached, sum(TRY_CAST(reasoning AS INTEGER)) AS reasoning,
    sum(cost) FILTER (isfinite(cost)) AS cost, sum(took // 1000) AS took
FROM (
    SELECT time, source, coalesce(data ->> '$.attributes."gen_ai.provider.name"',
            data ->> '$.attributes."gen_ai.system"') AS provider,
        coalesce(data ->> '$.attributes."gen_ai.request.model"',
            data ->> '$.attributes."gen_ai.response.model"') AS model,
        data ->> '$.attributes."gen_ai.operation.name"' AS operation,
        coalesce(data ->> '$.status.code' IN ('2', 'STATUS_CODE_ERROR'), false) AS failed,
        coalesce(data ->> '$.attributes."gen_ai.usage.input_tokens"',
            data ->> '$.attributes."gen_ai.usage.prompt_tokens"') AS input,
        coalesce(data ->> '$.attributes."gen_ai.usage.output_tokens"',
            data ->> '$.attributes."gen_ai.usage.completion_tokens"') AS output,
        data ->> '$.attributes."gen_ai.usage.cache_read.input_tokens"' AS cached,
        data ->> '$.attributes."gen_ai.usage.reasoning.output_tokens"' AS reasoning,
        TRY_CAST(data ->> '$.attributes."gen_ai.usage.cost"' AS DOUBLE) AS cost,
        TRY_CAST(data ->> '$.endTimeUnixNano' AS BIGINT)::HUGEINT
            - TRY_CAST(data ->> '$.startTimeUnixNano' AS BIGINT) AS took
    FROM segment WHERE type = 'span'
)
-- Agents, workflows and tools are no calls of a model; their spans hold those of such calls.
WHERE operation IS NOT NULL AND model IS NOT NULL
    AND operation NOT IN ('invoke_agent', 'create_agent', 'invoke_workflow', 'execute_tool')
GROUP BY ALL
-- merge
SELECT bucket, source, provider, model, operation, sum(calls) AS calls, sum(errors) AS errors,
    sum(input) AS input, sum(output) AS output, sum(cached) AS cached,
    sum(reasoning) AS reasoning, sum(cost) AS cost, sum(took) AS took
FROM partials GROUP BY ALL
-- finish
SELECT bucket, provider, model, operation, sum(calls)::BIGINT AS calls,
    sum(errors)::BIGINT AS errors, sum(input)::BIGINT AS input_tokens,
    sum(output)::BIGINT AS output_tokens, sum(cached)::BIGINT AS cached_tokens,
    sum(reasoning)::BIGINT AS reasoning_tokens, sum(cost) AS cost,
    sum(took) / sum(calls) / 1e6 AS mean_seconds
FROM state
WHERE ($model IS NULL OR model = $model) AND ($source IS NULL OR source = $source)
GROUP BY bucket, provider, model, operation
ORDER BY bucket, provider, model, operation
