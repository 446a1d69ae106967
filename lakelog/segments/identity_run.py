"""Sorted runs of identity keys: they make a given id unique, at no cost to events without one.

    64-byte header   "LKI1", 4 zero bytes, count u64, commit 16 bytes, crc32 of the body u32,
                     zeros to byte 60, crc32 of the first 60 bytes u32
    count x u64      the first 8 bytes of each key as a big-endian number, ascending
    count x u32      the next 4 bytes of each key, in the same order

Integers are stored little-endian. A key is 12 bytes of SHA-256, so a match needs no second
look: a false one has probability below 1e-8 at 1e10 events. Equal first parts are ordered by
their second. Runs are read by memory map.
"""

from __future__ import annotations

import hashlib
import itertools
import mmap
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from lakelog.errors import DamagedIds
from lakelog.libraries import np
from lakelog.store import disk, document, regular_file
from lakelog.store.entry import IdRun
from lakelog.store.paths import Paths

if TYPE_CHECKING:
    Keys = tuple[np.ndarray, np.ndarray]
_HEAD = struct.Struct("<4s4xQ16sI")
RANGE = 1 << 20
"""Keys that are merged at a time: 12 MB, however long the runs are."""
FAN = 8
"""This many runs of one size class are merged into one of the next: at most seven
of a class stay, whatever is appended."""


def size_class(count: int) -> int:
    """Return the power of eight that a run of `count` keys belongs to."""
    level = 0
    while count >= 8 ** (level + 1):
        level += 1
    return level


def encode(high: np.ndarray, low: np.ndarray, commit: str) -> bytes:
    """Return a run of keys, which need not be sorted yet (u64 and u32 arrays of equal length)."""
    high, low = sort_keys(high, low)
    body = high.astype("<u8").tobytes() + low.astype("<u4").tobytes()
    return _header(len(high), commit, zlib.crc32(body)) + body


def _header(count: int, commit: str, crc: int) -> bytes:
    head = _HEAD.pack(b"LKI1", count, bytes.fromhex(commit), crc).ljust(60, b"\0")
    return head + struct.pack("<I", zlib.crc32(head))


def write(
    paths: Paths,
    high: np.ndarray,
    low: np.ndarray,
    commit: str,
    pending_writes: list[disk.Begun] | None = None,
) -> IdRun:
    """Write a run, durably or to be finished with `begun`; return what a manifest says of it."""
    data = encode(high, low, commit)
    digest = document.digest(data)
    path = paths.object("ids", digest)
    if pending_writes is None:
        disk.put_object(path, data)
    else:
        pending_writes.append(disk.begin_object(path, data))
    return IdRun(digest, len(data), len(high))


