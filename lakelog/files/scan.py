"""One traversal of the watched directories: which files exist, and their state."""

from __future__ import annotations

import fnmatch
import functools
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from lakelog.disk import File
from lakelog.files.rotation import LogName
from lakelog.lines import Source
from lakelog.store import Store

# What editors and downloads write before they rename it.
_PARTIAL = (".tmp", ".part", ".swp", "~")


@dataclass(frozen=True)
class Selection:
    """Which files are followed: those whose names fit a pattern, and that nothing excludes."""

    MARK: ClassVar = ".lakelog-backups"
    """The file that marks a directory of backups; whoever writes there holds its lock."""

    patterns: tuple[str, ...] = ("*",)
    excluded: tuple[str, ...] = ()
    """Patterns of names, or of paths where they have a slash, of files and directories."""

    def is_wanted(self, path: str) -> bool:
        """Whether a file is followed by its name."""
        return _fits(os.path.basename(path), self.patterns) and not self.is_excluded(path)

    def is_excluded(self, path: str) -> bool:
        """Whether a file or directory is left out."""
        return bool(self.excluded) and any(_is_excluded(path, glob) for glob in self.excluded)

    @classmethod
    def is_apart(cls, folder: str) -> bool:
        """Whether a directory is a lake, or holds backups: parts of files that came in already."""
        return Store.is_lake(folder) or File(f"{folder}/{cls.MARK}").exists()

    def scan(self, roots: list[str]) -> FileScan:
        """Scan directories and single files; links to directories are not followed.

        A file that is linked to is read once, under the first name. Pipes, devices and sockets are
        left out, which `ignored` says, and so are hidden files, lakes, backups and files being
        written under a temporary name.
        """
        result = FileScan()
        for root in roots:
            for path, inode in _paths(root, result, self):
                if path == root or self.is_wanted(path):
                    _look(path, result, is_root=path == root)
                    if not inode and os.path.islink(path):
                        result.links.append(path)
                elif not self.is_excluded(path):
                    result.others[inode] = path
        return result


class FileState(NamedTuple):
    """The state of one file in a scan."""

    path: str
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int = 0

    @property
    def unread(self) -> FileState:
        """The state before the file is ingested: of no size, so that it is due."""
        return FileState(self.path, self.device, self.inode, -1, 0)

    @staticmethod
    def of(path: str, status: os.stat_result) -> FileState:
        """The state of a file by its status."""
        times = status.st_mtime_ns, status.st_ctime_ns
        return FileState(path, status.st_dev, status.st_ino, status.st_size, *times)

    @property
    def identity(self) -> tuple[int, int]:
        """The file on this machine, unique as long as it is open or exists."""
        return self.device, self.inode


@dataclass
class FileScan:
    """All files of one traversal by path, and what could not be read, with the reason."""

    IGNORED: ClassVar = "left out: it is "
    """The beginning of the reason why something is not read."""

    files: dict[str, FileState] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    """What exists and is no regular file, such as a socket."""
    inodes: set[tuple[int, int]] = field(default_factory=set)
    """The inodes of the files."""
    names: dict[str, set[str]] = field(default_factory=dict)
    """The names in each directory when it was listed."""
    others: dict[int, str] = field(default_factory=dict)
    """What fits no pattern, by the number of its inode: a log may be among it that was renamed."""

    links: list[str] = field(default_factory=list)
    """Which of the files are links; what these lead to is rotated where it is."""

    def add(self, state: FileState) -> bool:
        """Add a file; False if it is there already, under another name."""
        if state.identity in self.inodes:
            return False
        self.inodes.add(state.identity)
        self.files[state.path] = state
        return True

    def look_again(self, selection: Selection) -> list[FileState]:
        """Add the files that appeared since their directory was listed; return them.

        After this, whatever existed when the size of any file was taken is in the scan: the copy
        that somebody makes of a file is known before the bytes that it may hold are read from it.
        """
        fresh: list[FileState] = []
        for folder, names in list(self.names.items()):
            with suppress(OSError):  # it was there a moment ago: the next scan says why not
                for name in sorted(set(os.listdir(folder)) - names):
                    path = f"{folder.rstrip('/')}/{name}"
                    if name.startswith(".") or not selection.is_wanted(path):
                        continue
                    nested = (
                        _paths(path, self, selection) if os.path.isdir(path) else iter(((path, 0),))
                    )
                    for entry_path, _ in nested:
                        state = _look(entry_path, self, is_root=False)
                        fresh += [state] if state else []
        return fresh


def _look(path: str, result: FileScan, *, is_root: bool) -> FileState | None:
    """Add a file to a scan, unless it is no regular file, or in it under another name."""
    try:
        status = os.stat(path)
    except OSError as error:
        if is_root or os.path.islink(path) or not isinstance(error, FileNotFoundError):
            result.faults[path] = error.strerror or str(error)
        return None  # a file that went since its directory was listed is no fault
    if file_kind := Source.kind_of(status.st_mode):
        if is_root:
            result.faults[path] = f"not a regular file: it is {file_kind}"
        elif not stat.S_ISDIR(status.st_mode):
            result.ignored[path] = f"{FileScan.IGNORED}{file_kind}"
        return None
    state = FileState.of(path, status)
    # A hard link would be read twice.
    return state if result.add(state) else None


def _paths(root: str, result: FileScan, selection: Selection) -> Iterator[tuple[str, int]]:
    """Yield the paths at and below a root, with the numbers of their inodes, of links 0."""
    if not os.path.isdir(root):
        yield root, 0
        return
    if Store.is_lake(root):  # a backup may be read again, but a lake would ingest its own segments
        result.faults[root] = "it is a lake, whose files are no input"
        return
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                # Sorted, so that of several names for a file the first is the same in every scan.
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if folder == root or not isinstance(error, FileNotFoundError):
                result.faults[folder] = error.strerror or str(error)
            continue
        result.names[folder] = {entry.name for entry in ordered}
        for entry in ordered:
            if entry.name.startswith("."):
                continue
            if not entry.is_dir(follow_symlinks=False):
                yield entry.path, 0 if entry.is_symlink() else entry.inode()
            elif not (selection.is_apart(entry.path) or selection.is_excluded(entry.path)):
                waiting.append(entry.path)


def _is_excluded(path: str, glob: str) -> bool:
    if "/" in glob:
        pattern = glob if glob.startswith(("/", "*")) else f"*/{glob}"
        return fnmatch.fnmatchcase(path, pattern.rstrip("/"))
    names = LogName(os.path.basename(path)).stems()
    return any(fnmatch.fnmatchcase(name, glob) for name in names)


@functools.lru_cache(1 << 15)
def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a name fits a pattern, as it is or without what rotation put after it."""
    if name.startswith(".") or name.endswith(_PARTIAL):
        return False
    if "*" in patterns:
        return True
    return any(fnmatch.fnmatch(n, pattern) for n in LogName(name).stems() for pattern in patterns)
