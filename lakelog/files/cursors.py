"""Cursors: how far each file was ingested, and how its content is recognised.

A cursor names a file by device and inode, and its content by three sums of what was consumed: the
SHA-256 of its beginning (HEAD bytes at most), that of the 4,096 bytes before the cursor's place,
and the CRC-32 of everything up to there, with those of some earlier places. The last can be
continued as the file grows, so nothing is read twice.

Which file a path holds now is decided in identity.py. Rows carry `origin`, the key that the file
had when it was first seen; two files never share one.

Keys of cursors by what they have in common: an inode, a beginning, a name.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import time
import zlib
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace

from lakelog.files.file_cursor import FileCursor, Start, digest
from lakelog.files.rotation import base_name
from lakelog.lines import Hole, Source
from lakelog.store import hosts

_HEAD_MIN = 64
"""Beginnings are remembered at 64, 128 … 4,096 bytes, so that few lengths have to be looked up."""
WHOLE_MAX = 1 << 16
"""Up to so many bytes, all that was consumed is compared when a file is opened again."""
ALIKE_MAX, NAMED_MAX = 32, 512
"""Cursors of equal beginnings, and of names with one base, that are considered."""
# Linux stamps files with the coarse clock; comparing its times with a finer one would order events
# wrongly within a tick.
_FILE_CLOCK = getattr(time, "CLOCK_REALTIME_COARSE", time.CLOCK_REALTIME)
"""The clock of the times of files."""


class CursorIndex:
    """The cursors of one state, found by key, inode and beginning."""

    def __init__(self, cursors: Iterable[FileCursor]) -> None:
        self._by_key: dict[str, FileCursor] = {}
        self._by_inode: Groups = {}
        self._by_stem: Groups = {}
        self._by_base: Groups = {}
        self._lengths: dict[int, int] = {}
        self._by_origin: Groups = {}
        for cursor in cursors:
            self.add(cursor)

    def __iter__(self) -> Iterator[FileCursor]:
        return iter(self._by_key.values())

    def get(self, key: str) -> FileCursor | None:
        """The cursor of a key."""
        return self._by_key.get(key)

    def add(self, cursor: FileCursor) -> None:
        """Add a cursor, replacing the one of the same key."""
        self.remove(cursor.key)
        self._by_key[cursor.key] = cursor
        join(self._by_origin, cursor.origin, cursor.key)
        join(self._by_stem, cursor.stem, cursor.key)
        self._lengths[cursor.head_len] = self._lengths.get(cursor.head_len, 0) + 1
        join(self._by_base, base_name(cursor.name), cursor.key)
        if cursor.inode > 0:
            join(self._by_inode, cursor.identity, cursor.key)

    def remove(self, key: str) -> None:
        """Remove the cursor of a key, if there is one."""
        old = self._by_key.pop(key, None)
        if old is not None:
            part(self._by_stem, old.stem, key)
            self._lengths[old.head_len] -= 1
            part(self._by_base, base_name(old.name), key)
            part(self._by_inode, old.identity, key)
            part(self._by_origin, old.origin, key)

    def of_inode(self, identity: tuple[int, int]) -> list[FileCursor]:
        """The cursors of one inode, the newest first."""
        return [self._by_key[key] for key in reversed(keys_of(self._by_inode, identity))]

    def of_origin(self, origin: str) -> list[FileCursor]:
        """The cursors whose rows are of an origin."""
        return [self._by_key[key] for key in keys_of(self._by_origin, origin)]

    def named(self, name: str) -> list[FileCursor]:
        """The cursors of files of a name, with their directory."""
        keys = keys_of(self._by_base, base_name(name))
        return [self._by_key[key] for key in keys if self._by_key[key].name == name]

    def alike(self, head: bytes, label: str | None) -> list[FileCursor]:
        """The cursors of files that begin as this one does, the furthest first."""
        cursors = (self._by_key[key] for group in self._groups(head, label) for key in group)
        return sorted(cursors, key=lambda c: -c.bytes)

    def alike_or_named(self, head: bytes, label: str | None, name: str) -> list[FileCursor]:
        """Cursors of files whose name has the same base, and ALIKE_MAX of those that begin alike.

        A file may be shorter than what is remembered of another one's beginning, so names are
        looked up too; and thousands may begin with one banner, so not all are.
        """
        keys: dict[str, None] = {}
        for key in itertools.islice(reversed(keys_of(self._by_base, base_name(name))), NAMED_MAX):
            cursor = self._by_key[key]
            # The name alone would offer every rotated file of a log; the beginning sorts out most
            # of them without opening any.
            begins = len(head) >= cursor.head_len and stem(head[: cursor.head_len], label)
            if begins == cursor.stem[1] or (
                len(head) < cursor.head_len and cursor.head and cursor.label == label
            ):
                keys[key] = None
        for group in self._groups(head, label):
            keys.update(dict.fromkeys(itertools.islice(reversed(group), ALIKE_MAX)))
        return [self._by_key[key] for key in keys]

    def _groups(
        self, head: bytes, label: str | None
    ) -> Iterator[tuple[str, ...] | dict[str, None]]:
        """The keys of files that begin so, by how much of the beginning is remembered."""
        # Digests are of few lengths (powers of two), so a beginning is hashed a handful of times.
        for n, count in self._lengths.items():
            if count and 0 < n <= len(head):
                yield keys_of(self._by_stem, (n, stem(head[:n], label)))

    def free_key(self, head: bytes, label: str | None) -> str:
        """A key that no file has now, or had at first."""
        # A key contains the digest and a number, since files with equal beginnings are common; an
        # origin that was once used is never used again, or two files would share rows.
        name = f"{stem(head, label)}-{len(head)}"
        ordinal = len(keys_of(self._by_stem, (head_length(len(head)), stem(head, label))))
        while f"{name}-{ordinal}" in self._by_key or f"{name}-{ordinal}" in self._by_origin:
            ordinal += 1
        return f"{name}-{ordinal}"

    def new_cursor(self, source: Source, head: bytes, label: str | None) -> FileCursor:
        """Return the cursor of a file of which nothing was ingested yet."""
        head = head[: head_length(_written(head))]
        key = self.free_key(head, label)
        fresh = FileCursor(key, key, 0, len(head), digest(b""), 0, "", crc=0, label=label)
        cursor = with_status(replace(fresh, head=stem(head, label)), source)
        return replace(cursor, begun=cursor.looked)

    def by_content(self, source: Source, label: str | None) -> Start:
        """Return where to start in what has no inode of its own (a pipe, a copy) by content alone.

        A new one starts at 0 and replaces no entry. The source is left standing there.
        """
        old = source.published
        current = self.get(old.key) if old else None
        if current and (current.bytes, current.crc) == (old.bytes, old.crc):
            source.seek(max(current.bytes - Source.WINDOW, 0))
            return Start(
                current, current, source.head, source.read(min(current.bytes, Source.WINDOW))
            )
        head = source.read_head()
        for cursor in self.alike(head, label):
            before = None if cursor.is_copy else holds_all(source, cursor, head, label)
            if before is not None:
                current = replace(cursor, name=printable(source.name), size=source.size)
                return Start(with_head(current, head, label), cursor, head, before)
        source.seek(0)
        return Start(self.new_cursor(source, head, label), None, head, b"")


@functools.lru_cache(256)
def stem(head: bytes, label: str | None) -> str:
    """Return the digest of a file's beginning, with the label of who ingests it."""
    mark = b"" if label is None else b"\0" + label.encode("utf-8", "surrogateescape")
    return hashlib.sha256(head + mark).hexdigest()[:32]


