"""Cursors whose views are made already, for the next query that reads the same segments.

To make the views of a state takes longer than many a query over them. A cursor comes back once
nobody holds the answer that it was made for, and only if it did nothing but give that answer.
"""

from __future__ import annotations

import collections
import weakref
from typing import TYPE_CHECKING

from lakelog.libraries import duckdb
from lakelog.query.stream import Stream
from lakelog.segments import connection

if TYPE_CHECKING:
    from lakelog.query.lake_tables import LakeTables
    from lakelog.query.sql.table_sql import View
_PREPARED_MAX = 256
_KEPT = 8
"""So many cursors wait at most; each may hold a tail that is no longer the newest."""


class CursorPool:
    """Cursors that nobody uses now. Its owner calls it under a lock."""

    def __init__(self, tables: LakeTables) -> None:
        self._tables = tables
        self._idle: list[tuple[tuple[object, ...], list[View], duckdb.DuckDBPyConnection]] = []
        # Answers are freed by any thread at any moment, which must not wait for a lock.
        self._returned: collections.deque[
            tuple[tuple[object, ...], list[View], duckdb.DuckDBPyConnection]
        ] = collections.deque(maxlen=_KEPT)

    def _take(self, views: list[View]) -> duckdb.DuckDBPyConnection | None:
        """Return a cursor that has just these views, or None."""
        while self._returned:
            self._idle.append(self._returned.popleft())
        del self._idle[:-_KEPT]
        view_key = _key(views)
        for place, (key, _, cursor) in enumerate(self._idle):
            if key == view_key:
                del self._idle[place]
                return cursor
        return None

    def with_views(self, views: list[View]) -> duckdb.DuckDBPyConnection:
        """Return a cursor that has just these views, whose segments are verified: an idle one, or a
        fresh one on which they are made."""
        cursor = self._take(views)
        if cursor is None:
            cursor = connection.segment_cursor(self._tables.engine())
            self._tables.make(cursor, views)
            return cursor
        for view in views:
            self._tables.verify(view.entries)
        return cursor

    def give_back(self, views: list[View], cursor: duckdb.DuckDBPyConnection) -> None:
        """Take back a cursor whose answer was read."""
        self._returned.append((_key(views), views, cursor))

    def lend(
        self, views: list[View], cursor: duckdb.DuckDBPyConnection, holder: object
    ) -> weakref.finalize[..., object]:
        """Take a cursor back when `holder` is freed, unless the result is detached before."""
        back = weakref.finalize(holder, self._returned.append, (_key(views), views, cursor))
        back.atexit = False  # it would only delay the exit
        return back


class QueryCursors:
    """Cursors for queries. One that was found right is not bound again before it runs: the columns
    of the lake's own tables are the same in every state. Its owner calls it under a lock."""

    def __init__(self, tables: LakeTables) -> None:
        self._pool = CursorPool(tables)
        self._prepared: set[str] = set()

    def forget_prepared(self) -> None:
        """Bind all queries again: a statement may have replaced what they read."""
        self._prepared.clear()

    def constant(self, query: str) -> Stream:
        """Return a query that reads no table."""
        return self._stream(query, [], self._pool.with_views([]))

    def stream(self, query: str, views: list[View], *, is_once: bool = False) -> Stream | None:
        """Return a query with a cursor that has these views, None if the engine finds it wrong;
        `is_once` if its text will not come again."""
        cursor = self._pool.with_views(views)
        if query in self._prepared:
            return self._stream(query, views, cursor)
        try:
            cursor.execute(f"PREPARE lakelog_query AS {query}")
        except duckdb.Error:
            return None  # whoever asks for a relation is told what is wrong
        if not is_once:
            if len(self._prepared) > _PREPARED_MAX:
                self._prepared.clear()
            self._prepared.add(query)
        stream = self._stream(query, views, cursor)
        stream.prepared = "EXECUTE lakelog_query"
        return stream

    def _stream(self, query: str, views: list[View], cursor: duckdb.DuckDBPyConnection) -> Stream:
        stream = Stream(cursor, query, None, is_one=True)
        stream.lease = self._pool.lend(views, cursor, stream)
        return stream


def _key(views: list[View]) -> tuple[object, ...]:
    return tuple(view.key for view in views)
