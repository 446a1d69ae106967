"""Running SQL: the table `events` is one snapshot plus the live tail, fixed when sql() is called.

Each query gets a cursor with temporary views of its own, over exactly the segments that the
manifest's statistics leave (prune.py), each verified by length and SHA-256 once. Every tag and
branch is also a schema: `"v1".events`. `SELECT count(*) FROM events` is answered from the totals.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from lakelog.errors import DamagedSegment, QueryFailed, SnapshotGone
from lakelog.query import prune
from lakelog.query.tailrows import TailRows
from lakelog.store import disk, engine, wal
from lakelog.store.manifest import Entry, Manifest
from lakelog.store.marks import hash_file
from lakelog.store.opening import Store
from lakelog.store.segment import EVENT_COLUMNS, QUARANTINE_COLUMNS
from lakelog.store.spawn import start_sealer
from lakelog.store.tail import Pending, Tail

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

SEAL_BYTES = 64_000_000
"""A query that meets a longer tail asks for it to be sealed."""
_SEAL_PAUSE = 30.0
_SESSIONS: weakref.WeakSet[Session] = weakref.WeakSet()
_TYPES = {
    "time": "TIMESTAMPTZ",
    "ingested_at": "TIMESTAMPTZ",
    "position": "BIGINT",
    "seq": "BIGINT",
}


class Session:
    """Queries of one process against one branch of a lake. Safe for threads."""

    def __init__(self, store: Store, branch: str) -> None:
        self._store, self._branch = store, branch
        self._mutex = threading.RLock()
        self._base: duckdb.DuckDBPyConnection | None = None
        self._schemas: dict[str, Any] = {}
        self._tails: dict[str, tuple[Tail, TailRows]] = {}
        self._asked = 0.0
        self._sealer: Any = None
        _SESSIONS.add(self)

    def connect(self) -> duckdb.DuckDBPyConnection:
        """The process's database for this lake; made at the first call."""
        with self._mutex:
            if self._base is None:
                self._base = engine.connect(self._store.layout, self._store.settings)
            return self._base

    def tail(self, branch: str) -> Tail:
        """The reader of a branch's WALs, shared by queries and sealing."""
        return self._reader(branch)[0]

    def sql(self, query: str, params: Any = None, at: str | None = None) -> Any:
        """Return a relation. `at` is a manifest digest; without it, the branch with its tail.

        Raises QueryFailed, SnapshotGone, Damaged.
        """
        import duckdb

        try:
            with self._mutex:
                mentions = prune.read(self.connect().cursor(), query, params)
                self._add_schemas(query, mentions)
                cursor = self.connect().cursor()
                counted = self._prepare(cursor, query, mentions, at)
            if counted is not None:
                return cursor.sql(counted)
            return cursor.sql(query, params=params) if params else cursor.sql(query)
        except duckdb.Error as error:
            raise QueryFailed(str(error)) from None

    def plan(self, query: str, at: str | None = None) -> tuple[int, int]:
        """Return (segments a query opens, segments there are)."""
        mentions = prune.read(self.connect().cursor(), query)
        state, _ = self._state(at)
        return len(self._choose(state, mentions)), state.totals.segments

    def count(self, at: str | None = None) -> int:
        """Return the number of events without opening a segment."""
        state, pending = self._state(at)
        return state.totals.events + self._tail_count(pending, state)

    def close(self) -> None:
        """Let go of the database; relations already made keep theirs."""
        with self._mutex:
            self._base, self._schemas, self._tails = None, {}, {}

    def _prepare(
        self,
        cursor: duckdb.DuckDBPyConnection,
        query: str,
        mentions: prune.Mentions,
        at: str | None,
    ) -> str | None:
        """Make the views a query needs; return SQL that answers it outright, if there is such."""
        named = {table for schema, table in mentions.tables if schema in ("", "main")}
        if not mentions.parsed:
            named = {name for name in ("events", "quarantine") if name in query.lower()}
        if not named & {"events", "quarantine"}:
            return None
        state, pending = self._state(at)
        if mentions.counts_all is not None:
            total = state.totals.events + self._tail_count(pending, state)
            name = mentions.counts_all.replace('"', '""')
            return f'SELECT {total}::BIGINT AS "{name}"'
        if "events" in named:
            tail = self._tail_table(pending, state)
            entries = self._choose(state, mentions)
            self._view(cursor, "events", entries, tail)
        if "quarantine" in named:
            entries = [e for e in self._store.manifests.entries(state) if e["kind"] == "quarantine"]
            bad = self._reader(self._branch)[1].quarantine(pending) if pending else None
            self._view(cursor, "quarantine", entries, bad)
        return None

    def _state(self, at: str | None) -> tuple[Manifest, Pending | None]:
        if at is not None:
            return self._store.manifests.load(at), None
        pending = self.tail(self._branch).collect()
        self._ask_for_sealing(pending)
        return self._store.manifests.load(pending.head.move.snapshot), pending

    def _choose(self, state: Manifest, mentions: prune.Mentions) -> list[Entry]:
        """The event segments a query can need."""
        shelf = self._store.manifests
        if not mentions.parsed or not mentions.needs:
            return [e for e in shelf.entries(state) if e["kind"] == "events"]
        near = shelf.segments_between(state, mentions.low, mentions.high)
        return [e for e in near if e["kind"] == "events" and mentions.wants(e)]

    def _tail_table(self, pending: Pending | None, state: Manifest) -> pa.Table | None:
        if pending is None or not pending.frames:
            return None
        return self._reader(pending.head.move.branch)[1].events(pending, state.ids)

    def _tail_count(self, pending: Pending | None, state: Manifest) -> int:
        """Count the tail, without opening a frame unless some event carries an id."""
        if pending is None or not pending.frames:
            return 0
        if any(f.flags & wal.KEYED for fs in pending.frames.values() for f in fs):
            table = self._tail_table(pending, state)
            return table.num_rows if table is not None else 0
        return pending.events

    def _view(
        self, cursor: duckdb.DuckDBPyConnection, name: str, entries: list[Entry],
        tail: pa.Table | None,
    ) -> None:  # fmt: skip
        self._verify(entries)
        source = None
        if tail is not None:
            source = f"lakelog_tail_{name}"
            cursor.register(source, tail)
        cursor.execute(f"CREATE TEMP VIEW {name} AS {self._view_sql(name, entries, source)}")

    def _view_sql(self, name: str, entries: list[Entry], tail: str | None) -> str:
        columns = EVENT_COLUMNS if name == "events" else QUARANTINE_COLUMNS
        listed = ", ".join(columns)
        ordered = name == "events"
        parts = []
        for layout in ("arrival", "sorted"):
            group = [e for e in entries if e["layout"] == layout]
            if group:
                seq = f", {_seq(group, layout)} AS seq" if ordered else ""
                parts.append(f"SELECT {listed}{seq} FROM read_parquet({self._paths(group)})")
        if tail is not None:
            parts.append(f"SELECT {listed}{', NULL::BIGINT AS seq' if ordered else ''} FROM {tail}")
        if not parts:
            names = (*columns, "seq") if ordered else columns
            nulls = ", ".join(f"NULL::{_TYPES.get(c, 'VARCHAR')} AS {c}" for c in names)
            parts.append(f"SELECT {nulls} WHERE false")
        return " UNION ALL ".join(parts)

    def _paths(self, entries: list[Entry]) -> str:
        paths = (self._store.layout.object("segments", e["key"]) for e in entries)
        return "[" + ", ".join("'" + p.replace("'", "''") + "'" for p in paths) + "]"

    def _verify(self, entries: list[Entry]) -> None:
        """Hash segments not yet verified as they are. Raises DamagedSegment, SnapshotGone."""
        fresh = []
        for entry in entries:
            path = self._store.layout.object("segments", entry["key"])
            try:
                if self._store.marks.holds(entry["key"], path):
                    continue
                if hash_file(path) != entry["key"]:
                    raise DamagedSegment(path, "the bytes do not match their name")
            except FileNotFoundError:
                raise self._missing(entry, path) from None
            fresh.append((entry["key"], path))
        if fresh:
            self._store.marks.add_all(fresh)

    def _missing(self, entry: Entry, path: str) -> Exception:
        """A segment is not there: collected behind a slow reader's back, or lost."""
        state = self._store.manifests.load(self._store.refs.head(self._branch).move.snapshot)
        if any(e["key"] == entry["key"] for e in self._store.manifests.entries(state)):
            return DamagedSegment(path, "the segment is missing")
        return SnapshotGone(f"segment {entry['key'][:12]} was collected by gc: run the query again")

    def _reader(self, branch: str) -> tuple[Tail, TailRows]:
        with self._mutex:
            if branch not in self._tails:
                tail = Tail(self._store.layout, self._store.refs, branch)
                self._tails[branch] = tail, TailRows(self._store, self.connect)
            return self._tails[branch]

    def _add_schemas(self, query: str, mentions: prune.Mentions) -> None:
        """Make `"ref".events` for every tag and branch that the query names."""
        wanted = {schema for schema, _ in mentions.tables} - {"", "main"}
        if not mentions.parsed:
            names = [t.name for t in self._store.refs.tags()] + self._store.refs.branches()
            wanted = {n for n in names if n in query}
        for name in sorted(wanted):
            self._add_schema(name)

    def _add_schema(self, name: str) -> None:
        store, pending = self._store, None
        if disk.exists(store.layout.tag(name)):
            state = store.manifests.load(store.refs.tag(name).snapshot)
        elif name in store.refs.branches():
            pending = self.tail(name).collect()
            state = store.manifests.load(pending.head.move.snapshot)
        else:
            return
        tail = self._tail_table(pending, state)
        stamp = (state.digest, tail and (id(tail), tail.num_rows))
        if self._schemas.get(name) == stamp:
            return
        if name in self._schemas or name == "main":
            self._base, self._schemas = None, {}  # older relations keep the database they read
        self._make_schema(name, state, tail)
        self._schemas[name] = stamp

    def _make_schema(self, name: str, state: Manifest, tail: pa.Table | None) -> None:
        cursor = self.connect().cursor()
        quoted = '"' + name.replace('"', '""') + '"'
        entries = self._store.manifests.entries(state)
        self._verify(entries)
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted}")
        for table, kind in (("events", "events"), ("quarantine", "quarantine")):
            chosen = [e for e in entries if e["kind"] == kind]
            source = None
            if tail is not None and kind == "events":
                cursor.register("lakelog_tail", tail)
                cursor.execute(f"CREATE TABLE {quoted}.lakelog_tail AS FROM lakelog_tail")
                source = f"{quoted}.lakelog_tail"
            cursor.execute(
                f"CREATE VIEW {quoted}.{table} AS {self._view_sql(table, chosen, source)}"
            )

    def _ask_for_sealing(self, pending: Pending) -> None:
        """A long tail makes every query slower: have it sealed beside us."""
        if pending.bytes < SEAL_BYTES or self._store.settings.seal != "auto":
            return
        if time.monotonic() - self._asked > _SEAL_PAUSE:
            self._asked = time.monotonic()
            self._sealer = start_sealer(self._store, self._branch)


def _seq(group: list[Entry], layout: str) -> str:
    """SQL for seq: a column of sorted segments, first plus row number of the others."""
    if layout == "sorted":
        return "seq"
    if len(group) == 1:
        return f"({group[0]['seq'][0]} + file_row_number)::BIGINT"
    firsts = ", ".join(str(e["seq"][0]) for e in group)
    return f"(([{firsts}]::BIGINT[])[(file_index + 1)::BIGINT] + file_row_number)::BIGINT"


def _after_fork() -> None:
    """A child must not touch its parent's database or locks."""
    for session in list(_SESSIONS):
        session._mutex = threading.RLock()
        session.close()


os.register_at_fork(after_in_child=_after_fork)