def head_length(size: int) -> int:
    """The length of the remembered beginning of a file of so many bytes."""
    if size < _HEAD_MIN:
        return size
    return min(Source.WINDOW, 1 << (size.bit_length() - 1))


def with_status(cursor: FileCursor, source: Source) -> FileCursor:
    """The cursor with the present name, size, inode and times of its file."""
    host = hosts.host_name()
    updated = replace(cursor, name=printable(source.name), size=source.size, host=host)
    if source.piped:
        return updated
    device, inode = source.identity
    looked = time.clock_gettime_ns(_FILE_CLOCK)
    return replace(updated, device=device, inode=inode, mtime=source.mtime, looked=looked)


def with_head(cursor: FileCursor, head: bytes, label: str | None) -> FileCursor:
    """The cursor with as much of its file's beginning as there is: more by now, or less in another
    file that holds what was consumed."""
    length = min(head_length(_written(head)), Source.WINDOW)
    if length <= cursor.head_len <= len(head):
        return cursor
    return replace(cursor, head_len=length, head=stem(head[:length], label), label=label)


def _written(head: bytes) -> int:
    """How much of a beginning identifies its file: not the room at its end, written later."""
    return len(head) - Hole.at_end_of(head) or len(head)


def before_place(
    source: Source, cursor: FileCursor, head: bytes, label: str | None
) -> bytes | None:
    """The bytes before a cursor's place, if the file holds there what was consumed; else None.

    The beginning and the last bytes are compared, and all of it up to WHOLE_MAX. The source then
    stands at the place.
    """
    length, head_digest = cursor.stem
    if len(head) < length or stem(head[:length], label) != head_digest:
        return None
    # A file cut and written again may agree in its head and its last window; below WHOLE_MAX
    # comparing everything costs one read.
    whole = cursor.bytes <= WHOLE_MAX and cursor.crc is not None
    start = 0 if whole else max(cursor.bytes - Source.WINDOW, 0)
    source.seek(start)
    before = source.read(cursor.bytes - start)
    if len(before) != cursor.bytes - start or digest(before) != cursor.tail:
        return None
    if whole and zlib.crc32(before) != cursor.crc:
        return None
    return before[-Source.WINDOW :]


