"""Word indexes: which blocks of 2,048 rows of a segment have a word.

They are derived from segments, which never change, stored in cache/words/ and rebuilt in the
background where one is missing or damaged; a lake without them answers the same, only slower. Each
65,536 rows are a part with a dictionary of its own (word_dictionary.py).

    header, 64 bytes  "LKX3", crc32 of the rest of it and of the directory u32, rows u64, crc32 of
                      the engine's version u32, bytes of the directory u32, crc32 of the frames
                      u32 (0 if it is not known), zeros, in the last 32 bytes the digest
                      of the segment
    directory         an entry for each part
    frames            those of each part
"""

from __future__ import annotations

import contextlib
import functools
import operator
import struct
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lakelog.disk import File
from lakelog.engine import core
from lakelog.paths import Paths
from lakelog.runtime.locks import OrderedLock, Rank
from lakelog.word_indexes.word_dictionary import (
    BLOCKS,
    DAMAGE,
    WordDictionary,
    WordPiece,
    decode_part,
)

BLOCK, PART = 2_048, 65_536
"""Rows of a block, as many as the engine takes at once, and of a part."""
FREQUENT = 32
"""Of words in so many rows of a part, it is known how many rows of each block have them."""
LEAST = 8_192
"""Segments of fewer rows are read as fast without an index."""
_MOST = 0.75
_MAGIC, _EARLIER_MAGIC = b"LKX3", b"LKX2"
_HEAD = struct.Struct("<4sIQIII4x32s")
_MEMORY = 128 << 20


@dataclass(frozen=True)
class AllOf:
    """Words of which a row has to have all."""

    needs: tuple[WordNeed, ...]


@dataclass(frozen=True)
class JoinedWords(AllOf):
    """Words that stand side by side in a text, joined as `joint_filter` says."""

    needs: tuple[str, ...]


@dataclass(frozen=True)
class AnyOf:
    """Words of which a row has to have one."""

    needs: tuple[WordNeed, ...]


WordNeed = str | WordPiece | AllOf | AnyOf
"""What a row needs to have: a word, a piece of one, or several."""


@dataclass(frozen=True, slots=True)
class BlockCount:
    """How many rows of a block have a word, None where that is not known; the first and the last
    row of the block, and the least and the greatest of their times (us)."""

    first_row: int
    last_row: int
    count: int | None
    earliest: int
    latest: int


@dataclass(frozen=True, slots=True)
class WordIndex:
    """The index of a segment of so many rows, in memory."""

    rows: int
    tables: list[WordDictionary]
    size: int

    @property
    def is_ascii(self) -> bool:
        """Whether all words are known to be of ASCII."""
        return all(table.is_ascii for table in self.tables)

    def block_counts(self, need: str | WordPiece) -> Iterator[BlockCount]:
        """Yield how many rows of each block have a word, or one with a piece, without blocks that
        have none."""
        for number_of_part, table in enumerate(self.tables):
            for number, count in enumerate(table.block_counts(need)):
                first_row = number_of_part * PART + number * BLOCK
                if count != 0 and first_row < self.rows:
                    last_row = min(first_row + BLOCK, self.rows) - 1
                    yield BlockCount(first_row, last_row, count, *table.times[number::BLOCKS])

    def blocks(self, need: WordNeed) -> int:
        """Return the blocks that may have rows that a search needs, as bits, the first lowest."""
        masks = (_blocks(table, need) for table in self.tables)
        return sum(mask << BLOCKS * number for number, mask in enumerate(masks))

    def check(self) -> None:
        """Read all of it. Raises ZstdError, ValueError, struct.error for what is damaged."""
        for table in self.tables:
            table.check()


def _blocks(table: WordDictionary, need: WordNeed) -> int:
    """Return the same of one part."""
    if isinstance(need, str | WordPiece):
        return table.find(need)
    if isinstance(need, JoinedWords):
        return table.find_joined(need.needs)
    masks = (_blocks(table, inner) for inner in need.needs)
    if isinstance(need, AnyOf):
        return functools.reduce(operator.or_, masks, 0)
    both = (1 << BLOCKS) - 1
    for mask in masks:
        both &= mask
        if not both:
            break
    return both


