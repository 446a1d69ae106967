"""What files are there, and which of them changed: one walk over the watched directories."""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from lakelog.ingest import rotation
from lakelog.ingest.exclusions import is_apart
from lakelog.ingest.source import kind_of

IGNORED = "left out: it is "
"""How the reason begins for which something there is not read."""
_PARTIAL = (".tmp", ".part", ".swp", "~")


class FileState(NamedTuple):
    """What a scan saw of one file."""

    path: str
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int = 0

    @property
    def unread(self) -> FileState:
        """The file as it is called until it was taken in: of no size, so that it is due."""
        return FileState(self.path, self.device, self.inode, -1, 0)

    @property
    def identity(self) -> tuple[int, int]:
        """Which file it is on this machine, as long as it is held open."""
        return self.device, self.inode


@dataclass
class Scan:
    """All files of one walk by path, and what could not be looked at, with the reason."""

    files: dict[str, FileState] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    """What is there and is no file, such as a socket."""
    taken: set[tuple[int, int]] = field(default_factory=set)
    """The inodes of the files."""
    names: dict[str, set[str]] = field(default_factory=dict)
    """What each directory held when it was listed."""


def scan(roots: list[str], patterns: tuple[str, ...]) -> Scan:
    """Walk directories and single files; links to directories are not followed.

    A file that is linked to is read once, under the first name. Pipes, devices and sockets are left
    out, which `ignored` says, and so are hidden files, lakes, backups and files being written under
    a temporary name.
    """
    found = Scan()
    for root in roots:
        for path in _paths(root, found):
            if path == root or _wanted(os.path.basename(path), patterns):
                _look(path, found, asked=path == root)
    return found


def look_again(found: Scan, patterns: tuple[str, ...]) -> list[FileState]:
    """Add to a scan the files that appeared since their directory was listed; return them.

    After this, whatever existed when the size of any file was taken is in the scan: the copy that
    somebody makes of a file is known before the bytes that it may hold are read from the file.
    """
    fresh: list[FileState] = []
    for folder, names in list(found.names.items()):
        with suppress(OSError):  # it was there a moment ago: the next scan says why not
            for name in sorted(set(os.listdir(folder)) - names):
                path = f"{folder.rstrip('/')}/{name}"
                if name.startswith(".") or not _wanted(name, patterns):
                    continue
                below = _paths(path, found) if os.path.isdir(path) else iter((path,))
                for each in below:
                    seen = _look(each, found, asked=False)
                    fresh += [seen] if seen else []
    return fresh


def seen_as(path: str, status: os.stat_result) -> FileState:
    """What a scan keeps of a file's status."""
    times = status.st_mtime_ns, status.st_ctime_ns
    return FileState(path, status.st_dev, status.st_ino, status.st_size, *times)


def _look(path: str, found: Scan, *, asked: bool) -> FileState | None:
    """Add a file to a scan, unless it is none, or there under another name."""
    try:
        status = os.stat(path)
    except OSError as error:
        if asked or os.path.islink(path) or not isinstance(error, FileNotFoundError):
            found.faults[path] = error.strerror or str(error)
        return None  # a file that went since its directory was listed is no fault
    if kind := kind_of(status.st_mode):
        if asked:
            found.faults[path] = f"not a regular file: it is {kind}"
        elif not stat.S_ISDIR(status.st_mode):
            found.ignored[path] = f"{IGNORED}{kind}"
        return None
    seen = seen_as(path, status)
    if seen.identity in found.taken:
        return None
    found.taken.add(seen.identity)
    found.files[path] = seen
    return seen


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
            if folder == root or not isinstance(error, FileNotFoundError):
                found.faults[folder] = error.strerror or str(error)
            continue
        found.names[folder] = {entry.name for entry in listed}
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
    if "*" in patterns:
        return True
    return any(fnmatch.fnmatch(n, pattern) for n in rotation.stems(name) for pattern in patterns)
