"""Running SQL: the table `events` is one snapshot plus the live tail, fixed when sql() is called.

A SELECT over the lake's own tables is answered by the first of several plans that applies
(plans.py). Any other query is bound on a cursor of its own (binder.py) and answered by a relation
of the engine.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from lakelog.engine import messages, session_settings
from lakelog.errors import LakelogError, QueryFailed, SnapshotGone
from lakelog.libraries import duckdb
from lakelog.query import frames, type_tables
from lakelog.query.binder import Binder
from lakelog.query.frame_scans import FrameScans
from lakelog.query.frames import Scope
from lakelog.query.lake_tables import LakeTables
from lakelog.query.plans import LakeSelect, plans_of
from lakelog.query.relation import Failure, Relation, guarded
from lakelog.query.sql import listings
from lakelog.query.sql.analysis import analyze
from lakelog.query.sql.qualifiers import TABLES
from lakelog.query.stream import Stream
from lakelog.runtime import forks
from lakelog.runtime.lazy import Lazy
from lakelog.runtime.living import Living
from lakelog.runtime.locks import Rank, is_past
from lakelog.search import expanded
from lakelog.store.bootstrap import Store

if TYPE_CHECKING:
    from lakelog.query.sql import payload
else:
    payload = Lazy("lakelog.query.sql.payload")

_FETCH_ROWS = 2048
_SESSIONS: Living[Session] = Living()
_T = TypeVar("_T")


class Session:
    """Queries of one process against one branch of a lake. Safe for threads."""

    def __init__(
        self,
        store: Store,
        branch: str,
        *,
        only: str | None = None,
        sandbox: tuple[str, int] | None = None,
    ) -> None:
        """`only` is SQL over an event's columns: `events` has just the rows for which it holds.
        `sandbox` is for SQL of others: a directory to spill to, and how many bytes; the engine
        opens no other file but segments and what is derived of them."""
        self.store, self.tables = store, LakeTables(store, branch, only, sandbox)
        self.connect = self.tables.connect
        self.tail, self.state = self.tables.tail, self.tables.state
        self.binder, self.scans = Binder(self.tables), FrameScans(self.tables)
        self._plans = plans_of(self.tables, self.binder, self.scans)
        _SESSIONS.add(self)

    def ask(
        self,
        query: str,
        params: object = None,
        digest: str | None = None,
        scope: Scope | None = None,
    ) -> Relation:
        """Return the answer as a relation whose errors and interrupts are ours; see `_bound`."""
        if (with_conditions := expanded(query)) != query:
            try:
                return self.ask(with_conditions, params, digest, scope)
            except QueryFailed as error:
                # The line that the engine shows is not what was written.
                raise QueryFailed(str(error), messages.gist(error.details)) from None
        relation = None if params else self._translated(lambda: self._answered(query, digest))
        if relation is not None:
            return relation
        cursor, source = self.connect().cursor(), (query, params, digest)
        result, query, params = self._bound(cursor, query, params, digest, scope)
        if result is None or result.columns == ["Success"]:
            session_settings.require_effect(cursor, query)
        if result is None:  # a statement without rows: types need not say so of each query
            return result  # type: ignore[return-value]
        return Relation(result, Stream(cursor, query, params), self._failure(query, source))

    def sql(
        self, query: str, params: object = None, digest: str | None = None
    ) -> duckdb.DuckDBPyRelation:
        """Return the engine's own relation of a query. Raises as `_bound` does."""
        relation = self._bound(self.connect().cursor(), query, params, digest, None)[0]
        assert relation is not None
        return relation

    def _bound(
        self,
        cursor: duckdb.DuckDBPyConnection,
        query: str,
        params: object,
        digest: str | None,
        scope: Scope | None,
    ) -> tuple[duckdb.DuckDBPyRelation | None, str, object]:
        """Return a relation of a cursor, and the query and parameters that give its rows there.

        `digest` is that of a manifest; without it, the branch with its tail. `scope` gives the
        caller's data frames for names that are no table of the lake.
        Raises QueryFailed, SnapshotGone, Damaged, LakeClosed.
        """
        return self._translated(lambda: self._run(cursor, query, params, digest, scope))

    def _translated(self, work: Callable[[], _T]) -> _T:
        """Do work that makes tables, twice if gc was faster, and raise the engine's errors as ours.

        Raises QueryFailed, SnapshotGone, Damaged, LakeClosed.
        """
        self.tables.require_open()
        try:
            with guarded(self._failed):
                try:
                    return work()
                except (SnapshotGone, duckdb.IOException) as error:
                    is_file = messages.names_file(str(error), self.store.paths.root)
                    if not (is_file or isinstance(error, SnapshotGone)):
                        raise
                return work()  # gc was faster: look again, once
        except UnicodeEncodeError as error:
            raise QueryFailed(f"the query is not valid Unicode: {error.reason}") from None

    def _answered(self, sql: str, digest: str | None) -> Relation | None:
        """Answer one SELECT over the lake's own tables by a plan, None for what is anything else or
        wrong. The engine's relation is not made until something needs it."""
        with self.tables.mutex.hold():
            selection = self._selection(sql, digest)
            if selection is None:
                return None
            for plan in self._plans:
                if plan.applies(selection) and (stream := plan.run(selection)):
                    return Relation(None, stream, self._failure(stream.query, (sql, None, digest)))
        return None

    def _selection(self, sql: str, digest: str | None) -> LakeSelect | None:
        """Parse a query; None if it may read anything besides `events` and `quarantine`."""
        tables = self.tables
        is_first = tables.is_idle and digest is None and any(t in sql.lower() for t in TABLES)
        # The database takes as long.
        with tables.tail(tables.branch).read_ahead(is_wanted=is_first):
            query = analyze(tables.engine().cursor(), sql)
        names = query.own_tables(TABLES)
        if names is None or tables.hides_tables or listings.asks_for_tables(sql):
            return None
        return LakeSelect(query, names, tables.state(digest))

    def _run(
        self,
        cursor: duckdb.DuckDBPyConnection,
        sql: str,
        values: object,
        digest: str | None,
        scope: Scope | None,
    ) -> tuple[duckdb.DuckDBPyRelation | None, str, object]:
        query, params = self.binder.bind_once(cursor, sql, values, digest)
        try:
            return frames.run(cursor, query, params, scope), query, params
        except duckdb.Error as error:
            if payload.WIDE not in query or isinstance(error, duckdb.IOException):
                raise
            original = error
        # What the user wrote, so that an error shows that, with the caret where it belongs.
        query, params = self.binder.bind_once(cursor, sql, values, digest, is_as_asked=True)
        try:
            return frames.run(cursor, query, params, scope), query, params
        except duckdb.BinderException as error:
            raise duckdb.BinderException(messages.clearer(str(original), str(error))) from None

    def _failed(self, message: str) -> QueryFailed:
        return QueryFailed(self.in_one_line(message), type_tables.as_written(message))

    def _failure(self, query: str, source: tuple[str, object, str | None]) -> Failure:
        """Return what makes the error of a query that fails while it runs, from what was asked."""
        return (
            functools.partial(self._failed_as_asked, *source)
            if query != source[0]
            else self._failed
        )

    def _failed_as_asked(
        self, query: str, params: object, digest: str | None, message: str
    ) -> QueryFailed:
        if messages.is_of_value(message):  # the query itself fails so, and can show where
            try:
                cursor = self.connect().cursor()
                query, params = self.binder.bind_once(
                    cursor, query, params, digest, is_as_asked=True
                )
                cursor.execute(query, params or None)
                while cursor.fetchmany(_FETCH_ROWS):
                    pass
            except (duckdb.Error, LakelogError) as error:
                message = messages.clearer(message, str(error))
        return self._failed(message)

    def plan(self, query: str, params: object = None, digest: str | None = None) -> tuple[int, int]:
        """Return (segments a query opens, segments there are)."""
        parsed = analyze(self.connect().cursor(), expanded(query), params)
        state, pending = self.state(digest)
        of_types = self.binder.types.views(parsed, (state, pending))
        segments = {entry.key for view in of_types for entry in view.entries}
        if parsed.needs or not of_types:
            segments |= {entry.key for entry in self.tables.choose(state, parsed)}
        return len(segments), state.totals.segments

    def count(self, digest: str | None = None) -> int:
        """Return the number of events without opening a segment."""
        return self.tables.count(*self.state(digest))

    def close(self) -> None:
        """Let go of the database; relations already made keep theirs, new ones are refused."""
        tables = self.tables
        tables.is_closed = True
        if is_past(Rank.SESSION):
            return  # a handler of signals: the query that it interrupts still needs all of it
        if tables.provider is not None:  # not under the lock, which its thread may wait for
            tables.provider.close()
        with tables.mutex.hold():
            tables.close()
            self.binder.clear()
            self._renew()

    def _renew(self) -> None:
        self.binder.renew_cursors()
        self._plans = plans_of(self.tables, self.binder, self.scans)

    def in_one_line(self, message: str) -> str:
        """What the engine says, without its picture of the query, refs by their own names."""
        message, refs = type_tables.as_written(message), self.store.refs
        line = messages.explained(messages.with_suggestion(message, self.tables.names, refs))
        for schema, name in self.binder.refs.versions.items():
            line = re.sub(rf"\b{schema}\b", lambda _, name=name: f'"{name}"', line)  # type: ignore[misc]
        return line


def _after_fork() -> None:
    """A child must not touch its parent's locks, nor its database (which `connection` keeps) or the
    cursors of it, which would be freed."""
    for session in _SESSIONS:
        forks.never_free(session.binder.cursors, session.binder.tops, session._plans)
        session.close()
        session.tables.is_closed = False


forks.after_in_child(_after_fork)
