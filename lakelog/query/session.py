"""Running SQL: the table `events` is one snapshot plus the live tail, fixed when sql() is called.

A SELECT over the lake's own tables alone is answered without a relation of the engine, by the
first plan that applies and finds the query right. Any other query is bound on a cursor of its own
(binder.py) and answered by a relation of the engine.

    CountPlan     count(*) of all events: the manifest and the WALs say it; of those that have a
                  word, the word indexes, also by spans of time
    ScanPlan      a first query over a tail: the frames themselves are read
    KeptPlan      few events that are asked for again: their rows, kept by the engine
    NeedlePlan    certain ids, subjects or rare words: few segments, in the query itself
    TablePlan     any other: views on a cursor, kept for the next query of the same segments
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from lakelog.engine.messages import EngineMessage
from lakelog.errors import DamagedSegment, QueryFailed, SnapshotGone
from lakelog.libraries import duckdb, pa
from lakelog.query import frames, session_settings, top_scans
from lakelog.query.binder import Binder
from lakelog.query.failures import Failures
from lakelog.query.frame_scans import FrameScans
from lakelog.query.frames import Scope
from lakelog.query.histograms import WordHistograms
from lakelog.query.lake_tables import LakeTables
from lakelog.query.providers import Pinned
from lakelog.query.relation import Relation, translated
from lakelog.query.sql import show, table_sql
from lakelog.query.sql.analysis import Query
from lakelog.query.sql.tree import FIELDS
from lakelog.query.stream import QueryCursors, Stream
from lakelog.query.top_scans import TopScans
from lakelog.runtime import forks
from lakelog.runtime.lazy import Lazy
from lakelog.runtime.living import Living
from lakelog.runtime.locks import Rank
from lakelog.search import WordHistogram, counted_word, expanded
from lakelog.sql import identifier
from lakelog.store import Store

if TYPE_CHECKING:
    from lakelog.query import ranking
    from lakelog.search import Search
    from lakelog.word_indexes import WordPiece
else:
    ranking = Lazy("lakelog.query.ranking")

_EVERY_EVENT = Query()
KEPT_EVENTS, _KEPT_BYTES, _ASKED_AGAIN = 4_096, 1_000_000, 3
"""Rows of so many events and bytes are kept, which takes as long as two queries, after so many."""
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
        keeps_sealed: bool = False,
    ) -> None:
        """`only` is SQL over an event's columns: `events` has just the rows for which it holds.
        With `keeps_sealed` protected fields are never opened, as what is answered is kept.
        `sandbox` is for SQL of others: a directory to spill to, and how many bytes; the engine
        opens no other file but segments and what is derived of them."""
        self.store, self.tables = store, LakeTables(store, branch, only, sandbox)
        self.tables.keeps_sealed = keeps_sealed
        self.connect = self.tables.connect
        self.tail, self.state = self.tables.tail, self.tables.state
        self.binder, self.scans = Binder(self.tables), FrameScans(self.tables)
        self.failures = Failures(self.tables, self.binder)
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
        if params is not None:
            params = frames.parameters(params)
        if (with_conditions := expanded(query)) != query:
            try:
                return self.ask(with_conditions, params, digest, scope)
            except QueryFailed as error:
                # The line that the engine shows is not what was written.
                raise QueryFailed(str(error), EngineMessage(error.details).gist()) from None
        relation = self._translated(lambda: self._answered(query, params, digest))
        if relation is not None:
            return relation
        cursor, source = self.connect().cursor(), (query, params, digest)
        result, query, params = self._bound(cursor, query, params, digest, scope)
        # SET and the like would work on a cursor that nobody uses again.
        if result is None or result.columns == ["Success"]:
            session_settings.require_effect(cursor, query)
        if result is None:  # a statement without rows: types need not say so of each query
            return result  # type: ignore[return-value]
        failure = functools.partial(self.failures.of, query, source)
        return Relation(result, Stream(cursor, query, params), failure)

    def ranked(self, search: Search, limit: int | None, digest: str | None = None) -> Relation:
        """Return the events that a search finds, the best first, with a column `score`.

        The first time it makes indexes of what is sealed. Raises InvalidSearch, MissingPackage,
        QueryFailed, SnapshotGone, Damaged, LakeClosed, OSError.
        """
        ranked_search = ranking.Ranking(self.tables, search, limit)

        def answered() -> Stream:
            self.tables.require_open()
            pinned = self.tables.state(digest)
            # Not under the lock: to build indexes, which happens once, may take minutes.
            ranked_search.complete(pinned)
            with self.tables.mutex.hold():
                return ranked_search.answer(pinned, self.binder.cursors)

        stream = self._translated(answered)
        failure = functools.partial(self.failures.of, stream.query, (stream.query, None, digest))
        return Relation(None, stream, failure)

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
        try:
            # gc may remove a segment between choosing and reading it: the newest state has others.
            try:
                return work()
            except (SnapshotGone, duckdb.IOException) as error:
                is_file = EngineMessage(error).names_file(self.store.paths.root)
                if not (is_file or isinstance(error, SnapshotGone)):
                    raise
            return work()  # gc was faster: look again, once
        except (duckdb.Error, RuntimeError) as error:
            raise translated(error, self.failures.error) from None
        except UnicodeEncodeError as error:
            raise QueryFailed(f"the query is not valid Unicode: {error.reason}") from None

    def subject_tail(self, subject: str, digest: str | None) -> pa.Table | None:
        """Return the events of a subject where all are in the tail, else None; asks no engine.

        Raises SnapshotGone, Damaged, LakeClosed.
        """

        def rows() -> pa.Table | None:
            self.tables.require_open()
            with self.tables.mutex.hold():
                return self.tables.subject_tail(subject, self.tables.state(digest))

        return self._translated(rows)

    def _answered(self, sql: str, params: object, digest: str | None) -> Relation | None:
        """Answer one SELECT over the lake's own tables by a plan, None for what is anything else or
        wrong. The engine's relation is not made until something needs it."""
        tables = self.tables
        tables.require_open()
        with tables.mutex.hold():
            # Reading the tail's files and making the database take as long: both at once.
            is_new = tables.is_idle and digest is None
            is_first = is_new and any(table in sql.lower() for table in Query.TABLES)
            with tables.tail(tables.branch).read_ahead(is_wanted=is_first):
                query = Query.of_shape(tables.engine().cursor(), sql, params)
            names = query.own_tables(Query.TABLES, has_values=bool(params))
            if names is None or tables.hides_tables or show.SHOW.fullmatch(sql):
                return None
            selection = LakeSelect(query, names, tables.state(digest), params)
            for plan in self._plans:
                if plan.applies(selection) and (stream := plan.run(selection)):
                    source = sql, params, digest
                    failure = functools.partial(self.failures.of, stream.query, source)
                    return Relation(None, stream, failure)
        return None

    def _run(
        self,
        cursor: duckdb.DuckDBPyConnection,
        sql: str,
        values: object,
        digest: str | None,
        scope: Scope | None,
    ) -> tuple[duckdb.DuckDBPyRelation | None, str, object]:
        self.tables.require_open()
        query, params = self.binder.bind_once(cursor, sql, values, digest)
        try:
            return frames.run(cursor, query, params, scope), query, params
        except duckdb.Error as error:
            # An error of reading is no fault of the rewriting.
            if not self.binder.has_rewritten(query) or isinstance(error, duckdb.IOException):
                raise
            original = error
        # What the user wrote, so that an error shows that, with the caret where it belongs.
        query, params = self.binder.bind_once(cursor, sql, values, digest, is_as_asked=True)
        try:
            return frames.run(cursor, query, params, scope), query, params
        except duckdb.BinderException as error:
            raise duckdb.BinderException(EngineMessage(original).clearer(str(error))) from None

    def plan(self, query: str, params: object = None, digest: str | None = None) -> tuple[int, int]:
        """Return (segments a query opens, segments there are)."""
        if params is not None:
            params = frames.parameters(params)
        parsed = Query.of(self.connect().cursor(), expanded(query), params)
        state, pending = self.state(digest)
        of_types = self.binder.types.views(parsed, (state, pending))
        segments = {entry.key for view in of_types for entry in view.entries}
        if parsed.needs or not of_types:
            segments |= {entry.key for entry in self.tables.choose(state, parsed).entries}
        return len(segments), state.totals.segments

    def count(self, digest: str | None = None) -> int:
        """Return the number of events without opening a segment."""
        return self.tables.count(*self.state(digest))

    def close(self) -> None:
        """Let go of the database; relations already made keep theirs, new ones are refused."""
        tables = self.tables
        tables.is_closed = True
        # Closing under a query of this very thread would take its tables away.
        if Rank.SESSION.is_past():
            return  # a handler of signals: the query that it interrupts still needs all of it
        if tables.provider is not None:  # not under the lock, which its thread may wait for
            tables.provider.close()
        with tables.mutex.hold():
            tables.close()
            self.binder.clear()
            self.binder.renew_cursors()
            self._plans = plans_of(self.tables, self.binder, self.scans)


