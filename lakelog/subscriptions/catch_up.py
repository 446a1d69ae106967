"""The published events of a state behind a position, in the order in which they arrived."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from lakelog import arrays
from lakelog.database import Connect
from lakelog.entries import SegmentEntry
from lakelog.libraries import pa
from lakelog.manifest import Manifest
from lakelog.protect import sealed_blocks
from lakelog.query import NewestEvents
from lakelog.segments import rows_sql
from lakelog.store import Store
from lakelog.subscriptions.position import Position

_WINDOW = 100_000
"""Events of a window at least, if there are so many; a window is of whole segments."""
_FETCHED = 262_144
"""Events that are in memory at a time."""


@dataclass(frozen=True)
class PositionedTable:
    """Events, and where a subscription stands once they are handled."""

    events: pa.Table
    position: Position

    def behind(self, count: int) -> Position:
        """Where it stands once so many of the events are handled."""
        time, last_seq = _last(self.events.slice(0, count))
        return replace(self.position, time=time, last_seq=last_seq)


def read(
    store: Store,
    connect: Connect,
    state: Manifest,
    condition: str | None,
    position: Position,
    size: int,
    fetched: int = _FETCHED,
) -> Iterator[PositionedTable]:
    """Yield the events of a state that follow a position and match, at most `size` together, of
    which `fetched` are in memory. The last position is the end of the state.

    Raises QueryFailed, Damaged.
    """
    entries = store.manifests.segments(state, "events")
    entries = sorted((e for e in entries if e.seq[1] >= position.seq), key=lambda e: e.seq)
    matching = {e.key for e in NewestEvents.matching_segments(connect, entries, condition)}
    while position.seq < state.next_seq:
        upto = position.upto or _window_end(entries, position.seq, state.next_seq)
        window = [e for e in entries if e.seq[1] >= position.seq and e.seq[0] < upto]
        candidates = [e for e in window if e.key in matching]
        store.verified.require(candidates)
        for table in (
            _tables(store, connect, candidates, condition, position, upto, fetched)
            if candidates
            else ()
        ):
            for start in range(0, table.num_rows, size):
                events = table.slice(start, size)
                position = Position(position.seq, upto, *_last(events))
                yield PositionedTable(events, position)
        position = Position(upto)
        # The last position is given even without events, so that it is committed.
        yield PositionedTable(pa.table({}), position)


def _window_end(entries: list[SegmentEntry], start: int, end: int) -> int:
    """The number at which a window that begins with `start` ends, at which no segment is cut."""
    count, reach = 0, start
    for entry in entries:
        if entry.seq[1] < start:
            continue
        if count >= _WINDOW and entry.seq[0] > reach:
            return reach + 1
        count, reach = count + entry.events, max(reach, entry.seq[1])
    return end


def _tables(
    store: Store,
    connect: Connect,
    entries: list[SegmentEntry],
    condition: str | None,
    position: Position,
    upto: int,
    fetched: int,
) -> Iterator[pa.Table]:
    """Yield the rest of a window, a bounded number of events together."""
    rows = rows_sql(store.paths, entries)
    rows = sealed_blocks.opened_sql(store.paths, rows, (entry.key for entry in entries))
    clause = f"WHERE (\n{condition}\n)" if condition is not None else ""
    # Within the window by arrival: numbers of one subject may run backwards there.
    place = position.time, position.last_seq
    while True:
        after = f"(ingested_at, seq) > (make_timestamptz({place[0]}), {place[1]})"
        source = f"""SELECT {NewestEvents.NARROW} FROM ({rows})
            WHERE seq >= {position.seq} AND seq < {upto} AND {after}"""
        query = f"""WITH events AS ({source})
            SELECT {", ".join(NewestEvents.COLUMNS)} FROM events {clause}
            ORDER BY ingested_at, seq LIMIT {fetched}"""
        # A cursor for each part: a query that stays open would keep its whole result.
        with closing(connect().cursor()) as cursor:
            table = NewestEvents.rows_of(cursor, query)
        yield table
        if table.num_rows < fetched:
            return
        place = _last(table)


def _last(table: pa.Table) -> tuple[int, int]:
    """Arrival and number of the last event of a table."""
    final = table.slice(table.num_rows - 1)
    return int(arrays.numbers(final["ingested_at"])[0]), int(arrays.numbers(final["seq"])[0])
