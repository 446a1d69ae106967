"""Running SQL: the table `events` is one snapshot plus the live tail, fixed when sql() is called.

Each query gets a cursor with temporary views of its own, over exactly the segments that the
manifest's statistics leave (prune.py), each verified by length and SHA-256 once. Every tag and
branch is also a schema: `"v1".events` reads a schema of its own for each state of that ref, whose
name is put into the query; a view of it, `"v1".sessions`, gets one for itself.
`SELECT count(*) FROM events` is answered from the totals.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from lakelog.errors import (
    DamagedSegment,
    InvalidName,
    LakeClosed,
    LakelogError,
    QueryFailed,
    SnapshotGone,
)
from lakelog.lazy import Lazy
from lakelog.query import frames, providers, prune
from lakelog.query.frames import Scope
from lakelog.query.qualifiers import TABLES, qualifiers
from lakelog.query.relation import Relation, Stream, one_line, with_suggestion
from lakelog.query.tail_rows import TailRows
from lakelog.store import bloom, connection, disk, gc, segment_sql, sql
from lakelog.store.bootstrap import Store
from lakelog.store.entry import SegmentEntry
from lakelog.store.manifest import Manifest
from lakelog.store.sealer_process import FILES, start_sealer
from lakelog.store.segment import EVENT_COLUMNS, QUARANTINE_COLUMNS
from lakelog.store.tail import PendingFrames, Tail
from lakelog.store.verified_files import hash_file

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from lakelog.query.providers import Pinned, TableProvider
else:
    duckdb = Lazy("duckdb")

SEAL_BYTES = 64_000_000
"""A query that meets a longer tail asks for it to be sealed."""
_SEAL_PAUSE = 30.0
_VERSIONS_MAX = 64
"""So many states of other refs can be read at once; relations on older ones fail."""
_HIDES = re.compile(r"\bcreate\b.*\b(view|macro|function)\b", re.I | re.S)
_SESSIONS: weakref.WeakSet[Session] = weakref.WeakSet()


class Session:
    """Queries of one process against one branch of a lake. Safe for threads."""

    def __init__(self, store: Store, branch: str, *, only: str | None = None) -> None:
        """`only` is SQL over an event's columns: `events` has just the rows for which it holds."""
        self.store, self._branch, self._only = store, branch, only
        self.provider: TableProvider | None = None
        self.mutex = threading.RLock()
        self._base: duckdb.DuckDBPyConnection | None = None
        self._schemas: dict[str, tuple[str, Any, str]] = {}
        self._versions: dict[str, str] = {}
        self._made = 0
        self._hidden = False
        self._attached: set[str] = set()
        self._tails: dict[str, tuple[Tail, TailRows]] = {}
        self._asked = 0.0
        self._filters = bloom.Filters(store.paths)
        self._sealer: Any = None
        self._is_closed = False
        _SESSIONS.add(self)

    def connect(self) -> duckdb.DuckDBPyConnection:
        """The process's database for this lake; made at the first call."""
        with self.mutex:
            if self._base is None:
                self._base = connection.connect(self.store.paths, self.store.settings)
            return self._base

    def tail(self, branch: str) -> Tail:
        """The reader of a branch's WALs, shared by queries and sealing."""
        return self._reader(branch)[0]

    def ask(
        self, query: str, params: Any = None, at: str | None = None, scope: Scope | None = None
    ) -> Relation:
        """Return the answer as a relation whose errors and interrupts are ours; see `_bound`."""
        cursor = self.connect().cursor()
        result, query, params = self._bound(cursor, query, params, at, scope)
        if result is None:  # a statement without rows: types need not say so of each query
            if not cursor.extract_statements(query):
                raise QueryFailed('the query is empty: ask something such as "FROM events"')
            return result  # type: ignore[return-value]
        return Relation(result, Stream(cursor, query, params), self.in_one_line)

    def sql(self, query: str, params: Any = None, at: str | None = None) -> Any:
        """Return the engine's own relation. Raises as `_bound` does."""
        return self._bound(self.connect().cursor(), query, params, at, None)[0]

    def _bound(
        self, cursor: Any, query: str, params: Any, at: str | None, scope: Scope | None
    ) -> tuple[Any, str, Any]:
        """Return a relation of a cursor, and the query and parameters that give its rows there.

        `at` is a manifest digest; without it, the branch with its tail.

        `scope` gives the caller's data frames for names that are no table of the lake.
        Raises QueryFailed, SnapshotGone, Damaged, LakeClosed.
        """
        self._check_open()
        try:
            try:
                return self._run(cursor, query, params, at, scope)
            except (SnapshotGone, duckdb.IOException) as error:
                gone = isinstance(error, SnapshotGone) or f"{self.store.paths.root}/" in str(error)
                if not gone:
                    raise
            return self._run(cursor, query, params, at, scope)  # gc was faster: look again, once
        except UnicodeEncodeError as error:
            raise QueryFailed(f"the query is not valid Unicode: {error.reason}") from None
        except duckdb.Error as error:
            raise QueryFailed(self.in_one_line(str(error)), str(error)) from None

    def _run(
        self, cursor: Any, query: str, params: Any, at: str | None, scope: Scope | None
    ) -> tuple[Any, str, Any]:
        query, params = self._bind(cursor, query, params, at)
        return frames.run(cursor, query, params, scope), query, params

    def bind(
        self, cursor: duckdb.DuckDBPyConnection, query: str, params: Any, at: str | None
    ) -> tuple[str, Any]:
        """Make the tables that a query needs on a cursor; return the query and parameters that give
        its rows there. Raises SnapshotGone, Damaged, LakeClosed and the engine's own errors."""
        self._check_open()
        try:
            return self._bind(cursor, query, params, at)
        except SnapshotGone:  # gc was faster: look again, once
            return self._bind(cursor, query, params, at)

    def _bind(
        self, cursor: duckdb.DuckDBPyConnection, query: str, params: Any, at: str | None
    ) -> tuple[str, Any]:
        with self.mutex:
            mentions = prune.analyze(self.connect().cursor(), query, params)
            query = self._requalified(query, mentions)
            counted = self.prepare(cursor, query, mentions, at)
            # A view made here is read by later queries that do not name `events`.
            self._hidden |= not mentions.parsed and bool(_HIDES.search(query))
        return (counted, None) if counted else (query, params)

    def disable_pruning(self) -> None:
        """Let later queries see all segments: a statement was kept that may read any of them."""
        self._hidden = True

    def plan(self, query: str, params: Any = None, at: str | None = None) -> tuple[int, int]:
        """Return (segments a query opens, segments there are)."""
        mentions = prune.analyze(self.connect().cursor(), query, params)
        state, _ = self.state(at)
        return len(self._choose(state, mentions)), state.totals.segments

    def count(self, at: str | None = None) -> int:
        """Return the number of events without opening a segment."""
        state, pending = self.state(at)
        return state.totals.events + self._tail_count(pending, state)

    def close(self) -> None:
        """Let go of the database; relations already made keep theirs, new ones are refused."""
        if self.provider is not None:  # not under the lock, which its thread may wait for
            self.provider.close()
        with self.mutex:
            self._is_closed = True
            self._base, self._schemas, self._tails = None, {}, {}
            self._versions.clear()
            self._hidden = False
            self._attached.clear()

    def prepare(
        self,
        cursor: duckdb.DuckDBPyConnection,
        query: str,
        mentions: prune.TableRefs,
        at: str | None,
    ) -> str | None:
        """Make the views a query needs; return SQL that answers it outright, if there is such."""
        named = {table for schema, table in mentions.tables if not schema}
        if not mentions.parsed:
            named = {name for name in TABLES if name in query.lower()}
        if self._hidden:
            named.update(TABLES)
        extra = _extra_schemas(query, mentions)
        if extra:
            named.add("events")
        pinned = self.provider.offer(cursor, query, mentions, at) if self.provider else None
        if not named.intersection(TABLES):
            return None
        state, pending = pinned or self.state(at)
        if mentions.counts_all is not None and self._only is None:
            total = state.totals.events + self._tail_count(pending, state)
            return f"SELECT {total}::BIGINT AS {sql.identifier(mentions.counts_all)}"
        if "events" in named:
            tail = self.numbered_tail(pending, state)
            # What the views of another schema ask of events is not in the query: take them all.
            entries = self._choose(state, prune.TableRefs() if extra else mentions)
            self._view(cursor, "events", entries, tail)
        for name in sorted(extra - self._attached):
            providers.REGISTERED[name].attach(cursor)
            self._attached.add(name)
        if "quarantine" in named:
            entries = self.store.manifests.segments(state, "quarantine")
            bad = self._reader(self._branch)[1].quarantine(pending) if pending else None
            self._view(cursor, "quarantine", entries, bad)
        return None

    def _check_open(self) -> None:
        if self._is_closed:
            raise LakeClosed("the lake is closed: open it again to query")

    def state(self, at: str | None) -> Pinned:
        """Return a state by its digest, or without one the branch as it is now, with its tail."""
        self._check_open()
        if at is not None:
            return self.store.manifests.load(at), None
        pending = self.tail(self._branch).collect()
        self._ask_for_sealing(pending)
        return self.store.manifests.load(pending.head.move.snapshot), pending

    def _choose(self, state: Manifest, mentions: prune.TableRefs) -> list[SegmentEntry]:
        """The event segments a query can need."""
        manifests = self.store.manifests
        if not mentions.parsed or not mentions.needs or self._hidden:
            return manifests.segments(state, "events")
        near = manifests.segments_between(state, mentions.low, mentions.high)
        near = [e for e in near if e.kind == "events" and mentions.wants(e)]
        if not mentions.needles:
            return near
        self._verify([e for e in near if not self._filters.has(e.key)])  # filters to be made
        return [e for e in near if mentions.wants(e, self._filters)]

    def tail_rows(self, pending: PendingFrames | None, state: Manifest) -> pa.Table | None:
        """Return the rows of a tail that a state lacks; None where there are none."""
        if pending is None or not pending.frames:
            return None
        return self._reader(pending.head.move.branch)[1].events(pending, state.ids)

    def numbered_tail(self, pending: PendingFrames | None, state: Manifest) -> pa.Table | None:
        """Return the same rows with the seq that sealing now would give each."""
        if pending is None or not pending.frames:
            return None
        return self._reader(pending.head.move.branch)[1].numbered(pending, state)

    def _tail_count(self, pending: PendingFrames | None, state: Manifest) -> int:
        """Count the tail, without opening a frame unless some event carries an id."""
        if pending is None or not pending.frames:
            return 0
        if pending.has_keys:
            table = self.tail_rows(pending, state)
            return table.num_rows if table is not None else 0
        return pending.events

    def _view(
        self,
        cursor: duckdb.DuckDBPyConnection,
        name: str,
        entries: list[SegmentEntry],
        tail: pa.Table | None,
    ) -> None:
        self._verify(entries)
        source = None
        if tail is not None:
            tail = tail.select(_columns(name))
            if not entries and self._only is None:  # a view over it would take as long again
                cursor.register(name, tail)
                return
            source = f"lakelog_tail_{name}"
            cursor.register(source, tail)
        cursor.execute(
            f"CREATE OR REPLACE TEMP VIEW {name} AS {self._view_sql(name, entries, source)}"
        )

    def rows_sql(self, entries: list[SegmentEntry]) -> str:
        """SQL for the rows of event segments, each verified, with seq. Raises DamagedSegment."""
        self._verify(entries)
        return self._view_sql("events", entries, None)

    def _view_sql(self, name: str, entries: list[SegmentEntry], tail: str | None) -> str:
        ordered = name == "events"
        parts = []
        if ordered:
            scans = segment_sql.scans(self.store.paths, entries)
            parts = segment_sql.queries(self.store.paths, scans)
        elif entries:
            parts = [f"SELECT {', '.join(_columns(name))} FROM {self._files(entries)}"]
        if tail is not None:
            parts.append(f"SELECT {', '.join(_columns(name))} FROM {tail}")
        if not parts:
            parts.append(sql.no_rows(_columns(name)))
        rows = " UNION ALL ".join(parts)
        return f"SELECT * FROM ({rows}) WHERE {self._only}" if ordered and self._only else rows

    def _files(self, entries: list[SegmentEntry]) -> str:
        return sql.parquet(self.store.paths.object("segments", e.key) for e in entries)

    def _verify(self, entries: list[SegmentEntry]) -> None:
        """Hash segments not yet verified as they are. Raises DamagedSegment, SnapshotGone."""
        fresh = []
        for entry in entries:
            path = self.store.paths.object("segments", entry.key)
            try:
                if self.store.verified.holds(entry.key, path):
                    continue
                if hash_file(path) != entry.key:
                    raise DamagedSegment(path, "the content does not match its name")
            except FileNotFoundError:
                raise self._missing(entry, path) from None
            fresh.append((entry.key, path))
        if fresh:
            self.store.verified.add_all(fresh)

    def _missing(self, entry: SegmentEntry, path: str) -> Exception:
        """A segment is not there: collected behind a slow reader's back, or lost."""
        if f"segments/{entry.key}" in gc.lost_names(self.store):
            return DamagedSegment(path, "it was lost, and a repair has given it up")
        state = self.store.state(self._branch)
        if any(e.key == entry.key for e in self.store.manifests.segments(state)):
            return DamagedSegment(path, "the segment is missing")
        return SnapshotGone(f"segment {entry.key[:12]} was collected by gc: run the query again")

    def _reader(self, branch: str) -> tuple[Tail, TailRows]:
        with self.mutex:
            if branch not in self._tails:
                tail = Tail(self.store.paths, self.store.refs, branch)
                self._tails[branch] = tail, TailRows(self.store, self.connect)
            return self._tails[branch]

    def _requalified(self, query: str, mentions: prune.TableRefs) -> str:
        """Put the schema of a state where the query names a tag or branch: `"v1".events`."""
        named = {pair for pair in mentions.tables if pair[0]}
        tables = {table for _, table in named}
        if not mentions.parsed and "." in query:
            tables = {*self.table_names()}
        states: dict[str, Pinned | None] = {}  # one of each ref, whatever is read of it
        schemas: dict[tuple[str, str], str | None] = {}
        data, parts, end = query.encode(), [], 0
        for start, stop, name, table in qualifiers(query, data, tables):
            pair = name, table
            if pair not in schemas:
                is_table = pair in named or not mentions.parsed  # else a column called events
                if is_table and name not in states:
                    states[name] = self._state_of(name)
                pinned = states.get(name)
                schemas[pair] = self._schema(name, pinned, table) if is_table and pinned else None
            if schema := schemas[pair]:
                parts += [data[end:start], schema.encode()]
                end = stop
        return b"".join([*parts, data[end:]]).decode()

    def _state_of(self, name: str) -> Pinned | None:
        """Return the present state of a ref, or None for no such ref."""
        store = self.store
        try:
            tagged = disk.exists(store.paths.tag(name))
        except InvalidName:
            return None
        if tagged:
            return store.manifests.load(store.refs.tag(name).snapshot), None
        if name in store.refs.branches():
            pending = self.tail(name).collect()
            return store.manifests.load(pending.head.move.snapshot), pending
        # SQL does not tell V1 from v1: take the only ref that is spelled so in another case.
        names = {*store.refs.tag_names(), *store.refs.branches()}
        alike = [n for n in names if n != name and n.lower() == name.lower()]
        return self._state_of(alike[0]) if len(alike) == 1 else None

    def _schema(self, name: str, pinned: Pinned, table: str) -> str | None:
        """Return the schema that holds a table of the state of a ref."""
        events = self._events_schema(name, pinned)
        if table in TABLES or self.provider is None:
            return events
        return self.provider.schema(name, pinned, table, events)

    def _events_schema(self, name: str, pinned: Pinned) -> str:
        """Return the schema that holds `events` and `quarantine` of the state of a ref."""
        state, pending = pinned
        tail = self.numbered_tail(pending, state)
        known = self._schemas.get(name)
        if known and known[0] == state.digest and known[1] is tail:
            return known[2]
        schema = self.new_schema(name)
        self._fill_schema(schema, state, tail)
        self._schemas[name] = state.digest, tail, schema
        self.drop_old_versions()
        return schema

    def new_schema(self, name: str) -> str:
        """Make a schema for a version of a ref; some time later it is dropped."""
        self._made += 1
        schema = f"lakelog_{self._made}"
        self.connect().cursor().execute(f"CREATE SCHEMA {schema}")
        self._versions[schema] = name
        return schema

    def drop_old_versions(self) -> None:
        """Drop the schemas of states that were superseded, but for the newest of them."""
        current = {schema for _, _, schema in self._schemas.values()}
        for schema in [v for v in self._versions if v not in current][:-_VERSIONS_MAX]:
            del self._versions[schema]
            self.connect().cursor().execute(f"DROP SCHEMA {schema} CASCADE")

    def _fill_schema(self, schema: str, state: Manifest, tail: pa.Table | None) -> None:
        cursor = self.connect().cursor()
        entries = self.store.manifests.segments(state)
        self._verify(entries)
        for kind in TABLES:
            chosen = [e for e in entries if e.kind == kind]
            source = None
            if tail is not None and kind == "events":
                cursor.register("lakelog_tail", tail)
                cursor.execute(f"CREATE TABLE {schema}.lakelog_tail AS FROM lakelog_tail")
                source = f"{schema}.lakelog_tail"
            cursor.execute(f"CREATE VIEW {schema}.{kind} AS {self._view_sql(kind, chosen, source)}")

    def in_one_line(self, words: str) -> str:
        """What the engine says, without its picture of the query, refs by their own names."""
        text = one_line(self.with_suggestion(words))
        for schema, name in self._versions.items():
            text = re.sub(rf"\b{schema}\b", lambda _, name=name: f'"{name}"', text)  # type: ignore[misc]
        return text

    def with_suggestion(self, words: str) -> str:
        """What the engine says of a table it does not have, with the lake's nearest name."""
        if "does not exist" not in words:
            return words
        names: list[str] = []
        refs: list[str] = []
        with contextlib.suppress(LakelogError, OSError):  # the query's error is the one to report
            refs = [*self.store.refs.tag_names(), *self.store.refs.branches()]
            names = self.table_names()
        return with_suggestion(words, names, refs)

    def table_names(self) -> list[str]:
        """Names of the tables that a query may read without a schema."""
        return [*TABLES, *(self.provider.names(self.state(None)[0]) if self.provider else ())]

    def _ask_for_sealing(self, pending: PendingFrames) -> None:
        """A long tail, or one of many files, makes every query slower: have it sealed beside us."""
        short = pending.bytes < SEAL_BYTES and pending.finished_files < FILES
        if short or self.store.settings.seal != "auto":
            return
        if time.monotonic() - self._asked > _SEAL_PAUSE:
            self._asked = time.monotonic()
            self._sealer = start_sealer(self.store, self._branch)


def _columns(name: str) -> tuple[str, ...]:
    """The columns of a table, in order."""
    return (*EVENT_COLUMNS, "seq") if name == "events" else QUARANTINE_COLUMNS


def _extra_schemas(query: str, mentions: prune.TableRefs) -> set[str]:
    """The registered schemas that a query names."""
    if not mentions.parsed:
        return {name for name in providers.REGISTERED if f"{name}." in query.lower()}
    return {schema.lower() for schema, _ in mentions.tables} & providers.REGISTERED.keys()


def _after_fork() -> None:
    """A child must not touch its parent's database or locks; even to free the database would wait
    for threads that the child does not have, so it is kept for ever."""
    import ctypes  # here: only the child of a fork needs it, and most processes have none

    for session in list(_SESSIONS):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session._base))
        session.mutex = threading.RLock()
        session.close()
        session._is_closed = False


os.register_at_fork(after_in_child=_after_fork)