def _after_fork() -> None:
    """A child must not touch its parent's locks, nor its database (which `connection` keeps) or the
    cursors of it, which would be freed."""
    for session in _SESSIONS:
        # Freed in a child, they would call an engine whose threads are not there.
        Living.never_free(session.binder.cursors, session.binder.tops, session._plans)
        session.close()
        session.tables.is_closed = False


forks.after_in_child(_after_fork)


@dataclass(frozen=True)
class LakeSelect:
    """A SELECT over tables of the lake, and the state that it reads."""

    query: Query
    names: set[str]
    pinned: Pinned
    params: object = None


class QueryPlan(Protocol):
    """A way to answer a SELECT."""

    def applies(self, selection: LakeSelect) -> bool:
        """Whether the plan can answer a SELECT."""

    def run(self, selection: LakeSelect) -> Stream | None:
        """Return the rows; None if the query needs another plan, or is wrong."""


class CountPlan:
    """Answers from statistics."""

    def __init__(self, tables: LakeTables, cursors: QueryCursors) -> None:
        self._tables, self._cursors = tables, cursors
        self._histograms = WordHistograms(tables, cursors)

    def applies(self, selection: LakeSelect) -> bool:
        """Whether all events are counted, or those that a search finds."""
        query, is_plain = selection.query, self._tables.only is None and not selection.params
        return is_plain and (query.counts_all is not None or query.has_words)

    def run(self, selection: LakeSelect) -> Stream | None:
        """Return the number; None for a search for anything but a word."""
        if selection.query.has_words:
            if counted := counted_word(selection.query.sql):
                return self._of_word(selection, *counted)
            histogram = WordHistogram.of(selection.query.sql)
            if histogram is None:
                return None
            return self._histograms.answer(histogram, selection.query, selection.pinned)
        answer = self._tables.count_sql(selection.query, selection.pinned)
        return self._cursors.certain(answer, []) if answer else None

    def _of_word(self, selection: LakeSelect, column: str, word: str | WordPiece) -> Stream:
        """Count the events that have a word, or one with a piece: by the blocks of segments of
        which that is known, and by reading the others and the tail."""
        (view,) = self._tables.views({"events"}, selection.query, selection.pinned)
        total, ranges = 0, dict(view.ranges)
        for entry in view.entries:
            count, unknown = self._tables.choice.words.counted(entry.key, entry.events, word)
            total += count
            if unknown is not None:
                ranges[entry.key] = unknown
        # () are no rows at all: the segment has none with the word, or all are counted.
        entries = [entry for entry in view.entries if ranges.get(entry.key) != ()]
        view = view._replace(entries=entries, ranges=ranges)
        name = identifier(column)
        if not entries and view.tail is None:
            return self._cursors.certain(f"SELECT {total}::BIGINT AS {name}", [])
        counted = self._tables.with_short_patterns(selection.query, [view]).sql
        counted = f"SELECT (count + {total})::BIGINT AS {name} FROM ({counted}) AS counts(count)"
        return self._cursors.certain(counted, [view])


