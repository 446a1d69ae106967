"""What a body turned out to hold: events, encoded for the WAL, and records that are none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from lakelog.errors import InvalidEvent, LakelogError
from lakelog.event import EncodedBatch
from lakelog.server.limits import ServerLimits
from lakelog.values import to_json

LINE_MAX = 1 << 20
"""Bytes of a refused record that are kept."""


_ENCODED = 10_000
"""Events that are encoded together: their lines take a kilobyte each until they are joined."""


class RequestRefused(LakelogError):
    """A request is answered with an error of HTTP; `headers` go with it."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers or {}


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that is no event: its number in the body, counted from 0, why, and its text."""

    number: int
    reason: str
    record: str


@dataclass
class Arrivals:
    """The events of one body, and its records that are none."""

    encoded: EncodedBatch
    rejects: list[Reject] = field(default_factory=list)
    erased: int = field(default=0, kw_only=True)
    """Events that were left out, as they were erased."""

    @property
    def stored(self) -> int:
        """How many events are stored."""
        return len(self.encoded.ids)


class RecordReader:
    """Reads the records of a body one by one: those that are events, and those that are none.

    Each keeps its number and what was sent: some turn out to be no event only once they are
    encoded, and the answer has to name the same record then.
    """

    def __init__(self) -> None:
        self._events: list[Any] = []
        self._records: list[tuple[int, object]] = []
        self._rejects: list[Reject] = []

    def read(self, number: int, record: Any, event_of: Callable[[Any], object]) -> None:
        """Take a record as the event that `event_of` makes of it, or as refused where that raises
        InvalidEvent."""
        try:
            event = event_of(record)
        except InvalidEvent as error:
            self.refuse(number, error.reason, record)
        else:
            self.accept(number, record, event)

    def accept(self, number: int, record: object, event: object) -> None:
        """Take a record as the event that it was read as. Raises RequestRefused."""
        require_few(number + 1)
        self._events.append(event)
        self._records.append((number, record))

    def refuse(self, number: int, reason: str, record: object) -> None:
        """Take a record as one that is no event. Raises RequestRefused."""
        require_few(number + 1)
        self._rejects.append(Reject(number, reason, as_text(record)))

    def arrivals(self) -> Arrivals:
        """Return what was read, encoded; the refused records in their order."""
        arrivals = arrivals_of(self._events)
        for reject in arrivals.rejects:
            number, record = self._records[reject.number]
            self.refuse(number, reject.reason, record)
        arrivals.rejects = sorted(self._rejects, key=lambda reject: reject.number)
        return arrivals


def arrivals_of(events: list[Any]) -> Arrivals:
    """Encode the events of a body; those that cannot be stored are refused, numbered as events.
    Raises RequestRefused for too many."""
    require_few(len(events))
    starts = range(0, len(events), _ENCODED) or (0,)
    return joined([(start, _encoded(events[start : start + _ENCODED])) for start in starts])


def _encoded(events: list[Any]) -> Arrivals:
    try:
        return Arrivals(EncodedBatch.of(events))
    except InvalidEvent:
        pass
    # One by one only now: nearly all bodies have no fault, and are encoded once.
    accepted, rejects = [], []
    for number, event in enumerate(events):
        try:
            EncodedBatch.of([event])
        except InvalidEvent as error:
            rejects.append(Reject(number, error.reason, as_text(event)))
        else:
            accepted.append(event)
    return Arrivals(EncodedBatch.of(accepted), rejects)


def joined(slices: list[tuple[int, Arrivals]]) -> Arrivals:
    """The arrivals of slices of one body, each with the number of its first record."""
    if len(slices) == 1:
        return slices[0][1]
    batches = [arrivals.encoded for _, arrivals in slices if arrivals.stored]
    encoded = EncodedBatch(
        b"\n".join(batch.text for batch in batches),
        [name for batch in batches for name in batch.ids],
        any(batch.keyed for batch in batches),
    )
    rejects = [
        replace(reject, number=first + reject.number)
        for first, arrivals in slices
        for reject in arrivals.rejects
    ]
    return Arrivals(encoded, rejects)


def require_few(records: int) -> None:
    """Refuse a body for the number of its records: in memory each takes up to a kilobyte, however
    short it was sent. Raises RequestRefused."""
    most = ServerLimits.document_records
    if records > most:
        raise RequestRefused(413, f"the body has more than {most:,} records: send it in parts")


def as_text(value: object) -> str:
    """A record as the quarantine keeps it: as JSON, or bytes that are no UTF-8 as escapes."""
    if isinstance(value, bytes):
        return value[:LINE_MAX].decode("utf-8", "backslashreplace")
    with suppress(RecursionError, TypeError, LakelogError):
        return orjson.dumps(to_json(value)).decode()[:LINE_MAX]
    try:
        return repr(value)[:LINE_MAX]
    except RecursionError:
        return "a value that is nested too deeply to be shown"
