"""Databases of the older event store: their rows become events, each once however often it is read.

An event's id is `omega.sqlite:TABLE:ROW:CREATED:CONTENT`: the row's id, its created_at in us, and
16 hex digits of its content. So a second run, also of a copy, stores only what is new, and two
equal rows stay two. A row that cannot be an event is quarantined whole, as JSON. Rows are read in
the order of their rowid, some hundred at a time, so that a program that writes to the database
waits for no one. A damaged database is read up to the damage.
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import urllib.parse
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from lakelog.compat import omega
from lakelog.compat.event_store import content_id, identified
from lakelog.compat.omega import EventRow
from lakelog.errors import InvalidEvent, LakelogError
from lakelog.event import EncodedBatch
from lakelog.lake import Lake
from lakelog.runtime.progress import ProgressCallback
from lakelog.values import parse_time, parse_value, to_micros

TABLES = {
    "events": (
        *("id", "timestamp", "event_type", "action", "source", "data_json", "data_compressed"),
        *("processed", "created_at"),
    ),
    "patterns": (
        *("id", "event_id", "pattern_type", "confidence", "pattern_data", "embryo_id"),
        "created_at",
    ),
    "system_stats": (
        *("id", "timestamp", "total_events", "events_per_second", "active_embryos"),
        *("avg_fitness", "storage_mb", "created_at"),
    ),
}
"""The tables that are read, and their columns; those that a database lacks count as null."""
_UNMARKED = (None, 0, b"", b"0", b"false", b"f", b"no", b"n", b"off")
_ROWS, _BYTES = 500, 8_000_000  # stored at once
_DATA_MAX = 64_000_000
"""Bytes of the data of one row; a stream that unpacks to more is not unpacked."""


@dataclass(frozen=True)
class SqliteImport:
    """Rows by what became of them: new ones of each table, and known ones.

    `processed` are events that are newly marked, `damage` says where reading had to stop.
    """

    events: int
    patterns: int
    system_stats: int
    known: int
    processed: int
    quarantined: int
    damage: str = ""


def load(lake: Lake, path: str, progress: ProgressCallback | None = None) -> SqliteImport:
    """Load a database into a lake; `progress` is called with rows done and rows in all.

    Raises FileNotFoundError, LakelogError for what is no database of the older event store.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(2, "no such database", path)
    with closing(_connect(path)) as database:
        columns = _columns(database, path)
        totals = {table: _count(database, table) for table in columns}
        # Rows that the lake has already are dropped by their ids when they are appended: what is
        # new is the difference of the counts.
        before = _counts(lake)
        row_count = quarantined = 0
        damage = ""
        for table in columns:
            try:
                for rows in _batches(database, table, columns):
                    quarantined += _store(lake, path, table, rows)
                    row_count += len(rows)
                    if progress is not None:
                        progress(row_count, sum(totals.values()))
            except sqlite3.DatabaseError as error:
                damage = damage or f"{path}: {error}, in table {table}; what precedes it is loaded"
    after = _counts(lake)
    new = {table: after[table] - before[table] for table in TABLES}
    known_count = row_count - quarantined - sum(new.values())
    # A row that was quarantined before is known as well.
    return SqliteImport(
        **new,
        known=max(known_count, 0),
        processed=after["processed"] - before["processed"],
        quarantined=after["quarantined"] - before["quarantined"],
        damage=damage,
    )


def _connect(path: str) -> sqlite3.Connection:
    """Open a database that nothing here writes to."""
    uri = f"file:{urllib.parse.quote(os.path.abspath(path))}?mode=ro"
    database = sqlite3.connect(uri, uri=True, timeout=30)
    # Text that is no UTF-8 would end the whole query; here only its row is broken.
    database.text_factory = bytes
    return database


def _columns(database: sqlite3.Connection, path: str) -> dict[str, list[str]]:
    """Return SQL of the columns of each table that is there."""
    present: dict[str, list[str]] = {}
    try:
        for table, names in TABLES.items():
            existing = {row[1].decode() for row in database.execute(f"PRAGMA table_info({table})")}
            if existing:
                present[table] = [name if name in existing else "NULL" for name in names]
    except sqlite3.DatabaseError as error:
        raise LakelogError(f"{path} is no SQLite database that can be read: {error}") from None
    if "events" not in present or "event_type" not in present["events"]:
        raise LakelogError(f"{path} is no database of the older event store: no table events of it")
    return present


