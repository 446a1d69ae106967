"""Cursors whose views are made already, for the next query that reads the same segments.

To make the views of a state takes longer than many a query over them. A cursor comes back once
nobody holds the answer that it was made for, and only if it did nothing but give that answer.
"""

from __future__ import annotations

import collections
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lakelog.query.sql.table_sql import View
    from lakelog.store.entry import SegmentEntry

_KEPT = 8
"""So many cursors wait at most; each may hold a tail that is no longer the newest."""


class CursorPool:
    """Cursors that nobody uses now. Its owner calls it under a lock."""

    def __init__(self) -> None:
        self._idle: list[tuple[tuple[Any, ...], list[View], Any]] = []
        # Answers are freed by any thread at any moment, which must not wait for a lock.
        self._returned: collections.deque[tuple[tuple[Any, ...], list[View], Any]] = (
            collections.deque(maxlen=_KEPT)
        )

    def take(self, views: list[View]) -> Any:
        """Return a cursor that has just these views, or None."""
        while self._returned:
            self._idle.append(self._returned.popleft())
        del self._idle[:-_KEPT]
        wanted = _key(views)
        for place, (key, _, cursor) in enumerate(self._idle):
            if key == wanted:
                del self._idle[place]
                return cursor
        return None

    def with_views(
        self,
        views: list[View],
        fresh: Callable[[], Any],
        verify: Callable[[list[SegmentEntry]], None],
        make: Callable[[Any, list[View]], None],
    ) -> Any:
        """Return a cursor that has just these views, whose segments it verifies: an idle one, or a
        fresh one on which it makes them."""
        cursor = self.take(views)
        for view in views if cursor else ():
            verify(view.entries)
        if cursor is None:
            cursor = fresh()
            make(cursor, views)
        return cursor

    def give_back(self, views: list[View], cursor: Any) -> None:
        """Take back a cursor whose answer was read."""
        self._returned.append((_key(views), views, cursor))

    def lend(self, views: list[View], cursor: Any, holder: object) -> weakref.finalize[..., Any]:
        """Take a cursor back when `holder` is freed, unless the result is detached before."""
        back = weakref.finalize(holder, self._returned.append, (_key(views), views, cursor))
        back.atexit = False  # it would only delay the exit
        return back


def _key(views: list[View]) -> tuple[Any, ...]:
    return tuple(view.key for view in views)
