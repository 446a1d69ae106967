"""Following a branch: its last events, then each new one once, in the order of arrival.

Published events are known by seq: all below a bound were given. Events of the tail are known by
writer and sequence: when they are sealed they come again as published ones of that origin, or of
their stream and version, and are left out, as is another one of their id that was published before
them. The marks of a writer
are dropped once all it had pending is published. A rewind moves the bound to where the branch was
taken back to; what had been given is not taken back.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from lakelog.engine import messages
from lakelog.errors import QueryFailed
from lakelog.event.types import Event
from lakelog.libraries import duckdb, pa
from lakelog.maintain import compact
from lakelog.query.lake_tables import near
from lakelog.query.sql.analysis import analyze
from lakelog.query.tail_rows import TailRows
from lakelog.search import expanded
from lakelog.segments import segment_sql, sql
from lakelog.segments.connection import Connect
from lakelog.segments.segment import EVENT_COLUMNS
from lakelog.store import wal
from lakelog.store.bootstrap import Store
from lakelog.store.entry import SegmentEntry
from lakelog.store.manifest import Manifest
from lakelog.store.merge_note import MergeNote
from lakelog.store.ref import Head
from lakelog.store.tail import PendingFrames, Tail
from lakelog.store.versioned import StreamSubject

COLUMNS = (*EVENT_COLUMNS, "seq")
_STEP = 4
"""How many times more segments are opened at each step back in search of matching events."""
_ROWS_MAX = 100_000
_SORTED_MAX = 100_000
"""More events than these are not looked for one by one."""
_NARROW = ", ".join("origin::VARCHAR AS origin" if c == "origin" else c for c in COLUMNS)


class _Given(NamedTuple):
    """What was given of a writer's frames: the position after them, and the last sequence. Lines
    that are no events have no rows, but positions."""

    position: int
    sequence: int


_NOTHING = _Given(0, -1)
_NO_VERSIONS = "SELECT NULL::VARCHAR AS stream, NULL::BIGINT AS version WHERE false"


@dataclass(frozen=True)
class BranchRewound:
    """The branch was taken to another state: by which operation, to which snapshot."""

    op: str
    snapshot: str
    events: int


class Follower:
    """Reads one branch of a lake from its newest events on; `condition` is SQL over their columns.

    Raises QueryFailed for a condition that does not hold up.
    """

    def __init__(
        self,
        store: Store,
        branch: str,
        connect: Connect,
        condition: str | None = None,
        tail: Tail | None = None,
    ) -> None:
        if condition is not None and not condition.strip():
            raise QueryFailed("the condition is empty")
        self._store, self._branch = store, branch
        self._where = None if condition is None else expanded(condition)
        self._tail = tail or Tail(store.paths, store.refs, branch)
        self._rows, self._connect = TailRows(store, connect), connect
        self._cursor: duckdb.DuckDBPyConnection = connect().cursor()
        self._head: Head | None = None
        self._bound = 0
        self._given: dict[str, _Given] = {}
        self._versions = self._run(_NO_VERSIONS)
        self._ids = self._run("SELECT NULL::VARCHAR AS source, NULL::VARCHAR AS id WHERE false")
        self._none = self._ask(sql.no_rows(COLUMNS))

    def last(self, count: int) -> pa.Table:
        """Return the newest `count` events that match, in order; what comes later is new.

        Raises QueryFailed, Damaged, UnknownRef.
        """
        pending = self._tail.collect()
        state = self._store.manifests.of(pending.head.move)
        fresh = self._of_tail(pending, state)
        fresh = fresh.slice(max(fresh.num_rows - count, 0))
        tables = [*self._back(state, count - fresh.num_rows), fresh]
        self._stand(pending, state)
        return pa.concat_tables(tables)

    def more(self) -> Iterator[pa.Table | BranchRewound]:
        """Yield what came since: tables of events, and rewinds between them.

        Raises QueryFailed, Damaged, UnknownRef.
        """
        pending = self._tail.collect()
        moved = self._head is None or pending.head.move.number != self._head.move.number
        has_frames = any(
            fs[-1].sequence > self._given.get(w, _NOTHING).sequence
            for w, fs in pending.frames.items()
        )
        if not moved and not has_frames:
            return
        if moved:
            yield from self._published(pending.head)
        state = self._store.manifests.of(pending.head.move)
        fresh = self._of_tail(pending, state) if has_frames else self._none
        self._stand(pending, state)
        if fresh.num_rows:
            yield fresh

    def start(self, head: Head, seq: int) -> None:
        """Let what is new begin with the published event `seq` of a head, and the whole tail."""
        self._head, self._bound, self._given = head, seq, {}
        self._ids, self._versions = self._ids.slice(0, 0), self._versions.slice(0, 0)

    def published(self, head: Head) -> Iterator[pa.Table | BranchRewound]:
        """Yield what is new up to a head, and leave the tail above it for `more`.

        Raises QueryFailed, Damaged.
        """
        yield from self._published(head)
        self._head = head

    def events(self, stop: threading.Event, pause: float, timeout: float | None) -> Iterator[Event]:
        """Yield each event that arrives from this call on, until `stop` is set, or for `timeout`
        seconds no event came. Raises as `more`, and QueryFailed at once."""
        self.last(0)  # which marks the present end, so that only later events follow
        return self._events_until(stop, pause, timeout)

    def _events_until(
        self, stop: threading.Event, pause: float, timeout: float | None
    ) -> Iterator[Event]:
        since = time.monotonic()
        while not stop.is_set():
            for table in self.more():
                for event in () if isinstance(table, BranchRewound) else table.to_pylist():
                    if stop.is_set():
                        return
                    yield event
                    since = time.monotonic()  # the time that the caller took does not count
            seconds = math.inf if timeout is None else since + timeout - time.monotonic()
            if seconds <= 0:
                return
            stop.wait(min(pause, seconds))

    def interrupt(self) -> None:
        """Stop the running query; any thread may ask for it."""
        self._cursor.interrupt()

    def _stand(self, pending: PendingFrames, state: Manifest) -> None:
        """Remember what was given."""
        self._head, self._bound = pending.head, state.next_seq
        self._given = {w: _Given(fs[-1].end, fs[-1].sequence) for w, fs in pending.frames.items()}
        keyed = any(f.flags & wal.KEYED for fs in pending.frames.values() for f in fs)
        table = self._rows.events(pending, state.ids) if keyed else None
        if table is None:
            self._ids, self._versions = self._ids.slice(0, 0), self._versions.slice(0, 0)
            return
        self._cursor.register("held", table)
        # By their origins and highest versions: those of one stream come in their order.
        self._versions = self._run(
            "SELECT origin::VARCHAR AS stream, max(position) AS version FROM held"
            " WHERE origin::VARCHAR <> writer::VARCHAR GROUP BY ALL"
        )
        query = (
            "SELECT DISTINCT coalesce(source, '') AS source, id FROM held"
            " WHERE id <> '' AND origin::VARCHAR = writer::VARCHAR"
        )
        self._ids = self._run(query)
        self._cursor.unregister("held")

    def _published(self, head: Head) -> Iterator[pa.Table | BranchRewound]:
        """Yield published events up to a head, and the rewinds on the way."""
        known = self._head
        assert known is not None
        generation, before = known.move.generation, known.move
        if head.move.generation != generation:
            for number in self._store.refs.numbers(self._branch):
                if not known.move.number < number <= head.move.number:
                    continue
                move = self._store.refs.read(self._branch, number)
                if move.generation != generation:
                    yield from self._since(self._store.manifests.of(before))
                    state = self._store.manifests.of(move)
                    if note := MergeNote.of(move):
                        # What was given is there, with other numbers behind those that came.
                        self._bound = note.first
                        yield from self._since(state, note.first + note.count)
                        self._bound, generation = state.next_seq, move.generation
                    else:
                        self._bound, generation = state.next_seq, move.generation
                        self._versions = self._versions.slice(0, 0)  # they are given again
                        yield BranchRewound(move.op, move.snapshot, state.totals.events)
                before = move
        yield from self._since(self._store.manifests.of(head.move))

    def _since(self, state: Manifest, end: int = 0) -> Iterator[pa.Table]:
        """Yield a state's events from the bound on, up to `end` if that is given, those given from
        the tail left out."""
        start, self._bound = self._bound, state.next_seq
        end = end or state.next_seq
        entries = [e for e in self._events(state) if e.seq[1] >= start and e.seq[0] < end]
        if not entries:
            return
        seen_table = pa.table(
            {
                "writer": pa.array(list(self._given), pa.string()),
                "upto": pa.array([mark.position for mark in self._given.values()], pa.int64()),
            }
        )
        self._cursor.register("given", seen_table)
        self._cursor.register("given_versions", self._versions)
        self._cursor.register("ids", self._ids)
        for group in _groups(entries):
            compact.check(self._store, group)
            rows = segment_sql.rows_sql(self._store.paths, group)
            source = f"""SELECT {_NARROW} FROM ({rows}) AS r
                LEFT JOIN given ON r.origin = given.writer
                WHERE r.seq >= {start} AND r.seq < {end} AND (upto IS NULL OR r.position >= upto)
                AND (starts_with(r.origin, '{StreamSubject.ORIGIN}') OR NOT EXISTS
                (FROM ids WHERE ids.id = r.id AND ids.source = coalesce(r.source, '')))
                AND NOT EXISTS (FROM given_versions AS v
                WHERE v.stream = r.origin AND r.position <= v.version)"""
            # A seal numbers writer by writer; they arrived one among the other.
            found = self._ask(source, "ORDER BY ingested_at, seq")
            if found.num_rows:
                yield found

    def _of_tail(self, pending: PendingFrames, state: Manifest) -> pa.Table:
        """The tail's events that were not given yet, in the order of arrival."""
        table = self._rows.numbered(pending, state) if pending.frames else None
        if table is None:
            return self._none
        delivered = {w: self._given.get(w, _NOTHING).sequence for w in pending.frames}
        watermarks = pa.table(
            {
                "of_writer": pa.array(list(delivered), pa.string()),
                "upto": pa.array(list(delivered.values()), pa.int64()),
            }
        )
        self._cursor.register("tail", table)
        self._cursor.register("watermarks", watermarks)
        source = f"""SELECT {", ".join(COLUMNS)}, writer, sequence FROM tail
            JOIN watermarks ON tail.writer::VARCHAR = of_writer WHERE sequence > upto"""
        rows = self._ask(source, "ORDER BY ingested_at, writer::VARCHAR, sequence, position")
        self._cursor.unregister("tail")
        return rows

    def _back(self, state: Manifest, missing: int) -> list[pa.Table]:
        """The newest published events that match, found from the newest segments backwards."""
        if missing <= 0:
            return []
        tables: list[pa.Table] = []
        entries = sorted(self._events(state, self._where), key=lambda e: -int(e.seq[1]))
        step = 1
        while entries and missing > 0:
            group, entries = entries[:step], entries[step:]
            floor = _floor(group, missing) if self._where is None else 0
            source = f"""SELECT {_NARROW} FROM ({segment_sql.rows_sql(self._store.paths, group)})
                WHERE seq >= {floor}"""
            compact.check(self._store, group)
            rows = self._ask(f"{source} AND seq >= ({self._nth(source, missing)})", "ORDER BY seq")
            tables.append(rows)
            missing, step = missing - rows.num_rows, step * _STEP
        return tables[::-1]

    def _nth(self, source: str, count: int) -> int:
        """The seq of the newest event but `count` - 1 that matches, or a lower one.

        It is asked for by itself, for an ORDER BY with a LIMIT over rows numbered by their place
        in a file trips the engine's late materialization (an internal error of 2.0).
        """
        if count > _SORTED_MAX:
            return 0
        rows = f"WITH events AS ({source}) SELECT max(seq, {count}) FROM events {self._condition}"
        newest: list[int] | None = self._run(rows).column(0).to_pylist()[0]
        return min(newest or [0])

    def _events(self, state: Manifest, condition: str | None = None) -> list[SegmentEntry]:
        """The segments of events that may hold what matches."""
        return matching_segments(self._store, self._connect, state, condition)

    @property
    def _condition(self) -> str:
        return f"WHERE (\n{self._where}\n)" if self._where is not None else ""

    def _ask(self, source: str, ending: str = "") -> pa.Table:
        """Return the rows of SQL that match, with all columns."""
        columns = ", ".join(COLUMNS)
        query = f"WITH events AS ({source}) SELECT {columns} FROM events {self._condition} {ending}"
        return self._run(query)

    def _run(self, query: str) -> pa.Table:
        return rows_of(self._cursor, query)


