"""A lock by the path of its file, which processes hold while they are alive."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass

from lakelog.disk import disk, regular_file
from lakelog.disk.file import OpenFile


class Claim:
    """A claim file; true if this process holds its lock."""

    def __init__(self, fd: int, *, is_held: bool) -> None:
        self.fd, self._is_held = fd, is_held

    def __bool__(self) -> bool:
        return self._is_held

    def keep(self) -> int:
        """Return a descriptor with which the lock outlives an exec of this process."""
        if self.fd < 0:
            return -1
        duplicate = os.dup(self.fd)
        os.set_inheritable(duplicate, True)
        return duplicate


@dataclass(frozen=True, slots=True)
class LockFile:
    """A file whose lock is taken; the system drops it with its process."""

    path: str

    def is_held(self) -> bool:
        """Whether some process holds it; False if the file is gone."""
        try:
            fd = regular_file.open_file(self.path)
        except (FileNotFoundError, regular_file.NotRegular):
            return False
        with OpenFile.closing(fd):  # which also drops the lock, if it was free to take
            return not disk.lock(fd)

    @contextlib.contextmanager
    def claim(self, kept_fd: int = -1) -> Iterator[Claim]:
        """Hold it, which only saves double work; gives what is false if another process does.

        Where the file cannot be created, as in a read-only cache, the work is done anyway.
        `kept_fd` is the descriptor that was kept over an exec, if there was one.
        """
        fd = kept_fd
        try:
            if fd < 0:
                fd = disk.open_lock(self.path)
            else:
                os.set_inheritable(fd, False)
        except OSError:
            yield Claim(-1, is_held=True)
            return
        with OpenFile.closing(fd):
            yield Claim(fd, is_held=disk.lock(fd))

    @contextlib.contextmanager
    def hold(self, *, shared: bool) -> Iterator[bool]:
        """Hold it with others, after waiting, or alone, without: gives whether it is held."""
        with OpenFile.closing(disk.open_lock(self.path)) as fd:
            if shared:
                fcntl.flock(fd, fcntl.LOCK_SH)
            yield shared or disk.lock(fd)
