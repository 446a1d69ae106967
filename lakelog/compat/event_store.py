"""The older event store under its old name: `EventDatabase`, on a lake.

    database = EventDatabase("events")
    number = database.store_event({"event_type": "mutation", "action": "create", "data": {...}})
    database.get_events(event_type="mutation", limit=10)

An event has `event_type` (or type), and as a rule `timestamp` (seconds since 1970, ISO 8601 or a
datetime), `action`, `source` and `data`; further members go into data. An event without an id is
given one that is made of its content, so that an equal event is the same one: it is stored once
and has the same number. A time that the caller did not give is no part of the content.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import orjson

from lakelog import lake as lakes
from lakelog.compat import omega
from lakelog.compat.omega import EventRow
from lakelog.errors import InvalidEvent, InvalidSetting, LakeNotFound
from lakelog.event import EncodedBatch, gather
from lakelog.lake import Lake
from lakelog.runtime.lazy import Lazy
from lakelog.store import Store
from lakelog.values import JsonObject, kind, parse_time, spell_numbers, to_json

if TYPE_CHECKING:
    from lakelog.compat import lookups
else:
    lookups = Lazy("lakelog.compat.lookups")

DEFAULT_PATH = "events"
RETENTION_DAYS = 30
EventTime = datetime | str | float | None
_NAMES = {"timestamp": "time", "event_type": "type"}
_COLUMNS = frozenset(("timestamp", "event_type", "source"))
# The first bytes of every SQLite database, by its file format.
_SQLITE = b"SQLite format 3\0"


class EventDatabase:
    """The events of a lake under the names of the older store. Threads and processes may share it.

    `db_path` is a lake's directory, which is created, or an open lake. Use it as a context manager,
    or call `close`. Raises LakeNotFound for an SQLite database: `lakelog events import-sqlite`
    reads it.
    """

    def __init__(self, db_path: str | os.PathLike[str] | Lake = DEFAULT_PATH) -> None:
        self._is_given = isinstance(db_path, Lake)
        self.lake: Lake = db_path if isinstance(db_path, Lake) else open_lake(os.fspath(db_path))
        self._lookups: lookups.Lookups | None = None

    def store_event(self, event: Mapping[str, object]) -> int:
        """Store an event durably and return its number; an equal one is stored once.

        Raises InvalidEvent, OSError.
        """
        return self.store_events_batch([event])[0]

    def store_events_batch(self, events: Iterable[Mapping[str, object]]) -> list[int]:
        """Store events durably and return their numbers; if one is invalid, none is stored.

        Raises InvalidEvent with the place of the event at fault, OSError.
        """
        batch, rows = encode_events(list(events))
        if rows:
            # Only what became an event is appended: with none there is no frame to write.
            self.lake.append_encoded(batch)
        return [
            # Of an odd source the column has the text that was written.
            omega.number_of(_source(row, line), id_, None, None)
            for row, line, id_ in zip(rows, batch.lines, batch.ids, strict=True)
        ]

    def get_events(
        self,
        start_time: EventTime = None,
        end_time: EventTime = None,
        event_type: str | None = None,
        limit: int = 1000,
    ) -> list[EventRow]:
        """Return the newest events of a time and a type, newest first.

        A row has the columns of `omega.events`, and `data`, which is `data_json` parsed. Raises
        InvalidEvent for a time that is none, InvalidSetting for a limit below 1.
        """
        start, end = (
            None if t is None else parse_time(t).timestamp() for t in (start_time, end_time)
        )
        # The table's own answer: this and the lake's views must not differ.
        rows = self._table().between(start, end, event_type, limit=limit)
        return [row | {"data": _parsed(row["data_json"])} for row in rows]

    def get_event(self, number: int) -> EventRow | None:
        """Return the event of a number, or None."""
        row = self._table().find(number)
        return None if row is None else row | {"data": _parsed(row["data_json"])}

    def get_database_stats(self) -> JsonObject:
        """Return total_events, event_types {type: count}, oldest and newest (seconds), processed,
        database_size_mb and database_path."""
        return {**self._table().stats(), "database_path": self.lake.path}

    def mark_processed(self, ids: Iterable[int]) -> int:
        """Mark events as processed by their numbers; return how many.

        That appends a fact, and changes none; marking an event again has no further effect.
        """
        # Checked before anything is appended: a number that is none would be there for good.
        numbers = [_number(value) for value in ids]
        if numbers:
            self.lake.append({"type": omega.PROCESSED, "data": {"ids": numbers}})
        return len(numbers)

    def cleanup_old_events(
        self, days_to_keep: float = RETENTION_DAYS, *, at_once: bool = False
    ) -> int:
        """Remove events older than some days; return how many.

        `lakelog undo` brings them back, and their space is free once the kept history does not
        reach back to them. With `at_once` it is free now: then no earlier state of the branch can
        be gone back to, but for tags. Raises InvalidSetting for a number of days not above 0.
        """
        # By the lake's clock, as for every retention.
        removed = self.lake.retention(f"{_days(days_to_keep)}d", apply=True).events
        if at_once:
            self.lake.expire(f"cleanup of events older than {days_to_keep:g} days")
        return removed

    def close(self) -> None:
        """Close the lake, unless it was given open."""
        if not self._is_given:
            self.lake.close()

    def _table(self) -> lookups.Lookups:
        if self._lookups is None:
            self._lookups = lookups.Lookups(self.lake)
        return self._lookups

    def __enter__(self) -> EventDatabase:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_lake(path: str) -> Lake:
    """Open or create the lake of a path. Raises LakeNotFound for an SQLite database."""
    # SQLite databases of the older store are one file, where a lake is a directory.
    if os.path.isfile(path) and not Store.is_lake(path):
        with open(path, "rb") as file:
            is_sqlite = file.read(len(_SQLITE)) == _SQLITE
        kind_of_file = "an SQLite database" if is_sqlite else "a file"
        how = f": import it with `lakelog events import-sqlite {path}`," if is_sqlite else ":"
        raise LakeNotFound(
            f"{path} is {kind_of_file}, not a lake{how} name a directory for the lake"
        )
    return lakes.open(path)


def encode_events(events: list[object]) -> tuple[EncodedBatch, list[EventRow]]:
    """Return events as lines for a writer, and their rows. Raises InvalidEvent."""
    rows = []
    for index, event in enumerate(events):
        try:
            rows.append(identified(event))
        except InvalidEvent as error:
            raise InvalidEvent(error.reason, index) from None
    return EncodedBatch.of(rows), rows


def identified(event: object) -> EventRow:
    """Return an event under lakelog's names, with its id or one of its content.

    Raises InvalidEvent for what is no mapping, or cannot be JSON.
    """
    if not isinstance(event, Mapping):
        raise InvalidEvent(f"an event is a dict with an event_type, not {kind(event)}")
    row = dict(event)
    action, data = row.pop("action", None), row.pop("data", None)
    # Flat, the data's own action could not be told from that of the event, nor data of the one
    # member `data` from data that is wrapped.
    is_flat = type(data) is dict and "action" not in data and data.keys() != {"data"}
    if action is not None and is_flat:
        data = {**data, "action": action}
    elif action is not None and data is None:
        data = {"action": action}
    elif action is not None or (isinstance(data, Mapping) and "action" in data):
        data = {"action": action, "data": data}
    # Most events have only members that are columns: for them there is nothing to gather.
    if row.keys() <= _COLUMNS:
        row = {_NAMES.get(name, name): value for name, value in row.items()}
    else:
        row = gather({**row, "data": data})
        data = row.pop("data", None)
    # Null is the same as missing, and has to give the same id.
    row = {name: value for name, value in row.items() if value is not None}
    if "time" in row:
        # One spelling of a moment, so that equal events have equal ids.
        row["time"] = f"{parse_time(row['time']).replace(tzinfo=None).isoformat()}Z"
    if not row.get("id"):
        row["id"] = content_id(row if data is None else {**row, "data": data})
    # Last, where the encoder expects it.
    if data is not None:
        row["data"] = data
    return row


def content_id(row: EventRow) -> str:
    """Return 32 hex digits of an event's content."""
    # Sorted keys: the order of members is no part of the content.
    try:
        canonical = orjson.dumps(row, option=orjson.OPT_SORT_KEYS)
        # Also what orjson makes of NaN: it must not equal a null.
        if b"null" in canonical:
            canonical = orjson.dumps(spell_numbers(row), option=orjson.OPT_SORT_KEYS)
    except TypeError:
        try:
            canonical = orjson.dumps(to_json(row), option=orjson.OPT_SORT_KEYS)
        except RecursionError:
            raise InvalidEvent("data is nested too deeply") from None
        except TypeError as error:
            raise InvalidEvent(f"not JSON: {error}") from None
    return hashlib.sha256(canonical).hexdigest()[:32]


def _source(row: EventRow, line: bytes) -> str | None:
    source = row.get("source")
    if source is None or type(source) is str:
        return source
    event_source: str | None = orjson.loads(line).get("source")
    return event_source


def _parsed(payload: str | None) -> object:
    # Not orjson, which makes a float of an integer beyond 64 bits.
    try:
        return None if payload is None else json.loads(payload)
    except ValueError:
        return payload


def _number(value: object) -> int:
    # bool is an int, and no number of an event.
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise InvalidEvent(f"{value!r} is no number of an event: store_event returns it")
    return value


def _days(days: float) -> str:
    if isinstance(days, bool) or not isinstance(days, (int, float)) or not 0 < days < 10**6:
        raise InvalidSetting(f"days to keep are a number above 0, not {days!r}")
    return f"{days:f}"
