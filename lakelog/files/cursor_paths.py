"""Where the file of a cursor is now, if it still holds what was consumed of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing, suppress

from lakelog.files.cursors import CursorIndex
from lakelog.files.file_cursor import FileCursor
from lakelog.files.rotation import LogName, printable, relation
from lakelog.lines import Source

Inodes = Mapping[tuple[int, int], str]
"""The path of each file that is known to exist, by device and inode."""


class CursorPaths:
    """Finds the files of cursors; a watcher, which `follows`, knows the paths of `inodes`."""

    def __init__(
        self, index: CursorIndex, label: str | None, inodes: Inodes, *, follows: bool
    ) -> None:
        self._index, self._label, self._follows = index, label, follows
        self.inodes = inodes
        self._unnamed: list[str] | None = None
        self._folders: dict[str, dict[int, str]] = {}

    def is_doubtful(self, source: Source, cursor: FileCursor, head: bytes) -> bool:
        """Whether an inode number may be reused: the file was written since, and says nothing."""
        is_rewritten = self._follows and not is_as_read(source, cursor)
        return is_rewritten and not FileCursor.is_distinctive(head[: cursor.bytes])

    def nameless(self) -> list[str]:
        """The paths of files that are followed though they have no name any more."""
        if self._unnamed is None:
            self._unnamed = [p for p in self.inodes.values() if p.startswith("/dev/fd/")]
        return self._unnamed

    def path_of(self, cursor: FileCursor, source: Source) -> str:
        """The path of a cursor's file, if it still holds what was consumed; else empty."""
        if cursor.inode == FileCursor.RELEASED or cursor.identity == source.identity:
            return ""
        for path in filter(None, self._places(cursor)):
            with suppress(OSError), closing(Source(path)) as candidate:
                right = not cursor.inode or candidate.identity == cursor.identity
                if not right or candidate.identity == source.identity:
                    continue
                # Cursors without an inode (F18.9) claim no file that another cursor names.
                if not cursor.inode and self._index.of_inode(candidate.identity):
                    continue
                head = candidate.read_head()
                # read_head() limits the source to the window; what was consumed may be longer.
                candidate.limit = None
                if cursor.before_place(candidate, head, self._label) is None:
                    continue
                if not self.is_doubtful(candidate, cursor, head) or goes_on(cursor, candidate):
                    return path
        return ""

    def _places(self, cursor: FileCursor) -> list[str]:
        """Paths at which a cursor's file may be: where it was seen, or under its old name, or
        renamed in the same directory."""
        followed_path = self.inodes.get(cursor.identity, "") if cursor.inode else ""
        if followed_path:
            return [followed_path]
        folder = os.path.dirname(cursor.name) or "."
        if cursor.inode and folder not in self._folders:
            with suppress(OSError), os.scandir(folder) as entries:
                # One listing serves all cursors of a directory.
                self._folders[folder] = {e.inode(): e.path for e in entries}
        return [cursor.name, self._folders.get(folder, {}).get(cursor.inode, "")]


def is_as_read(source: Source, cursor: FileCursor) -> bool:
    """Whether a file has the size and time that it had when it was read."""
    return (source.size, source.mtime) == (cursor.size, cursor.mtime)


def goes_on(cursor: FileCursor, source: Source) -> bool:
    """Whether a file that was written since is called as its cursor's, or as what rotation makes of
    that: neither packing nor anything else does it with the inode."""
    old, new = cursor.name, printable(source.name)
    return old == new or (
        relation(old, new) == 2 and LogName(old).is_packed == LogName(new).is_packed
    )
