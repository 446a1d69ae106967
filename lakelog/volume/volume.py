"""Where the files of a lake are: a directory, or whatever else has the operations of `Volume`.

A key is the path of a file below the lake, as FORMAT.md names it (paths.py). Refs, manifests and
what a publish writes stand on these operations alone, so that a lake's states may be in a bucket,
on another machine or in a registry (lakelog/remotes). WALs, locks and caches are in a directory.

What is published is staged first: written beside its name, and made durable together with all that
it names. `link` then gives it its name, which decides a race: one of two that link the same name
succeeds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Protocol

from lakelog.disk import DOCUMENT_MAX, Begun, File, Folder

TICK_NS = 50_000_000
"""After so long a changed directory has another time, which is in ticks of some milliseconds."""


class Volume(Protocol):
    """The files of one lake, by key. Methods raise OSError; threads share a volume."""

    def location(self, key: str) -> str:
        """Where a file is, for messages."""

    def read(self, key: str, longest: int = DOCUMENT_MAX) -> bytes:
        """Return the bytes of a file. Raises FileNotFoundError, NotIntact for a longer one."""

    def exists(self, key: str) -> bool:
        """Whether a file is there now."""

    def identity(self, key: str) -> object:
        """What no other file has that ever was at a key, None if there is none; of volumes in whose
        place no other one comes it may be the same of all that are there."""

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder; none if it is not there."""

    def folders(self, folder: str) -> list[str]:
        """Return those of the names in a folder that are no files."""

    def stamp(self, key: str) -> int:
        """When a file was written, in ns of a clock of the volume. Raises FileNotFoundError."""

    def change_time(self, folder: str) -> int:
        """When a name in a folder changed last, in ns; now where nobody knows, 0 if there is no
        such folder."""

    def create(self, key: str, data: bytes) -> None:
        """Create a file durably, whole or not at all; FileExistsError if the name is taken, but
        perhaps not if by the same bytes: an answer may get lost."""

    def put(self, key: str, data: bytes) -> None:
        """Create an object durably; one that is there has the same bytes."""

    def replace(self, key: str, data: bytes, *, sync: bool = True) -> None:
        """Create or replace a file in one step; without `sync` it may be lost with the power."""

    def remove(self, key: str) -> None:
        """Remove a file durably, if it is there."""

    def make_folder(self, folder: str) -> None:
        """Make a folder durably, where a file needs one; the one above it is there."""

    def sync(self, folder: str) -> None:
        """Make the names in a folder durable."""

    def stage(self, key: str, data: bytes) -> Begun:
        """Begin with a file that gets its name by `link`."""

    def finish(self, files: list[Begun]) -> None:
        """Make files durable that were begun, those of objects under their names; the list is
        empty then. An error leaves none of them staged."""

    def deliver(self, keys: Iterable[str]) -> None:
        """Bring objects to where the next move is read from, which names them, if that is not where
        they were written."""

    def abandon(self, files: list[Begun]) -> None:
        """Drop files that are not finished; the list is empty then."""

    def link(self, file: Begun, key: str) -> None:
        """Give a finished file its name, durably after `sync`; FileExistsError if it is taken."""

    def stamp_of(self, file: Begun) -> int:
        """When a finished file was written, as `stamp`; before `drop`."""

    def drop(self, file: Begun) -> None:
        """Drop a finished file, which keeps the name that it got."""


class DirectoryVolume:
    """The files below a directory of this machine, given by its absolute path."""

    def __init__(self, root: str) -> None:
        self._prefix = f"{root}/"

    def location(self, key: str) -> str:
        """Where a file is: its path."""
        return self._prefix + key

    def read(self, key: str, longest: int = DOCUMENT_MAX) -> bytes:
        """Return the bytes of a file. Raises FileNotFoundError, NotRegular."""
        return File(self._prefix + key).read(longest)

    def exists(self, key: str) -> bool:
        """Whether a name is there now."""
        return File(self._prefix + key).exists()

    def identity(self, key: str) -> tuple[int, int, int] | None:
        """Device, inode and time; None if there is no file."""
        return File(self._prefix + key).identity()

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder; none if it is not there."""
        return Folder(self._prefix + folder).names()

    def folders(self, folder: str) -> list[str]:
        """Return those of the names in a folder that are no files."""
        path = self._prefix + folder
        return [name for name in Folder(path).names() if not File(f"{path}/{name}").is_regular()]

    def stamp(self, key: str) -> int:
        """When a file was written, in ns of the file system's clock. Raises FileNotFoundError."""
        return os.stat(self._prefix + key).st_mtime_ns

    def change_time(self, folder: str) -> int:
        """When a name in a folder changed last, in ns; 0 if there is no such folder."""
        try:
            return self.stamp(folder)
        except FileNotFoundError:
            return 0

    def create(self, key: str, data: bytes) -> None:
        """Create a file durably; FileExistsError if the name is taken."""
        path = self._prefix + key
        File(path).create(data)
        Folder(os.path.dirname(path)).sync()

    def put(self, key: str, data: bytes) -> None:
        """Create an object durably; one that is there has the same bytes."""
        File(self._prefix + key).put(data)

    def replace(self, key: str, data: bytes, *, sync: bool = True) -> None:
        """Create or replace a file in one step."""
        File(self._prefix + key).replace(data, sync=sync)

    def remove(self, key: str) -> None:
        """Remove a file durably, if it is there."""
        path = self._prefix + key
        File(path).remove()
        Folder(os.path.dirname(path)).sync()

    def make_folder(self, folder: str) -> None:
        """Make a folder durably if it is not there."""
        Folder(self._prefix + folder).make_durably()

    def sync(self, folder: str) -> None:
        """Make the names in a folder durable."""
        Folder(self._prefix + folder).sync()

    def stage(self, key: str, data: bytes) -> Begun:
        """Begin with a file that gets its name by `link`."""
        return Folder(self._prefix + key.rpartition("/")[0]).begin(data)

    def finish(self, files: list[Begun]) -> None:
        """Make files durable that were begun, those of objects under their names."""
        Begun.finish(files)

    def deliver(self, keys: Iterable[str]) -> None:
        """Objects are where their moves are."""

    def abandon(self, files: list[Begun]) -> None:
        """Drop files that are not finished."""
        while files:
            files.pop().abandon()

    def link(self, file: Begun, key: str) -> None:
        """Give a finished file its name; FileExistsError if it is taken."""
        File(file.temporary).link(self._prefix + key)

    def stamp_of(self, file: Begun) -> int:
        """When a finished file was written, as `stamp`; before `drop`."""
        return os.stat(file.temporary).st_mtime_ns

    def drop(self, file: Begun) -> None:
        """Drop a finished file, which keeps the name that it got."""
        File(file.temporary).remove()
