"""Building the word index of a segment, from rows in the order in which it has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakelog.runtime.lazy import Lazy
from lakelog.segments import segment, tokens, typed, typed_rows, word_index
from lakelog.segments.tokens import Words
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
_COMMON = 256
_PENDING_MAX = 2_000_000
"""So many words of a part are held at most, of about 32 bytes each; of texts that have more it is
not known how many rows have a word."""
_BYTES = 32_000_000
"""Rows of about so many bytes, uncompressed, are read at once."""


@dataclass(frozen=True)
class _DistinctWords:
    """The distinct words of a part, and which of its blocks have each; the number of the word and
    the row of each place where one stands."""

    hashes: np.ndarray
    has_word: np.ndarray
    numbers: np.ndarray
    rows: np.ndarray


class WordIndexer:
    """Collects the words of the rows of one segment."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor, self._rows = cursor, 0
        self._pending: list[Words] = []
        self._offsets: list[int] = []
        self._is_counted = True
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
            for found in tokenize(self._cursor, rows[column].combine_chunks()):
                self._pending.append(found)
                self._offsets.append(offset)
                if sum(len(words.hashes) for words in self._pending) > _PENDING_MAX:
                    self._compress()
        self._rows += len(rows)

    def _compress(self) -> None:
        """Hold each word once for each of its blocks, and no texts."""
        distinct = self._distinct()
        numbers, blocks = np.nonzero(distinct.has_word)
        nowhere = np.zeros(len(numbers), np.int64)
        content = np.empty(0, np.uint8)
        words = Words(
            distinct.hashes[numbers], blocks * word_index.BLOCK, nowhere, nowhere, content
        )
        self._pending, self._offsets, self._is_counted = [words], [0], False

    def _end_part(self) -> None:
        distinct = self._distinct()
        frequencies = _frequencies(self._pending, distinct) if self._is_counted else {}
        table = word_index.encode_part(distinct.hashes, distinct.has_word, frequencies)
        self._tables.append(table)
        self._pending, self._offsets, self._is_counted = [], [], True

    def _distinct(self) -> _DistinctWords:
        hashes = np.concatenate([np.empty(0, np.uint64), *(w.hashes for w in self._pending)])
        offsets = zip(self._pending, self._offsets, strict=True)
        shifted = (words.rows + offset for words, offset in offsets)
        rows = np.concatenate([np.empty(0, np.int64), *shifted])
        # Arrow's table of distinct values is many times faster than sorting them.
        encoded = pc.dictionary_encode(_unsigned(hashes))
        distinct, numbers = len(encoded.dictionary), np.empty(0, np.int64)
        if distinct:
            numbers = np.frombuffer(encoded.indices.buffers()[1], np.int32, len(hashes))
            hashes = np.frombuffer(encoded.dictionary.buffers()[1], np.uint64, distinct)
        block_count = word_index.PART // word_index.BLOCK
        has_word = np.zeros(distinct * block_count, bool)
        has_word[numbers.astype(np.int64) * block_count + rows // word_index.BLOCK] = True
        return _DistinctWords(hashes, has_word.reshape(distinct, block_count), numbers, rows)


def _frequencies(pending: list[Words], distinct: _DistinctWords) -> dict[bytes, int]:
    """Return how many rows have each of the words that many of them have."""
    numbers, count = distinct.numbers, len(distinct.hashes)
    counts = _row_counts(numbers, distinct.rows, count)
    places = np.zeros(count, np.int64)
    places[numbers] = np.arange(len(numbers))
    ends = np.cumsum([len(words.hashes) for words in pending])
    frequencies = {}
    for number in np.flatnonzero(counts >= word_index.FREQUENT).tolist():
        place = int(places[number])
        owner = int(np.searchsorted(ends, place, side="right"))
        words = pending[owner]
        word = words.word(place - int(ends[owner]) + len(words.hashes))
        if word.isalnum():  # of ASCII
            frequencies[word] = int(counts[number])
    return frequencies


def _row_counts(numbers: np.ndarray, rows: np.ndarray, distinct: int) -> np.ndarray:
    """Return how many rows have each word, however often they have it; 0 for rare words."""
    occurrences = np.bincount(numbers, minlength=distinct)
    counts = np.zeros(distinct, np.int64)
    # Most of a text is words that most rows have: to sort them takes longer than all the rest.
    common = np.argsort(occurrences)[-_COMMON:]
    common_number = np.full(distinct, len(common), np.int32)
    common_number[common] = np.arange(len(common))
    has_word = np.zeros((len(common) + 1) * word_index.PART, bool)
    has_word[common_number[numbers] * np.int64(word_index.PART) + rows] = True
    by_word = has_word.reshape(len(common) + 1, word_index.PART)
    counts[common] = np.count_nonzero(by_word[:-1], axis=1)
    is_other = (occurrences >= word_index.FREQUENT) & (common_number == len(common))
    places = np.flatnonzero(is_other[numbers])
    pairs = np.unique(rows[places] * distinct + numbers[places])
    counts += np.bincount(pairs % max(distinct, 1), minlength=distinct)
    return counts


def _unsigned(values: np.ndarray) -> pa.Array:
    return pa.Array.from_buffers(pa.uint64(), len(values), [None, pa.py_buffer(values)])


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