def row_ranges(blocks: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last row of each run of blocks."""
    start, number = -1, 0
    while blocks or start >= 0:
        if blocks & 1 and start < 0:
            start = number
        elif not blocks & 1 and start >= 0:
            yield start * BLOCK, number * BLOCK - 1
            start = -1
        blocks, number = blocks >> 1, number + 1


class WordIndexes:
    """The indexes of one lake; the most recently used are in memory. Safe for threads.

    While `opens_fields` none of them counts: no index has the words of protected fields.
    """

    def __init__(self, paths: Paths, opens_fields: Callable[[], bool]) -> None:
        self._paths, self._mutex = paths, OrderedLock(Rank.FILTERS)
        self._opens_fields = opens_fields
        self._cached: OrderedDict[str, WordIndex] = OrderedDict()
        self._size = 0

    def ranges(
        self, digest: str, rows: int, needs: Sequence[WordNeed | None]
    ) -> tuple[tuple[int, int], ...] | None:
        """Return the first and last rows of the blocks of a segment that may have what any of some
        searches needs; None where these are most of it, or that is not known."""
        either = 0
        for need in needs:
            blocks = None if need is None else self.blocks(digest, rows, need)
            if blocks is None:
                return None
            either |= blocks
        # To leave out a few rows takes longer than to read them.
        is_most = either.bit_count() * BLOCK > _MOST * rows
        return None if is_most else tuple(row_ranges(either))

    def is_ascii(self, digest: str, rows: int) -> bool:
        """Whether the words of a segment are known to be all of ASCII."""
        index = self._index(digest, rows)
        return index is not None and index.is_ascii

    def blocks(self, digest: str, rows: int, need: WordNeed) -> int | None:
        """Return the blocks of a segment that may have rows that a search needs, as bits; None
        where there is no intact index of it."""
        index = self._index(digest, rows)
        return None if index is None else index.blocks(need)

    def counted(
        self, digest: str, rows: int, need: str | WordPiece
    ) -> tuple[int, tuple[tuple[int, int], ...] | None]:
        """Return how many rows of some blocks of a segment have a word, or one with a piece, and
        the first and last rows of the other blocks, of which that is not known; None for all."""
        index, total, unknown = self._index(digest, rows), 0, 0
        if index is None:
            return 0, None
        for block in index.block_counts(need):
            if block.count is None:
                unknown |= 1 << block.first_row // BLOCK
            else:
                total += block.count
        is_most = unknown.bit_count() * BLOCK > _MOST * rows
        return (0, None) if is_most else (total, tuple(row_ranges(unknown)))

    def block_counts(
        self, digest: str, rows: int, need: str | WordPiece
    ) -> list[BlockCount] | None:
        """Return how many rows of the blocks of a segment have a word, or one with a piece, without
        those that have none; None where there is no intact index of it."""
        index = self._index(digest, rows)
        return None if index is None else list(index.block_counts(need))

    def _index(self, digest: str, rows: int) -> WordIndex | None:
        if self._opens_fields():
            return None
        index = self._cached.get(digest)
        if index is None:
            # Not under the mutex: other threads need not wait for this read.
            index = read(self._paths, digest)
            if index is None:
                return None
            self._remember(digest, index)
        elif self._size > _MEMORY // 2:  # else none has to go, and their order does not matter
            with self._mutex.hold_once():
                if digest in self._cached:
                    self._cached.move_to_end(digest)
        return index if index.rows == rows else None

    def _remember(self, digest: str, index: WordIndex) -> None:
        with self._mutex.hold_once():
            self._size += index.size if digest not in self._cached else 0
            self._cached[digest] = index
            while self._size > _MEMORY and len(self._cached) > 1:
                self._size -= self._cached.popitem(last=False)[1].size


def encode(digest: str, rows: int, tables: list[tuple[bytes, bytes]]) -> bytes:
    """Return the file of a segment's index, of what `encode_part` gave for its parts."""
    directory = b"".join(entry for entry, _ in tables)
    frames = b"".join(frames for _, frames in tables)
    sums = _engine(), len(directory), zlib.crc32(frames)
    checked = _HEAD.pack(_MAGIC, 0, rows, *sums, bytes.fromhex(digest))[8:] + directory
    return _MAGIC + struct.pack("<I", zlib.crc32(checked)) + checked + frames


def is_whole(data: bytes, digest: str) -> bool:
    """Whether these are the bytes of an index of a segment, intact, by any version of the
    engine or of lakelog."""
    if _is_earlier(data, digest):
        return True
    try:
        _decoded(data, digest).check()
    except DAMAGE:
        return False
    *_, size, frames_crc, _ = _HEAD.unpack_from(data)
    # Not each bit of a frame says something: its own checksum is of what it unpacks to.
    return not frames_crc or zlib.crc32(data[_HEAD.size + size :]) == frames_crc


def _is_earlier(data: bytes, digest: str) -> bool:
    """Whether an earlier version of lakelog wrote it: searches do without until it is rebuilt."""
    if len(data) < _HEAD.size:
        return False
    magic, crc, _, _, size, frames_crc, segment = _HEAD.unpack_from(data)
    is_intact = segment.hex() == digest and crc == zlib.crc32(data[8 : _HEAD.size + size])
    # It had no checksum of its frames: one of ours whose magic is damaged has.
    return magic == _EARLIER_MAGIC and not frames_crc and is_intact


def decode(data: bytes, digest: str) -> WordIndex | None:
    """Return the index of a segment; None if these bytes are not one of it that can be used with
    this version of the engine. Its frames are checked when they are read."""
    try:
        index = _decoded(data, digest)
    except DAMAGE:
        return None
    # Unicode grows: the engine's words are those of its version.
    return index if _HEAD.unpack_from(data)[3] == _engine() else None


def _decoded(data: bytes, digest: str) -> WordIndex:
    """Read the header and the directory. Raises struct.error, ValueError."""
    magic, crc, rows, _, size, _, segment = _HEAD.unpack_from(data)
    stop = _HEAD.size + size
    if magic != _MAGIC or segment.hex() != digest or zlib.crc32(data[8:stop]) != crc:
        raise ValueError("it is of another segment, or damaged")
    tables, place, frame = list[WordDictionary](), _HEAD.size, stop
    while place < stop:
        table, place = decode_part(data, place, frame)
        tables.append(table)
        frame = table.frames[-1]
    if frame != len(data) or len(tables) != -(-rows // PART):
        raise ValueError("it has other parts")
    return WordIndex(rows, tables, len(data))


def _engine() -> int:
    return zlib.crc32(core.version().encode())


def read(paths: Paths, digest: str) -> WordIndex | None:
    """Return the stored index of a segment, or None if it is missing or damaged."""
    try:
        data = File(paths.words(digest)).read()
    except OSError:
        return None
    return decode(data, digest)


def is_missing(paths: Paths, digest: str, rows: int) -> bool:
    """Whether a segment of so many rows has no intact index that this version of the engine can
    use, though it needs one."""
    index = read(paths, digest) if rows >= LEAST else None
    if index is None:
        return rows >= LEAST
    with contextlib.suppress(*DAMAGE):
        index.check()
        return False
    return True


def save(paths: Paths, digest: str, data: bytes) -> None:
    """Store the index of a segment, if the disk has room."""
    File(paths.words(digest)).keep(data)
