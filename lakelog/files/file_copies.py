"""Copies of files: their rows are those of the original, as far as both have the same bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lakelog.files import file_cursor
from lakelog.files.file_cursor import FileCursor, Start
from lakelog.lines import Source


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
    before = source.before(place)
    crc = source.crc(place)
    lines = cursor.lines if place == cursor.bytes else 0  # of an earlier place none are counted
    shared = replace(
        fresh,
        shares=cursor.origin,
        shared=place,
        bytes=place,
        crc=crc,
        lines=lines,
        tail=file_cursor.digest(before),
    )
    # Nothing is left to read now; only a plain file can grow later.
    if place == size and not source.compression:
        return FileCopy(shared, None, head, released)
    source.seek(place)
    note = f"a copy of {cursor.name} that is {size - place:,} bytes past what is known of it"
    return Start(shared, None, head, before, released, note)


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
    return replace(
        fresh,
        bytes=size,
        shares=origin,
        shared=size,
        tail=file_cursor.digest(source.before(size)),
        crc=source.crc(size),
    )


def grown(source: Source, copy: FileCursor, size: int) -> FileCursor:
    """A copy that has `size` bytes of its original now."""
    tail, crc = file_cursor.digest(source.before(size)), source.crc(size)
    return replace(copy, bytes=size, shared=size, tail=tail, crc=crc)
