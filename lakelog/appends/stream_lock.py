"""The lock under which the versions of streams are given: one a branch, held through the sync.

It is the flock of the branch's directory of moves, which is always there: a lock in `cache/` could
be deleted while it is held. Whoever takes a branch back holds it from settling to the move, so that
no versioned event is acknowledged on a state that the branch is about to leave.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator

from lakelog.disk import OpenFile
from lakelog.store import Store
from lakelog.wal import Frame, Tail, WalFile


class _Held(threading.local):
    """The locks that this thread holds."""

    def __init__(self) -> None:
        self.paths: set[str] = set()


_HELD = _Held()


class StreamLock:
    """The lock of one branch; the directory stays open between two holds."""

    def __init__(self, store: Store, branch: str) -> None:
        self._store, self._branch = store, branch
        self._path, self._fd = store.paths.head_dir(branch), -1

    def acquire(self) -> None:
        """Wait for the lock and take it."""
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        OpenFile(self._fd).lock(wait=True)

    def release(self) -> None:
        """Let the lock go."""
        if self._fd >= 0:
            # Closing it would not, where a child of fork has it open as well.
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the directory, which lets go of the lock unless a parent process has it open."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock: no versioned event is appended meanwhile, by any process. A thread that
        holds it already goes on."""
        if self._path in _HELD.paths:
            yield
            return
        try:
            self.acquire()
            _HELD.paths.add(self._path)
            yield
        finally:
            _HELD.paths.discard(self._path)
            self.release()
            self.close()

    def has_pending(self) -> bool:
        """Whether versioned events of the branch wait to be sealed. Raises Damaged."""
        tail = Tail(self._store.paths, self._store.refs, self._branch)
        return any(map(_has_versions, tail.collect().frames.values()))

    def scan(self, tail: Tail) -> dict[str, list[WalFile]]:
        """Read what is new in every file of a tail, as `tail.scan`, at one moment as far as streams
        go: no versioned event is there without those that came before it."""
        files = tail.scan()
        if any(_has_versions(file.frames) for group in files.values() for file in group):
            with self.held():
                files = tail.scan()
        return files


def _has_versions(frames: list[Frame]) -> bool:
    return any(frame.is_versioned for frame in frames)