def holds_all(source: Source, cursor: FileCursor, head: bytes, label: str | None) -> bytes | None:
    """As `before_place`, with every byte compared by the sum of all, where there is one.

    What was copied before a line was finished need not have the beginning of that line.
    """
    if cursor.crc is not None and source.crc(cursor.bytes) != cursor.crc:
        return None
    # The cursor remembers the beginning of an unfinished line that the copy lacks (F18.3).
    if 0 < cursor.bytes <= len(head) < cursor.head_len:
        source.seek(cursor.bytes)
        before = head[: cursor.bytes]
        return before if digest(before) == cursor.tail else None
    return before_place(source, cursor, head, label)


def holds(
    start: Start, base_index: CursorIndex, head_index: CursorIndex, label: str | None
) -> bool:
    """Whether what was decided of a file among the cursors of `base_index` is still so among those
    of `head_index`.

    It is not if a cursor that it replaces or releases changed, or another one came or moved that
    may be of the same file.
    """
    for old in filter(None, (start.replaced, *start.released)):
        if head_index.get(old.key) != base_index.get(old.key):
            return False
    # Cursors that neither side knew may be of the same file, added by another process meanwhile.
    fresh = [c for c in head_index if base_index.get(c.key) != c]
    # Of a file that was shorter than a window the remembered beginning may be longer by now, so
    # digests of it cannot be compared: any such cursor may be of this file.
    short = len(start.head) < Source.WINDOW
    if short and any(c.head_len > len(start.head) for c in fresh):
        return False
    if start.cursor.inode > 0 and any(c.identity == start.cursor.identity for c in fresh):
        return False
    return not CursorIndex(fresh).alike(start.head, label)


def printable(name: str) -> str:
    """A file's name as text that can be written anywhere; bytes that are no text are escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


Groups = dict[Hashable, str | dict[str, None]]
"""Keys that have something in common, in the order they came; most groups are of one key, and a
dict for each would be most of what a cursor costs."""


def join(groups: Groups, name: Hashable, key: str) -> None:
    """Append a key to its group."""
    members = groups.get(name)
    if not members:
        groups[name] = key
    elif isinstance(members, str):
        groups[name] = {members: None, key: None}
    else:
        members[key] = None


def part(groups: Groups, name: Hashable, key: str) -> None:
    """Remove a key from its group; an empty group stays."""
    members = groups.get(name)
    if isinstance(members, dict):
        members.pop(key, None)
    elif members == key:
        groups[name] = {}


def keys_of(groups: Groups, name: Hashable) -> tuple[str, ...] | dict[str, None]:
    """The keys of a group, in the order they came."""
    members = groups.get(name, ())
    return (members,) if isinstance(members, str) else members
