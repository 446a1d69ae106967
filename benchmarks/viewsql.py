"""The views' questions as plain SQL over `events`, written without looking at the projections.

Used to time what a user would type, and to compare answers. `cardinality` and `percentiles` are
exact here; the projections' are within their stated errors.
"""

from __future__ import annotations

PLAIN = {
    "status": """
        SELECT category, status, count(*) AS items FROM (
            SELECT subject, category, arg_max(type, place) AS status
            FROM (
                SELECT *, epoch_us(time)::HUGEINT * 9223372036854775808 + seq AS place
                FROM events)
            WHERE subject IS NOT NULL GROUP BY subject, category)
        GROUP BY ALL ORDER BY items DESC, category, status""",
    "throughput": """
        SELECT time_bucket(INTERVAL 1 HOUR, time) AS bucket, count(*) AS events
        FROM events WHERE type = 'COMPLETE' GROUP BY 1 ORDER BY 1""",
    "errors": """
        SELECT error, count(*) AS failures, count(DISTINCT source) AS sources, min(time), max(time)
        FROM (SELECT *, coalesce(nullif(data ->> '$.error', ''), 'unknown') AS error FROM events
            WHERE type = 'FAIL') GROUP BY error ORDER BY failures DESC, error""",
    "reliability": """
        SELECT source, count(*) FILTER (type = 'COMPLETE') AS completed,
            count(*) FILTER (type = 'FAIL') AS failed
        FROM events WHERE type IN ('COMPLETE', 'FAIL') GROUP BY source ORDER BY source""",
    "rates": """
        SELECT time_bucket(INTERVAL 1 HOUR, time) AS bucket, type, source, count(*) AS events
        FROM events GROUP BY ALL ORDER BY ALL""",
    "percentiles": """
        SELECT type, count(x), quantile_cont(x, [0.5, 0.9, 0.95, 0.99]), min(x), max(x), avg(x)
        FROM (SELECT type, TRY_CAST(data ->> '$.duration_ms' AS DOUBLE) AS x FROM events)
        WHERE x IS NOT NULL GROUP BY type ORDER BY type""",
    "cardinality": """
        SELECT type, count(DISTINCT subject) FROM events WHERE subject IS NOT NULL
        GROUP BY ROLLUP (type) ORDER BY type NULLS FIRST""",
    "health": """
        SELECT count(*), min(time), max(time), count(*) FILTER (time > now() - INTERVAL 1 HOUR),
            count(*) FILTER (time > now() - INTERVAL 1 HOUR AND type = 'FAIL'),
            count(*) FILTER (time > now() - INTERVAL 24 HOUR) FROM events""",
    "stuck": """
        SELECT subject, status, since FROM (
            SELECT subject, max(time) AS since, arg_max(type, place) AS status
            FROM (
                SELECT *, epoch_us(time)::HUGEINT * 9223372036854775808 + seq AS place
                FROM events)
            WHERE subject IS NOT NULL GROUP BY subject, category)
        WHERE status IN ('DISCOVER', 'PROCESS') AND since < now() - INTERVAL 1 HOUR
        ORDER BY since LIMIT 100""",
    "sessions": """
        SELECT category, count(DISTINCT subject), count(*) AS sessions, sum(events),
            sum(seconds) / count(*)
        FROM (
            SELECT subject, session, min(category) AS category, count(*) AS events,
                epoch(max(time)) - epoch(min(time)) AS seconds
            FROM (
                SELECT subject, category, time, sum(begins) OVER w AS session FROM (
                    SELECT subject, category, time, CASE WHEN time - lag(time) OVER w
                        <= INTERVAL 30 MINUTE THEN 0 ELSE 1 END AS begins
                    FROM events WHERE subject IS NOT NULL
                    WINDOW w AS (PARTITION BY subject ORDER BY time))
                WINDOW w AS (PARTITION BY subject ORDER BY time ROWS UNBOUNDED PRECEDING))
            GROUP BY subject, session)
        GROUP BY category ORDER BY sessions DESC""",
    "funnel": """
        WITH e AS (SELECT subject, type, time FROM events
            WHERE subject IS NOT NULL AND type IN ('DISCOVER', 'PROCESS', 'COMPLETE')),
        a AS (SELECT subject, min(time) AS t FROM e WHERE type = 'DISCOVER' GROUP BY subject),
        b AS (SELECT e.subject, min(e.time) AS t FROM e JOIN a USING (subject)
            WHERE type = 'PROCESS' AND e.time >= a.t GROUP BY e.subject),
        c AS (SELECT e.subject, min(e.time) AS t FROM e JOIN b USING (subject)
            WHERE type = 'COMPLETE' AND e.time >= b.t GROUP BY e.subject)
        SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b), (SELECT count(*) FROM c)""",
    "durations": """
        WITH e AS (SELECT subject, type, time FROM events
            WHERE subject IS NOT NULL AND type IN ('DISCOVER', 'COMPLETE')),
        a AS (SELECT subject, min(time) AS t FROM e WHERE type = 'DISCOVER' GROUP BY subject),
        b AS (SELECT e.subject, epoch(min(e.time)) - epoch(min(a.t)) AS took
            FROM e JOIN a USING (subject)
            WHERE type = 'COMPLETE' AND e.time >= a.t GROUP BY e.subject)
        SELECT count(*), quantile_cont(took, [0.5, 0.9, 0.95, 0.99]), max(took), avg(took)
        FROM b""",
}