class ScanPlan:
    """Reads frames of the WAL."""

    def __init__(self, tables: LakeTables, scans: FrameScans) -> None:
        self._tables, self._scans = tables, scans

    def applies(self, selection: LakeSelect) -> bool:
        """Whether nothing but all events is read, some of a tail, and that for the first times."""
        pending = selection.pinned[1]
        has_tail = pending is not None and pending.events > 0 and not pending.has_keys
        is_due = has_tail and self._scans.left > 0 and not selection.params
        return is_due and selection.names == {"events"} and self._tables.only is None

    def run(self, selection: LakeSelect) -> Stream | None:
        """Return the rows, None if they need columns that are not in every frame."""
        cursor = self._tables.engine().cursor()
        return self._scans.stream(cursor, selection.query, selection.pinned)


class KeptPlan:
    """Reads few rows that the engine keeps: to open and decode their files takes much longer."""

    def __init__(self, tables: LakeTables, cursors: QueryCursors) -> None:
        self._tables, self._cursors = tables, cursors
        self._asked: tuple[str, object, int] = "", None, 0

    def applies(self, selection: LakeSelect) -> bool:
        """Whether a short state is asked again, for no typed columns, which only files have."""
        state, pending = selection.pinned
        key, tail, count = self._asked
        # A tail is the same object until something is added.
        count = count + 1 if key == state.key and tail is pending else 1
        self._asked = state.key, pending, count
        events = state.totals.events + (pending.events if pending else 0)
        size = state.totals.bytes + (pending.bytes if pending else 0)
        is_due = count > _ASKED_AGAIN and events <= KEPT_EVENTS and size <= _KEPT_BYTES
        is_plain = selection.names == {"events"} and FIELDS not in selection.query.sql.lower()
        # Rows of a tail alone are in memory already.
        return is_due and is_plain and state.totals.segments > 0 and self._tables.only is None

    def run(self, selection: LakeSelect) -> Stream | None:
        """Return the rows; None where a file is damaged or gone, which the query may not need."""
        (view,) = self._tables.views({"events"}, _EVERY_EVENT, selection.pinned)
        # What was opened with a key must not outlive it.
        if view.opens:
            return None
        query, views = selection.query, [view._replace(is_kept=True)]
        try:
            return self._cursors.stream(query.sql, views, selection.params, shape=query.shape)
        except (DamagedSegment, SnapshotGone, duckdb.Error):
            return None


