"""Stream: a query with a cursor of its own, which gives rows as the engine makes them.

To make the views of a state takes longer than many a query over them. So a cursor is kept for the
next query that reads the same segments: it comes back once nobody holds the answer that it was made
for, and only if it did nothing but give that answer (CursorPool).

Python runs the handlers of signals between two bytecodes, so during a native call none runs, and
Ctrl-C would be heard when the call is over. While the engine works in the main thread, another
thread waits for what the interpreter writes to the wakeup descriptor (signal.set_wakeup_fd) and
interrupts the engine. It is kept for the next call, for starting one each time takes longer than a
short query (interrupting).

Whoever leaves rows unread has to interrupt the engine first: what closes a result, be it an abort,
its end as garbage or that of the process, waits for the tasks of the query (DuckDB 2.0), and one
that finds no further row may take for ever.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import functools
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, cast

from lakelog import database
from lakelog.engine.syntax import ParsedStatement
from lakelog.libraries import duckdb, pa
from lakelog.query.lake_tables import LakeTables
from lakelog.query.sql.table_sql import View
from lakelog.runtime import forks
from lakelog.runtime.living import Living

ResultRow = tuple[Any, ...]
"""A row of a query; of which types its values are, the query says."""


READING: Living[object] = Living()
"""What has rows of the engine, perhaps half read. A child of a fork must not free it: it would wait
for ever for threads of its parent, which make the rest."""


class _Run:
    """Rows that a cursor is making. It can do nothing else until they are read or stopped."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor
        self._is_open, self._pid = True, os.getpid()
        self._rest: list[ResultRow] = []

    def read(self, size: int) -> list[ResultRow]:
        """The next rows, none at the end."""
        # What was settled waits in one piece.
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
        # What a parent has begun is its own: in a child nobody would end it.
        if self._is_open and self._pid == os.getpid():
            self._is_open = False
            # Interrupted first: abort waits for the tasks that still run.
            self._cursor.interrupt()
            self._cursor.abort()


class Batches:
    """Batches of Arrow that a cursor is making; what is left unread is given up."""

    def __init__(self, stream: Stream, next_batch: Callable[[], pa.RecordBatch | None]) -> None:
        """`next_batch` returns the next batch, None at the end."""
        self._stream, self._read, self._is_open = stream, next_batch, True
        READING.add(self)
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
        READING.add(self)

    def rows(self) -> list[ResultRow] | None:
        """Run the query; None where that would run other statements again."""
        if not self._is_one:
            return None
        self.settle()
        if self.prepared:
            try:
                # What a frame scan made may lack a column that only this row needs.
                return list(self._cursor.execute(self.prepared).fetchall())
            except (duckdb.DataError, duckdb.ProgrammingError, duckdb.IOException):
                self.prepared = ""  # the query itself fails so, and shows where
                self._make_whole()
        return list(self._cursor.execute(self.query, self._params).fetchall())

    def relation(self) -> duckdb.DuckDBPyRelation:
        """The engine's relation, which uses the cursor for as long as it lives."""
        self._keep()
        database.load_relations()
        if self._params:
            return self._cursor.sql(self.query, params=self._params)
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
        # A script's earlier statements would run twice.
        if not self._is_one and len(ParsedStatement.list_of(self._cursor, self.query)) != 1:
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
            # -1 as long as the engine has no figure.
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


def _after_fork() -> None:
    READING.clear()
    _BEGUN.clear()


forks.after_in_child(_after_fork)


AGAIN = 0.02
"""Seconds between two interrupts of one call: one that comes between two steps of the engine is
lost."""
HEARD = 0.1
"""Seconds until a signal is heard that does not end a wait."""
_SIGNALS = tuple(signal.valid_signals())
# Where it is wrapped, without an enum of each answer, which for all signals takes longer than some
# queries.
_getsignal = getattr(signal.getsignal, "__wrapped__", signal.getsignal)