def _count(database: sqlite3.Connection, table: str) -> int:
    try:
        count: int = database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    except sqlite3.DatabaseError:
        return 0
    return count


def _counts(lake: Lake) -> dict[str, int]:
    """Count what was loaded so far, of all databases."""
    of_table = "count(*) FILTER (starts_with(id, '{}:{}:'))"
    counted = ", ".join(of_table.format(omega.IMPORTED, table) for table in TABLES)
    (row,) = lake.sql(f"SELECT {counted} FROM events").fetchall()
    ((marked,),) = lake.sql("SELECT count(*) FROM omega.events WHERE processed").fetchall()
    ((bad,),) = lake.sql("SELECT count(*) FROM quarantine").fetchall()
    return {**dict(zip(TABLES, row, strict=True)), "processed": marked, "quarantined": bad}


def _batches(
    database: sqlite3.Connection, table: str, columns: dict[str, list[str]]
) -> Iterator[list[EventRow | InvalidRow]]:
    """Yield the rows of a table as events, or what is wrong with them."""
    # By rowid from batch to batch: rows that are added meanwhile cannot shift others, as they would
    # with OFFSET.
    query = f"""SELECT rowid, {", ".join(columns[table])} FROM {table}
        WHERE rowid > ? ORDER BY rowid LIMIT {_ROWS}"""
    last_id, names = -(2**63), TABLES[table]
    while True:
        rows: list[EventRow | InvalidRow] = []
        size = 0
        # Closed before the rows are stored: an open query would keep the database's writer waiting.
        with closing(database.execute(query, [last_id])) as cursor:
            for values in cursor:
                last_id, record = values[0], dict(zip(names, values[1:], strict=True))
                record["id"] = last_id if record["id"] is None else record["id"]
                size += sum(len(v) for v in record.values() if isinstance(v, bytes))
                rows.append(_event(database, table, record, columns))
                # Few rows where payloads are large: a batch is in memory as a whole.
                if size > _BYTES:
                    break
        if not rows:
            return
        yield rows


@dataclass(frozen=True)
class InvalidRow:
    """A row that cannot be an event: its number, the reason, and the row as JSON."""

    number: int
    reason: str
    text: str


def _event(
    database: sqlite3.Connection, table: str, record: EventRow, columns: dict[str, list[str]]
) -> EventRow | InvalidRow:
    """Return a row as an event with its id; `marked` says whether it was processed."""
    try:
        if table == "events":
            return _event_of(record)
        plain = {name: _text(name, value) for name, value in record.items()}
        if table == "patterns":
            plain["event_id"] = _number(database, record["event_id"], columns["events"])
            plain["pattern_data"] = _loose_json(plain["pattern_data"])
        created = plain.pop("created_at")
        time = created if table == "patterns" else plain.pop("timestamp")
        event_type = omega.PATTERN if table == "patterns" else omega.STATS
        row = plain.pop("id")
        data = {name: value for name, value in plain.items() if value is not None}
        return _numbered(table, row, created, {"time": time, "type": event_type, "data": data})
    except InvalidEvent as error:
        line = json.dumps({k: _readable(v) for k, v in record.items()})
        number = record["id"] if isinstance(record["id"], int) else 0
        return InvalidRow(number, f"row {_readable(record['id'])} of {table}: {error.reason}", line)


def _event_of(record: EventRow) -> EventRow:
    """Return a row of `events` as an event. Raises InvalidEvent."""
    names = ("id", "timestamp", "event_type", "action", "source", "created_at")
    row = {name: _text(name, record[name]) for name in names}
    created, number = row.pop("created_at"), row.pop("id")
    if row["timestamp"] is None:
        raise InvalidEvent("no timestamp")
    row["data"] = _data(record)
    mark = record["processed"]
    # Text where the column had no type: each program spells false in its own way.
    marked = (mark.lower() if isinstance(mark, bytes) else mark) not in _UNMARKED
    return {**_numbered("events", number, created, row), "marked": marked}


