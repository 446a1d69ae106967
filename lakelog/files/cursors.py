"""Cursors: how far each file was ingested, and how its content is recognised.

A cursor names a file by device and inode, and its content by three sums of what was consumed: the
SHA-256 of its beginning (HEAD bytes at most), that of the 4,096 bytes before the cursor's place,
and the CRC-32 of everything up to there, with those of some earlier places. The last can be
continued as the file grows, so nothing is read twice.

Which file a path holds now is decided in identity.py. Rows carry `origin`, the key that the file
had when it was first seen; two files never share one.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace

from lakelog.files.file_cursor import FileCursor, Start, head_length, stem
from lakelog.files.rotation import base_name, printable
from lakelog.lines import Source

ALIKE_MAX, NAMED_MAX = 32, 512
"""Cursors of equal beginnings, and of names with one base, that are considered."""


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
        ordinal = len(keys_of(self._by_stem, (len(head), stem(head, label))))
        while f"{name}-{ordinal}" in self._by_key or f"{name}-{ordinal}" in self._by_origin:
            ordinal += 1
        return f"{name}-{ordinal}"

    def new_cursor(self, source: Source, head: bytes, label: str | None) -> FileCursor:
        """Return the cursor of a file of which nothing was ingested yet."""
        head = head[: head_length(head)]
        key = self.free_key(head, label)
        fresh = FileCursor(
            key, key, 0, len(head), FileCursor.digest(b""), 0, "", crc=0, label=label
        )
        cursor = replace(fresh, head=stem(head, label)).with_status(source)
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
            before = None if cursor.is_copy else cursor.holds_all(source, head, label)
            if before is not None:
                current = replace(cursor, name=printable(source.name), size=source.size)
                return Start(current.with_head(head, label), cursor, head, before)
        source.seek(0)
        return Start(self.new_cursor(source, head, label), None, head, b"")

    def by_inode(self, source: Source, label: str | None) -> FileCursor | None:
        """The cursor of a file's inode, if it holds what was consumed; the source stands there."""
        head = source.read_head()
        candidates = self.of_inode(source.identity)
        return next(
            (c for c in candidates if c.before_place(source, head, label) is not None), None
        )

    def locate(self, source: Source, label: str | None) -> FileCursor | None:
        """Return the cursor of a file, or else of one that is equal as far as it was ingested."""
        if cursor := self.by_inode(source, label):
            return cursor
        start = self.by_content(source, label)
        return start.cursor if start.replaced else None

    def still_holds(self, start: Start, base_index: CursorIndex, label: str | None) -> bool:
        """Whether what was decided of a file among the cursors of `base_index` is still so here.

        It is not if a cursor that it replaces or releases changed, or another one came or moved
        that may be of the same file.
        """
        for old in filter(None, (start.replaced, *start.released)):
            if self.get(old.key) != base_index.get(old.key):
                return False
        # Cursors that neither side knew may be of the same file, added by another process.
        fresh = [c for c in self if base_index.get(c.key) != c]
        # Of a file that was shorter than a window the remembered beginning may be longer by now, so
        # digests of it cannot be compared: any such cursor may be of this file.
        short = len(start.head) < Source.WINDOW
        if short and any(c.head_len > len(start.head) for c in fresh):
            return False
        if start.cursor.inode > 0 and any(c.identity == start.cursor.identity for c in fresh):
            return False
        return not CursorIndex(fresh).alike(start.head, label)


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
