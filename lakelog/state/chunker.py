"""Cutting content into chunks where the content itself says, so that an insertion moves no others.

A chunk ends after each place whose window of 32 bytes hashes below a threshold, but is at least MIN
and at most MAX long. Four bytes of the window are hashed at every place, by numpy and so without
the interpreter's lock; only where that is promising (1 of 512) all of it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from lakelog.libraries import np

MIN, MAX = 64 << 10, 1 << 20
AVERAGE = 256 << 10
"""Bytes between two places where a chunk may end, on average."""
BLOCK = 4 << 20
"""Bytes that are searched at once."""
# The window ends a chunk by its content alone: an insertion moves no place behind it.
_WINDOW = 32
_STRIPE = 1 << 18
_FIRST_BITS = 9
_FACTOR = 0x9E3779B1
# Factors of xxHash64 and of Fibonacci hashing: odd, with their bits well spread.
_FACTORS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5)


def cut(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks of content that comes in blocks of any length."""
    # What is left of a block may go on in the next one.
    pending = b""
    for block in _regroup(blocks):
        pending += block
        places = _places(pending)
        start = 0
        while True:
            # By bisection: of content that repeats itself, every byte may be a place.
            index = int(np.searchsorted(places, start + MIN))
            limit = start + MAX
            if index == len(places) and len(pending) < limit:
                break  # the next block may have a place within the limit
            end = min(int(places[index]), limit) if index < len(places) else limit
            yield pending[start:end]
            start = end
        # Less than MAX is left, unless this was the last block.
        pending = pending[start:]
    if pending:
        yield pending


def _regroup(blocks: Iterable[bytes]) -> Iterator[bytes]:
    group: list[bytes] = []
    size = 0
    for block in blocks:
        group.append(block)
        size += len(block)
        if size >= BLOCK:
            yield b"".join(group)
            group, size = [], 0
    if group:
        yield b"".join(group)


def _places(content: bytes) -> Any:
    """The places where a chunk may end, ascending."""
    # A window must lie within the content.
    end = len(content) - _WINDOW
    candidates = [
        _promising(content, start, min(start + _STRIPE, end + 1))
        for start in range(0, end, _STRIPE)
    ]
    if not candidates:
        return np.zeros(0, np.int64)
    starts = np.sort(np.concatenate(candidates))
    # A view of the eight bytes at every place, aligned or not.
    words_at = np.ndarray((len(content) - 7,), "<u8", content, strides=(1,))
    mixed = np.zeros(len(starts), np.uint64)
    for number, factor in enumerate(_FACTORS):
        values = words_at[starts + 8 * number]
        # The high bits are the well mixed ones, so they are brought down before the next word.
        mixed = (mixed ^ values ^ (mixed >> np.uint64(29))) * np.uint64(factor)
    # Of the promising places one in so many remains: together they are AVERAGE bytes apart.
    limit = np.uint64((1 << 64) // (AVERAGE >> _FIRST_BITS))
    return starts[mixed < limit] + _WINDOW


def _promising(content: bytes, low: int, high: int) -> Any:
    """Starts of windows in [low, high) whose first four bytes hash high."""
    # High, as four equal bytes do not: long runs of them are common, and would all be places.
    limit = np.uint32(0xFFFFFFFF - (0xFFFFFFFF >> _FIRST_BITS))
    candidates = []
    # Unaligned views, one for each remainder: every place is looked at without copying.
    for offset in range(low, min(low + 4, high)):
        values = np.frombuffer(content, "<u4", (high - offset + 3) // 4, offset)
        candidates.append(np.flatnonzero(values * np.uint32(_FACTOR) >= limit) * 4 + offset)
    return np.concatenate(candidates)