def rows_of(cursor: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    """Return the rows of a query. Raises QueryFailed, in one line."""
    try:
        table: pa.Table = cursor.sql(query).to_arrow_table()
    except duckdb.Error as error:
        raise QueryFailed(messages.gist(str(error))) from None
    return table


def matching_segments(
    store: Store, connect: Connect, state: Manifest, condition: str | None
) -> list[SegmentEntry]:
    """The segments of events of a state that may hold what matches a condition."""
    entries = store.manifests.segments(state, "events")
    if condition is None:
        return entries
    mentions = analyze(connect().cursor(), f"SELECT * FROM events WHERE (\n{condition}\n)")
    if not mentions.parsed or not mentions.needs:
        return entries
    return near(entries, mentions.needs)


def _groups(entries: list[SegmentEntry]) -> Iterator[list[SegmentEntry]]:
    """Yield segments in the order of seq, so many at a time as the memory should hold rows of."""
    group: list[SegmentEntry] = []
    for entry in sorted(entries, key=lambda e: int(e.seq[0])):
        if group and sum(e.events for e in group) + entry.events > _ROWS_MAX:
            yield group
            group = []
        group.append(entry)
    yield group


def _floor(group: list[SegmentEntry], missing: int) -> int:
    """A seq below which none of the newest `missing` events of these segments lies."""
    for entry in group:
        missing -= entry.events
        if missing <= 0:
            dense = entry.seq[1] - entry.seq[0] + 1 == entry.events
            return int(entry.seq[0]) - missing if dense else int(entry.seq[0])
    return 0
