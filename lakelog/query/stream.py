"""Stream: a query with a cursor of its own, which gives rows as the engine makes them.

Whoever leaves rows unread has to interrupt the engine first: what closes a result, be it an abort,
its end as garbage or that of the process, waits for the tasks of the query (DuckDB 2.0), and one
that finds no further row may take for ever.
"""

from __future__ import annotations

import atexit
import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from lakelog.engine.syntax import statements
from lakelog.libraries import duckdb, pa
from lakelog.runtime import forks
from lakelog.runtime.living import Living
from lakelog.segments import connection

ResultRow = tuple[Any, ...]
"""A row of a query; of which types its values are, the query says."""


class _Run:
    """Rows that a cursor is making. It can do nothing else until they are read or stopped."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor
        self._is_open = True
        self._rest: list[ResultRow] = []

    def read(self, size: int) -> list[ResultRow]:
        """The next rows, none at the end."""
        if not self._is_open:
            rows_before, self._rest = self._rest, []
            return rows_before
        rows: list[ResultRow] = self._cursor.fetchmany(size)
        self._is_open = bool(rows)
        return rows

    def settle(self) -> None:
        """Leave the cursor free for other work: what is not yet read waits in memory."""
        if self._is_open:
            self._is_open, self._rest = False, self._cursor.fetchall()

    def stop(self) -> None:
        """Leave the cursor free; nobody reads the rest."""
        if self._is_open:
            self._is_open = False
            self._cursor.interrupt()
            self._cursor.abort()


class Batches:
    """Batches of Arrow that a cursor is making; what is left unread is given up."""

    def __init__(self, stream: Stream, next_batch: Callable[[], pa.RecordBatch | None]) -> None:
        """`read` returns the next batch, None at the end."""
        self._stream, self._read, self._is_open = stream, next_batch, True
        stream.begin()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self

    def __next__(self) -> pa.RecordBatch:
        try:
            batch = self._read()
        except BaseException:  # a handler of signals may have ended the call, and not the query
            self._stop()
            raise
        self._is_open = batch is not None
        if batch is None:
            raise StopIteration
        return batch

    def __del__(self) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._is_open:
            self._is_open = False
            self._stream.interrupt()


class Stream:
    """A query with a cursor of its own, which can give its rows as they are made."""

    def __init__(
        self, cursor: duckdb.DuckDBPyConnection, query: str, params: object, *, is_one: bool = False
    ) -> None:
        """`is_one` if the query is known to be a single statement."""
        self._cursor, self.query, self._params = cursor, query, params
        self._is_one, self.prepared = is_one, ""  # what runs it where it was prepared
        self._run: _Run | None = None
        self.lease: weakref.finalize[..., object] | None = None
        """Returns the cursor for other queries, as long as it only runs this one."""
        self.complete: Callable[[], None] | None = None
        """Gives the cursor its tables whole: so far they are what `rows` needs, and no more."""
        self.held: object = None
        """What the engine reads by name, which nothing else keeps."""

    def rows(self) -> list[ResultRow] | None:
        """Run the query; None where that would run other statements again."""
        if not self._is_one:
            return None
        self.settle()
        if self.prepared:
            try:
                return list(self._cursor.execute(self.prepared).fetchall())
            except (duckdb.DataError, duckdb.ProgrammingError, duckdb.IOException):
                self.prepared = ""  # the query itself fails so, and shows where
                self._make_whole()
        return list(self._cursor.execute(self.query, self._params).fetchall())

    def relation(self) -> duckdb.DuckDBPyRelation:
        """The engine's relation, which uses the cursor for as long as it lives."""
        self._keep()
        connection.load_relations()
        return self._cursor.sql(self.query)

    def _keep(self) -> None:
        """Keep the cursor from other queries, with its tables whole."""
        if self.lease is not None:
            self.lease.detach()
        self._make_whole()

    def _make_whole(self) -> None:
        complete, self.complete = self.complete, None
        if complete is not None:
            self.prepared = ""
            complete()

    def start(self) -> _Run | None:
        """Run the query; None where that would run other statements again."""
        self.settle()
        self._keep()
        if not self._is_one and len(statements(self._cursor, self.query)) != 1:
            return None
        self.begin()
        self._cursor.execute(self.query, self._params or None)
        self._run = _Run(self._cursor)
        return self._run

    def begin(self) -> None:
        """Have the query ended with the process, if its rows are not read until then."""
        _register()
        _BEGUN.add(self)

    def settle(self) -> None:
        """Leave the cursor free for other work."""
        if self._run is not None:
            self._run.settle()
        self._run = None

    def watch(self) -> Callable[[], float | None]:
        """Have the engine tell how far it is; return what asks it, from any thread."""
        self.settle()
        self._keep()
        self._cursor.execute("SET enable_progress_bar = true")
        self._cursor.execute("SET enable_progress_bar_print = false")

        def share() -> float | None:
            percent: float = self._cursor.query_progress()
            return percent / 100 if percent >= 0 else None

        return share

    def interrupt(self) -> None:
        """Stop what the cursor does, from another thread."""
        self._cursor.interrupt()


_BEGUN: Living[Stream] = Living()


@functools.cache
def _register() -> None:
    """Interrupt at the end of the process, before the engine closes its results there: that is
    registered as it is loaded, and what came last runs first."""
    atexit.register(_interrupt_all)


def _interrupt_all() -> None:
    for stream in _BEGUN:
        stream.interrupt()


forks.after_in_child(_BEGUN.clear)
