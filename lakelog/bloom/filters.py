"""Bloom filters of the ids and subjects of each segment: which segments a needle may be in.

They are derived from segments, which never change, stored in cache/bloom/ and rebuilt where one is
missing or damaged; a lake without them answers the same, only slower. A filter has about ten bits
for each distinct value and seven hash functions (one false positive in about 120).

    64-byte header   "LKB1", crc32 of the rest u32, then (bits u64) of ids and of subjects, zeros
    body             the bits of ids, then of subjects, each padded to a byte, low bit first

The source is B. H. Bloom, "Space/time trade-offs in hash coding with allowable errors", 1970; both
hashes of the double hashing (Kirsch, Mitzenmacher, 2006) are halves of one of 64 bits.
"""

from __future__ import annotations

import contextlib
import math
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, ClassVar

from lakelog import arrays
from lakelog.disk import File
from lakelog.keys import VAULT
from lakelog.libraries import np, pa, pc, pq
from lakelog.paths import Paths
from lakelog.runtime.locks import OrderedLock, Rank

COLUMNS = ("id", "subject")
LEAST = 1000
"""Segments of fewer rows get a filter only when a query needs it."""
_HEAD, _SIZES = struct.Struct("<4sIQQ"), struct.Struct("<QQ")
# 10 bits and 7 hashes are the optimum for 0.8 % of false positives; 48 bytes hold a UUID, and the
# part in which longer keys of one source differ is at their end.
_BITS, _HASHES, _WIDTH = 10, 7, 48
_MEMORY = 64 << 20
_MIX, _MODULUS = 0x9E3779B97F4A7C15, 1 << 64
_WORDS = struct.Struct(f"<{_WIDTH // 8}Q")


