"""A folder by its path; all it does is done by `disk`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

from lakelog.disk import disk, modes
from lakelog.disk.disk import Begun


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of a lake, by its path."""

    path: str

    def names(self) -> list[str]:
        """Names in it; none if it is not there."""
        return disk.listing(self.path)

    def make(self) -> None:
        """Make it if it is not there."""
        disk.make_dir(self.path)

    def make_durably(self) -> None:
        """Make it durably if it is not there; its parent is."""
        if not disk.exists(self.path):
            disk.make_dir(self.path)
            disk.sync_dir(os.path.dirname(self.path))

    def make_all(self) -> None:
        """Make it and its parents, each durably."""
        disk.make_dirs(self.path)

    def make_for_lake(self) -> None:
        """Make it and its parents, each durably; what is made in it then has its owner and mode."""
        disk.make_dirs(self.path)
        modes.begin(self.path)

    def make_for_objects(self) -> None:
        """Make the folder of an object where it is missing (F1.7), durably."""
        disk.make_object_dir(self.path)

    def sync(self) -> None:
        """Make the names in it durable."""
        disk.sync_dir(self.path)

    def remove_with_files(self) -> None:
        """Remove it with the files in it, if it is there; it has no folders. Raises OSError where
        somebody writes into it."""
        for name in self.names():
            disk.unlink(f"{self.path}/{name}")
        disk.remove_dir(self.path)

    def temporary_path(self) -> str:
        """A fresh temporary path in it; gc removes temporary files that are left over."""
        return disk.temporary_path(self.path)

    def write(self, data: bytes) -> str:
        """Write and sync a temporary file in it; return its path."""
        return disk.write_temporary(self.path, data)

    def write_pieces(self, chunks: Iterable[bytes], *, sync: bool = True, mode: int = 0o644) -> str:
        """The same piece by piece, so that it need not fit in memory."""
        return disk.write_pieces(self.path, chunks, sync=sync, mode=mode)

    def naming_full(self) -> AbstractContextManager[None]:
        """Say of a full disk meanwhile that it is the one of this folder, where nothing else says
        it."""
        return disk.naming(self.path)

    def begin(self, data: bytes) -> Begun:
        """Begin with a temporary file in it, which is durable once it is finished."""
        return disk.begin_file(self.path, data)

    def walk(
        self, on_error: Callable[[OSError], None] = lambda _: None
    ) -> Iterator[tuple[str, list[str], list[str]]]:
        """Yield what `os.walk` does, which before Python 3.12 fails below a thousand levels: each
        directory with the names of directories and of other files in it, both sorted.

        What the caller takes out of the names of directories is not entered, nor are links. A
        directory that cannot be listed goes to `on_error`.
        """
        waiting = [self.path]
        while waiting:
            folder = waiting.pop()
            names, files = list[str](), list[str]()
            links = set[str]()
            try:
                with os.scandir(folder) as entries:
                    for entry in sorted(entries, key=lambda entry: entry.name):
                        is_folder = False
                        with suppress(OSError):
                            is_folder = entry.is_dir()
                        (names if is_folder else files).append(entry.name)
                        if entry.is_symlink():
                            links.add(entry.name)
            except OSError as error:
                on_error(error)
                continue
            yield folder, names, files
            # After the yield, in which the caller drops names; reversed, as the last is next.
            waiting += [os.path.join(folder, name) for name in reversed(names) if name not in links]