class _Watch:
    """The thread that waits for Ctrl-C, and how it interrupts the call of now."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._interrupt: Callable[[], None] | None = None
        self._call = 0
        self._reading, self._writing = os.pipe()
        # The interpreter's signal handler writes to it and must never wait.
        os.set_blocking(self._writing, False)
        threading.Thread(target=self._run, name="lakelog-signals", daemon=True).start()

    @contextlib.contextmanager
    def over(self, interrupt: Callable[[], None]) -> Iterator[bool]:
        before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        try:
            self._call += 1
            # Numbered, so that an interrupt that comes late does not hit the next call.
            self._interrupt = interrupt
            # An event loop has a descriptor of its own, and gets it back at once.
            yield before == -1
        finally:
            # Under the lock: an interrupt after the call would hit the next statement.
            with self._lock:
                self._interrupt = None
            signal.set_wakeup_fd(before)

    def close(self) -> None:
        """Close the descriptors, in a child that has no such thread."""
        os.close(self._reading)
        os.close(self._writing)

    def _run(self) -> None:
        while True:
            os.read(self._reading, 64)
            call = self._call
            # One that comes between two steps of the engine is lost: until the call has ended.
            while self._interrupted(call):
                time.sleep(AGAIN)

    def _interrupted(self, call: int) -> bool:
        """Interrupt the engine if it is still at that call, which this thread must not keep alive
        while it sleeps: at the end of the process the engine complains of what is left."""
        with self._lock:
            if self._call != call or self._interrupt is None:
                return False
            with contextlib.suppress(Exception):  # the cursor may be closed already
                self._interrupt()
            return True


_watch: _Watch | None = None


@contextlib.contextmanager
def interrupting(interrupt: Callable[[], None]) -> Iterator[bool]:
    """Call `interrupt` at Ctrl-C during the context. Yields False where that cannot be done:
    outside the main thread, and in a program that has signal handlers of its own.

    The engine looks for signals now and then, runs their handlers, and loses what they raise: that
    is harmless for KeyboardInterrupt alone, which its own error is turned into.
    """
    global _watch
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not all(map(_is_default, _SIGNALS)):
        yield False
        return
    if _watch is None or _watch.pid != os.getpid():
        # A child has no thread that its parent had started.
        if _watch is not None:
            _watch.close()
        _watch = _Watch()
    with _watch.over(interrupt) as is_ours:
        yield is_ours


def _is_default(number: int) -> bool:
    handler = _getsignal(number)
    return handler is signal.default_int_handler or not callable(handler)


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
            cursor = database.segment_cursor(self._tables.engine())
            self._tables.make(cursor, views)
            return cursor
        for view in views:
            self._tables.choice.verify(view.entries, by_ranges=view.by_ranges)
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
        self._prepared = set[tuple[str, tuple[object, ...]]]()

    def forget_prepared(self) -> None:
        """Bind all queries again: a statement may have replaced what they read."""
        self._prepared.clear()

    def certain(self, query: str, views: list[View], params: object = None) -> Stream:
        """Return a query that is known to be right, with a cursor that has these views."""
        return self._stream(query, views, self._pool.with_views(views), params)

    def stream(
        self,
        query: str,
        views: list[View],
        params: object = None,
        *,
        shape: str = "",
        is_once: bool = False,
    ) -> Stream | None:
        """Return a query with a cursor that has these views, None if the engine finds it wrong.

        Queries of one `shape` are right if one is; `is_once` if the text will not come again."""
        known = shape or query, _types(params)
        if known in self._prepared:
            return self.certain(query, views, params)
        cursor = self._pool.with_views(views)
        try:
            # Binding is half the work of running it: wrong queries go another way.
            if params:
                cursor.execute(f"EXPLAIN {query}", params)
            else:
                cursor.execute(f"PREPARE lakelog_query AS {query}")
        except duckdb.Error:
            return None  # whoever asks for a relation is told what is wrong
        if shape or not is_once:
            if len(self._prepared) > _PREPARED_MAX:
                self._prepared.clear()
            self._prepared.add(known)
        stream = self._stream(query, views, cursor, params)
        stream.prepared = "" if params else "EXECUTE lakelog_query"
        return stream

    def _stream(
        self, query: str, views: list[View], cursor: duckdb.DuckDBPyConnection, params: object
    ) -> Stream:
        stream = Stream(cursor, query, params, is_one=True)
        stream.lease = self._pool.lend(views, cursor, stream)
        return stream


def _types(params: object) -> tuple[object, ...]:
    """What is equal for parameters of the same types."""
    values = (
        params.items() if isinstance(params, dict) else enumerate(cast(list[object], params or ()))
    )
    return tuple((name, type(value)) for name, value in values)


def _key(views: list[View]) -> tuple[object, ...]:
    """What is equal for views of the same rows, as long as their tails are held."""
    return tuple(
        (
            view.name,
            # By identity: a tail is a new table whenever a row is added.
            id(view.tail),
            tuple(entry.key for entry in view.entries),
            view.more,
            view.bound,
            tuple(view.ranges.items()),
            view.is_kept,
            view.opens,
        )
        for view in views
    )
