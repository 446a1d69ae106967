"""Histograms of the events that have one word, mostly without reading them.

The word index of a segment tells how many rows of each block have a frequent word, and the times of
the block. Where these are all in one span, the block is not read.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lakelog import database
from lakelog.query.lake_tables import LakeTables
from lakelog.query.providers import Pinned
from lakelog.query.sql.analysis import Query
from lakelog.query.sql.table_sql import View
from lakelog.query.stream import QueryCursors, Stream
from lakelog.search import WordHistogram
from lakelog.word_indexes import BlockCount


@dataclass
class _CountedBlocks:
    """The blocks of segments that have a word, and the table of all events of these segments."""

    view: View
    blocks: dict[str, list[BlockCount]]
    """By the digest of the segment; there is none of those whose words are not known."""
    spans: dict[int, int] = field(default_factory=dict)
    """How many events of blocks that are not read are in each span, by its begin (us)."""

    def reading(self, blocks: dict[str, list[BlockCount]]) -> View:
        """Return the table of some blocks, and of all rows of segments that are not known."""
        ranges = dict(self.view.ranges)
        for key in self.blocks:
            ranges[key] = tuple((block.first_row, block.last_row) for block in blocks.get(key, ()))
        entries = [entry for entry in self.view.entries if ranges.get(entry.key) != ()]
        keys = {entry.key for entry in entries}
        ranges = {key: rows for key, rows in ranges.items() if key in keys}
        return self.view._replace(entries=entries, ranges=ranges)


class WordHistograms:
    """Answers histograms of one word; called under a lock."""

    def __init__(self, tables: LakeTables, cursors: QueryCursors) -> None:
        self._tables, self._cursors = tables, cursors

    def answer(self, histogram: WordHistogram, query: Query, pinned: Pinned) -> Stream:
        """Return the rows of a query that is a histogram."""
        counted = self._counted(histogram, query, pinned)
        width = self._width(histogram, query, pinned, counted)
        edges: dict[str, list[BlockCount]] = {}
        low, high = histogram.inner
        for key, blocks in counted.blocks.items():
            for block in blocks:
                begin = block.earliest // width * width
                # Whole inside of the range and of one span: all its rows count, and none is read.
                is_inside = low <= block.earliest <= block.latest < high
                if is_inside and block.latest < begin + width and block.count is not None:
                    counted.spans[begin] = counted.spans.get(begin, 0) + block.count
                else:
                    edges.setdefault(key, []).append(block)
        view = counted.reading(edges)
        statement, views = self._over(histogram.counted(width, counted.spans), query, pinned, view)
        return self._cursors.certain(statement, views)

    def _counted(self, histogram: WordHistogram, query: Query, pinned: Pinned) -> _CountedBlocks:
        (view,) = self._tables.views({"events"}, query, pinned)
        low, high = histogram.outer
        counted = _CountedBlocks(view, {})
        for entry in view.entries:
            words = self._tables.choice.words
            blocks = words.block_counts(entry.key, entry.events, histogram.word)
            if blocks is not None:
                counted.blocks[entry.key] = [
                    block for block in blocks if low <= block.latest and block.earliest < high
                ]
        return counted

    def _width(
        self, histogram: WordHistogram, query: Query, pinned: Pinned, counted: _CountedBlocks
    ) -> int:
        """Return how long the spans are: read the blocks that may have the first or the last."""
        low, high = histogram.inner
        # A block whose count is not known is read anyway.
        inside = [
            block
            for blocks in counted.blocks.values()
            for block in blocks
            if block.count is not None and low <= block.earliest <= block.latest < high
        ]
        # The first event is not later than the last of the block that ends first.
        first_end = min((block.latest for block in inside), default=high)
        last_begin = max((block.earliest for block in inside), default=low)
        candidates = {
            key: [b for b in blocks if b.earliest <= first_end or b.latest >= last_begin]
            for key, blocks in counted.blocks.items()
        }
        view = counted.reading(candidates)
        statement, views = self._over(histogram.extremes(), query, pinned, view)
        cursor = database.segment_cursor(self._tables.engine())
        self._tables.make(cursor, views)
        ((earliest, latest),) = cursor.execute(statement).fetchall()
        return histogram.width(earliest or 0, latest or 0)

    def _over(
        self, statement: str, query: Query, pinned: Pinned, view: View
    ) -> tuple[str, list[View]]:
        spelled = self._tables.with_short_patterns(replace(query, sql=statement), [view])
        return self._tables.over_columns(spelled.sql, pinned, [view])
