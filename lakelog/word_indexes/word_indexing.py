"""Building the word index of a segment, from rows in the order in which it has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lakelog import arrays, tokenization, typed_columns
from lakelog.entries import SegmentEntry
from lakelog.libraries import duckdb, np, pa, pc
from lakelog.paths import Paths
from lakelog.segments import Segment
from lakelog.tokenization import Words
from lakelog.word_indexes import joint_filter, word_index
from lakelog.word_indexes.word_dictionary import (
    BLOCKS,
    NAME_MAX,
    NO_TIMES,
    PartWords,
    encode_part,
    stored_name,
)

_CUTS = {
    **dict.fromkeys(("type", "category", "source"), tokenization.of_names),
    "data": tokenization.of_payloads,
}
"""What finds the words of columns whose values are not just texts."""
_COMMON = 256
_PENDING_MAX = 2_000_000
"""So many words of a part are held at most, of about 32 bytes each; of texts that have more it is
not known how many rows have a word."""
_TEXTS = 16_384
"""The words of so many rows are held at once as texts."""
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


class _JoinedHashes:
    """The hashes of words of a part that are joined; nothing if they are too many."""

    def __init__(self) -> None:
        self._pairs: list[tuple[np.ndarray, np.ndarray]] = []
        self._count = 0

    def add(self, tokenized: Words) -> None:
        """Add those of the words of some texts."""
        if self._count > _PENDING_MAX:
            return
        places = tokenized.joints()
        self._pairs.append((tokenized.hashes[places], tokenized.hashes[places + 1]))
        self._count += len(places)
        if self._count > _PENDING_MAX:
            self._pairs = []

    def numbered(self, hashes: np.ndarray, numbers: np.ndarray) -> joint_filter.JointPairs | None:
        """Return the pairs by the numbers of words with these hashes, None if they are too many."""
        if self._count > _PENDING_MAX:
            return None
        columns = map(np.concatenate, zip(*self._pairs, strict=True))
        # Arrow's table of hashes is many times faster than a search among sorted ones.
        places = (pc.index_in(_unsigned(column), _unsigned(hashes)) for column in columns)
        return joint_filter.JointPairs(*(numbers[arrays.numbers(p.cast("int64"))] for p in places))


class WordIndexer:
    """Collects the words of the rows of one segment."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor, self._rows = cursor, 0
        self._pending: list[Words] = []
        self._offsets: list[int] = []
        self._times: list[np.ndarray] = []
        self._is_counted = True
        self._joints = _JoinedHashes()
        self._parts: list[tuple[bytes, bytes]] = []

    def add(self, rows: pa.Table, schema: typed_columns.Schema | None) -> None:
        """Add the rows that follow; payloads in a column `fields` are structs of a schema."""
        start = 0
        while start < len(rows):
            part_rows = rows.slice(start, word_index.PART - self._rows % word_index.PART)
            self._add(part_rows, schema)
            start += len(part_rows)
            if self._rows % word_index.PART == 0:
                self._end_part()

    def finish(self, paths: Paths, digest: str) -> None:
        """Store the index of the segment, which has got this digest."""
        if self._rows % word_index.PART:
            self._end_part()
        word_index.save(paths, digest, word_index.encode(digest, self._rows, self._parts))

    def _add(self, rows: pa.Table, schema: typed_columns.Schema | None) -> None:
        if schema is not None:
            rows = typed_columns.restored(self._cursor, schema, rows)
        offset = self._rows % word_index.PART
        for column in tokenization.SEARCHED:
            tokenize = _CUTS.get(column, tokenization.of_texts)
            for tokenized in tokenize(self._cursor, rows[column].combine_chunks()):
                self._joints.add(tokenized)
                self._pending.append(tokenized)
                self._offsets.append(offset)
                if sum(len(words.hashes) for words in self._pending) > _PENDING_MAX:
                    self._compress()
        self._times.append(arrays.numbers(rows["time"].cast(pa.int64())))
        self._rows += len(rows)

    def _compress(self) -> None:
        """Hold each word once for each of its blocks, and of the texts no more than them."""
        distinct = self._distinct()
        numbers, blocks = np.nonzero(distinct.has_word)
        content, starts = _names(self._pending, distinct)
        compact_words = Words(
            distinct.hashes[numbers],
            blocks * word_index.BLOCK,
            starts[:-1][numbers],
            starts[1:][numbers],
            content,
        )
        self._pending, self._offsets, self._is_counted = [compact_words], [0], False

    def _end_part(self) -> None:
        distinct = self._distinct()
        content, starts = _names(self._pending, distinct)
        row_count = (self._rows - 1) % word_index.PART + 1
        vocabulary = _in_order(
            distinct, content, starts, self._joints, row_count, is_counted=self._is_counted
        )
        self._parts.append(encode_part(vocabulary, _block_times(np.concatenate(self._times))))
        self._pending, self._offsets, self._is_counted = [], [], True
        self._times, self._joints = [], _JoinedHashes()

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
        has_word = np.zeros(distinct * BLOCKS, bool)
        has_word[numbers.astype(np.int64) * BLOCKS + rows // word_index.BLOCK] = True
        return _DistinctWords(hashes, has_word.reshape(distinct, BLOCKS), numbers, rows)


def _names(pending: list[Words], distinct: _DistinctWords) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes of distinct words one after another, and where each begins, and all end."""
    count = len(distinct.hashes)
    places = np.zeros(count, np.int64)
    # Backwards, so that the first place of each stays: most are in the first texts.
    places[distinct.numbers[::-1]] = np.arange(len(distinct.numbers))[::-1]
    lengths, sources, offset = np.zeros(count, np.int64), np.zeros(count, np.int64), 0
    contents, base = [np.empty(0, np.uint8)], 0
    for tokenized in pending:
        numbers = np.flatnonzero((places >= offset) & (places < offset + len(tokenized.hashes)))
        inner = places[numbers] - offset
        lengths[numbers] = tokenized.ends[inner] - tokenized.starts[inner]
        sources[numbers] = np.cumsum(lengths[numbers]) - lengths[numbers] + base
        gathered = tokenized.content[_spans(tokenized.starts[inner], lengths[numbers])]
        contents.append(gathered)
        offset, base = offset + len(tokenized.hashes), base + len(gathered)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return np.concatenate(contents)[_spans(sources, lengths)], starts


def _spans(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the places of all bytes of some spans, in their order."""
    before: np.ndarray = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def _in_order(
    distinct: _DistinctWords,
    content: np.ndarray,
    starts: np.ndarray,
    joints: _JoinedHashes,
    row_count: int,
    *,
    is_counted: bool,
) -> PartWords:
    """Return words by their names; how many rows have those that many rows have; and the filter of
    those that are joined."""
    names, long_words = _binary(content, starts), np.flatnonzero(np.diff(starts) > NAME_MAX)
    if len(long_words):
        stored_names = names.to_pylist()
        for number in long_words.tolist():
            stored_names[number] = stored_name(stored_names[number])
        names = pa.array(stored_names, pa.binary())
    order = arrays.numbers(pc.sort_indices(names).cast(pa.int64()))
    names = names.take(arrays.integers(order))
    offsets = np.frombuffer(names.buffers()[1], np.int32, len(order) + 1).astype(np.int64)
    # A zero byte before each and at the end.
    joined = np.zeros(int(offsets[-1]) + len(order) + 1, np.uint8)
    places = _spans(offsets[:-1] + np.arange(1, len(order) + 1), np.diff(offsets))
    joined[places] = np.frombuffer(names.buffers()[2] or b"", np.uint8, int(offsets[-1]))
    blocks = np.packbits(distinct.has_word[order], axis=1, bitorder="little").view("<u4").ravel()
    frequent, counts = _block_counts(distinct, is_counted=is_counted)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    by_rank = np.argsort(ranks[frequent])
    pairs = joints.numbered(distinct.hashes, ranks)
    is_digit = (content >= ord("0")) & (content <= ord("9"))
    is_number = np.minimum.reduceat(is_digit, starts[:-1]) if len(order) else is_digit
    wide_counts = np.bitwise_count(blocks).astype(np.int64)
    joint_bits = (
        joint_filter.encode(pairs, wide_counts, is_number[order], row_count) if pairs else b""
    )
    return PartWords(
        joined.tobytes(),
        offsets[:-1] + np.arange(len(order)),
        blocks,
        ranks[frequent][by_rank],
        counts[by_rank],
        joint_bits,
    )


def _block_counts(distinct: _DistinctWords, *, is_counted: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of words that many rows have, and how many rows of each block have each,
    however often they have it; of no word where rows are not known any more."""
    if not is_counted:
        return np.empty(0, np.int64), np.empty((0, BLOCKS), np.int64)
    numbers, rows, block = distinct.numbers, distinct.rows, word_index.BLOCK
    occurrences = np.bincount(numbers, minlength=len(distinct.hashes))
    candidates = np.flatnonzero(occurrences >= word_index.FREQUENT)
    candidates = candidates[np.argsort(occurrences[candidates])[::-1]]
    ranks = np.full(len(occurrences), len(candidates), np.int64)
    ranks[candidates] = np.arange(len(candidates))
    word_ranks, common = ranks[numbers], min(len(candidates), _COMMON)
    counts = np.zeros((len(candidates) + 1, BLOCKS), np.int64)
    # Most of a text is words that most rows have: to sort them takes longer than all the rest.
    has_word = np.zeros((common + 1) * word_index.PART, bool)
    has_word[np.minimum(word_ranks, common) * word_index.PART + rows] = True
    row_bits = np.packbits(has_word.reshape(common + 1, BLOCKS, block)[:-1], axis=2)
    counts[:common] = np.bitwise_count(row_bits).sum(axis=2, dtype=np.uint16)
    rare_places = np.flatnonzero((word_ranks >= common) & (word_ranks < len(candidates)))
    pairs = np.unique(rows[rare_places] * len(counts) + word_ranks[rare_places])
    places = pairs % len(counts) * BLOCKS + pairs // len(counts) // block
    counts += np.bincount(places, minlength=counts.size).reshape(counts.shape)
    frequent = np.flatnonzero(counts.sum(axis=1) >= word_index.FREQUENT)
    return candidates[frequent], counts[frequent]


def _block_times(times: np.ndarray) -> list[tuple[int, int]]:
    """Return the least and the greatest time of each block."""
    block_slices = (times[n * word_index.BLOCK :][: word_index.BLOCK] for n in range(BLOCKS))
    return [
        (int(block.min()), int(block.max())) if len(block) else NO_TIMES for block in block_slices
    ]


def _binary(content: np.ndarray, starts: np.ndarray) -> pa.Array:
    offsets = pa.py_buffer(starts.astype(np.int32))
    return pa.Array.from_buffers(
        pa.binary(), len(starts) - 1, [None, offsets, pa.py_buffer(content)]
    )


def _unsigned(values: np.ndarray) -> pa.Array:
    return pa.Array.from_buffers(pa.uint64(), len(values), [None, pa.py_buffer(values)])


def build(paths: Paths, entry: SegmentEntry, cursor: duckdb.DuckDBPyConnection) -> None:
    """Build the index of a segment and store it; the caller has verified the segment."""
    schema = typed_columns.Schema.of_entry(paths, entry) if entry.fields else None
    indexer = WordIndexer(cursor)
    row_bytes = Segment(paths, entry.key).uncompressed() // max(entry.events, 1)
    for rows in Segment(paths, entry.key).batches(
        max(1, min(word_index.PART, _BYTES // max(row_bytes, 1)))
    ):
        indexer.add(rows, schema)
    indexer.finish(paths, entry.key)


def row_words(
    paths: Paths, entry: SegmentEntry, cursor: duckdb.DuckDBPyConnection
) -> Iterator[tuple[pa.Array, list[int]]]:
    """Yield the words of the rows of a segment as texts (`tokenization.spaced`), with the seq of
    each; the caller has verified the segment."""
    schema, row = (
        typed_columns.Schema.of_entry(paths, entry) if entry.fields else None,
        entry.seq[0],
    )
    for rows in Segment(paths, entry.key).batches(_TEXTS):
        table = typed_columns.restored(cursor, schema, rows) if schema is not None else rows
        is_sorted = entry.layout == "sorted"
        yield (
            tokenization.spaced(cursor, table),
            rows["seq"].to_pylist() if is_sorted else [*range(row, row + len(rows))],
        )
        row += len(rows)
