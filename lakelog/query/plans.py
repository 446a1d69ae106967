"""Plans for a SELECT over the lake's own tables alone, which is answered without a relation of the
engine. The first plan that applies and finds the query right answers it.

    CountPlan     count(*) of all events: the manifest and the WALs say it; of those that have a
                  word, the word indexes, also by spans of time
    ScanPlan      a first query over a tail: the frames themselves are read
    NeedlePlan    certain ids, subjects or rare words: few segments, in the query itself
    TablePlan     any other: views on a cursor, kept for the next query of the same segments
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lakelog.query.binder import Binder
from lakelog.query.cursor_pool import QueryCursors
from lakelog.query.frame_scans import FrameScans
from lakelog.query.histograms import WordHistograms
from lakelog.query.lake_tables import LakeTables
from lakelog.query.sql import table_sql
from lakelog.query.sql.analysis import Query
from lakelog.query.stream import Stream
from lakelog.query.top_scans import LEAST, TopScans
from lakelog.search import counted_word
from lakelog.segments import sql

if TYPE_CHECKING:
    from lakelog.query.providers import Pinned
    from lakelog.query.type_tables import TypeTables


@dataclass(frozen=True)
class LakeSelect:
    """A SELECT over tables of the lake, and the state that it reads."""

    query: Query
    names: set[str]
    pinned: Pinned


class QueryPlan(Protocol):
    """A way to answer a SELECT."""

    def applies(self, selection: LakeSelect) -> bool:
        """Whether the plan can answer a SELECT."""

    def run(self, selection: LakeSelect) -> Stream | None:
        """Return the rows; None if the query needs another plan, or is wrong."""


class CountPlan:
    """Answers from statistics."""

    def __init__(self, tables: LakeTables, types: TypeTables, cursors: QueryCursors) -> None:
        self._tables, self._types, self._cursors = tables, types, cursors
        self._histograms = WordHistograms(tables, types, cursors)

    def applies(self, selection: LakeSelect) -> bool:
        """Whether all events are counted, or those that a search finds."""
        query = selection.query
        return self._tables.only is None and (query.counts_all is not None or query.has_words)

    def run(self, selection: LakeSelect) -> Stream | None:
        """Return the number; None for a search for anything but a word."""
        if selection.query.has_words:
            if counted := counted_word(selection.query.sql):
                return self._of_word(selection, *counted)
            return self._histograms.answer(selection.query, selection.pinned)
        answer = self._tables.count_sql(selection.query, selection.pinned)
        return self._cursors.constant(answer) if answer else None

    def _of_word(self, selection: LakeSelect, column: str, word: str) -> Stream | None:
        """Count the events that have a word: by the index of each segment that knows, and by
        reading the others and the tail."""
        (view,) = self._tables.views({"events"}, selection.query, selection.pinned)
        counts = {entry.key: self._tables.word_count(entry, word) for entry in view.entries}
        total = sum(filter(None, counts.values()))
        view = view._replace(entries=[e for e in view.entries if counts[e.key] is None])
        name = sql.identifier(column)
        if not view.entries and view.tail is None:
            return self._cursors.constant(f"SELECT {total}::BIGINT AS {name}")
        counted, views = self._types.over_columns(selection.query.sql, selection.pinned, [view], {})
        counted = f"SELECT (count + {total})::BIGINT AS {name} FROM ({counted}) AS counts(count)"
        return self._cursors.stream(counted, views, is_once=True)


class ScanPlan:
    """Reads frames of the WAL."""

    def __init__(self, tables: LakeTables, scans: FrameScans) -> None:
        self._tables, self._scans = tables, scans

    def applies(self, selection: LakeSelect) -> bool:
        """Whether nothing but all events is read."""
        return selection.names == {"events"} and self._tables.only is None

    def run(self, selection: LakeSelect) -> Stream | None:
        """Return the rows, None if they need columns that are not in every frame."""
        cursor = self._tables.engine().cursor()
        return self._scans.stream(cursor, selection.query, selection.pinned)


class NeedlePlan:
    """Puts the segments into the query: needles read few, each others, and views would take longer
    than they do."""

    def __init__(self, tables: LakeTables, types: TypeTables, cursors: QueryCursors) -> None:
        self._tables, self._types, self._cursors = tables, types, cursors

    def applies(self, selection: LakeSelect) -> bool:
        """Whether certain ids, subjects or words are asked for, in segments alone."""
        pending, query = selection.pinned[1], selection.query
        has_tail = pending is not None and bool(pending.frames)
        return (
            (query.needles or query.has_words)
            and not has_tail
            and not table_sql.has_names(query.sql)
        )

    def run(self, selection: LakeSelect) -> Stream | None:
        """Return the rows, None if more than one table, or many rows for words, are to be read."""
        query, pinned = selection.query, selection.pinned
        views = self._tables.views(selection.names, query, pinned)
        if not query.needles and views[0].row_count > LEAST:
            return None
        query = self._tables.with_short_patterns(query, views)
        rewritten, views = self._types.over_columns(query.sql, pinned, views, {})
        if not table_sql.can_inline(rewritten, views):
            return None
        rows = self._tables.rows_sql(views[0].entries, views[0].more, views[0].ranges)
        return self._cursors.stream(
            table_sql.inlined(rewritten, views[0].name, rows), [], is_once=True
        )


class TablePlan:
    """Makes views, without what a query for the newest or oldest rows sorts out."""

    def __init__(
        self, tables: LakeTables, types: TypeTables, tops: TopScans, cursors: QueryCursors
    ) -> None:
        self._tables, self._types, self._tops, self._cursors = tables, types, tops, cursors

    def applies(self, selection: LakeSelect) -> bool:
        """Whether tables are read: always."""
        return True

    def run(self, selection: LakeSelect) -> Stream | None:
        """Return the rows."""
        query, pinned = selection.query, selection.pinned
        views = self._tables.views(selection.names, query, pinned)
        query = self._tables.with_short_patterns(query, views)
        views = self._tops.bounded(query, pinned, views)
        rewritten, views = self._types.over_columns(query.sql, pinned, views, {})
        return self._cursors.stream(rewritten, views)


def plans_of(tables: LakeTables, binder: Binder, scans: FrameScans) -> tuple[QueryPlan, ...]:
    """Return all plans, in the order in which they are tried."""
    types, cursors = binder.types, binder.cursors
    return (
        CountPlan(tables, types, cursors),
        ScanPlan(tables, scans),
        NeedlePlan(tables, types, cursors),
        TablePlan(tables, types, binder.tops, cursors),
    )
