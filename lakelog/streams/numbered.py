"""Streams whose events have a `number` in their payload, which only rises.

An append guesses the newest event of each of its streams; it expects their versions, so that a
wrong guess costs a look and never a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from lakelog.appends import StreamSubject
from lakelog.errors import WrongVersion
from lakelog.values import JsonObject

if TYPE_CHECKING:
    from lakelog.query import Relation

_KEPT = 10_000
AppendExpected = Callable[[list[JsonObject], Mapping[str, int]], Mapping[str, int]]
"""Appends events if streams have these versions, and returns those after it."""


class StreamHead(NamedTuple):
    """The newest event of a stream: its version, and its number, None without one."""

    version: int = 0
    number: int | None = None


class NumberedStreams:
    """Appends to such streams of one lake, and keeps the heads of those seen last."""

    def __init__(
        self, append: AppendExpected, ask: Callable[[str, list[object]], Relation]
    ) -> None:
        self._append, self._ask = append, ask
        self._heads: dict[str, StreamHead] = {}

    def append(self, events_after: Callable[[int], list[JsonObject]], counter: str) -> str | None:
        """Append what `events_after` makes of the last number of the stream `counter`, all or
        nothing; return the stream of a number that is not above those there, None if all is stored.
        """
        looked = set[str]()
        while events := events_after(self._guess(counter).number or 0):
            heads = {event["subject"]: self._guess(event["subject"]) for event in events}
            numbers = {name: head.number for name, head in heads.items()}
            repeated: str | None = None
            for event in events:
                subject, number = event["subject"], event["data"]["number"]
                if (newest := numbers[subject]) is not None and number <= newest:
                    repeated = subject
                numbers[subject] = number
            if repeated is None:
                try:
                    versions = self._append(events, {name: h.version for name, h in heads.items()})
                except WrongVersion as error:
                    self.look(error.subject)
                    continue
                if len(self._heads) > _KEPT:
                    self._heads.clear()
                self._heads |= {name: StreamHead(versions[name], numbers[name]) for name in heads}
                return None
            if repeated in looked:
                return repeated
            looked.add(repeated)
            self.look(repeated)
        return None

    def look(self, subject: str) -> StreamHead:
        """Return the head of a stream as it is now. Raises QueryFailed, Damaged."""
        query = (
            "SELECT position, CAST(data->>'$.number' AS BIGINT) FROM events"
            " WHERE subject = ? AND origin = ? ORDER BY position DESC LIMIT 1"
        )
        rows = self._ask(query, [subject, StreamSubject(subject).origin]).fetchall()
        self._heads[subject] = StreamHead(*rows[0]) if rows else StreamHead()
        return self._heads[subject]

    def _guess(self, subject: str) -> StreamHead:
        return self._heads.get(subject, StreamHead())
