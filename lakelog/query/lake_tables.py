"""The tables `events` and `quarantine` of a lake's states, in the database of one process.

A state is a snapshot plus the live tail of its branch. Its tables are made on a cursor as temporary
views, over exactly the segments that a query can need (SegmentChoice) and the rows of the tail.
Each segment is hashed before it is first read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from lakelog import arrays, bloom, database, maintain, protect, sql, tokenization
from lakelog.entries import SegmentEntry
from lakelog.errors import DamagedSegment, LakeClosed, SnapshotGone
from lakelog.libraries import duckdb, pa, pc
from lakelog.manifest import Manifest
from lakelog.query.providers import Pinned, TableProvider
from lakelog.query.pruning import holding, near
from lakelog.query.sql import table_sql
from lakelog.query.sql.analysis import Predicate, Query
from lakelog.query.sql.table_sql import View
from lakelog.runtime import forks
from lakelog.runtime.lazy import Lazy
from lakelog.runtime.locks import OrderedLock, Rank
from lakelog.search import for_ascii
from lakelog.segments import RowRanges
from lakelog.store import SealerProcess, Store, VerifiedFiles
from lakelog.wal import PendingFrames, Tail
from lakelog.word_indexes import WordIndexes

if TYPE_CHECKING:
    from lakelog.query import tail_rows
    from lakelog.query.sql.extractions import Extraction
    from lakelog.query.tail_rows import TailRows
else:
    tail_rows = Lazy("lakelog.query.tail_rows")

SEAL_BYTES = 64_000_000
"""A query that meets a longer tail, which makes every query slower, asks for it to be sealed."""
SEAL_WRITERS = 16
"""So does one that meets the events of more writers, most of which were killed as a rule: each
position of a live tail names all of them."""
_SEAL_PAUSE = 30.0


class LakeTables:
    """The tables of one branch and of the states of its lake. Safe for threads."""

    def __init__(
        self, store: Store, branch: str, only: str | None, sandbox: tuple[str, int] | None = None
    ) -> None:
        """`only` is SQL over an event's columns: `events` has just the rows for which it holds.
        `sandbox` is for SQL of others: a directory to spill to, and how many bytes; the engine
        opens no other file but segments and what is derived of them."""
        self.store, self.branch, self.only = store, branch, only
        self.sandbox = sandbox
        self.provider: TableProvider | None = None
        # Two locks: a query holds the session's for long, and the database must be got meanwhile.
        self.mutex, self._parts = OrderedLock(Rank.SESSION), OrderedLock(Rank.DATABASE)
        self._database: duckdb.DuckDBPyConnection | None = None
        self._is_protected = False
        self._tails: dict[str, Tail] = {}
        self._rows: dict[str, TailRows] = {}
        self.choice = SegmentChoice(store, branch, lambda: self.opens_fields)
        self._sealer_start = 0.0
        self.keeps_sealed = False
        """Whether protected fields stay sealed, as answers are kept."""
        self.hides_tables = False
        """Whether a statement may read any segment without naming a table."""
        self.is_closed = False

    @property
    def is_idle(self) -> bool:
        """Whether no query has needed the database yet."""
        return self._database is None

    def connect(self) -> duckdb.DuckDBPyConnection:
        """The process's database for this lake; made at the first call."""
        database.load_relations()
        return self.engine()

    def engine(self) -> duckdb.DuckDBPyConnection:
        """The same, for whoever only runs SQL: without relations, which take longer to load."""
        with self._parts.hold():
            paths = self.store.paths
            if self._database is None:
                self._database = database.connect_engine(paths, self.store.settings, self.sandbox)
            elif paths.protection is not None and not self._is_protected:
                protect.sealed_blocks.install(paths, self._database)  # fields became so meanwhile
            self._is_protected = paths.protection is not None
            return self._database

    @property
    def opens_fields(self) -> bool:
        """Whether queries see protected fields: those of SQL of others never do. Raises
        InvalidKey."""
        protection = self.store.paths.protection
        if protection is None or self.sandbox is not None or self.keeps_sealed:
            return False
        return protection.ciphers() is not None

    def close(self) -> None:
        """Let go of the database and of tails."""
        with self._parts.hold():
            self._database, self._tails, self._rows = None, {}, {}
            self.hides_tables = False

    def require_open(self) -> None:
        """Raise LakeClosed, or ReentrantQuery in a handler of signals that interrupts a query."""
        forks.notice()
        Rank.SESSION.require_reachable()
        if self.is_closed:
            raise LakeClosed("the lake is closed: open it again to query")

    def tail(self, branch: str) -> Tail:
        """The reader of a branch's WALs, shared by queries and sealing."""
        with self._parts.hold():
            if branch not in self._tails:
                self._tails[branch] = Tail(self.store.paths, self.store.refs, branch)
            return self._tails[branch]

    def rows_of(self, branch: str) -> TailRows:
        """What makes rows of the tail of a branch, shared by queries."""
        with self._parts.hold():
            if branch not in self._rows:
                self._rows[branch] = tail_rows.TailRows(self.store, self.connect)
            return self._rows[branch]

    def state(self, digest: str | None) -> Pinned:
        """Return a state by its digest, or without one the branch as it is now, with its tail."""
        self.require_open()
        # A past state has no tail: what is in no segment belongs to no state.
        if digest is not None:
            return self.store.manifests.load(digest), None
        pending = self.pending()
        return self.store.manifests.of(pending.head.move), pending

    def pending(self) -> PendingFrames:
        """The branch and its tail as they are now; a tail that is long, or has many files or
        writers, is sealed beside us. Raises DamagedWal, DamagedRef, UnknownRef."""
        pending = self.tail(self.branch).collect()
        is_long = (
            pending.bytes >= SEAL_BYTES
            or pending.finished_files >= SealerProcess.FILES
            or len(pending.frames) > SEAL_WRITERS
        )
        if not is_long or self.store.settings.seal != "auto":
            return pending
        # At most every half minute: a sealer that cannot start must not be started by each query.
        if time.monotonic() - self._sealer_start > _SEAL_PAUSE:
            self._sealer_start = time.monotonic()
            SealerProcess(self.store, self.branch).start()
        return pending

    def tail_rows(self, pending: PendingFrames | None, state: Manifest) -> pa.Table | None:
        """Return the rows of a tail that a state lacks; None where there are none."""
        if pending is None or not pending.frames:
            return None
        return self.rows_of(pending.head.move.branch).events(pending, state.ids)

    def subject_tail(self, subject: str, pinned: Pinned) -> pa.Table | None:
        """Return the rows of the tail that a subject has; None where there is no tail, a segment
        may have some as well, or protected fields have to be opened, which the engine does."""
        state, pending = pinned
        # An id may be there twice in the tail alone: then rows have to be looked at.
        query = Query(parsed=True, needs=[Predicate(subjects={subject})])
        if self.only is not None or self.hides_tables or self.opens_fields:
            return None
        if self.choice.candidates(state, query):
            return None
        table = self.tail_rows(pending, state)
        name = arrays.texts((subject,))[0]  # a text of Python would load pandas, if it is there
        return None if table is None else table.filter(pc.equal(table["subject"], name))

    def numbered_tail(self, pending: PendingFrames | None, state: Manifest) -> pa.Table | None:
        """Return the same rows with the seq that sealing now would give each."""
        if pending is None or not pending.frames:
            return None
        return self.rows_of(pending.head.move.branch).numbered(pending, state)

    def count(self, state: Manifest, pending: PendingFrames | None) -> int:
        """Count the events of a state, without opening a segment, nor a frame unless some event
        carries an id."""
        total = state.totals.events
        if pending is None or not pending.frames:
            return total
        # An id that came twice is one event, which only the rows themselves can tell.
        if not pending.has_keys:
            return total + pending.events
        table = self.tail_rows(pending, state)
        return total if table is None else total + table.num_rows

    def count_sql(self, query: Query, pinned: Pinned) -> str | None:
        """SQL for the answer to a query that only counts all events, None for any other."""
        if query.counts_all is None or self.only is not None:
            return None
        return f"SELECT {self.count(*pinned)}::BIGINT AS {sql.identifier(query.counts_all)}"

    def choose(self, state: Manifest, query: Query) -> View:
        """Return the table of the event segments that a query can need."""
        return self.with_words(self.candidates(state, query), query)

    def candidates(self, state: Manifest, query: Query) -> View:
        """Return the same, with the segments that have none of the words of a search."""
        if self.hides_tables or (query.of_newest and self.only is not None):  # of other events
            return View("events", self.store.manifests.segments(state, "events"), None)
        return View("events", self.choice.candidates(state, query), None)

    def with_words(self, view: View, query: Query) -> View:
        """Return the table `events` without the segments, and the rows of others, that cannot have
        the words of a search."""
        if not query.has_words:
            return view
        ranges = {} if self.hides_tables else self.choice.row_ranges(view.entries, query)
        entries = [entry for entry in view.entries if ranges.get(entry.key) != ()]
        return view._replace(entries=entries, ranges=ranges)

    def with_short_patterns(self, query: Query, views: list[View]) -> Query:
        """Return a query whose searches are made for the words that there are: where all are of
        ASCII, shorter regular expressions tell where one begins and ends."""
        if not query.has_words or len(views) != 1 or views[0].opens:
            return query  # what is opened may have any letters
        words = self.choice.words
        if not all(words.is_ascii(entry.key, entry.events) for entry in views[0].entries):
            return query
        # Last, as the rows of a tail are read for it.
        if views[0].tail is not None and not tokenization.is_ascii(views[0].tail):
            return query
        return replace(query, sql=for_ascii(query.sql))

    def views(
        self, names: set[str], query: Query, pinned: Pinned, *, looks_up: bool = True
    ) -> list[View]:
        """The tables of these names as a query reads them, of one state; unless it `looks_up` the
        words of a search, with the segments that have none of them (`with_words`)."""
        state, pending = pinned
        views, opens = [], self.opens_fields
        if "events" in names:
            view = self.candidates(state, query)
            view = self.with_words(view, query) if looks_up else view
            tail = self.numbered_tail(pending, state)
            is_needle = query.parsed and bool(query.needles) and not self.hides_tables
            views.append(view._replace(tail=tail, opens=opens, by_ranges=is_needle))
        if "quarantine" in names:
            entries = self.store.manifests.segments(state, "quarantine")
            lines = self.rows_of(self.branch).quarantine(pending) if pending else None
            views.append(View("quarantine", entries, lines, opens=opens))
        return views

    def make(self, cursor: duckdb.DuckDBPyConnection, views: list[View]) -> None:
        """Make views on a cursor. Raises DamagedSegment, SnapshotGone."""
        for view in views:
            self.choice.verify(view.entries, by_ranges=view.by_ranges)
            self._make(cursor, view)

    def _make(self, cursor: duckdb.DuckDBPyConnection, view: View) -> None:
        name, source = view.name, view.source
        if view.tail is not None:
            database.load_relations()  # which know how the engine reads Arrow tables
            tail = view.tail.select(table_sql.columns(name))
            # A view over it would take as long again.
            is_bare = not (view.entries or view.more or view.of_type or view.bound or self.only)
            is_bare = is_bare and not (view.opens or view.is_kept)
            source = f"lakelog_tail_{'quarantine' if name == 'quarantine' else 'events'}"
            cursor.register(name if is_bare else source, tail)
            if is_bare:
                return
        rows = self.view_sql(name, view.entries, source, view.more, view.ranges, opens=view.opens)
        rows = view.of_type.rows_sql(rows) if view.of_type else rows
        rows = f"SELECT * FROM ({rows}) WHERE {view.bound}" if view.bound else rows
        if view.is_kept:
            # Behind a view: a table itself would have columns that no other `events` has.
            cursor.execute(f"CREATE OR REPLACE TEMP TABLE lakelog_rows AS {rows}")
            rows = "SELECT * FROM lakelog_rows"
        cursor.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {rows}")

    def rows_sql(
        self,
        entries: list[SegmentEntry],
        extractions: tuple[Extraction, ...] = (),
        ranges: RowRanges | None = None,
        *,
        opens: bool = False,
    ) -> str:
        """SQL for the rows of event segments, each verified, with seq; protected fields are sealed
        in it unless it `opens` them. Raises DamagedSegment."""
        self.choice.verify(entries)
        return self.view_sql("events", entries, None, extractions, ranges, opens=opens)

    def view_sql(
        self,
        name: str,
        entries: list[SegmentEntry],
        tail: str | None,
        extractions: tuple[Extraction, ...] = (),
        ranges: RowRanges | None = None,
        *,
        opens: bool | None = None,
    ) -> str:
        """SQL for a table of verified segments and of the table that has the rows of a tail; unless
        it is said whether it `opens` protected fields, it does where it can."""
        opens = self.opens_fields if opens is None else opens
        if opens:
            self.engine()  # knows how, if fields became protected meanwhile
        rows = table_sql.rows_sql(
            self.store.paths, name, entries, tail, extractions, ranges, opens=opens
        )
        condition = self.only if name != "quarantine" else None
        return f"SELECT * FROM ({rows}) WHERE {condition}" if condition else rows

    def over_columns(
        self,
        query: str,
        pinned: Pinned | None,
        views: list[View],
        of_refs: Mapping[str, View] = MappingProxyType({}),
        states: Mapping[str, Pinned] = MappingProxyType({}),
    ) -> tuple[str, list[View]]:
        """Return a query over a state that reads extractions from payloads as columns, and the
        views that it needs; `of_refs` are the `events` of other schemas, which are of `states`."""

        def kinds(schema: str, path: tuple[str | int, ...]) -> frozenset[str]:
            state = states.get(schema) if schema else pinned
            return (
                self.provider.field_kinds(state, path) if self.provider and state else frozenset()
            )

        cursor, keep = self.engine().cursor(), self.hides_tables
        return table_sql.over_typed_columns(cursor, query, views, of_refs, kinds, keep=keep)

    def names(self) -> list[str]:
        """Names of the tables that a query may read without a schema."""
        return [*Query.TABLES, *(self.provider.names(self.state(None)[0]) if self.provider else ())]


