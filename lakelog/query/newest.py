"""The newest events of a state, and the segments that may hold what matches a condition."""

from __future__ import annotations

from collections.abc import Iterable

from lakelog.database import Connect
from lakelog.engine.messages import EngineMessage
from lakelog.engine.syntax import SyntaxFault, parse
from lakelog.entries import SegmentEntry
from lakelog.errors import QueryFailed
from lakelog.event import EVENT_COLUMNS
from lakelog.libraries import duckdb, pa
from lakelog.manifest import Manifest
from lakelog.protect import sealed_blocks
from lakelog.query.pruning import near
from lakelog.query.sql.analysis import Query
from lakelog.segments import rows_sql
from lakelog.store import Store

_COLUMNS = (*EVENT_COLUMNS, "seq")
_STEP = 4
"""How many times more segments are opened at each step back in search of matching events."""
_SORTED_MAX = 100_000
"""More events than these are not looked for one by one."""


class NewestEvents:
    """Finds the newest published events for which a condition holds, from the newest segments
    backwards; `cursor` runs the queries, so that whoever has it can interrupt them."""

    COLUMNS = _COLUMNS
    """The columns of an event, with `seq`."""
    NARROW = ", ".join(_COLUMNS).replace("origin", "origin::VARCHAR AS origin")
    """SQL for these columns of a segment, in types that those of the tail have as well."""

    def __init__(
        self,
        store: Store,
        connect: Connect,
        cursor: duckdb.DuckDBPyConnection,
        condition: str | None,
    ) -> None:
        self._store, self._connect, self._cursor = store, connect, cursor
        self._condition = condition
        self._clause = f"WHERE (\n{condition}\n)" if condition is not None else ""

    def last(
        self, state: Manifest, count: int, others: Iterable[SegmentEntry] = ()
    ) -> list[pa.Table]:
        """Return the newest `count` events of a state that match, and of `others`, segments that it
        may lack, in order of seq.

        Raises QueryFailed, Damaged.
        """
        if count <= 0:
            return []
        self._connect()  # knows how, if fields became protected meanwhile
        segments = self._store.manifests.segments(state, "events")
        # Each is read once, however many states have it.
        by_key = {segment.key: segment for segment in (*segments, *others)}
        matching = self.matching_segments(self._connect, [*by_key.values()], self._condition)
        return self.last_of(matching, count)

    def last_of(self, segments: list[SegmentEntry], count: int) -> list[pa.Table]:
        """Return the newest `count` events of segments that match, in order of seq.

        Raises QueryFailed, Damaged.
        """
        tables: list[pa.Table] = []
        entries = sorted(segments, key=lambda e: -int(e.seq[1]))
        columns = ", ".join(self.COLUMNS)
        # One segment, then four times as many: most conditions match soon, and some never. Who
        # wants all gets them at once.
        step = len(entries) if count >= sum(entry.events for entry in entries) else 1
        while entries and count > 0:
            group, entries = entries[:step], entries[step:]
            floor = _floor(group, count) if self._condition is None else 0
            # Before the engine is told where they are, which is elsewhere once they are here.
            self._store.verified.require(group)
            rows = rows_sql(self._store.paths, group)
            rows = sealed_blocks.opened_sql(self._store.paths, rows, (e.key for e in group))
            # Below the floor no row can be among the newest; without a condition it is known at
            # once.
            source = f"SELECT {self.NARROW} FROM ({rows}) WHERE seq >= {floor}"
            source = f"{source} AND seq >= ({self._nth(source, count)})"
            query = f"WITH events AS ({source}) SELECT {columns} FROM events {self._clause}"
            tables.append(self.rows_of(self._cursor, f"{query} ORDER BY seq"))
            count, step = count - tables[-1].num_rows, step * _STEP
        return tables[::-1]

    @staticmethod
    def require_condition(cursor: duckdb.DuckDBPyConnection, condition: str) -> None:
        """Raise QueryFailed for what is no single expression."""
        try:
            parse(cursor, f"SELECT 1 WHERE\n{condition}\n")
        except SyntaxFault as fault:
            gist = " ".join(str(fault).split())
            raise QueryFailed(f"the condition is not one expression: {gist}") from None

    @staticmethod
    def rows_of(cursor: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
        """Return the rows of a query. Raises QueryFailed, in one line."""
        try:
            table: pa.Table = cursor.sql(query).to_arrow_table()
        except duckdb.Error as error:
            raise QueryFailed(EngineMessage(error).gist()) from None
        return table

    @staticmethod
    def matching_segments(
        connect: Connect, entries: list[SegmentEntry], condition: str | None
    ) -> list[SegmentEntry]:
        """The segments of events that may hold what matches a condition."""
        if condition is None:
            return entries
        mentions = Query.of(connect().cursor(), f"SELECT * FROM events WHERE (\n{condition}\n)")
        if not mentions.parsed or not mentions.needs:
            return entries
        return near(entries, mentions.needs)

    def _nth(self, source: str, count: int) -> int:
        """The seq of the newest event but `count` - 1 that matches, or a lower one.

        It is asked for by itself, for an ORDER BY with a LIMIT over rows numbered by their place
        in a file trips the engine's late materialization (an internal error of 2.0).
        """
        if count > _SORTED_MAX:
            return 0
        rows = f"WITH events AS ({source}) SELECT max(seq, {count}) FROM events {self._clause}"
        newest: list[int] | None = self.rows_of(self._cursor, rows).column(0).to_pylist()[0]
        return min(newest or [0])


def _floor(group: list[SegmentEntry], missing: int) -> int:
    """A seq below which none of the newest `missing` events of these segments lies."""
    for entry in group:
        # Seqs without holes: the floor follows from the counts, and no row is looked at.
        missing -= entry.events
        if missing <= 0:
            dense = entry.seq[1] - entry.seq[0] + 1 == entry.events
            return int(entry.seq[0]) - missing if dense else int(entry.seq[0])
    return 0
