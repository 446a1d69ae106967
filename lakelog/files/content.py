"""Comparing the content of files: whole, by a beginning, and by what packers keep of times."""

from __future__ import annotations

import re

from lakelog.lines import Source

_DIGITS, _LINES = 8, 2
_PIECE = 1 << 20


def is_time_kept(compressed: Source, mtime: int) -> bool:
    """Whether a file was last written when another one was (`mtime`, ns), as far as packers keep
    it: in ns, us or whole seconds."""
    # Which precision survived is read off the time itself: the coarsest unit that divides it.
    unit = next(unit for unit in (10**9, 1000, 1) if compressed.mtime % unit == 0)
    return 0 < compressed.mtime == mtime // unit * unit


def length_if_less(source: Source, size: int) -> int | None:
    """The length of a file in bytes, if it is less than `size`; else None."""
    source.seek(0)
    length = 0
    while length < size:
        block = source.read(min(size - length, _PIECE))
        if not block:
            # A file that cannot be read to its end may be longer than what was read.
            return None if source.broken else length
        length += len(block)
    return None


def prefix_of(source: Source, original: Source, start: int, limit: int | None = None) -> int:
    """The length of a file if all of it from `start` on agrees with another one, byte by byte, up
    to the other's `limit`; else 0."""
    source.seek(start)
    original.seek(start)
    position = start
    while block := source.read(_PIECE):
        if limit is not None and position + len(block) > limit:
            return 0
        if original.read(len(block)) != block:
            return 0
        position += len(block)
    return position


def is_distinctive(data: bytes) -> bool:
    """Whether no other file is likely to begin so: it is long, or says times or numbers."""
    # The thresholds of FORMAT.md F18.4.
    if len(data) >= Source.WINDOW or sum(48 <= byte <= 57 for byte in data) >= _DIGITS:
        return True
    lines = {line for line in data.split(b"\n")[:-1] if re.search(rb"\d", line)}
    return len(lines) >= _LINES
