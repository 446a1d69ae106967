"""Word indexes: which blocks of 2,048 rows of a segment may have a word.

They are derived from segments, which never change, stored in cache/words/ and rebuilt in the
background where one is missing or damaged; a lake without them answers the same, only slower. Each
65,536 rows are a part with a table of its own: of the words in it, 8 bits more of the hash than
tell their bucket, and a bit for each of the 32 blocks.

    header, 64 bytes  "LKW1", crc32 of the rest u32, rows u64, crc32 of the engine's version u32,
                      zeros, in the last 32 bytes the digest of the segment
    for each part     words u32, b u32, bytes of two zstd frames 2 x u32, then these frames
    first frame       2^b numbers of words of buckets u16, then of each word, in the order of
                      hashes, bits 8 to 1 below the upper b of its hash u8
    second frame      bytes 0, 1, 2 and 3 of the blocks of words, each for all words; bytes of names
                      u32, and for each ASCII word that 32 rows have or more a zero byte and its
                      name, at the end a zero byte; in their order how many rows have it u32

Words whose upper b + 8 bits are equal are one. A part of too many words has none and b = 255: it
may have any word. A second frame is read once a word is in the first: rare words are in few.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import zstandard

from lakelog.runtime.lazy import Lazy
from lakelog.runtime.locks import OrderedLock, Rank
from lakelog.segments import tokens
from lakelog.store import disk
from lakelog.store.paths import Paths

if TYPE_CHECKING:
    import duckdb
    import numpy as np
else:
    duckdb = Lazy("duckdb")
    np = Lazy("numpy")

BLOCK, PART = 2_048, 65_536
"""Rows of a block, as many as the engine takes at once, and of a part."""
FREQUENT = 32
"""Of words in so many rows of a part, it is known in how many they are."""
LEAST = 8_192
"""Segments of fewer rows are read as fast without an index."""
_BLOCKS = PART // BLOCK
_EVERY = (1 << _BLOCKS) - 1
_MOST = 0.75
_MAGIC = b"LKW1"
_HEAD, _PART_HEAD = struct.Struct("<4sIQI12x32s"), struct.Struct("<IIII")
_ANY, _BITS_MAX = 255, 22
_WORDS_MAX = 1 << _BITS_MAX
_DETAILS_MAX = 16 * _WORDS_MAX
_LEVEL, _MEMORY = 3, 128 << 20


@dataclass(frozen=True)
class AllOf:
    """Words of which a row has to have all."""

    needs: tuple[WordNeed, ...]


@dataclass(frozen=True)
class AnyOf:
    """Words of which a row has to have one."""

    needs: tuple[WordNeed, ...]


WordNeed = int | AllOf | AnyOf
"""What a row needs to have: a word by its hash, or several."""


@dataclass(frozen=True, slots=True)
class _WordDetails:
    """The blocks of the words of a part, as bits, and how many rows have the frequent ones."""

    blocks: memoryview
    names: bytes
    counts: memoryview


class _WordTable:
    """The table of a part: where the words of each bucket begin, their bits, and the rest."""

    def __init__(self, bucket_bits: int, starts: memoryview, marks: bytes, frame: bytes) -> None:
        self._bucket_bits, self._starts, self._marks = bucket_bits, starts, marks
        self._frame = frame
        self._details: _WordDetails | None = None

    def find(self, word: int) -> int:
        """Return the blocks that may have a word, as bits."""
        place = self._place(word)
        if place is None:
            return 0
        details = self._read()
        return details.blocks[place] if details else _EVERY

    def count(self, word: bytes, hashed: int) -> int | None:
        """Return how many rows have a word, None where that is not known."""
        if self._place(hashed) is None:
            return 0
        details = self._read()
        if details is None:
            return None
        place = details.names.find(b"\0" + word + b"\0")
        return details.counts[details.names.count(b"\0", 0, place)] if place >= 0 else None

    def _place(self, word: int) -> int | None:
        """The place of a word among those of the part, None where it has no such word."""
        if self._bucket_bits == _ANY:
            return 0
        key = word >> 56 - self._bucket_bits
        start, stop = self._starts[key >> 8], self._starts[(key >> 8) + 1]
        place = self._marks.find(key & 255, start, stop)
        return place if place >= 0 else None

    def _read(self) -> _WordDetails | None:
        """The details; None where there are none."""
        if self._details is None and self._bucket_bits != _ANY:
            with contextlib.suppress(zstandard.ZstdError, struct.error, ValueError):
                self._details = _details(_content(self._frame, _DETAILS_MAX), len(self._marks))
        return self._details


@dataclass(frozen=True, slots=True)
class WordIndex:
    """The index of a segment of so many rows, in memory."""

    rows: int
    tables: list[_WordTable]
    size: int

    def count(self, word: str) -> int | None:
        """Return how many rows have a word of ASCII, None where that is not known."""
        hashed = tokens.of_word(word)
        counts = [table.count(word.encode(), hashed) for table in self.tables]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def blocks(self, need: WordNeed) -> int:
        """Return the blocks that may have rows that a search needs, as bits, the first lowest."""
        if isinstance(need, int):
            pairs = enumerate(self.tables)
            return sum(table.find(need) << _BLOCKS * number for number, table in pairs)
        masks = (self.blocks(inner) for inner in need.needs)
        if isinstance(need, AnyOf):
            either = 0
            for mask in masks:
                either |= mask
            return either
        both = (1 << _BLOCKS * len(self.tables)) - 1
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
    """The indexes of one lake; the most recently used are in memory. Safe for threads."""

    def __init__(self, paths: Paths) -> None:
        self._paths, self._mutex = paths, OrderedLock(Rank.FILTERS)
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
        return self.blocks(digest, rows, tokens.of_word(tokens.FOREIGN)) == 0

    def blocks(self, digest: str, rows: int, need: WordNeed) -> int | None:
        """Return the blocks of a segment that may have rows that a search needs, as bits; None
        where there is no intact index of it."""
        index = self._index(digest, rows)
        return None if index is None else index.blocks(need)

    def count(self, digest: str, rows: int, word: str) -> int | None:
        """Return how many rows of a segment have a word of ASCII, None where that is not known."""
        index = self._index(digest, rows)
        return None if index is None else index.count(word)

    def _index(self, digest: str, rows: int) -> WordIndex | None:
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


def encode_part(hashes: np.ndarray, blocks: np.ndarray, frequencies: dict[bytes, int]) -> bytes:
    """Return the table of distinct words of a part, of whose blocks each is a row of 32 truth
    values; `frequencies` are in how many rows some of them are."""
    if len(hashes) > _WORDS_MAX:
        return _PART_HEAD.pack(0, _ANY, 0, 0)
    bucket_bits = max(len(hashes) - 1, 0).bit_length() - 1 if len(hashes) > 1 else 0
    keys = hashes >> np.uint64(56 - bucket_bits)
    order = np.argsort(keys)
    keys, masks = keys[order], np.packbits(blocks[order], axis=1, bitorder="little").view("<u4")
    is_new = np.concatenate([np.ones(min(len(keys), 1), bool), keys[1:] != keys[:-1]])
    starts = np.flatnonzero(is_new)
    unions = np.bitwise_or.reduceat(masks.ravel(), starts) if len(starts) else masks.ravel()
    keys = keys[is_new]
    names = b"".join(b"\0" + name for name in frequencies) + b"\0"
    counts = np.bincount((keys >> np.uint64(8)).astype(np.int64), minlength=1 << bucket_bits)
    table = counts.astype("<u2").tobytes() + keys.astype(np.uint8).tobytes()
    planes = unions.astype("<u4").view(np.uint8).reshape(-1, 4).T.tobytes()
    rows = struct.pack(f"<{len(frequencies)}I", *frequencies.values())
    details = b"".join((planes, struct.pack("<I", len(names)), names, rows))
    frames = [zstandard.ZstdCompressor(level=_LEVEL).compress(data) for data in (table, details)]
    return _PART_HEAD.pack(len(keys), bucket_bits, *map(len, frames)) + b"".join(frames)


def encode(digest: str, rows: int, tables: list[bytes]) -> bytes:
    """Return the file of a segment's index, of the tables of its parts."""
    data = _HEAD.pack(_MAGIC, 0, rows, _engine(), bytes.fromhex(digest)) + b"".join(tables)
    return _MAGIC + struct.pack("<I", zlib.crc32(data[8:])) + data[8:]


