"""What a watcher knows of a file that it follows, its open descriptor, and which files are too old
to be followed."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Any

from lakelog.disk import OpenFile
from lakelog.files import CursorIndex, FileCursor, FileScan, FileState, LogName
from lakelog.lines import Source

FileIdentity = tuple[int, int]
"""Device and inode of a file."""
OPEN_FILES_MAX = 256
"""The most files that stay open, those that changed last."""


@dataclass(slots=True)
class FollowedFile:
    """One file, by its inode: its size and times when it was last read, at `read_at`."""

    file: FileState
    fd: int = -1
    read_at: float = 0.0
    has_open_end: bool = False
    """Whether its end was left, for more may belong to it."""
    has_partial_line: bool = False
    """Whether a last line without newline was left."""
    is_copy: bool = False
    """Whether all of it is a copy of another file."""
    is_sought: bool = False
    """Whether it is missing and was looked for under other names."""
    arrival: tuple[int, int] = (0, 0)
    """Size and mtime of a packed file that waits to be read, at `read_at`."""

    def mode(self, file: FileState, *, final: bool) -> str:
        """Return what becomes of the end of the file as it is now: see Job."""
        if final:
            return "once"
        if self.file != file:
            return "follow"
        # Nothing changed since the last round. The end that was left is taken now, because nothing
        # was written behind it; a partial line is taken once nobody will complete it.
        if self.has_open_end:
            return "settled"
        return "last" if self.has_partial_line else "follow"

    def is_packed_in(self, files: Iterable[FileState]) -> bool:
        """Whether one of some files is named as the compressed form of this open one, whose content
        is that of no other."""
        if not any(LogName(file.path).packs(self.file.path) for file in files):
            return False
        return FileCursor.is_distinctive(os.pread(self.fd, Source.WINDOW, 0))

    def hand_over(self) -> list[object]:
        """Return what `take_over` needs in the process that replaces this one."""
        if self.fd >= 0:
            # Python opens descriptors as not inheritable (PEP 446); these have to survive the exec.
            os.set_inheritable(self.fd, True)
        return [*self.file, self.fd, self.has_open_end, self.has_partial_line, self.is_copy]

    @classmethod
    def take_over(cls, values: list[Any]) -> FollowedFile:
        """Return the file that the process before handed over, with its descriptor."""
        *state, fd, has_open_end, has_partial_line, is_copy = values
        if fd >= 0:
            os.set_inheritable(fd, False)
        return cls(FileState(*state), fd, time.monotonic(), has_open_end, has_partial_line, is_copy)


def is_open_for_writing(followed: FollowedFile) -> bool | None:
    """Whether a process has a file open for writing; None where the system cannot say."""
    if followed.fd >= 0:
        return OpenFile(followed.fd).is_open_for_writing()
    with contextlib.suppress(OSError), open(followed.file.path, "rb") as file:
        return OpenFile(file.fileno()).is_open_for_writing()
    return None


def close(followed: FollowedFile) -> None:
    """Close its descriptor, if there is one."""
    if followed.fd >= 0:
        os.close(followed.fd)
        followed.fd = -1


def stat_again(file: FileState) -> FileState | None:
    """Return the present state of a file that was scanned a moment ago; None if its path holds
    another one."""
    with contextlib.suppress(OSError):
        current = FileState.of(file.path, os.stat(file.path))
        return current if current.identity == file.identity else None
    return None


def open_file(file: FileState) -> int:
    """Open a file, to read what is written to it before it is removed; -1 where that fails."""
    with contextlib.suppress(OSError):  # then its reader says why
        fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        status = os.fstat(fd)
        # By inode: another file may have taken the name since the scan.
        if (status.st_dev, status.st_ino) == file.identity:
            return fd
        os.close(fd)
    return -1


def open_files_max() -> int:
    """Return how many files a watcher keeps open."""
    # A quarter of what the process may open: the rest is for the engine, the lake and the file
    # system's notifications.
    return min(OPEN_FILES_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)


def raise_descriptor_limit() -> None:
    """Raise this process's limit of open files to its maximum."""
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class OldFiles:
    """Leaves out files that were last written more than `seconds` ago, unless they are known: what
    was followed before may not be read to its end."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._mtimes: dict[FileIdentity, int] = {}

    def leave_out(
        self, listing: FileScan, followed: Container[FileIdentity], index: Callable[[], CursorIndex]
    ) -> None:
        """Take them out of a scan; their inodes stay in it."""
        if self._seconds is None:
            return
        oldest = int((time.time() - self._seconds) * 1e9)
        old = [f for f in listing.files.values() if f.mtime_ns < oldest]
        cursors: CursorIndex | None = None
        for file in old:
            if file.identity in followed:
                continue
            # Cursors are looked up once for each file, as there may be thousands.
            if self._mtimes.get(file.identity) != file.mtime_ns:
                cursors = cursors or index()
                if cursors.of_inode(file.identity):
                    continue
                self._mtimes[file.identity] = file.mtime_ns
            del listing.files[file.path]
