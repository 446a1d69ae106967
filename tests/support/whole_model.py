"""The model of the random histories of all entrances: events, and what a state holds of them."""

from __future__ import annotations

import dataclasses
import datetime
from collections import Counter
from collections.abc import Collection
from typing import Any

SUBJECTS = ["ada", "bob", "čeněk", "x'y", ""]
TYPES = ["COMPLETE", "FAIL", "note"]
SOURCES = ["web", "db 1", None]
IDS = [f"id{n}" for n in range(12)]
READERS = """SELECT (data->>'n')::INT, type, source, subject, id, epoch_us(time), message
    FROM {table}
 WHERE data->>'n' IS NOT NULL"""


@dataclasses.dataclass(frozen=True)
class Event:
    """One event, as SQL has to give it."""

    number: int
    type: str
    source: str | None
    subject: str | None
    id: str | None
    time: int
    """Microseconds of the epoch."""
    message: str = ""
    """Two words: one of its type, and one that nobody else has."""

    @property
    def row(self) -> tuple[Any, ...]:
        """What READERS give."""
        return dataclasses.astuple(self)

    @property
    def payload(self) -> dict[str, Any]:
        """Its number, a word that some lakes protect, and what it has in common with others."""
        return {"n": self.number, "word": f"secret{self.number:05}", "shard": self.shard}

    @property
    def shard(self) -> int:
        """What it has in common with others of its type and subject."""
        return self.number % 3

    def is_one_of(self, chosen: Collection[str | int]) -> bool:
        """Whether it is of one of some subjects, or has one of some numbers."""
        return self.number in chosen or self.subject in chosen

    @property
    def record(self) -> dict[str, Any]:
        """The event as it is appended."""
        stamp = datetime.datetime.fromtimestamp(self.time / 1e6, datetime.UTC)
        record: dict[str, Any] = {"type": self.type, "time": stamp.isoformat()}
        record |= {"message": self.message, "data": self.payload}
        optional = {"source": self.source, "subject": self.subject, "id": self.id}
        return record | {name: value for name, value in optional.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class State:
    """What one state of a branch holds."""

    events: frozenset[Event] = frozenset()
    ids: frozenset[tuple[str | None, str]] = frozenset()
    """Sources and ids that are known."""
    streams: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """The numbers of the versioned events of each subject."""
    lines: tuple[tuple[str, int], ...] = ()
    """How many lines of each file came in."""
    handled: frozenset[Event] = frozenset()
    """What the subscriber of this state was handed out."""
    reacted: frozenset[Event] = frozenset()
    """What the one that answers was handed out, and of it what it gave up."""
    dead: frozenset[Event] = frozenset()
    consumed: frozenset[Event | str] = frozenset()
    """Messages that were consumed."""
    posts: frozenset[str] = frozenset()
    """Names of requests that were stored."""
    bad: frozenset[str] = frozenset()
    """Lines in quarantine."""

    def add(self, *events: Event) -> State:
        """Return the state with events that are not known by their ids."""
        held, ids = set(self.events), set(self.ids)
        for event in events:
            if event.id is None or (event.source, event.id) not in ids:
                held.add(event)
                ids |= {(event.source, event.id)} if event.id is not None else set()
        return dataclasses.replace(self, events=frozenset(held), ids=frozenset(ids))

    def refuse(self, *lines: str) -> State:
        """Return the state with more lines in quarantine."""
        return dataclasses.replace(self, bad=self.bad | set(lines))

    def without(self, gone: frozenset[Event]) -> State:
        """Return the state without events; the ids of those stay known."""
        return dataclasses.replace(self, events=self.events - gone)


def same(found: Any, wanted: Any, where: object = "") -> None:
    """Raise AssertionError that says how two answers differ."""
    if isinstance(wanted, Counter):
        lost, more = list((wanted - found).elements()), list((found - wanted).elements())
        assert (lost, more) == ([], []), f"{where}: lost {lost[:3]}, more {more[:3]}"
    assert found == wanted, f"{where}: {found}, not {wanted}"