def is_whole(data: bytes, digest: str) -> bool:
    """Whether these are the bytes of an index of a segment."""
    if len(data) < _HEAD.size or zlib.crc32(data[8:]) != struct.unpack_from("<I", data, 4)[0]:
        return False
    magic, *_, segment = _HEAD.unpack_from(data)
    return bool(magic == _MAGIC and segment.hex() == digest)


def decode(data: bytes, digest: str) -> WordIndex | None:
    """Return the index of a segment; None if these bytes are not one of it, whole, that can be
    used with this version of the engine."""
    if not is_whole(data, digest):
        return None
    _, _, rows, engine, _ = _HEAD.unpack_from(data)
    # Unicode grows: the engine's words are those of its version.
    if engine != _engine():
        return None
    try:
        tables = list(_tables(data))
    except (zstandard.ZstdError, struct.error, ValueError):
        return None
    return WordIndex(rows, tables, 4 * len(data)) if len(tables) == -(-rows // PART) else None


def _tables(data: bytes) -> Iterator[_WordTable]:
    place = _HEAD.size
    while place < len(data):
        word_count, bucket_bits, size, details_size = _PART_HEAD.unpack_from(data, place)
        place += _PART_HEAD.size
        frame, details = data[place : place + size], data[place + size :][:details_size]
        place += size + details_size
        if bucket_bits == _ANY:
            yield _WordTable(_ANY, memoryview(b""), b"", b"")
            continue
        if bucket_bits > _BITS_MAX or word_count > _WORDS_MAX:
            raise ValueError("it is too large")
        content = _content(frame, (2 << bucket_bits) + word_count)
        starts = np.zeros((1 << bucket_bits) + 1, np.uint32)
        sizes = np.frombuffer(content, "<u2", 1 << bucket_bits)
        np.cumsum(sizes, dtype=np.uint32, out=starts[1:])
        marks = content[2 << bucket_bits :]
        if not starts[-1] == word_count == len(marks):
            raise ValueError("its buckets have other words")
        yield _WordTable(bucket_bits, memoryview(starts.tobytes()).cast("I"), marks, details)


def _details(content: bytes, word_count: int) -> _WordDetails:
    """Read a second frame. Raises ValueError, struct.error."""
    (size,) = struct.unpack_from("<I", content, 4 * word_count)
    names = content[4 * word_count + 4 :][:size]
    counts = memoryview(content[4 * word_count + 4 + size :]).cast("I")
    if len(counts) != names.count(b"\0") - 1:
        raise ValueError("its names have other counts")
    planes = np.frombuffer(content, np.uint8, 4 * word_count).reshape(4, word_count)
    return _WordDetails(memoryview(planes.T.tobytes()).cast("I"), names, counts)


def _content(frame: bytes, size_max: int) -> bytes:
    """Decompress a frame. Raises ZstdError; ValueError for one of more bytes than it may have."""
    if not 0 <= zstandard.get_frame_parameters(frame).content_size <= size_max:
        raise ValueError("it is too large")
    content: bytes = zstandard.ZstdDecompressor().decompress(frame)
    return content


def _engine() -> int:
    return zlib.crc32(duckdb.__version__.encode())


def read(paths: Paths, digest: str) -> WordIndex | None:
    """Return the stored index of a segment, or None if it is missing or damaged."""
    try:
        data = disk.read(paths.words(digest))
    except OSError:
        return None
    return decode(data, digest)


def drop(paths: Paths, digests: Iterable[str]) -> None:
    """Remove the indexes of segments that only older states have."""
    with contextlib.suppress(OSError):
        for digest in digests:
            disk.unlink(paths.words(digest))


def save(paths: Paths, digest: str, data: bytes) -> None:
    """Store the index of a segment, if the disk has room."""
    with contextlib.suppress(OSError):
        disk.make_dir(os.path.dirname(paths.words(digest)))
        disk.replace_whole(paths.words(digest), data, sync=False)