def read(paths: Paths, run: IdRun) -> tuple[np.ndarray, np.ndarray]:
    """Map a run into memory. Raises DamagedIds when it is missing or not of the right shape."""
    path = paths.object("ids", run.digest)
    try:
        with open(regular_file.open_file(path), "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (FileNotFoundError, ValueError):
        raise DamagedIds(path, "the id run is missing or empty") from None
    count = run.count
    head = data[:64]
    # Only the header: `open_run` compares the hash of the whole file with its name.
    is_intact = len(data) == run.bytes == 64 + 12 * count and head[:4] == b"LKI1"
    if not is_intact or zlib.crc32(head[:60]) != struct.unpack_from("<I", head, 60)[0]:
        raise DamagedIds(path, "the id run does not have the shape its manifest names")
    high = np.frombuffer(data, "<u8", count, 64)
    low = np.frombuffer(data, "<u4", count, 64 + 8 * count)
    return high, low


def contains(run: tuple[np.ndarray, np.ndarray], high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Return a boolean array: which of the keys are in the run (fastest if they are sorted)."""
    run_high, run_low = run
    hit = np.zeros(len(high), dtype=bool)
    if not len(run_high) or not len(high):
        return hit
    # In order, neighbouring look-ups touch the same pages of the memory map.
    in_order = bool((high[1:] >= high[:-1]).all())
    order = np.arange(len(high)) if in_order else np.argsort(high, kind="stable")
    places = np.searchsorted(run_high, high[order])
    # `places` is where each key is looked for next, `remaining` which keys these are. Several keys
    # may have the same first part, so the search goes on entry by entry, for all keys at once.
    remaining = np.arange(len(high))
    while len(remaining):
        inside = places < len(run_high)
        places, remaining = places[inside], remaining[inside]
        same = run_high[places] == high[order[remaining]]
        places, remaining = places[same], remaining[same]
        match = run_low[places] == low[order[remaining]]
        hit[order[remaining[match]]] = True
        places, remaining = places[~match] + 1, remaining[~match]
    return hit


def sort_keys(high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return keys in the order of a run."""
    order = np.argsort(high, kind="stable")
    high_sorted = high[order]
    # Equal first parts are rare among hashes, and sorting by both takes several times as long.
    if len(high_sorted) > 1 and bool((high_sorted[1:] == high_sorted[:-1]).any()):
        order = np.lexsort((low, high))
        high_sorted = high[order]
    return high_sorted, low[order]


def join(paths: Paths, runs: list[Keys], commit: str) -> IdRun:
    """Merge several runs into one, a range of keys at a time; return what a manifest says of it."""
    count = sum(len(high) for high, _ in runs)
    if count <= RANGE:
        return write(paths, *merge(runs), commit)
    # The file holds all first parts before all second parts, and its header a checksum of both: so
    # the parts wait in temporary files, unsynced, until everything before them is known.
    lows: list[str] = []
    highs = disk.write_pieces(paths.cache, _ranges(paths, runs, count, lows), sync=False)
    try:
        columns = (highs, *lows)
        crc = 0
        for block in _all_pieces(columns):
            crc = zlib.crc32(block, crc)
        digest = hashlib.sha256()
        blocks = itertools.chain([_header(count, commit, crc)], _all_pieces(columns))
        temporary = disk.write_pieces(paths.cache, _hash_pieces(blocks, digest))
    finally:
        for path in (highs, *lows):
            disk.unlink(path)
    name = digest.hexdigest()
    disk.link_object(temporary, paths.object("ids", name))
    return IdRun(name, 64 + 12 * count, count)


def _ranges(paths: Paths, runs: list[Keys], count: int, lows: list[str]) -> Iterator[bytes]:
    """Yield the first parts of all keys in order; leave the second parts in files, in `lows`.

    Keys are hashes and so spread evenly: equal ranges of them hold about equally many.
    """
    steps = -(-count // RANGE)
    bounds = [np.uint64((n << 64) // steps) for n in range(1, steps)]
    cuts = [[0, *np.searchsorted(high, bounds).tolist(), len(high)] for high, _ in runs]
    for n in range(steps):
        slices = [slice(run_bounds[n], run_bounds[n + 1]) for run_bounds in cuts]
        merged_range = merge(
            [(run[0][span], run[1][span]) for run, span in zip(runs, slices, strict=True)]
        )
        high, low = sort_keys(*merged_range)
        lows.append(disk.write_pieces(paths.cache, [low.astype("<u4").tobytes()], sync=False))
        yield high.astype("<u8").tobytes()


def _all_pieces(paths: Iterable[str]) -> Iterator[bytes]:
    return itertools.chain.from_iterable(map(regular_file.pieces, paths))


def _hash_pieces(blocks: Iterable[bytes], digest: Any) -> Iterator[bytes]:
    for block in blocks:
        digest.update(block)
        yield block


def merge(runs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys of several runs together."""
    return np.concatenate([r[0] for r in runs]), np.concatenate([r[1] for r in runs])


def runs_to_merge(runs: Iterable[IdRun]) -> list[IdRun]:
    """Choose the runs to merge next: eight of one size class, smallest class first, or none."""
    classes: dict[int, list[IdRun]] = {}
    for run in runs:
        classes.setdefault(size_class(run.count), []).append(run)
    for level in sorted(classes):
        if len(classes[level]) >= FAN:
            return classes[level]
    return []
