"""What files are there, and which of them changed: one walk over the watched directories."""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from lakelog.ingest.apart import is_apart

SUFFIXES = (".gz", ".zst", ".bz2", ".xz")
_PARTIAL = (".tmp", ".part", ".swp", "~")


@dataclass(frozen=True)
class Seen:
    """What a scan saw of one file."""

    path: str
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int = 0

    @property
    def unread(self) -> Seen:
        """The file as it is called until it was taken in: of no size, so that it is due."""
        return Seen(self.path, self.device, self.inode, -1, 0)

    @property
    def identity(self) -> tuple[int, int]:
        """Which file it is on this machine, as long as it is held open."""
        return self.device, self.inode


@dataclass
class Scan:
    """All files of one walk by path, and what could not be looked at, with the reason."""

    files: dict[str, Seen] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


def scan(roots: list[str], patterns: tuple[str, ...]) -> Scan:
    """Walk directories and single files; links to directories are not followed.

    A file that is linked to is read once, under the first name. Pipes, devices, hidden files,
    lakes, backups and files being written under a temporary name are left out.
    """
    found, taken = Scan(), set[tuple[int, int]]()
    for root in roots:
        for path in _paths(root, found):
            name = os.path.basename(path)
            if path != root and not _wanted(name, patterns):
                continue
            try:
                status = os.stat(path)
            except OSError as error:
                found.faults[path] = error.strerror or str(error)
                continue
            if not stat.S_ISREG(status.st_mode):
                if path == root and not stat.S_ISDIR(status.st_mode):
                    found.faults[path] = "it is no regular file"
                continue
            times = status.st_mtime_ns, status.st_ctime_ns
            seen = Seen(path, status.st_dev, status.st_ino, status.st_size, *times)
            if seen.identity not in taken:
                taken.add(seen.identity)
                found.files[path] = seen
    return found


def _paths(root: str, found: Scan) -> Iterator[str]:
    if not os.path.isdir(root):
        yield root
        return
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            found.faults[folder] = error.strerror or str(error)
            continue
        for entry in listed:
            if entry.name.startswith("."):
                continue
            if not entry.is_dir(follow_symlinks=False):
                yield entry.path
            elif not is_apart(entry.path):
                waiting.append(entry.path)


def _wanted(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a name fits a pattern, as it is or without what rotation put behind it."""
    if name.startswith(".") or name.endswith(_PARTIAL):
        return False
    return any(fnmatch.fnmatch(n, pattern) for n in _names(name) for pattern in patterns)


def _names(name: str) -> Iterator[str]:
    """The name, then without a compression's ending, then without a rotation's number or date."""
    yield name
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            name = name.removesuffix(suffix)
            yield name
    stem, _, last = name.rpartition(".")
    if stem and last.strip("0123456789-_T") == "":
        yield stem
    stem, _, last = name.rpartition("-")
    if stem and last.isdigit():
        yield stem
