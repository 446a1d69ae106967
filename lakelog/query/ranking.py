"""Ranked searches: the events that a search finds, by how well they match its words.

A search is ranked by BM25 over the words of all events of its state, with those of its tail. Its
rank index (lakelog/ranks) tells in which order rows may match; the condition of the search
then tells of the best of them which do, so that the events are those of the search without a rank.
"""

from __future__ import annotations

from collections.abc import Callable

from lakelog import database, ranks, tokenization
from lakelog.errors import InvalidSearch, LakelogError, QueryFailed, SnapshotGone
from lakelog.libraries import duckdb, pa
from lakelog.query.lake_tables import LakeTables
from lakelog.query.providers import Pinned
from lakelog.query.sql.table_sql import View
from lakelog.query.stream import QueryCursors, Stream
from lakelog.ranks import RankedRow, RankIndex
from lakelog.search import Search, search_condition, words

LIMIT, LIMIT_MAX = 100, 10_000
"""How many events a ranked search gives unless it is told, and how many at most."""
_FIRST, _MOST = 4, 65_536
"""How many rows are looked at for each that is wanted, and how many at once at most."""
_SINGLE, _GAP = 16, 4_096
"""So many rows of a segment are read one by one; of more, also those between two that are near."""


class Ranking:
    """Answers a ranked search."""

    def __init__(self, tables: LakeTables, search: Search, limit: int | None) -> None:
        """Raises InvalidSearch for more events than a ranked search gives."""
        self._tables, self._search = tables, search
        self._limit = LIMIT if limit is None else limit
        if self._limit > LIMIT_MAX:
            raise InvalidSearch(f"a ranked search gives at most {LIMIT_MAX:,} events")

    def complete(self, pinned: Pinned) -> None:
        """Build the rank indexes that segments of a state lack. Raises MissingPackage, QueryFailed
        for an encrypted lake or too many segments, DamagedSegment, SnapshotGone, OSError."""
        store = self._tables.store
        # Before anything is built: an index in plain would undo the encryption of its words.
        ranks.require_package()
        if store.paths.keys is not None:
            raise QueryFailed(
                "an encrypted lake has no ranked search: its index would have words in plain"
            )
        entries = store.manifests.segments(pinned[0], "events")
        if len(entries) > ranks.SEGMENTS_MAX:
            raise QueryFailed(
                f"a ranked search reads at most {ranks.SEGMENTS_MAX:,} segments, and there are"
                f" {len(entries):,}: merge them by `lakelog compact`"
            )
        for entry in entries:
            if ranks.is_missing(store.paths, entry.key):
                # Verified first: an index of damaged rows would go on giving wrong answers.
                self._tables.choice.verify([entry])
                ranks.build(store.paths, entry, self._cursor())

    def answer(self, pinned: Pinned, cursors: QueryCursors) -> Stream:
        """Return the best events, with their scores; called under a lock. Raises
        InvalidSearch for one without a word, LakelogError, OSError."""
        cursor, node = self._cursor(), self._search.node
        need, scored, is_exact = words.ranking(cursor, node)
        if not scored:
            raise InvalidSearch("a ranked search needs a whole word to rank by")
        entries = self._tables.store.manifests.segments(pinned[0], "events")
        state, pending = pinned
        tail = self._tables.numbered_tail(pending, state)
        keys = [entry.key for entry in entries]
        view = View("events", entries, tail, opens=self._tables.opens_fields)
        try:
            index = RankIndex.of(self._tables.store.paths, keys, self._tail_texts(tail))
            best_rows = self._best(
                # Rows are numbered as in the view: by seq, and by their place in the segment.
                lambda size, offset: index.best(need, scored, size, offset),
                view,
                "" if is_exact else search_condition(node, "e."),
            )
        except SnapshotGone:
            raise
        except LakelogError:
            ranks.drop(self._tables.store.paths, keys)  # they are made again
            raise
        rows = ", ".join(f"({row.seq}, {row.score!r}::DOUBLE)" for row in best_rows)
        # A join with nothing, so that the columns are the same.
        none = "(SELECT NULL::BIGINT, NULL::DOUBLE WHERE false)"
        statement = (
            "SELECT e.*, r.score FROM events e JOIN "
            f"{f'(VALUES {rows})' if best_rows else none} AS r(seq, score) ON r.seq = e.seq"
            " ORDER BY r.score DESC, e.seq DESC"
        )
        return cursors.certain(statement, [_reading(view, best_rows)])

    def _best(
        self, best: Callable[[int, int], list[RankedRow]], view: View, condition: str
    ) -> list[RankedRow]:
        """Return the best rows for which a condition holds. Of equal ones those that arrived last,
        unless there are very many, or rows have to be read to know."""
        limit, offset = self._limit, 0
        # More are looked at than are wanted, since the condition rejects some of them.
        best_rows, size = list[RankedRow](), _FIRST * limit
        while True:
            ranked = best(size, offset)
            best_rows += self._matching(view, ranked, condition) if condition else ranked
            offset += len(ranked)
            if len(ranked) < size:
                break
            if len(best_rows) >= limit and (
                condition or offset > _MOST or ranked[-1].score < best_rows[limit - 1].score
            ):
                break
            size = min(size * _FIRST, _MOST)
        return sorted(best_rows, key=lambda row: (-row.score, -row.seq))[:limit]

    def _matching(self, view: View, ranked: list[RankedRow], condition: str) -> list[RankedRow]:
        """Return the rows for which a condition holds."""
        if not ranked:
            return []
        cursor = database.segment_cursor(self._tables.engine())
        self._tables.make(cursor, [_reading(view, ranked)])
        seqs = ", ".join(str(row.seq) for row in ranked)
        # By seq and through the very condition of the search: words are only a first choice.
        matches = cursor.execute(
            f"SELECT e.seq FROM events e SEMI JOIN (SELECT unnest([{seqs}]) AS seq) r"
            f" ON r.seq = e.seq WHERE {condition}"
        ).fetchall()
        seqs_that_match = {seq for (seq,) in matches}
        return [row for row in ranked if row.seq in seqs_that_match]

    def _tail_texts(self, tail: pa.Table | None) -> tuple[pa.Array, list[int]] | None:
        if tail is None:
            return None
        return tokenization.spaced(self._cursor(), tail), tail["seq"].to_pylist()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        return self._tables.connect().cursor()


def _reading(view: View, ranked: list[RankedRow]) -> View:
    """The table of the segments, and about the rows of them, that are among ranked ones."""
    rows: dict[int, list[int]] = {}
    for row in ranked:
        rows.setdefault(row.segment, []).append(row.row)
    ranges = {
        entry.key: _ranges(rows[number])
        for entry in view.entries
        if (number := ranks.number_of(entry.key)) in rows
    }
    tail = view.tail if 0 in rows else None
    entries = [entry for entry in view.entries if entry.key in ranges]
    return view._replace(entries=entries, ranges=ranges, tail=tail)


def _ranges(rows: list[int]) -> tuple[tuple[int, int], ...]:
    """Ranges of rows that have some, each alone if they are few."""
    gap, ranges = 0 if len(rows) <= _SINGLE else _GAP, list[tuple[int, int]]()
    for row in sorted(rows):
        if ranges and row - ranges[-1][1] <= gap:
            ranges[-1] = ranges[-1][0], row
        else:
            ranges.append((row, row))
    return tuple(ranges)
