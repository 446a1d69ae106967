"""Copies of files: their rows are those of the original, as far as both have the same bytes; and
what tells one: content, and what packers keep of times."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lakelog.files.file_cursor import FileCursor, Start
from lakelog.lines import Source

_PIECE = 1 << 20


@dataclass(frozen=True)
class FileCopy:
    """The file is a copy, so far, of another one whose lines are ingested from there.

    `cursor` is to be committed in the place of `replaced`; nothing is read.
    """

    cursor: FileCursor
    replaced: FileCursor | None
    head: bytes
    released: tuple[FileCursor, ...] = ()

    @property
    def start(self) -> Start:
        """The start that a publish compares and replaces."""
        return Start(self.cursor, self.replaced, self.head, b"", self.released)


def sharing(
    source: Source,
    fresh: FileCursor,
    cursor: FileCursor,
    head: bytes,
    place: int,
    size: int,
    released: tuple[FileCursor, ...],
) -> Start | FileCopy:
    """A file of its own whose first bytes are rows of another one."""
    lines = cursor.lines if place == cursor.bytes else 0  # of an earlier place none are counted
    shared = replace(grown(source, fresh, place), shares=cursor.origin, lines=lines)
    # Nothing is left to read now; only a plain file can grow later.
    if place == size and not source.compression:
        return FileCopy(shared, None, head, released)
    note = f"a copy of {cursor.name} that is {size - place:,} bytes past what is known of it"
    return Start(shared, None, head, source.before(place), released, note)


def last_place(source: Source, cursor: FileCursor, size: int) -> int:
    """The last place up to `size` at which a file holds what the cursor's file held."""
    # The latest that agrees, so that as few lines as possible are stored twice.
    for place, crc in reversed(cursor.places):
        if place <= size and source.crc(place) == crc:
            return place
    return 0


def is_cut(source: Source, size: int) -> bool:
    """Whether a file ends within a line, as a copy does that is being made."""
    source.seek(max(size - 1, 0))
    return source.read(1) != b"\n"


def copy_of(source: Source, fresh: FileCursor, cursor: FileCursor, size: int) -> FileCursor:
    """A copy of the first `size` bytes of a cursor's file."""
    origin = cursor.shares if cursor.is_copy else cursor.origin
    return grown(source, replace(fresh, shares=origin), size)


def grown(source: Source, copy: FileCursor, size: int) -> FileCursor:
    """A copy that has `size` bytes of its original now."""
    tail, crc = FileCursor.digest(source.before(size)), source.crc(size)
    return replace(copy, bytes=size, shared=size, tail=tail, crc=crc)


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
