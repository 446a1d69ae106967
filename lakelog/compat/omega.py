"""The tables of the older event store, as SQL over a lake: `omega.events` and its two neighbours.

    omega.events        id, timestamp, event_type, action, source, data_json, data_compressed,
                        hash, processed, created_at
    omega.patterns      id, event_id, pattern_type, confidence, pattern_data, embryo_id, created_at
    omega.system_stats  id, timestamp, total_events, events_per_second, active_embryos,
                        avg_fitness, storage_mb, created_at

They stand in a schema of their own, for `events` is the lake's own table; no branch or tag may
be called omega. Times are seconds since 1970. `id` is 63 bits of the event's identity, the same
for ever: of source and given id, or of origin and position. `processed` says whether some event of
type `omega.processed` names that id in `data.ids`. `action` is the member of data of that name, and
`data_json` the data without it; data of the two members `action` and `data` alone is a payload that
has an action of its own, wrapped. Patterns are events of the types PATTERNS, statistics those of
the types STATISTICS, their columns members of data or of `data.details`; the types omega.* are left
out of `omega.events`. An imported row has its first `created_at` in its id (`imported_id`).
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import orjson

from lakelog.database import Connect
from lakelog.libraries import duckdb
from lakelog.values import JsonObject

if TYPE_CHECKING:
    from lakelog.lake import Lake

EventRow = dict[str, Any]
"""A row of `omega.events`, by its columns."""
SCHEMA = "omega"
TABLES = ("events", "patterns", "system_stats")
PROCESSED, PATTERN, STATS = "omega.processed", "omega.pattern", "omega.system_stats"
OWN = (PROCESSED, PATTERN, STATS)
"""Types of events that are no rows of `omega.events`."""
PATTERNS = (PATTERN, "PATTERN_DETECTED", "pattern_detected", "pattern", "ANOMALY")
STATISTICS = (STATS, "SYSTEM_STATS", "system_stats")
IMPORTED = "omega.sqlite"
"""How the ids of imported rows begin."""
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
# The first 63 bits of SHA-256, the same in SQL and in Python.
NUMBER = (
    "(('0x' || sha256(coalesce(source, '') || chr(0) || CASE WHEN id <> '' THEN id"
    " ELSE coalesce(origin, '') || chr(0) || position::VARCHAR END)[1:16])::UBIGINT >> 1)::BIGINT"
)
"""SQL of the id that stands for an event."""
_HASH = "sha256(concat_ws(chr(0), epoch_us(time)::VARCHAR, type, source, data))"
_JSON = "CASE WHEN json_valid(data) THEN data END"
_ACTION = f"coalesce(json_exists({_JSON}, '$.action'), false)"
# Exactly these two members: that is how an action beside other data is wrapped.
_WRAPPED = f"list_sort(json_keys({_JSON})) = ['action', 'data']"
_PAYLOAD = f"""CASE WHEN {_WRAPPED} THEN ({_JSON}->'$.data')::VARCHAR
    ELSE json_merge_patch({_JSON}, '{{"action":null}}')::VARCHAR END"""
DATA_JSON = f"CASE WHEN {_ACTION} THEN nullif({_PAYLOAD}, 'null') ELSE data END"
"""SQL of the data of an event without its action."""
_CREATED = f"""coalesce(CASE WHEN starts_with(id, '{IMPORTED}:')
    THEN try_cast(nullif(split_part(id, ':', 4), '') AS BIGINT) END, epoch_us(ingested_at)) / 1e6"""
# Numbers that the engine and orjson write in different ways; then the engine has the word.
_ENGINE_WRITES = re.compile(rb"[0-9][eE][-+]?[0-9]")


def newest_sql(condition: str, limit: int) -> str:
    """Return SQL of the newest rows of `omega.events`, of those events for which a condition on
    the lake's columns holds; only theirs are worked out."""
    newest = f"""(SELECT * FROM events WHERE type NOT IN ({_quoted_list(OWN)}) AND ({condition})
        ORDER BY time DESC, seq DESC NULLS FIRST, position DESC LIMIT {limit})"""
    return f"{rows_sql(newest, marks='events')} ORDER BY timestamp DESC, id"


def rows_sql(table: str = "events", where: str = "true", marks: str = "") -> str:
    """Return SQL of `omega.events` over the lake's events for which a condition holds; `marks` is
    the table that says which are processed, if it is another."""
    # Anybody may store such an event: a null among the ids would leave it open for all other rows.
    marked = f"""SELECT try_cast(mark AS BIGINT) FROM
        (SELECT unnest({_JSON}->'$.ids[*]') AS mark FROM {marks or table}
            WHERE type = '{PROCESSED}')
        WHERE json_type(mark) IN ('BIGINT', 'UBIGINT') AND try_cast(mark AS BIGINT) IS NOT NULL"""
    return f"""SELECT {NUMBER} AS id, epoch_us(time) / 1e6 AS timestamp, type AS event_type,
        {_JSON}->>'$.action' AS action, source, {DATA_JSON} AS data_json,
        NULL::BLOB AS data_compressed, {_HASH} AS hash, {NUMBER} IN ({marked}) AS processed,
        {_CREATED} AS created_at
        FROM {table} WHERE type NOT IN ({_quoted_list(OWN)}) AND ({where})"""


def number_of(source: str | None, id: str | None, origin: str | None, position: int | None) -> int:
    """Return the id that stands for an event, as NUMBER does."""
    name = id or f"{origin or ''}\0{position}"
    # Shifted by one, as the engine's integers have a sign.
    return int(hashlib.sha256(f"{source or ''}\0{name}".encode()).hexdigest()[:16], 16) >> 1


