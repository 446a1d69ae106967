"""The regular files of a directory, listed without following links."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from lakelog.errors import ExportRefused

FILES_MAX = 30_000
DEPTH_MAX = 4


@dataclass(frozen=True)
class Inventory:
    """The regular files below `root`, by relative path, with sizes; `faults` names all else."""

    root: str
    sizes: dict[str, int]
    faults: tuple[str, ...]
    bytes_on_disk: int
    """Bytes that all of them take on disk; a file with holes takes less than its size."""

    def path(self, name: str) -> str:
        """Return the path of a listed file. Raises KeyError for one that is not listed."""
        if name not in self.sizes:
            raise KeyError(name)
        return f"{self.root}/{name}"

    def read(self, name: str, size_max: int) -> bytes | None:
        """Return the bytes of a listed file, at most one more than `size_max`; None if it is not
        there.

        A file that became a link since it was listed is not opened.
        """
        if name not in self.sizes:
            return None
        fd = os.open(f"{self.root}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            return file.read(size_max + 1)


def scan(root: str) -> Inventory:
    """List a directory. Raises ExportRefused where there is none."""
    if not os.path.isdir(root):
        raise ExportRefused(f"{root}: not an export: not a directory")
    sizes: dict[str, int] = {}
    faults: list[str] = []
    bytes_on_disk = 0
    waiting = [("", 0)]
    # Bounded in depth and number: a directory from elsewhere may be endless.
    while waiting and len(sizes) + len(faults) <= FILES_MAX:
        folder, depth = waiting.pop()
        for entry in sorted(os.scandir(f"{root}/{folder}"), key=lambda e: e.name):
            name = f"{folder}{entry.name}"
            # Never through a link: it could lead to a device or out of the set.
            state = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(state.st_mode) and depth < DEPTH_MAX:
                waiting.append((f"{name}/", depth + 1))
            elif stat.S_ISREG(state.st_mode):
                sizes[name] = state.st_size
                bytes_on_disk += min(state.st_size, state.st_blocks * 512)
            else:
                faults.append(f"{name} is {_kind(state.st_mode)}, and is not opened")
    if waiting:
        faults.append(f"there are more than {FILES_MAX:,} files")
    return Inventory(root, dict(sorted(sizes.items())), tuple(faults), bytes_on_disk)


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "a directory too deep" if stat.S_ISDIR(mode) else "no plain file"
