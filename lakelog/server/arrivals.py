"""What a body turned out to hold: events, encoded for the WAL, and records that are none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from lakelog.errors import InvalidEvent, LakelogError
from lakelog.event import EncodedBatch

LINE_MAX = 1 << 20
"""Bytes of a refused record that are kept."""


_ENCODED = 10_000
"""Events that are encoded together: their lines take a kilobyte each until they are joined."""


class RequestRefused(LakelogError):
    """A request is answered with an error of HTTP; `headers` go with it."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers or {}


@dataclass(frozen=True)
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

    @property
    def stored(self) -> int:
        """How many events are stored."""
        return len(self.encoded.ids)


def arrivals_of(events: list[Any], rejects: Iterable[Reject] = ()) -> Arrivals:
    """Encode the events of a body; those that cannot be stored join the refused ones."""
    starts = range(0, len(events), _ENCODED) or (0,)
    arrivals = joined([(start, _encoded(events[start : start + _ENCODED])) for start in starts])
    arrivals.rejects = [*rejects, *arrivals.rejects]
    return arrivals


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


def as_text(value: object) -> str:
    """A record as the quarantine keeps it; bytes that are no UTF-8 as escapes."""
    if isinstance(value, bytes):
        return value[:LINE_MAX].decode("utf-8", "backslashreplace")
    return repr(value)[:LINE_MAX]