def hash_of(time: int, type: str, source: str | None, data: str | None) -> str:
    """Return the hash of an event's content; `time` in us."""
    members = [member for member in (str(time), type, source, data) if member is not None]
    return hashlib.sha256("\0".join(members).encode("utf-8", "surrogatepass")).hexdigest()


def imported_id(table: str, row: int, created: int | None, content: str) -> str:
    """Return the id of a row of an older database; `created` is its created_at in us."""
    return f"{IMPORTED}:{table}:{row}:{'' if created is None else created}:{content}"


def created_of(id: str | None, ingested: int) -> float:
    """Return created_at of an event in seconds; `ingested` in us."""
    if id is not None and id.startswith(f"{IMPORTED}:"):
        # In the id, since the row itself has no place for it.
        stamps = id.split(":")[3:4]
        if stamps and re.fullmatch(r"-?[0-9]+", stamps[0]):
            return int(stamps[0]) / 1e6
    return ingested / 1e6


def action_and_data(data: str | None, connect: Connect) -> tuple[str | None, str | None]:
    """Return `action` and `data_json` of an event's data, as the table has them.

    `connect` returns the engine, which is asked only where numbers have several spellings.
    """
    encoded = data.encode("utf-8", "surrogatepass") if data else b""
    # A cheap look: most events have no action, however it may be escaped.
    if b'"action"' not in encoded and b"\\u" not in encoded:
        return None, data
    try:
        payload = orjson.loads(encoded)
    except orjson.JSONDecodeError:
        payload = None
    # Of repeated keys orjson keeps one, the engine all; and numbers may be written in other ways.
    if payload is None or _ENGINE_WRITES.search(encoded) or orjson.dumps(payload) != encoded:
        query = f"SELECT {_JSON}->>'$.action', {DATA_JSON} FROM (SELECT $1::VARCHAR AS data)"
        with connect().cursor() as cursor:
            ((action, remainder),) = cursor.execute(query, [data]).fetchall()
        return action, remainder
    if not isinstance(payload, dict) or "action" not in payload:
        return None, data
    action = payload.pop("action")
    remainder = payload["data"] if payload.keys() == {"data"} else payload
    if not isinstance(action, str) and action is not None:
        action = orjson.dumps(action).decode()
    return action, None if remainder is None else orjson.dumps(remainder).decode()


def learning(lake: Lake) -> JsonObject:
    """Return patterns, pattern_types, confidence, active_embryos and avg_fitness, the last two by
    the newest statistics: how learning goes. What nothing says is None."""
    patterns = lake.sql(f"""SELECT count(*) AS patterns,
            count(DISTINCT pattern_type) AS pattern_types, avg(confidence) AS confidence
        FROM ({_patterns("events")})""")
    statistics = lake.sql(f"""SELECT active_embryos, avg_fitness FROM ({_stats("events")})
        ORDER BY timestamp DESC LIMIT 1""")
    figures: JsonObject = dict.fromkeys(statistics.columns)
    for relation in (patterns, statistics):
        for row in relation.fetchall():
            figures |= zip(relation.columns, row, strict=True)
    return figures


def attach(cursor: duckdb.DuckDBPyConnection) -> None:
    """Make the tables; each reads the temporary view `events` of the cursor that asks."""
    # A database of its own: a schema of the lake's could be the name of a branch.
    cursor.execute(f"ATTACH ':memory:' AS {SCHEMA}")
    table = "temp.main.events"
    for name, query in (
        ("events", rows_sql(table)),
        ("patterns", _patterns(table)),
        ("system_stats", _stats(table)),
    ):
        cursor.execute(f"CREATE VIEW {SCHEMA}.main.{name} AS {query}")


def _patterns(table: str) -> str:
    own_number = f"CASE WHEN type <> '{PATTERN}' THEN {NUMBER} END"
    return f"""SELECT {NUMBER} AS id,
        coalesce(try_cast({_field("event_id")} AS BIGINT), {own_number}) AS event_id,
        coalesce({_field("pattern_type")}, {_field("pattern")}, {_field("name")}) AS pattern_type,
        try_cast({_field("confidence")} AS DOUBLE) AS confidence,
        coalesce({_field("pattern_data")}, {_field("data")},
            CASE WHEN type = 'ANOMALY' THEN data END) AS pattern_data,
        {_field("embryo_id")} AS embryo_id, epoch_us(time) / 1e6 AS created_at
        FROM {table} WHERE type IN ({_quoted_list(PATTERNS)})"""


def _stats(table: str) -> str:
    kinds = {
        "total_events": "BIGINT",
        "events_per_second": "DOUBLE",
        "active_embryos": "BIGINT",
        "avg_fitness": "DOUBLE",
        "storage_mb": "DOUBLE",
    }
    fields = ", ".join(
        f"try_cast({_field(name)} AS {sql_type}) AS {name}" for name, sql_type in kinds.items()
    )
    return f"""SELECT {NUMBER} AS id, epoch_us(time) / 1e6 AS timestamp, {fields},
        {_CREATED} AS created_at FROM {table} WHERE type IN ({_quoted_list(STATISTICS)})"""


def _field(name: str) -> str:
    """Return SQL of a member of data, which the lines of AI logs have in `details`."""
    return f"coalesce({_JSON}->>'$.{name}', {_JSON}->>'$.details.{name}')"


def _quoted_list(names: tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in names)
