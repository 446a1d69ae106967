"""Following a branch: its last events, then each new one once, in the order of arrival.

What is new is what `LivePages` has behind the position of the last look. A rewind moves that to
where the branch was taken back to; what had been given is not taken back.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import cast

from lakelog import arrays
from lakelog.entries import SegmentEntry
from lakelog.errors import QueryFailed
from lakelog.event import Event
from lakelog.libraries import pa
from lakelog.refs import Head
from lakelog.subscriptions.branch_access import BranchAccess
from lakelog.subscriptions.live_pages import BranchRewound, LivePages
from lakelog.subscriptions.position import LivePosition
from lakelog.wal import PendingFrames

_ROWS_MAX = 100_000
GAP = 0.02
"""Seconds between two looks for somebody who reads: most of the time is left to who stores."""


class Follower:
    """Reads one branch of a lake from its newest events on; `condition` is SQL over their columns.

    Raises QueryFailed for a condition that does not hold up.
    """

    def __init__(self, access: BranchAccess, condition: str | None = None) -> None:
        # An empty condition would be a syntax error far from where it was given.
        if condition is not None and not condition.strip():
            raise QueryFailed("the condition is empty")
        self._access = access
        self._pages = LivePages(access, condition)
        self._position: LivePosition | None = None
        self._seen: PendingFrames | None = None
        self.interrupt = self._pages.interrupt

    def last(self, count: int, others: Iterable[SegmentEntry] = ()) -> pa.Table:
        """Return the newest `count` events that match, in order; what comes later is new. `others`
        are segments that the branch may lack.

        Raises QueryFailed, Damaged, UnknownRef.
        """
        pending = self._pages.pending()
        # All of the tail: what matches may be anywhere in it.
        page = self._pages.page_behind(self._pages.end_of(pending.head), pending, 1 << 40)
        fresh = page.events.slice(max(page.events.num_rows - count, 0))
        state = self._access.state(pending.head)
        tables = [*self._pages.newest.last(state, count - fresh.num_rows, others), fresh]
        self._position, self._seen = page.place, pending
        return pa.concat_tables(tables)

    def start(self, head: Head) -> None:
        """Let what is new begin behind the published events of a head, with its whole tail."""
        self._position, self._seen = self._pages.end_of(head), None

    def more(self) -> Iterator[pa.Table | BranchRewound]:
        """Yield what came since: tables of events, and rewinds between them.

        Raises QueryFailed, Damaged, UnknownRef.
        """
        pending = self._pages.pending()
        # The very object: the tail is a new one whenever it has changed.
        if pending is not self._seen:
            yield from self._read(pending)
            self._seen = pending

    def published(self, head: Head) -> Iterator[pa.Table | BranchRewound]:
        """Yield what is new up to a head, and leave the tail above it for `more`.

        Raises QueryFailed, Damaged.
        """
        assert self._position is not None
        marks = self._position.marks
        # An empty tail, so that only what is published is given.
        yield from self._read(PendingFrames(head, {}, {}))
        self._position, self._seen = replace(self._position, marks=marks), None

    def _replaced(self, head: Head) -> Iterator[BranchRewound]:
        """Go on at a head, and yield what that is, if the branch never was where it was seen."""
        position, refs = self._position, self._access.store.refs
        assert position is not None
        if not refs.was_at(head, position.move, position.commit):
            # An older copy of the lake took its place: its numbers mean other events. What its tail
            # has of the events that were given is known by its writers.
            self._position = replace(self._pages.end_of(head), marks=position.marks)
            state = self._access.state(head)
            yield BranchRewound("restore", state.digest, state.totals.events)

    def _read(self, pending: PendingFrames) -> Iterator[pa.Table | BranchRewound]:
        yield from self._replaced(pending.head)
        is_end = False
        while not is_end:
            assert self._position is not None
            page = self._pages.page_behind(self._position, pending, _ROWS_MAX)
            self._position, is_end = page.place, page.is_end
            if page.rewound is not None:
                yield page.rewound
            elif page.events.num_rows:
                yield page.events

    def looks(
        self, stop: threading.Event, pause: Callable[[], float], gap: float = 0.0
    ) -> Iterator[list[pa.Table | BranchRewound]]:
        """Yield what came since, at once and then when something arrives, and nothing when the
        seconds are over that `pause` returns; until `stop` is set. `gap` are seconds between what
        comes and the next look. Raises as `more`."""
        for is_due in self._access.signal.looks(stop, pause):
            news = list(self.more()) if is_due else []
            yield news
            if news and gap:
                stop.wait(gap)

    def events(self, stop: threading.Event, pause: float, timeout: float | None) -> Iterator[Event]:
        """Yield each event that arrives from this call on, until `stop` is set, or for `timeout`
        seconds no event came. Raises as `more`, and QueryFailed at once."""
        self.last(0)  # which marks the present end, so that only later events follow
        return self._events_until(stop, pause, math.inf if timeout is None else timeout)

    def _events_until(self, stop: threading.Event, pause: float, timeout: float) -> Iterator[Event]:
        since = time.monotonic()

        def seconds() -> float:
            return min(pause, max(since + timeout - time.monotonic(), 0.0))

        for tables in self.looks(stop, seconds, GAP):
            # A rewind is no event.
            for table in tables:
                events = [] if isinstance(table, BranchRewound) else arrays.records(table)
                for event in cast("list[Event]", events):
                    if stop.is_set():
                        return
                    yield event
                    since = time.monotonic()  # the time that the caller took does not count
            if time.monotonic() - since >= timeout:
                return