class NeedlePlan:
    """Puts the segments into the query: needles read few, and to make views would take longer."""

    def __init__(self, tables: LakeTables, tops: TopScans, cursors: QueryCursors) -> None:
        self._tables, self._tops, self._cursors = tables, tops, cursors

    def applies(self, selection: LakeSelect) -> bool:
        """Whether certain ids, subjects or words are asked for, in segments alone."""
        pending, query = selection.pinned[1], selection.query
        has_tail = pending is not None and bool(pending.frames)
        return (
            (bool(query.needles) or query.has_words)
            and not has_tail
            and not table_sql.has_names(query.sql)
        )

    def run(self, selection: LakeSelect) -> Stream | None:
        """Return the rows, None if more than one table, or many rows for words, are to be read."""
        query, pinned = selection.query, selection.pinned
        # Rare words read few rows; many are read faster through a view.
        if not query.needles and self._tops.are_many(query, pinned[0]):
            return None
        views = self._tables.views(selection.names, query, pinned)
        if query.has_words:
            query = self._tables.with_short_patterns(query, views)
        rewritten = query.sql
        if query.may_extract:
            rewritten, views = self._tables.over_columns(rewritten, pinned, views)
        if len(views) != 1 or table_sql.has_names(rewritten):
            return None
        view = views[0]
        self._tables.choice.verify(view.entries, by_ranges=view.by_ranges)
        rows = self._tables.view_sql(
            "events", view.entries, None, view.more, view.ranges, opens=view.opens
        )
        shape = query.shape if rewritten is query.sql else ""
        rewritten = table_sql.inlined(rewritten, view.name, rows)
        return self._cursors.stream(rewritten, [], selection.params, shape=shape, is_once=True)


class TablePlan:
    """Makes views, without what a query for the newest or oldest rows sorts out."""

    def __init__(self, tables: LakeTables, tops: TopScans, cursors: QueryCursors) -> None:
        self._tables, self._tops, self._cursors = tables, tops, cursors

    def applies(self, selection: LakeSelect) -> bool:
        """Whether tables are read: always."""
        return True

    def run(self, selection: LakeSelect) -> Stream | None:
        """Return the rows."""
        query, pinned, tables = selection.query, selection.pinned, self._tables
        is_top = query.has_limit and pinned[0].totals.events >= top_scans.LEAST
        # Of a common word the newest segments have enough rows, and no others are looked into.
        is_common = is_top and query.has_words and not query.needles
        is_common = is_common and self._tops.are_many(query, pinned[0])
        views = tables.views(selection.names, query, pinned, looks_up=not is_common)
        if query.has_words:
            query = tables.with_short_patterns(query, views)
        if is_top:
            views = self._tops.bounded(query, pinned, views, params=selection.params)
        if is_common:
            views = [tables.with_words(v, query) if v.name == "events" else v for v in views]
        rewritten = query.sql
        if query.may_extract:
            rewritten, views = self._tables.over_columns(rewritten, pinned, views)
        shape = query.shape if rewritten is query.sql else ""
        return self._cursors.stream(rewritten, views, selection.params, shape=shape)


def plans_of(tables: LakeTables, binder: Binder, scans: FrameScans) -> tuple[QueryPlan, ...]:
    """Return all plans, in the order in which they are tried."""
    return (
        CountPlan(tables, binder.cursors),
        ScanPlan(tables, scans),
        KeptPlan(tables, binder.cursors),
        NeedlePlan(tables, binder.tops, binder.cursors),
        TablePlan(tables, binder.tops, binder.cursors),
    )