class Filters:
    """The filters of one lake; the most recently used are in memory. Safe for threads."""

    NAMES_MAX: ClassVar[int] = 1000
    """Lists of more ids or subjects are not looked up."""

    def __init__(self, paths: Paths) -> None:
        self._paths, self._mutex = paths, OrderedLock(Rank.FILTERS)
        self._cached: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    @staticmethod
    def hashes_of(names: Iterable[str]) -> list[int]:
        """Return the hash of each name, by which it is looked up."""
        # In Python: few names are looked up, often by the first query of a process, for which to
        # load NumPy and Arrow would take longer than all else.
        return [_hash_of(name.encode()) for name in names]

    def containing(self, digests: Iterable[str], column: str, hashed: Iterable[int]) -> set[str]:
        """Return the segments that may contain a value with one of these hashes. Raises OSError."""
        pairs = [(value, value >> 32) for value in hashed]
        is_id, matches = column == "id", set()
        for digest in digests:
            data = self._data(digest)
            ids, subjects = _SIZES.unpack_from(data, 8)
            start, size = (64, ids) if is_id else (64 + (ids + 7) // 8, subjects)
            for value, position in pairs:
                place = position * size >> 32
                # The first bit alone tells half of the segments, of which a large lake has many.
                is_set = size and data[start + (place >> 3)] >> (place & 7) & 1
                if is_set and holds(data, start, size, value, _HASHES):
                    matches.add(digest)
                    break
        return matches

    def missing(self, digests: Iterable[str]) -> set[str]:
        """Return the segments of which there is no intact filter."""
        cached = self._cached
        return {d for d in digests if d not in cached and self._stored(d) is None}

    def _data(self, digest: str) -> bytes:
        data = self._stored(digest)
        if data is None:
            data = save(self._paths, digest, _columns(self._paths, digest))
            self._remember(digest, data)
        return data

    def _stored(self, digest: str) -> bytes | None:
        data = self._cached.get(digest)
        if data is not None:
            if self._size > _MEMORY // 2:  # else none has to go, and their order does not matter
                with self._mutex.hold_once():
                    if digest in self._cached:
                        self._cached.move_to_end(digest)
            return data
        # Not under the mutex: other threads need not wait for this read.
        data = _read(self._paths, digest)
        if data is not None:
            self._remember(digest, data)
        return data

    def _remember(self, digest: str, data: bytes) -> None:
        with self._mutex.hold_once():
            self._size += len(data) if digest not in self._cached else 0
            self._cached[digest] = data
            while self._size > _MEMORY and len(self._cached) > 1:
                self._size -= len(self._cached.popitem(last=False)[1])


def save(paths: Paths, digest: str, table: pa.Table) -> bytes:
    """Build the filter of a segment of `table` and store it, if the disk has room; return it."""
    data = encode(table)
    File(paths.bloom(digest)).keep(data)
    return data


def drop(paths: Paths, digests: Iterable[str]) -> None:
    """Remove the filters and word indexes of segments that only older states have: a query of one
    of these builds what it needs again, or reads all rows."""
    with contextlib.suppress(OSError):
        for digest in digests:
            File(paths.bloom(digest)).remove()
            File(paths.words(digest)).remove()


def encode(table: pa.Table) -> bytes:
    """Return the filter of the columns id and subject of a table."""
    sizes, bodies = [], []
    for column in COLUMNS:
        hashed = hashes(table[column].combine_chunks())
        # Sized for the rows first, as counting distinct values exactly would need a sort: this
        # filter itself tells how many there are, and where values repeat a smaller one takes its
        # place.
        bits = _fill(hashed, len(hashed))
        distinct = _distinct(bits)
        if distinct < 0.8 * len(hashed):
            bits = _fill(hashed, distinct)
        sizes.append(len(bits))
        bodies.append(np.packbits(bits, bitorder="little").tobytes())
    head = _HEAD.pack(b"LKB1", 0, *sizes).ljust(64, b"\0")
    body = head[8:] + b"".join(bodies)
    return b"LKB1" + struct.pack("<I", zlib.crc32(body)) + body


def _fill(hashed: np.ndarray, count: int) -> np.ndarray:
    """Return the bits, unpacked, of a filter for `count` distinct hashes."""
    return fill(hashed, -(-count * _BITS // 8) * 8, _HASHES)


def fill(hashed: np.ndarray, size: int, probes: int) -> np.ndarray:
    """Return so many bits, unpacked, of which each hash has set so many, or fewer."""
    bits = np.zeros(size, dtype=bool)
    for place in _places(hashed, size, probes) if size else ():
        bits[place] = True
    return bits


def _distinct(bits: np.ndarray) -> int:
    """Estimate how many distinct values set these bits (linear counting)."""
    free = len(bits) - int(bits.sum())
    return math.ceil(-len(bits) * math.log(max(free, 1) / len(bits)) / _HASHES) if len(bits) else 0


def hashes(values: pa.Array) -> np.ndarray:
    """Return a u64 of each text that is not null: of its length and its last 48 bytes."""
    raw = values.drop_null().cast(pa.large_binary())
    lengths = arrays.numbers(pc.binary_length(raw)).astype(np.uint64)
    if not len(raw):
        return lengths
    longest = int(lengths.max())
    # The end, not the beginning: ids of one source share their prefix.
    ends = raw if longest <= _WIDTH else pc.binary_slice(raw, -_WIDTH)
    width = min(-(-max(longest, 1) // 8) * 8, _WIDTH)
    even = pc.ascii_rpad(ends.view(pa.large_string()), width, padding="\0")
    start = np.frombuffer(even.buffers()[1], np.int64)[even.offset]
    halves = np.frombuffer(even.buffers()[2], "<u8", len(raw) * width // 8, int(start))
    # Padded to one width, all texts are one matrix of words: six steps for any number of rows. The
    # length goes in first, so that padding is told from zeros; words of padding alone are zero.
    mixed = lengths * np.uint64(_MIX)
    for number in range(_WIDTH // 8):
        if 8 * number < width:
            mixed ^= halves[number :: width // 8]
        mixed *= np.uint64(_MIX)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _hash_of(text: bytes) -> int:
    """Return the hash of one text as `hashes` does."""
    mixed = len(text) * _MIX % _MODULUS
    for word in _WORDS.unpack(text[-_WIDTH:].ljust(_WIDTH, b"\0")):
        mixed = (mixed ^ word) * _MIX % _MODULUS
        mixed ^= mixed >> 29
    return mixed


def _places(hashed: np.ndarray, size: int, probes: int) -> Iterable[np.ndarray]:
    """Yield the bits that each of the hash functions sets, for all hashes at once."""
    place, step = (hashed >> np.uint64(32)).astype(np.uint32), hashed.astype(np.uint32)
    step |= np.uint32(1)
    for _ in range(probes):
        yield (place * np.uint64(size) >> np.uint64(32)).view(np.int64)
        place += step  # of 32 bits: it wraps around


def holds(data: bytes, start: int, size: int, value: int, probes: int) -> bool:
    """Whether all bits of one hash are set, among so many from a byte on; they are those that
    `fill` sets."""
    if not size:
        return False
    probe, step = value >> 32, (value & 0xFFFFFFFF) | 1
    for n in range(probes):
        place = ((probe + n * step) & 0xFFFFFFFF) * size >> 32
        if not data[start + (place >> 3)] >> (place & 7) & 1:
            return False
    return True


def _read(paths: Paths, digest: str) -> bytes | None:
    """The stored filter, or None if it is missing or damaged."""
    try:
        data = File(paths.bloom(digest)).read()
    except OSError:
        return None
    if len(data) < 64 or data[:4] != b"LKB1":
        return None
    return data if zlib.crc32(data[8:]) == struct.unpack_from("<I", data, 4)[0] else None


def _columns(paths: Paths, digest: str) -> Any:
    """The columns of a segment that have filters; the caller has verified it."""
    source = VAULT.file(paths.object("segments", digest))
    return pq.ParquetFile(source, page_checksum_verification=True).read(columns=list(COLUMNS))