_REMEMBERED = 64


class SegmentChoice:
    """Chooses by the statistics of the manifest, then by the Bloom filters; what was chosen by
    these is remembered while nothing is published. Safe for threads."""

    def __init__(self, store: Store, branch: str, opens_fields: Callable[[], bool]) -> None:
        self._store, self._branch, self._opens_fields = store, branch, opens_fields
        self._filters = bloom.Filters(store.paths)
        self.words = WordIndexes(store.paths, opens_fields)
        self._chosen: dict[tuple[object, ...], tuple[SegmentEntry, ...]] = {}

    def candidates(self, state: Manifest, query: Query) -> list[SegmentEntry]:
        """Return the event segments of a state that a query can need but for the words of a search.
        Raises DamagedSegment, SnapshotGone where a filter has to be made."""
        if not query.parsed or not query.needs:
            return self._store.manifests.segments(state, "events")
        # By names first where there are any: their answers are remembered.
        return self._by_names(state, query) if query.needles else self._near(state, query.needs)

    def _by_names(self, state: Manifest, query: Query) -> list[SegmentEntry]:
        key = state.key, query.needles
        entries = self._chosen.get(key)
        if entries is None:
            entries = tuple(self._holding(state, query.needs))
            if len(self._chosen) >= _REMEMBERED:
                self._chosen = {}
            self._chosen[key] = entries
        return list(entries)

    def row_ranges(self, entries: list[SegmentEntry], query: Query) -> RowRanges:
        """Return the rows of segments that can have the words of a search; no row of a segment that
        has none of them."""
        if not query.parsed or not query.needs or any(n.words is None for n in query.needs):
            return {}
        # Words of protected fields are not in the indexes, and rows that open them could match.
        if self._opens_fields():  # before the query's memory, which may be from before
            return {}
        needs, ranges = [need.words for need in query.needs], query.row_ranges
        for entry in entries:
            if entry.key not in ranges:
                ranges[entry.key] = self.words.ranges(entry.key, entry.events, needs)
        pairs = ((entry.key, ranges[entry.key]) for entry in entries)
        return {key: rows for key, rows in pairs if rows is not None}

    def among(self, entries: list[SegmentEntry], needs: list[Predicate]) -> list[SegmentEntry]:
        """Return those of verified segments that hold what any of some mentions needs."""
        if Query(needs=needs).needles:
            return holding(entries, needs, self._filters)
        return near(entries, needs)

    def verify(self, entries: list[SegmentEntry], *, by_ranges: bool = False) -> None:
        """Hash segments not yet verified as they are; those that can be read `by_ranges` are so.
        Raises DamagedSegment, SnapshotGone."""
        store, fresh = self._store, []
        if by_ranges and store.attachment is not None:
            remote_keys = store.attachment.by_ranges(entries)
            entries = [entry for entry in entries if entry.key not in remote_keys]
        # Bytes of a shared lake may be in a bucket still: they are fetched together.
        store.verified.obtain([(e.key, store.paths.object("segments", e.key)) for e in entries])
        for entry in entries:
            path = store.paths.object("segments", entry.key)
            try:
                if store.verified.holds(entry.key, path):
                    continue
                # Once in the life of a file: what was verified is remembered with its time and
                # size.
                if VerifiedFiles.hash_file(path) != entry.key:
                    raise DamagedSegment(path, "the content does not match its name")
            except FileNotFoundError:
                raise self._missing(entry, path) from None
            fresh.append((entry.key, path))
        if fresh:
            store.verified.add_all(fresh)

    def _missing(self, entry: SegmentEntry, path: str) -> Exception:
        """A segment is not there: collected behind a slow reader's back, or lost."""
        # What a repair gave up is damage that is known, and not gc.
        if f"segments/{entry.key}" in maintain.lost_names(self._store):
            return DamagedSegment(path, "it was lost, and a repair has given it up")
        state = self._store.state(self._branch)
        if any(e.key == entry.key for e in self._store.manifests.segments(state)):
            return DamagedSegment(path, "the segment is missing")
        return SnapshotGone(f"segment {entry.key[:12]} was collected by gc: run the query again")

    def _near(self, state: Manifest, needs: list[Predicate]) -> list[SegmentEntry]:
        manifests = self._store.manifests
        # Most queries need all segments: the manifest knows nothing of words.
        if any(need == Predicate(words=need.words) for need in needs):
            return manifests.segments(state, "events")
        entries = manifests.segments_between(state, *_times(needs))
        return near([entry for entry in entries if entry.kind == "events"], needs)

    def _holding(self, state: Manifest, needs: list[Predicate]) -> list[SegmentEntry]:
        attachment, manifests = self._store.attachment, self._store.manifests
        names = attachment.names(needs) if attachment else None
        if names:
            entries_of = names.entries_of(manifests, state, *_times(needs))
            entries = manifests.segments_between(state, *_times(needs), entries_of)
            entries = near([entry for entry in entries if entry.kind == "events"], needs)
        else:
            entries = self._near(state, needs)
        missing = self._filters.missing(entry.key for entry in entries)
        if names and missing:
            lacking = names.lacking(missing)
            entries, missing = [e for e in entries if e.key not in lacking], missing - lacking
        remote_keys = set[str]()
        if attachment and missing:
            remote_keys = attachment.by_ranges([e for e in entries if e.key in missing])
            missing -= remote_keys  # to make a filter, all of it would be fetched
            lacking = names.lacking(remote_keys, 0) if names else set()
            entries = [e for e in entries if e.key not in lacking]
        if missing:
            # filters to be made of them
            self.verify([entry for entry in entries if entry.key in missing])
        holders = holding([e for e in entries if e.key not in remote_keys], needs, self._filters)
        keys = remote_keys | {entry.key for entry in holders}
        return [entry for entry in entries if entry.key in keys] if remote_keys else holders


def _times(needs: list[Predicate]) -> tuple[int, int]:
    return min(need.low for need in needs), max(need.high for need in needs)
