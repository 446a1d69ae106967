"""The members of an event, for type checkers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol, Required, TypedDict


class Event(TypedDict, total=False):
    """An event as a dict: what append takes, and what a tail gives back."""

    time: datetime | str
    type: Required[str]
    category: str | None
    source: str | None
    subject: str | None
    level: str | None
    message: str | None
    data: Any
    id: str | None


class ArrowStream(Protocol):
    """Anything that exports rows as Arrow does: tables and frames of pyarrow, Polars, pandas."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return a capsule with the stream."""


Events = (
    Event | Mapping[str, object] | Iterable[Event] | Iterable[Mapping[str, object]] | ArrowStream
)
"""What append takes: one event, many, or a table."""
