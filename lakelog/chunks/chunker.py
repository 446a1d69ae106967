"""Cutting content into chunks where the content itself says, so that an insertion moves no others.

A chunk ends after each place whose window of 32 bytes hashes below a threshold, but is at least MIN
and at most MAX long. Four bytes of the window are hashed at every place, by numpy and so without
the interpreter's lock; only where that is promising (1 of 512) all of it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import numpy as np
else:
    np = Lazy("numpy")

MIN, MAX = 64 << 10, 1 << 20
AVERAGE = 256 << 10
"""Bytes between two places where a chunk may end, on average."""
BLOCK = 4 << 20
"""Bytes that are searched at once."""
_WINDOW = 32
_STRIPE = 1 << 18
_FIRST_BITS = 9
_FACTOR = 0x9E3779B1
_FACTORS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5)


def cut(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks of content that comes in blocks of any length."""
    rest = b""
    for block in _regroup(blocks):
        rest += block
        places = _places(rest)
        start = 0
        while True:
            # By bisection: of content that repeats itself, every byte may be a place.
            first = int(np.searchsorted(places, start + MIN))
            limit = start + MAX
            if first == len(places) and len(rest) < limit:
                break  # the next block may have a place within the limit
            end = min(int(places[first]), limit) if first < len(places) else limit
            yield rest[start:end]
            start = end
        rest = rest[start:]
    if rest:
        yield rest


def _regroup(blocks: Iterable[bytes]) -> Iterator[bytes]:
    parts: list[bytes] = []
    size = 0
    for block in blocks:
        parts.append(block)
        size += len(block)
        if size >= BLOCK:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


def _places(content: bytes) -> Any:
    """The places where a chunk may end, ascending."""
    last = len(content) - _WINDOW
    found = [_promising(content, at, min(at + _STRIPE, last + 1)) for at in range(0, last, _STRIPE)]
    if not found:
        return np.zeros(0, np.int64)
    starts = np.sort(np.concatenate(found))
    # A view of the eight bytes at every place, aligned or not.
    words_at = np.ndarray((len(content) - 7,), "<u8", content, strides=(1,))
    mixed = np.zeros(len(starts), np.uint64)
    for number, factor in enumerate(_FACTORS):
        words = words_at[starts + 8 * number]
        # The high bits are the well mixed ones, so they are brought down before the next word.
        mixed = (mixed ^ words ^ (mixed >> np.uint64(29))) * np.uint64(factor)
    limit = np.uint64((1 << 64) // (AVERAGE >> _FIRST_BITS))
    return starts[mixed < limit] + _WINDOW


def _promising(content: bytes, low: int, high: int) -> Any:
    """Starts of windows in [low, high) whose first four bytes hash high."""
    # High, as four equal bytes do not: long runs of them are common, and would all be places.
    limit = np.uint32(0xFFFFFFFF - (0xFFFFFFFF >> _FIRST_BITS))
    found = []
    # Unaligned views, one for each remainder: every place is looked at without copying.
    for first in range(low, min(low + 4, high)):
        words = np.frombuffer(content, "<u4", (high - first + 3) // 4, first)
        found.append(np.flatnonzero(words * np.uint32(_FACTOR) >= limit) * 4 + first)
    return np.concatenate(found)
