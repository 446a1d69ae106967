"""Building the word index of a segment, from rows in the order in which it has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import Lazy
from lakelog.segments import segment, tokens, typed, typed_rows, word_index
from lakelog.store.entry import SegmentEntry
from lakelog.store.paths import Paths

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    np = Lazy("numpy")
    pa = Lazy("pyarrow")
    pc = Lazy("pyarrow.compute")

_CUTS = {
    **dict.fromkeys(("type", "category", "source"), tokens.of_names),
    "data": tokens.of_payloads,
}
"""What finds the words of columns whose values are not just texts."""
_BYTES = 32_000_000
"""Rows of about so many bytes, uncompressed, are read at once."""


class WordIndexer:
    """Collects the words of the rows of one segment."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor, self._rows = cursor, 0
        self._hashes: list[np.ndarray] = []
        self._blocks: list[np.ndarray] = []
        self._tables: list[bytes] = []

    def add(self, rows: pa.Table, schema: typed.Schema | None) -> None:
        """Add the rows that follow; payloads in a column `fields` are structs of a schema."""
        start = 0
        while start < len(rows):
            part_rows = rows.slice(start, word_index.PART - self._rows % word_index.PART)
            self._add(part_rows, schema)
            start += len(part_rows)
            if self._rows % word_index.PART == 0:
                self._end_part()

    def finish(self, digest: str) -> bytes:
        """Return the file of the index of the segment, which has got this digest."""
        if self._rows % word_index.PART:
            self._end_part()
        return word_index.encode(digest, self._rows, self._tables)

    def _add(self, rows: pa.Table, schema: typed.Schema | None) -> None:
        if schema is not None:
            rows = typed_rows.restored(self._cursor, schema, rows)
        offset = self._rows % word_index.PART
        for column in tokens.SEARCHED:
            tokenize = _CUTS.get(column, tokens.of_texts)
            for cut_words in tokenize(self._cursor, rows[column].combine_chunks()):
                self._hashes.append(cut_words.hashes)
                self._blocks.append((cut_words.rows + offset) // word_index.BLOCK)
        self._rows += len(rows)

    def _end_part(self) -> None:
        hashes = np.concatenate([np.empty(0, np.uint64), *self._hashes])
        blocks = np.concatenate([np.empty(0, np.int64), *self._blocks])
        self._hashes, self._blocks = [], []
        # Arrow's table of distinct values is many times faster than sorting them.
        column = pa.Array.from_buffers(pa.uint64(), len(hashes), [None, pa.py_buffer(hashes)])
        encoded = pc.dictionary_encode(column)
        distinct = len(encoded.dictionary)
        block_count = word_index.PART // word_index.BLOCK
        has_word = np.zeros(distinct * block_count, bool)
        if distinct:
            numbers = np.frombuffer(encoded.indices.buffers()[1], np.int32, len(hashes))
            has_word[numbers.astype(np.int64) * block_count + blocks] = True
            hashes = np.frombuffer(encoded.dictionary.buffers()[1], np.uint64, distinct)
        table = word_index.encode_part(hashes, has_word.reshape(distinct, block_count))
        self._tables.append(table)


def build(paths: Paths, entry: SegmentEntry, cursor: duckdb.DuckDBPyConnection) -> None:
    """Build the index of a segment and store it; the caller has verified the segment."""
    schema = typed.of_entry(paths, entry) if entry.fields else None
    indexer = WordIndexer(cursor)
    row_bytes = segment.uncompressed(paths, entry.key) // max(entry.events, 1)
    for rows in segment.batches(
        paths, entry.key, max(1, min(word_index.PART, _BYTES // max(row_bytes, 1)))
    ):
        indexer.add(rows, schema)
    word_index.save(paths, entry.key, indexer.finish(entry.key))
