"""A lock by the path of its file, which processes hold while they are alive."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

from lakelog.disk import disk
from lakelog.disk.disk import Claim


@dataclass(frozen=True, slots=True)
class LockFile:
    """A file whose lock is taken; the system drops it with its process."""

    path: str

    def is_held(self) -> bool:
        """Whether some process holds it; False if the file is gone."""
        return disk.is_locked(self.path)

    def claim(self, kept_fd: int = -1) -> AbstractContextManager[Claim]:
        """Hold it, which only saves double work; gives what is false if another process does.

        Where the file cannot be created, the work is done anyway. `kept_fd` is the descriptor that
        was kept over an exec, if there was one.
        """
        return disk.claim(self.path, kept_fd)

    def hold(self, *, shared: bool) -> AbstractContextManager[bool]:
        """Hold it with others, after waiting, or alone, without: gives whether it is held."""
        return disk.hold(self.path, shared=shared)
