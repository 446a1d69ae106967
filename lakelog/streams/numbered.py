"""Streams whose events have a `number` in their payload, which only rises.

An append guesses the newest event of each of its streams; it expects their versions, so that a
wrong guess costs a look and never a number. Where retention removed all events of a counter, it
goes on above all numbers that so many appends can have given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from lakelog.appends import EVENTS_MAX, StreamSubject
from lakelog.errors import WrongVersion
from lakelog.query import Relation
from lakelog.refs import Head, Refs, only_grew
from lakelog.values import JsonObject

_KEPT = 10_000
AppendExpected = Callable[[list[JsonObject], Mapping[str, int]], Mapping[str, int]]
"""Appends events if streams have these versions, and returns those after it."""


class StreamHead(NamedTuple):
    """The newest event of a stream: its version, and its number, None without one."""

    version: int = 0
    number: int | None = None

    @property
    def last_number(self) -> int:
        """The last number of a counter, or one above it where the event is not there."""
        return self.version * EVENTS_MAX if self.number is None else self.number

    def may_precede(self, number: int, *, is_next: bool) -> bool:
        """Whether an event of this number may come behind it, if need be as the next one."""
        if self.number is None:
            # The first event, or the one after those that retention removed.
            return not is_next or number <= 1 or self.version > 0
        return number == self.number + 1 if is_next else number > self.number


class NumberedStreams:
    """Appends to such streams of one lake, and keeps the heads of those seen last."""

    def __init__(
        self,
        append: AppendExpected,
        ask: Callable[[str, list[object]], Relation],
        version: Callable[[str], int],
        head: Callable[[], Head],
        refs: Refs,
    ) -> None:
        """`version` returns that of a stream, and `head` that of the branch, which `refs` have."""
        self._append, self._ask, self._version = append, ask, version
        self._head_now, self._refs = head, refs
        self._heads: dict[str, StreamHead] = {}
        self._head: Head | None = None

    def append(
        self, events_after: Callable[[int], list[JsonObject]], counter: str, steady: str
    ) -> str | None:
        """Append what `events_after` makes of the last number of the stream `counter`, all or
        nothing; return the stream of a number that may not come now, None if all is stored. Each
        number of streams that begin with `steady` is the one before and 1.
        """
        looked, earlier, self._head = set[str](), self._head, self._head_now()
        if not only_grew(self._refs, self._head, earlier):
            # The versions that a rollback took, or that a restored backup lacks, are given again,
            # with other numbers.
            self._heads.clear()
        while events := events_after((newest := self._guess(counter)).last_number):
            heads = {event["subject"]: self._guess(event["subject"]) for event in events}
            # The one that they are numbered by: another thread may have gone on since.
            if counter in heads:
                heads[counter] = newest
            ends = dict(heads)
            refused: str | None = None
            for event in events:
                subject, number = event["subject"], event["data"]["number"]
                is_next = subject.startswith(steady)
                if not ends[subject].may_precede(number, is_next=is_next):
                    refused = subject
                ends[subject] = ends[subject]._replace(number=number)
            if refused is None:
                try:
                    versions = self._append(events, {name: h.version for name, h in heads.items()})
                except WrongVersion as error:
                    head = self.look(error.subject)
                    # The events of its last versions may have been removed by retention.
                    version = max(head.version, error.actual)
                    self._heads[error.subject] = head._replace(version=version)
                    continue
                if len(self._heads) > _KEPT:
                    self._heads.clear()
                self._heads |= {n: h._replace(version=versions[n]) for n, h in ends.items()}
                return None
            if refused in looked:
                return refused
            looked.add(refused)
            self.look(refused)
        return None

    def look(self, subject: str) -> StreamHead:
        """Return the head of a stream as it is now. Raises QueryFailed, Damaged."""
        query = (
            "SELECT position, CAST(data->>'$.number' AS BIGINT) FROM events"
            " WHERE subject = ? AND origin = ? ORDER BY position DESC LIMIT 1"
        )
        rows = self._ask(query, [subject, StreamSubject(subject).origin]).fetchall()
        # Without a row its events may have been removed by retention.
        self._heads[subject] = StreamHead(*(rows[0] if rows else [self._version(subject)]))
        return self._heads[subject]

    def _guess(self, subject: str) -> StreamHead:
        return self._heads.get(subject, StreamHead())
