"""The tables of the older event store, as SQL over a lake: `omega.events` and its two neighbours.

    omega.events        id, timestamp, event_type, action, source, data_json, data_compressed,
                        hash, processed, created_at
    omega.patterns      id, event_id, pattern_type, confidence, pattern_data, embryo_id, created_at
    omega.system_stats  id, timestamp, total_events, events_per_second, active_embryos,
                        avg_fitness, storage_mb, created_at

They stand in a schema of their own, for `events` is the lake's own table; no branch or tag may
be called omega. Times are seconds since 1970. `id` is 63 bits of the event's identity, the same
for ever: of source and given id, or of origin and position. `processed` says whether some event of
type `omega.processed` names that id in `data.ids`. Patterns are events of type `omega.pattern` or
PATTERN_DETECTED, statistics those of type `omega.system_stats`, their columns fields of data; the
types omega.* are left out of `omega.events`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

SCHEMA = "omega"
TABLES = ("events", "patterns", "system_stats")
PROCESSED, PATTERN, STATS = "omega.processed", "omega.pattern", "omega.system_stats"
OWN = (PROCESSED, PATTERN, STATS)
"""Types of events that are no rows of `omega.events`."""
COLUMNS = (
    "id",
    "timestamp",
    "event_type",
    "action",
    "source",
    "data_json",
    "data_compressed",
    "hash",
    "processed",
    "created_at",
)
NUMBER = (
    "(('0x' || sha256(coalesce(source, '') || chr(0) || CASE WHEN id <> '' THEN id"
    " ELSE coalesce(origin, '') || chr(0) || position::VARCHAR END)[1:16])::UBIGINT >> 1)::BIGINT"
)
"""SQL of the id that stands for an event."""
_HASH = "sha256(concat_ws(chr(0), epoch_us(time)::VARCHAR, type, source, data))"
_JSON = "CASE WHEN json_valid(data) THEN data END"


def newest_sql(where: str, limit: int) -> str:
    """Return SQL of the newest rows of `omega.events`, of those events for which a condition on
    the lake's columns holds; only theirs are worked out."""
    newest = f"""(SELECT * FROM events WHERE type NOT IN ({_quoted_list(OWN)}) AND ({where})
        ORDER BY time DESC, seq DESC NULLS FIRST, position DESC LIMIT {limit})"""
    return f"{rows_sql(newest, marks='events')} ORDER BY timestamp DESC, id"


def rows_sql(table: str = "events", where: str = "true", marks: str = "") -> str:
    """Return SQL of `omega.events` over the lake's events for which a condition holds; `marks` is
    the table that says which are processed, if it is another."""
    marked = f"""SELECT unnest(from_json({_JSON}->'$.ids', '["BIGINT"]')) FROM {marks or table}
        WHERE type = '{PROCESSED}'"""
    return f"""SELECT {NUMBER} AS id, epoch_us(time) / 1e6 AS timestamp, type AS event_type,
        {_JSON}->>'$.action' AS action, source, data AS data_json,
        NULL::BLOB AS data_compressed, {_HASH} AS hash, {NUMBER} IN ({marked}) AS processed,
        epoch_us(ingested_at) / 1e6 AS created_at
        FROM {table} WHERE type NOT IN ({_quoted_list(OWN)}) AND ({where})"""


def number_of(source: str | None, id: str | None, origin: str | None, position: int | None) -> int:
    """Return the id that stands for an event, as NUMBER does."""
    name = id or f"{origin or ''}\0{position}"
    return int(hashlib.sha256(f"{source or ''}\0{name}".encode()).hexdigest()[:16], 16) >> 1


def hash_of(time: int, type: str, source: str | None, data: str | None) -> str:
    """Return the hash of an event's content; `time` in us."""
    parts = [part for part in (str(time), type, source, data) if part is not None]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def attach(cursor: duckdb.DuckDBPyConnection) -> None:
    """Make the tables; each reads the temporary view `events` of the cursor that asks."""
    cursor.execute(f"ATTACH ':memory:' AS {SCHEMA}")
    table = "temp.main.events"
    for name, query in (
        ("events", rows_sql(table)),
        ("patterns", _patterns(table)),
        ("system_stats", _stats(table)),
    ):
        cursor.execute(f"CREATE VIEW {SCHEMA}.main.{name} AS {query}")


def _patterns(table: str) -> str:
    field = f"{_JSON}->>'$."
    return f"""SELECT {NUMBER} AS id, try_cast({field}event_id' AS BIGINT) AS event_id,
        coalesce({field}pattern_type', {field}name') AS pattern_type,
        try_cast({field}confidence' AS DOUBLE) AS confidence,
        coalesce({field}pattern_data', {field}data') AS pattern_data,
        {field}embryo_id' AS embryo_id, epoch_us(time) / 1e6 AS created_at
        FROM {table} WHERE type IN ('{PATTERN}', 'PATTERN_DETECTED')"""


def _stats(table: str) -> str:
    kinds = {
        "total_events": "BIGINT",
        "events_per_second": "DOUBLE",
        "active_embryos": "BIGINT",
        "avg_fitness": "DOUBLE",
        "storage_mb": "DOUBLE",
    }
    fields = ", ".join(
        f"try_cast({_JSON}->>'$.{name}' AS {kind}) AS {name}" for name, kind in kinds.items()
    )
    return f"""SELECT {NUMBER} AS id, epoch_us(time) / 1e6 AS timestamp, {fields},
        epoch_us(ingested_at) / 1e6 AS created_at FROM {table} WHERE type = '{STATS}'"""


def _quoted_list(names: tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in names)
