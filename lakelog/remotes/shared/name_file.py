"""Which entries have which ids and subjects: sorted hashes, of which a range answers (F22.12).

    64 bytes   "LKN2", crc32 of the rest of the head u32, keys of ids and of subjects i64 (-1: not
               known), 32 bytes of what it is about, hashes of blocks i64
    head       for each block the first key u64; then for each its crc32 u32
    blocks     keys u64 in ascending order, BLOCK of them but for the last one of each column
    hashes     of the blocks of a segment (F22.16), in their order

A key is 46 bits of the hash of a name (`bloom.hashes`), then 18 bits for the entry that has it, or
in the file of one segment 48 bits of the hash.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from lakelog import bloom
from lakelog.database import SegmentBlocks
from lakelog.disk import File
from lakelog.keys import VAULT
from lakelog.libraries import np, pa, pq
from lakelog.paths import KEYS

BLOCK = 4096
FILE_LEAST = 64 << 10
"""Shorter segments have no file: to fetch it would take as long as the segment."""
COLUMNS = ("id", "subject")
START = 64
_HEAD, _MAGIC = struct.Struct("<4sIqq32sq"), b"LKN2"
LOW = (1 << 18) - 1
"""Bits of a key that say which entry has the name."""
_HASH = 32


class Malformed(ValueError):
    """What is no such file, or is damaged."""


def key_of(digest: str) -> str:
    """Return the key of the file about an object."""
    return f"{KEYS.names}/{digest}"


def of_segment(path: str, digest: str) -> bytes:
    """Return the file about a segment that is here; b"" where it has no names."""
    data = File(path).read()
    segment = pq.ParquetFile(pa.BufferReader(VAULT.decrypt(data)))
    if not {*COLUMNS} <= {*segment.schema_arrow.names}:
        return b""
    table = segment.read(columns=list(COLUMNS))
    hashed = (bloom.hashes(table[name].combine_chunks()) for name in COLUMNS)
    keys = [np.unique(h & ~np.uint64(0xFFFF)) for h in hashed]
    return encode(bytes.fromhex(digest), keys, SegmentBlocks.hashes_of(data))


def encode(about: bytes, keys: Sequence[Any], hashes: bytes = b"") -> bytes:
    """Return the bytes of a file about an object, of the sorted keys of each column, None for what
    is not known, and the hashes of its blocks."""
    starts = [(k, n) for k in keys if k is not None for n in range(0, len(k), BLOCK)]
    blocks = [k[n : n + BLOCK].astype("<u8") for k, n in starts]
    firsts = np.array([block[0] for block in blocks], "<u8").tobytes()
    bodies = [block.tobytes() for block in blocks]
    checks = struct.pack(f"<{len(blocks)}I", *map(zlib.crc32, bodies))
    counts = [-1 if k is None else len(k) for k in keys]
    head = _HEAD.pack(_MAGIC, 0, *counts, about, len(hashes) // _HASH) + firsts + checks
    crc = struct.pack("<I", zlib.crc32(head[8:]))
    return b"".join((_MAGIC, crc, head[8:], *bodies, hashes))


def longest(rows: int, size: int) -> int:
    """Return the bytes of a file about so many rows, in so many bytes, at most."""
    keys = len(COLUMNS) * (8 * rows + 12 * _blocks(rows))
    return START + keys + SegmentBlocks.hash_bytes(size)


def _blocks(count: int) -> int:
    """Return how many blocks so many keys have, none of those that are not known."""
    return -(-max(count, 0) // BLOCK)


def head_size(data: bytes) -> int:
    """Return the length of the head of a file that begins so. Raises Malformed."""
    if len(data) < START or data[:4] != _MAGIC:
        raise Malformed("it is no file of names")
    counts = _HEAD.unpack_from(data)[2:4]
    size = START + 12 * sum(map(_blocks, counts))
    if size >= 1 << 24:
        raise Malformed("it says that it is longer than any")
    return size


def file_size(data: bytes) -> int:
    """Return the length of a file that begins so. Raises Malformed."""
    counts = [max(count, 0) for count in _HEAD.unpack_from(data)[2:4]]
    size: int = head_size(data) + 8 * sum(counts) + _HASH * max(_HEAD.unpack_from(data)[5], 0)
    return size


class NameHead:
    """The head of a file: where in it the entries are that have a name."""

    def __init__(self, data: bytes, about: bytes) -> None:
        """Raises Malformed, also for a file that is about something else."""
        size = head_size(data)
        _, crc, *counts, digest, hash_count = _HEAD.unpack_from(data)
        if len(data) < size or zlib.crc32(data[8:size]) != crc or digest != about:
            raise Malformed("the head is damaged, or of another file")
        self.size, self.counts = size, counts
        begin = size + 8 * sum(max(count, 0) for count in counts)
        self.hashes = begin, _HASH * max(hash_count, 0)
        """Where the hashes of blocks begin in the file, and how many bytes they have."""
        self._starts = [0, *itertools.accumulate(map(_blocks, counts))]
        total, head = self._starts[-1], data[:size]  # a head stays in memory, and no block
        self._firsts = np.frombuffer(head, "<u8", total, START)
        self._checks = np.frombuffer(head, "<u4", total, START + 8 * total)

    def knows(self, column: str) -> bool:
        """Whether the names of a column are there."""
        return bool(self.counts[COLUMNS.index(column)] >= 0)

    def span(self, column: str, hashed: int) -> tuple[int, int, int] | None:
        """Return the blocks in which keys of a hash are: the first, where it begins in the file,
        and the bytes of all of them; None where there are none."""
        number = COLUMNS.index(column)
        begin, end = self._starts[number : number + 2]
        firsts = self._firsts[begin:end]
        low = np.uint64(hashed & ~LOW)
        block = max(int(np.searchsorted(firsts, low, "left")) - 1, 0)
        stop = int(np.searchsorted(firsts, low | np.uint64(LOW), "right"))
        if stop <= block:
            return None
        # All blocks before it are full, but for the last one of the column before.
        before = self.counts[0] if number and self.counts[0] > 0 else 0
        place = before + block * BLOCK
        count = min(stop * BLOCK, self.counts[number]) - block * BLOCK
        return begin + block, self.size + 8 * place, 8 * count

    def entries(self, block: int, data: bytes, size: int, hashed: int) -> set[int]:
        """Return the entries that have a hash by the `size` bytes of its blocks. Raises
        Malformed."""
        if len(data) != size:
            raise Malformed("it is cut")
        self._check(block, data)
        keys, low = np.frombuffer(data, "<u8"), np.uint64(hashed & ~LOW)
        begin = np.searchsorted(keys, low, "left")
        end = np.searchsorted(keys, low | np.uint64(LOW), "right")
        return {key & LOW for key in keys[begin:end].tolist()}

    def columns(self, data: bytes) -> list[Any]:
        """Return all keys in the bytes of the file, of each column, None for one that it does not
        know. Raises Malformed."""
        begin, arrays = self.size, list[Any]()
        for column, count in enumerate(self.counts):
            body = data[begin : begin + 8 * max(count, 0)]
            self._check(self._starts[column], body)
            arrays.append(np.frombuffer(body, "<u8"))
            begin += len(body)
        if begin + self.hashes[1] != len(data) or any(
            len(a) < n for a, n in zip(arrays, self.counts, strict=True)
        ):
            raise Malformed("it is cut")
        return [a if n >= 0 else None for a, n in zip(arrays, self.counts, strict=True)]

    def _check(self, block: int, data: bytes) -> None:
        size = 8 * BLOCK
        bodies = [data[n : n + size] for n in range(0, len(data), size)]
        checks = self._checks[block : block + len(bodies)].tolist()
        if checks != list(map(zlib.crc32, bodies)):
            raise Malformed("a block is damaged")
