"""Sorted runs of identity keys: what makes a given id stored once, at no cost to other events.

    64-byte header   "LKI1", 4 zero bytes, count u64, commit 16 bytes, crc32 of the body u32,
                     zeros to byte 60, crc32 of the first 60 bytes u32
    count x u64      the first 8 bytes of each key as a big-endian number, ascending
    count x u32      the next 4 bytes of each key, in the same order

Integers are stored little-endian. A key is 12 bytes of SHA-256, so a match needs no second
look: a false one has probability below 1e-8 at 1e10 events. Equal first parts are ordered by
their second. Runs are read by memory map.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from typing import TYPE_CHECKING, Any

from lakelog.errors import DamagedIds
from lakelog.store import disk, document
from lakelog.store.layout import Layout

if TYPE_CHECKING:
    import numpy as np

_HEAD = struct.Struct("<4s4xQ16sI")
FAN = 8
"""So many runs of one size class are merged into one of the next."""


def size_class(count: int) -> int:
    """Return the power of eight that a run of `count` keys belongs to."""
    level = 0
    while count >= 8 ** (level + 1):
        level += 1
    return level


def encode(high: np.ndarray, low: np.ndarray, commit: str) -> bytes:
    """Return a run of keys, which need not be sorted yet (u64 and u32 arrays of equal length)."""
    import numpy as np

    order = np.argsort(high, kind="stable")
    ordered = high[order]
    if len(ordered) > 1 and bool((ordered[1:] == ordered[:-1]).any()):
        order = np.lexsort((low, high))
        ordered = high[order]
    body = ordered.astype("<u8").tobytes() + low[order].astype("<u4").tobytes()
    head = _HEAD.pack(b"LKI1", len(ordered), bytes.fromhex(commit), zlib.crc32(body))
    head = head.ljust(60, b"\0")
    return head + struct.pack("<I", zlib.crc32(head)) + body


def write(layout: Layout, high: np.ndarray, low: np.ndarray, commit: str) -> dict[str, Any]:
    """Write a run durably; return its manifest entry {digest, bytes, count}."""
    data = encode(high, low, commit)
    digest = document.digest(data)
    disk.put_object(layout.object("ids", digest), data)
    return {"digest": digest, "bytes": len(data), "count": len(high)}


def read(layout: Layout, run: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Map a run into memory. Raises DamagedIds when it is missing or not of the right shape."""
    import numpy as np

    path = layout.object("ids", run["digest"])
    try:
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (FileNotFoundError, ValueError):
        raise DamagedIds(path, "the id run is missing or empty") from None
    count = run["count"]
    head = data[:64]
    intact = len(data) == run["bytes"] == 64 + 12 * count and head[:4] == b"LKI1"
    if not intact or zlib.crc32(head[:60]) != struct.unpack_from("<I", head, 60)[0]:
        raise DamagedIds(path, "the id run does not have the shape its manifest names")
    high = np.frombuffer(data, "<u8", count, 64)
    low = np.frombuffer(data, "<u4", count, 64 + 8 * count)
    return high, low


def found(run: tuple[np.ndarray, np.ndarray], high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Return a boolean array: which of the keys are in the run (fastest if they are sorted)."""
    import numpy as np

    run_high, run_low = run
    hit = np.zeros(len(high), dtype=bool)
    if not len(run_high) or not len(high):
        return hit
    in_order = bool((high[1:] >= high[:-1]).all())
    order = np.arange(len(high)) if in_order else np.argsort(high, kind="stable")
    at = np.searchsorted(run_high, high[order])
    open_at = np.arange(len(high))
    while len(open_at):
        inside = at < len(run_high)
        at, open_at = at[inside], open_at[inside]
        same = run_high[at] == high[order[open_at]]
        at, open_at = at[same], open_at[same]
        match = run_low[at] == low[order[open_at]]
        hit[order[open_at[match]]] = True
        at, open_at = at[~match] + 1, open_at[~match]
    return hit


def ordered(high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return keys in the order of a run."""
    import numpy as np

    order = np.lexsort((low, high))
    return high[order], low[order]


def merge(runs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys of several runs together."""
    import numpy as np

    return np.concatenate([r[0] for r in runs]), np.concatenate([r[1] for r in runs])


def due(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choose the runs to merge next: eight of one size class, smallest class first, or none."""
    classes: dict[int, list[dict[str, Any]]] = {}
    for run in runs:
        classes.setdefault(size_class(run["count"]), []).append(run)
    for level in sorted(classes):
        if len(classes[level]) >= FAN:
            return classes[level]
    return []
