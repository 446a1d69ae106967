"""The questions, in the dialects of the peers, over events(time, type, category, source, subject,
data)."""

from __future__ import annotations

from collections.abc import Mapping

VIEWS = ("status", "throughput", "errors", "reliability", "health")
ALL = (*VIEWS, "nested", "needle")


def subject(turn: int) -> str:
    """The subject that a needle asks for at a turn: another one each time."""
    return f"Podcast{(144 + 7 * turn) % 200:03d}_{(976 + 37 * turn) % 10_000:05d}"


def question(dialect: Mapping[str, str], name: str, turn: int = 0, table: str = "events") -> str:
    """The text of a question. Each turn has another: other subjects, spans and limits, with the
    same answers but for those of the needle and of the last hour."""
    return dialect[name].format(
        t=table, subject=subject(turn), minutes=60 + turn, limit=100_000 + turn
    )


DUCKDB = {
    "status": """SELECT type, count(*) FROM (SELECT arg_max(type, time) AS type FROM {t}
        WHERE subject IS NOT NULL GROUP BY subject) GROUP BY type ORDER BY type LIMIT {limit}""",
    "throughput": """SELECT time_bucket(INTERVAL 1 hour, time) AS hour, count(*) FROM {t}
        WHERE type = 'COMPLETE' GROUP BY hour ORDER BY hour LIMIT {limit}""",
    "errors": """SELECT coalesce(json_extract_string(data, '$.error'), 'unknown') AS error, count(*)
        FROM {t} WHERE type = 'FAIL' GROUP BY error ORDER BY error LIMIT {limit}""",
    "reliability": """SELECT source, count(*) FILTER (type = 'COMPLETE') AS good, count(*) AS n
        FROM {t} WHERE type IN ('COMPLETE', 'FAIL') GROUP BY source ORDER BY source
        LIMIT {limit}""",
    "health": """SELECT type, count(*) FROM {t} WHERE time > (SELECT max(time) FROM {t})
        - INTERVAL {minutes} minute GROUP BY type ORDER BY type LIMIT {limit}""",
    "nested": """SELECT avg(CAST(json_extract_string(data, '$.duration_ms') AS BIGINT)) FROM {t}
        WHERE type = 'COMPLETE' LIMIT {limit}""",
    "needle": "SELECT count(*) FROM {t} WHERE subject = '{subject}'",
    "count": "SELECT count(*) FROM {t}",
}
TYPED = DUCKDB | {
    "errors": """SELECT coalesce(data.error, 'unknown') AS error, count(*)
        FROM {t} WHERE type = 'FAIL' GROUP BY error ORDER BY error LIMIT {limit}""",
    "nested": "SELECT avg(data.duration_ms) FROM {t} WHERE type = 'COMPLETE' LIMIT {limit}",
}
"""DuckDB over payloads that are structs."""
SQLITE = {
    "status": """SELECT type, count(*) FROM (SELECT type, max(time) FROM events
        WHERE subject IS NOT NULL GROUP BY subject) GROUP BY type ORDER BY type LIMIT {limit}""",
    "throughput": """SELECT substr(time, 1, 13) AS hour, count(*) FROM events
        WHERE type = 'COMPLETE' GROUP BY hour ORDER BY hour LIMIT {limit}""",
    "errors": """SELECT coalesce(data ->> '$.error', 'unknown') AS error, count(*) FROM events
        WHERE type = 'FAIL' GROUP BY error ORDER BY error LIMIT {limit}""",
    "reliability": """SELECT source, sum(type = 'COMPLETE'), count(*) FROM events
        WHERE type IN ('COMPLETE', 'FAIL') GROUP BY source ORDER BY source
        LIMIT {limit}""",
    "health": """SELECT type, count(*) FROM events WHERE time > (SELECT strftime(
        '%Y-%m-%dT%H:%M:%S', max(time), '-{minutes} minutes') || substr(max(time), 20) FROM events)
        GROUP BY type ORDER BY type LIMIT {limit}""",
    "nested": """SELECT avg(data ->> '$.duration_ms') FROM events WHERE type = 'COMPLETE'
        LIMIT {limit}""",
    "needle": "SELECT count(*) FROM events WHERE subject = '{subject}'",
    "count": "SELECT count(*) FROM events",
}
CLICKHOUSE = {
    "status": """SELECT type, count() FROM (SELECT argMax(type, time) AS type FROM events
        WHERE subject != '' GROUP BY subject) GROUP BY type ORDER BY type LIMIT {limit}""",
    "throughput": """SELECT toStartOfHour(time) AS hour, count() FROM events
        WHERE type = 'COMPLETE' GROUP BY hour ORDER BY hour LIMIT {limit}""",
    "errors": """SELECT ifNull(nullIf(JSONExtractString(data, 'error'), ''), 'unknown') AS error,
        count() FROM events WHERE type = 'FAIL' GROUP BY error ORDER BY error LIMIT {limit}""",
    "reliability": """SELECT source, countIf(type = 'COMPLETE'), count() FROM events
        WHERE type IN ('COMPLETE', 'FAIL') GROUP BY source ORDER BY source
        LIMIT {limit}""",
    "health": """SELECT type, count() FROM events WHERE time > (SELECT max(time) FROM events)
        - INTERVAL {minutes} MINUTE GROUP BY type ORDER BY type LIMIT {limit}""",
    "nested": """SELECT avg(JSONExtractInt(data, 'duration_ms')) FROM events
        WHERE type = 'COMPLETE' LIMIT {limit}""",
    "needle": "SELECT count() FROM events WHERE subject = '{subject}'",
    "count": "SELECT count() FROM events",
}
_COLUMNS = """timestamp AS time, event_type AS type, content_type AS category, source,
    item_id AS subject, data"""
READ = f"""SELECT {_COLUMNS} FROM read_json('{{path}}', format = 'newline_delimited', columns = {{{{
    timestamp: 'TIMESTAMPTZ', event_type: 'VARCHAR', content_type: 'VARCHAR', source: 'VARCHAR',
    item_id: 'VARCHAR', data: 'VARCHAR'}}}})"""
"""SQL that reads the events of a file; the engine does it faster than any of the others."""
READ_TYPED = f"SELECT {_COLUMNS} FROM read_json('{{path}}', format = 'newline_delimited')"
"""The same with payloads as structs, by the types that the engine finds."""
