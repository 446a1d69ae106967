"""Running SQL: the table `events` is one snapshot plus the live tail, fixed when sql() is called.

Each query gets a cursor with temporary views of its own, over exactly the segments that the
manifest's statistics leave, each verified by length and SHA-256 once (segment_choice.py). A SELECT
over the lake's own tables gets one whose views are made, if an earlier query has left it. Every tag
and branch is also a schema: `"v1".events` reads a schema of its own for each state of that ref,
whose name is put into the query; a view of it, `"v1".sessions`, gets one for itself.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from lakelog.engine import messages, session_settings
from lakelog.errors import LakeClosed, LakelogError, QueryFailed, SnapshotGone
from lakelog.query import cursor_views, frames, providers, seal_requests, type_tables
from lakelog.query.cursor_pool import CursorPool
from lakelog.query.frame_scans import FrameScans
from lakelog.query.frames import Scope
from lakelog.query.ref_schemas import RefSchemas
from lakelog.query.relation import Failure, Relation, guarded
from lakelog.query.segment_choice import SegmentChoice
from lakelog.query.sql import listings, table_sql
from lakelog.query.sql.analysis import TableRefs, analyze
from lakelog.query.sql.qualifiers import TABLES
from lakelog.query.sql.table_sql import View
from lakelog.query.stream import Stream
from lakelog.query.top_scans import TopScans
from lakelog.runtime import forks
from lakelog.runtime.lazy import Lazy
from lakelog.runtime.living import Living
from lakelog.runtime.locks import OrderedLock, Rank, is_past, require_before
from lakelog.search import calls
from lakelog.segments import connection, sql
from lakelog.store.bootstrap import Store
from lakelog.store.entry import SegmentEntry
from lakelog.store.manifest import Manifest
from lakelog.store.tail import PendingFrames, Tail

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from lakelog.query import tail_rows
    from lakelog.query.providers import Pinned, TableProvider
    from lakelog.query.sql import payload
    from lakelog.query.sql.extractions import Extraction
    from lakelog.query.tail_rows import TailRows
else:
    duckdb = Lazy("duckdb")
    payload, tail_rows = Lazy("lakelog.query.sql.payload"), Lazy("lakelog.query.tail_rows")

_HIDES = re.compile(r"\bcreate\b.*\b(view|macro|function)\b", re.I | re.S)
_PREPARED_MAX = 256
_FETCHED = 2048
_SESSIONS: Living[Session] = Living()
_T = TypeVar("_T")


class Session:
    """Queries of one process against one branch of a lake. Safe for threads."""

    def __init__(self, store: Store, branch: str, *, only: str | None = None) -> None:
        """`only` is SQL over an event's columns: `events` has just the rows for which it holds."""
        self.store, self._branch, self._only = store, branch, only
        self.provider: TableProvider | None = None
        self.mutex, self._parts = OrderedLock(Rank.SESSION), OrderedLock(Rank.DATABASE)
        self._base: duckdb.DuckDBPyConnection | None = None
        self.refs, self._types = RefSchemas(self), type_tables.TypeTables(self)
        self.scans = FrameScans(self)
        self.hides_tables = False
        self._attached: set[str] = set()
        self._tails: dict[str, Tail] = {}
        self._rows: dict[str, TailRows] = {}
        self._sealing = seal_requests.SealRequests(store, branch)
        self._choice = SegmentChoice(store, branch)
        self.among = self._choice.among
        self._renew_cursors()
        self._prepared: set[str] = set()
        self._is_closed = False
        _SESSIONS.add(self)

    def connect(self) -> duckdb.DuckDBPyConnection:
        """The process's database for this lake; made at the first call."""
        connection.load_relations()
        return self._database()

    def _database(self) -> duckdb.DuckDBPyConnection:
        """The same, for whoever only runs SQL: without relations, which take longer to load."""
        with self._parts.hold():
            if self._base is None:
                self._base = connection.connect_engine(self.store.paths, self.store.settings)
            return self._base

    def tail(self, branch: str) -> Tail:
        """The reader of a branch's WALs, shared by queries and sealing."""
        with self._parts.hold():
            if branch not in self._tails:
                self._tails[branch] = Tail(self.store.paths, self.store.refs, branch)
            return self._tails[branch]

    def ask(
        self, query: str, params: Any = None, at: str | None = None, scope: Scope | None = None
    ) -> Relation:
        """Return the answer as a relation whose errors and interrupts are ours; see `_bound`."""
        query = calls.expanded(query)
        relation = None if params else self._translated(lambda: self._ask_own(query, at))
        if relation is not None:
            return relation
        cursor, given = self.connect().cursor(), (query, params, at)
        result, query, params = self._bound(cursor, query, params, at, scope)
        if result is None or result.columns == ["Success"]:
            session_settings.require_effect(cursor, query)
        if result is None:  # a statement without rows: types need not say so of each query
            return result  # type: ignore[return-value]
        return Relation(result, Stream(cursor, query, params), self._failure(query, given))

    def sql(self, query: str, params: Any = None, at: str | None = None) -> Any:
        """Return the engine's own relation. Raises as `_bound` does."""
        return self._bound(self.connect().cursor(), query, params, at, None)[0]

    def _bound(
        self, cursor: Any, query: str, params: Any, at: str | None, scope: Scope | None
    ) -> tuple[Any, str, Any]:
        """Return a relation of a cursor, and the query and parameters that give its rows there.

        `at` is a manifest digest; without it, the branch with its tail. `scope` gives the
        caller's data frames for names that are no table of the lake.
        Raises QueryFailed, SnapshotGone, Damaged, LakeClosed.
        """
        return self._translated(lambda: self._run(cursor, query, params, at, scope))

    def _translated(self, work: Callable[[], _T]) -> _T:
        """Do work that makes tables, twice if gc was faster, and raise the engine's errors as ours.

        Raises QueryFailed, SnapshotGone, Damaged, LakeClosed.
        """
        self._check_open()
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

    def _ask_own(self, query: str, at: str | None) -> Relation | None:
        """Answer one SELECT over the lake's own tables, None for what is anything else or wrong.

        The engine's relation is not made until something needs it, and a query that was found right
        is not bound once more: the columns of these tables are the same in every state.
        """
        with self.mutex.hold():
            is_first = self._base is None and at is None and any(t in query.lower() for t in TABLES)
            # The database takes as long.
            with self.tail(self._branch).read_ahead(is_wanted=is_first):
                mentions = analyze(self._database().cursor(), query)
            named = mentions.own_tables(TABLES)
            if named is None or self.hides_tables or listings.asks_for_tables(query):
                return None
            state, pending = self.state(at)
            counted = self._counted(mentions, state, pending)
            if not counted and named == {"events"} and self._only is None:
                cursor = self._database().cursor()
                if scan := self.scans.stream(cursor, query, mentions, state, pending):
                    return Relation(None, scan, self._failed)
            views = [] if counted else self._views(named, mentions, state, pending)
            views = self._tops.bounded(query, mentions, (state, pending), views)
            asked = query
            fresh = functools.partial(connection.segment_cursor, self._database())
            query, views = self._over_typed(query, (state, pending), views, {})
            # Needles read few segments, each others: views would take longer than they do.
            if is_once := mentions.needles and table_sql.can_inline(query, views):
                rows = self.rows_sql(views[0].entries, views[0].more)
                query, views = table_sql.inlined(query, views[0].name, rows), []
            cursor = self._pool.with_views(views, fresh, self._verify, self.make)
            is_new = not counted and query not in self._prepared
            if is_new:
                try:
                    cursor.execute(f"PREPARE lakelog_query AS {query}")
                except duckdb.Error:
                    return None  # whoever asks for a relation is told what is wrong
            if is_new and not is_once:
                self._prepared = {query} if len(self._prepared) > _PREPARED_MAX else self._prepared
                self._prepared.add(query)
            stream = Stream(cursor, counted or query, None, is_one=True)
            stream.prepared = "EXECUTE lakelog_query" if is_new else ""
            stream.lease = self._pool.lend(views, cursor, stream)
        return Relation(None, stream, self._failure(query, (asked, None, at)))

    def _run(
        self, cursor: Any, asked: str, given: Any, at: str | None, scope: Scope | None
    ) -> tuple[Any, str, Any]:
        query, params = self._bind(cursor, asked, given, at)
        try:
            return frames.run(cursor, query, params, scope), query, params
        except duckdb.Error as error:
            if payload.WIDE not in query or isinstance(error, duckdb.IOException):
                raise
            first = error
        # What the user wrote, so that an error shows that, with the caret where it belongs.
        query, params = self._bind(cursor, asked, given, at, is_as_asked=True)
        try:
            return frames.run(cursor, query, params, scope), query, params
        except duckdb.BinderException as error:
            raise duckdb.BinderException(messages.clearer(str(first), str(error))) from None

    def _failed(self, words: str) -> QueryFailed:
        return QueryFailed(self.in_one_line(words), type_tables.as_written(words))

    def _failure(self, query: str, asked: tuple[str, Any, str | None]) -> Failure:
        """Return what makes the error of a query that fails while it runs, from what was asked."""
        return (
            functools.partial(self._failed_as_asked, *asked) if query != asked[0] else self._failed
        )

    def _failed_as_asked(self, query: str, params: Any, at: str | None, words: str) -> QueryFailed:
        if messages.is_of_value(words):  # the query itself fails so, and can show where
            try:
                cursor = self.connect().cursor()
                query, params = self._bind(cursor, query, params, at, is_as_asked=True)
                cursor.execute(query, params or None)
                while cursor.fetchmany(_FETCHED):
                    pass
            except (duckdb.Error, LakelogError) as error:
                words = messages.clearer(words, str(error))
        return self._failed(words)

    def bind(
        self,
        cursor: duckdb.DuckDBPyConnection,
        query: str,
        params: Any,
        at: str | None,
        *,
        is_as_asked: bool = False,
    ) -> tuple[str, Any]:
        """Make the tables that a query needs on a cursor; return the query and parameters that give
        its rows there, `is_as_asked` without rewriting it. Raises SnapshotGone, Damaged, LakeClosed
        and the engine's own errors."""
        self._check_open()
        try:
            return self._bind(cursor, query, params, at, is_as_asked=is_as_asked)
        except SnapshotGone:  # gc was faster: look again, once
            return self._bind(cursor, query, params, at, is_as_asked=is_as_asked)

    def _bind(
        self,
        cursor: duckdb.DuckDBPyConnection,
        query: str,
        params: Any,
        at: str | None,
        *,
        is_as_asked: bool = False,
    ) -> tuple[str, Any]:
        explain, query = listings.split(calls.expanded(query), self.table_names)
        if explain:
            query, params = self._bind(cursor, query, params, at, is_as_asked=is_as_asked)
            return explain + query, params
        with self.mutex.hold():
            mentions = analyze(self.connect().cursor(), query, params, cursor)
            query = query if mentions.parsed else session_settings.for_session(cursor, query)
            query, mentions = self._types.replaced(cursor, query, mentions)
            query = self.refs.requalified(query, mentions)
            other = self.prepare(cursor, query, mentions, at, params, is_as_asked=is_as_asked)
            # A view made here is read by later queries that do not name `events`.
            self.hides_tables |= not mentions.parsed and bool(_HIDES.search(query))
            if not mentions.parsed:  # it may replace what other queries were bound to
                self._prepared.clear()
        # Only the answer to a count has no parameters any more.
        return other or query, None if other and mentions.counts_all is not None else params

    def disable_pruning(self) -> None:
        """Let later queries see all segments: a statement was kept that may read any of them."""
        self.hides_tables = True

    def plan(self, query: str, params: Any = None, at: str | None = None) -> tuple[int, int]:
        """Return (segments a query opens, segments there are)."""
        mentions = analyze(self.connect().cursor(), calls.expanded(query), params)
        state, pending = self.state(at)
        of_types = self._types.views(mentions, (state, pending))
        opened = {entry.key for view in of_types for entry in view.entries}
        if mentions.needs or not of_types:
            opened |= {entry.key for entry in self.choose(state, mentions)}
        return len(opened), state.totals.segments

    def count(self, at: str | None = None) -> int:
        """Return the number of events without opening a segment."""
        state, pending = self.state(at)
        return state.totals.events + self._tail_count(pending, state)

    def close(self) -> None:
        """Let go of the database; relations already made keep theirs, new ones are refused."""
        self._is_closed = True
        if is_past(Rank.SESSION):
            return  # a handler of signals: the query that it interrupts still needs all of it
        if self.provider is not None:  # not under the lock, which its thread may wait for
            self.provider.close()
        with self.mutex.hold(), self._parts.hold():
            self._base, self._tails, self._rows = None, {}, {}
            self.refs.clear()
            self._renew_cursors()
            self.hides_tables = False
            self._attached.clear()

    def prepare(
        self,
        cursor: duckdb.DuckDBPyConnection,
        query: str,
        mentions: TableRefs,
        at: str | None,
        params: Any = None,
        *,
        is_as_asked: bool = False,
    ) -> str | None:
        """Make the views a query needs; return other SQL that gives its answer, if there is such:
        a count, or unless `is_as_asked` a query over typed columns."""
        named = {table for schema, table in mentions.tables if not schema}
        if not mentions.parsed:
            named = {name for name in TABLES if name in query.lower()}
        if self.hides_tables:
            named.update(TABLES)
        extra = providers.named_in(query, mentions)
        if extra:
            named.add("events")
        pinned = self.provider.offer(cursor, query, mentions, at) if self.provider else None
        is_of_type = self._types.is_named(mentions)
        of_refs = self.refs.events(query, mentions.of_refs)
        other, views = query, list[View]()
        if named.intersection(TABLES) or is_of_type:
            pinned = pinned or self.state(at)
            if counted := self._counted(mentions, *pinned):
                return counted
            # What the views of another schema ask of events is not in the query: take them all.
            views = self._views(named, TableRefs() if extra else mentions, *pinned)
            views += self._types.views(mentions, pinned) if is_of_type else []
        elif not of_refs:
            return None
        if not is_as_asked and mentions.parsed and not extra:
            if not self.hides_tables:
                views = self._tops.bounded(query, mentions, pinned, views, cursor, params)
                of_refs = self._tops.of_ref(query, mentions, self.refs, of_refs, cursor, params)
            other, views = self._over_typed(query, pinned, views, of_refs)
        self.make(cursor, views)
        for name in sorted(extra - self._attached):
            providers.REGISTERED[name].attach(cursor)
            self._attached.add(name)
        return None if other is query else other

    def _over_typed(self, query: str, pinned: Any, views: list[View], refs: Any) -> Any:
        cursor, keep, kinds = self._database().cursor(), self.hides_tables, self._types.of(pinned)
        return table_sql.over_typed_columns(cursor, query, views, refs, kinds, keep=keep)

    def _renew_cursors(self) -> None:
        self._pool = CursorPool()
        parts = self._database, self._verify, self.make, self._over_typed
        self._tops = TopScans(*parts, is_part=self._only is not None)

    def _counted(
        self, mentions: TableRefs, state: Manifest, pending: PendingFrames | None
    ) -> str | None:
        """SQL for the answer to a query that only counts all events."""
        if mentions.counts_all is None or self._only is not None:
            return None
        total = state.totals.events + self._tail_count(pending, state)
        return f"SELECT {total}::BIGINT AS {sql.identifier(mentions.counts_all)}"

    def _views(
        self, named: set[str], mentions: TableRefs, state: Manifest, pending: PendingFrames | None
    ) -> list[View]:
        """The tables that a query names, of one state."""
        views = []
        if "events" in named:
            tail = self.numbered_tail(pending, state)
            views.append(View("events", self.choose(state, mentions), tail))
        if "quarantine" in named:
            entries = self.store.manifests.segments(state, "quarantine")
            bad = self.rows_of(self._branch).quarantine(pending) if pending else None
            views.append(View("quarantine", entries, bad))
        return views

    def _check_open(self) -> None:
        forks.notice()
        require_before(Rank.SESSION)
        if self._is_closed:
            raise LakeClosed("the lake is closed: open it again to query")

    def state(self, at: str | None) -> Pinned:
        """Return a state by its digest, or without one the branch as it is now, with its tail."""
        self._check_open()
        if at is not None:
            return self.store.manifests.load(at), None
        pending = self.tail(self._branch).collect()
        self._sealing.meet(pending)
        return self.store.manifests.of(pending.head.move), pending

    def choose(self, state: Manifest, mentions: TableRefs) -> list[SegmentEntry]:
        """Return the event segments that a query can need."""
        if self.hides_tables or (mentions.of_newest and self._only is not None):  # of other events
            return self.store.manifests.segments(state, "events")
        return self._choice.segments(state, mentions)

    def tail_rows(self, pending: PendingFrames | None, state: Manifest) -> pa.Table | None:
        """Return the rows of a tail that a state lacks; None where there are none."""
        if pending is None or not pending.frames:
            return None
        return self.rows_of(pending.head.move.branch).events(pending, state.ids)

    def numbered_tail(self, pending: PendingFrames | None, state: Manifest) -> pa.Table | None:
        """Return the same rows with the seq that sealing now would give each."""
        if pending is None or not pending.frames:
            return None
        return self.rows_of(pending.head.move.branch).numbered(pending, state)

    def _tail_count(self, pending: PendingFrames | None, state: Manifest) -> int:
        """Count the tail, without opening a frame unless some event carries an id."""
        if pending is None or not pending.frames:
            return 0
        if pending.has_keys:
            table = self.tail_rows(pending, state)
            return table.num_rows if table is not None else 0
        return pending.events

    def make(self, cursor: duckdb.DuckDBPyConnection, views: list[View]) -> None:
        """Make views on a cursor. Raises DamagedSegment, SnapshotGone."""
        for view in views:
            self._verify(view.entries)
            cursor_views.make(cursor, view, self.view_sql, is_part=self._only is not None)

    def rows_sql(self, entries: list[SegmentEntry], more: tuple[Extraction, ...] = ()) -> str:
        """SQL for the rows of event segments, each verified, with seq. Raises DamagedSegment."""
        self._verify(entries)
        return self.view_sql("events", entries, None, more)

    def view_sql(
        self,
        name: str,
        entries: list[SegmentEntry],
        tail: str | None,
        more: tuple[Extraction, ...] = (),
    ) -> str:
        """SQL for a table of verified segments and of the table that has the rows of a tail."""
        rows = table_sql.rows_sql(self.store.paths, name, entries, tail, more)
        filtered = self._only if name != "quarantine" else None
        return f"SELECT * FROM ({rows}) WHERE {filtered}" if filtered else rows

    def _verify(self, entries: list[SegmentEntry]) -> None:
        """Hash segments not yet verified as they are. Raises DamagedSegment, SnapshotGone."""
        self._choice.verify(entries)

    def rows_of(self, branch: str) -> TailRows:
        """What makes rows of the tail of a branch, shared by queries."""
        with self._parts.hold():
            if branch not in self._rows:
                self._rows[branch] = tail_rows.TailRows(self.store, self.connect)
            return self._rows[branch]

    def verified_segments(self, state: Manifest) -> list[SegmentEntry]:
        """Return all segments of a state. Raises DamagedSegment, SnapshotGone."""
        entries = self.store.manifests.segments(state)
        self._verify(entries)
        return entries

    def in_one_line(self, words: str) -> str:
        """What the engine says, without its picture of the query, refs by their own names."""
        words, refs = type_tables.as_written(words), self.store.refs
        text = messages.explained(messages.with_suggestion(words, self.table_names, refs))
        for schema, name in self.refs.versions.items():
            text = re.sub(rf"\b{schema}\b", lambda _, name=name: f'"{name}"', text)  # type: ignore[misc]
        return text

    def table_names(self) -> list[str]:
        """Names of the tables that a query may read without a schema."""
        return [*TABLES, *(self.provider.names(self.state(None)[0]) if self.provider else ())]


def _after_fork() -> None:
    """A child must not touch its parent's locks, nor its database (which `connection` keeps) or the
    cursors of it, which would be freed."""
    for session in _SESSIONS:
        forks.never_free(session._pool, session._tops)
        session.close()
        session._is_closed = False


forks.after_in_child(_after_fork)