def _numbered(table: str, number: Any, created: object, row: EventRow) -> EventRow:
    """Return an event with the id of a row."""
    created_us = None if created is None else to_micros(parse_time(created))
    event = identified({name: value for name, value in row.items() if value is not None})
    content = content_id({name: value for name, value in event.items() if name != "id"})
    event["id"] = omega.imported_id(table, number, created_us, content[:16])
    EncodedBatch.of([event])  # here it concerns one row only, later the whole batch
    return event


def _data(record: EventRow) -> Any:
    """Return the data of a row: packed where it is, else text. Raises InvalidEvent."""
    compressed, plain = record["data_compressed"], record["data_json"]
    if compressed:
        plain = _unpack(compressed)
    if plain is None or plain == b"":
        return None
    if not isinstance(plain, bytes):
        return plain  # of a number SQLite may have made one
    try:
        return parse_value(plain)
    except InvalidEvent as error:
        raise InvalidEvent(f"data is not JSON: {error.reason}") from None


def _unpack(compressed: Any) -> bytes:
    """Return what gzip or zlib packed. Raises InvalidEvent."""
    try:
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # either header
        plain = unpacker.decompress(compressed, _DATA_MAX)
    except (zlib.error, TypeError) as error:
        raise InvalidEvent(f"data_compressed does not unpack: {error}") from None
    # Stopped by the bound, or for want of more.
    if not unpacker.eof:
        long = len(plain) >= _DATA_MAX
        why = f"unpacks to more than {_DATA_MAX:,} bytes" if long else "is cut short"
        raise InvalidEvent(f"data_compressed {why}")
    return plain


def _number(database: sqlite3.Connection, event: object, columns: list[str]) -> int | None:
    """Return the number that the event of a row has now; None if there is none."""
    if event is None:
        return None
    query = f"SELECT {', '.join(columns)} FROM events WHERE id = ?"
    values = database.execute(query, [event]).fetchone()
    if values is None:
        return None
    try:
        row = _event_of(dict(zip(TABLES["events"], values, strict=True)))
    except InvalidEvent:
        return None
    return omega.number_of(row.get("source"), row["id"], None, None)


def _text(name: str, value: object) -> object:
    """Return a value of SQLite, text decoded. Raises InvalidEvent."""
    if not isinstance(value, bytes):
        return value
    try:
        decoded = value.decode()
    except UnicodeDecodeError:
        raise InvalidEvent(f"{name} is not UTF-8") from None
    return decoded if decoded or name not in ("timestamp", "created_at") else None


def _loose_json(loose: object) -> object:
    try:
        return parse_value(loose.encode()) if isinstance(loose, str) else loose
    except InvalidEvent:
        return loose


def _readable(value: object) -> object:
    """Return a value of SQLite as JSON can hold it: bytes that are no text in base64."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def _store(lake: Lake, path: str, table: str, rows: list[EventRow | InvalidRow]) -> int:
    """Store rows, mark those that were processed, quarantine the others; return how many."""
    events = [row for row in rows if isinstance(row, dict)]
    invalid = [row for row in rows if isinstance(row, InvalidRow)]
    numbers = [
        omega.number_of(event.get("source"), event["id"], None, None)
        for event in events
        if event.pop("marked", False)
    ]
    if events:
        lake.append(events)
    # Behind the events: after a kill between the two, the next import marks them. It is named by
    # what it says, so that the same rows are marked by one fact.
    if numbers:
        name = f"{omega.IMPORTED}:processed:{content_id({'ids': numbers})}"
        lake.append({"type": omega.PROCESSED, "id": name, "data": {"ids": numbers}})
    if invalid:
        query = "SELECT line FROM quarantine WHERE list_contains($1::VARCHAR[], line)"
        known_lines = {
            line for (line,) in lake.sql(query, [[row.text for row in invalid]]).fetchall()
        }
        origin = f"{os.path.abspath(path)}#{table}"
        lines = [(origin, r.number, r.reason, r.text) for r in invalid if r.text not in known_lines]
        if lines:
            lake.quarantine(lines)
    return len(invalid)
