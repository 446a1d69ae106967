"""Rows of `events` that come back as events: what a lake assigns to each is assigned again.

Only a row of exactly the columns of `events` is one; elsewhere `position` or `origin` is data. That
is the rule of every way in: Parquet, Arrow, JSON lines, CSV, and `append`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from datetime import datetime

from lakelog.errors import InvalidEvent
from lakelog.values import JsonObject, parse_value

GIVEN_COLUMNS = ("time", "type", "category", "source", "subject", "level", "message", "data", "id")
"""Columns of an event."""
_ASSIGNED = ("ingested_at", "origin", "position")
EVENT_COLUMNS = (*GIVEN_COLUMNS, *_ASSIGNED)
"""Columns of a row, as they are stored."""
_OWN = (*_ASSIGNED, "seq")
"""Columns that a lake assigns; an event that moves to another lake gets new values."""
_EXPORTED = (frozenset(EVENT_COLUMNS), frozenset((*EVENT_COLUMNS, "seq")))


def assigned_columns(names: Iterable[str]) -> tuple[str, ...]:
    """Return the columns that a lake assigned, if these are all of `events` or of a segment; of any
    others none."""
    return _OWN if frozenset(names) in _EXPORTED else ()


def as_event(row: Mapping[str, object]) -> JsonObject:
    """Return the event of an exported row. One that Python read from a lake has its times as
    datetimes, and its payload as JSON text; one that JSON had in between has values."""
    event = {name: row[name] for name in GIVEN_COLUMNS}
    if isinstance(row["ingested_at"], datetime):
        event["data"] = payload(event["data"])
    return event


def payload(value: object) -> object:
    """Return the value of a payload as a table has it: JSON text is JSON, any other is text."""
    if isinstance(value, str):
        with contextlib.suppress(InvalidEvent, UnicodeEncodeError):
            return parse_value(value.encode())
    return value
