"""What several tests use: formats that a lake keeps."""

from __future__ import annotations

import lakelog

PATTERN = r"%{TIMESTAMP_ISO8601:time} %{WORD:level} \[%{DATA:source}\] %{GREEDYDATA:message}"
TEXT = (
    "2026-07-01 12:00:00 INFO [web] start\n"
    "2026-07-01 12:00:01 SCHWER [pay] refused\n  at Pay.run\n"
    "2026-07-01 12:00:02 no brackets\n"
    "2026-07-01 12:00:03 INFO [web] end\n"
)
ROWS = [
    ("2026-07-01 10:00:00", "INFO", "web", "start"),
    ("2026-07-01 10:00:01", "ERROR", "pay", "refused\n  at Pay.run"),
    ("2026-07-01 10:00:03", "INFO", "web", "end"),
]


def rows(lake: lakelog.Lake) -> list[tuple[str, ...]]:
    """What the events say, in the order of the files."""
    query = """SELECT (time AT TIME ZONE 'UTC')::VARCHAR, level, source, message FROM events
        ORDER BY origin, position"""
    return [tuple(row) for row in lake.sql(query).fetchall()]
