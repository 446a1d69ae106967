"""Noticing that something new may stand in a branch, without asking every few milliseconds.

The kernel reports each write to a WAL and each new move (inotify). A directory that other hosts
write to, or a system without inotify, is looked at several times a second. One thread of a process
watches a branch for all who wait for it; it ends soon after nobody does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import threading
import time
from collections.abc import Callable, Iterator

from lakelog.disk import Folder
from lakelog.paths import Paths
from lakelog.runtime import forks

_MODIFY, _CREATE, _MOVED_TO = 0x2, 0x100, 0x80
_LOOK_EVERY = 0.2
"""Seconds between two looks at the directories, in case that no notification comes."""
_LOOK_WITHOUT = 0.02
"""The same where there are no notifications at all."""
_UNTOLD = 5.0
"""Seconds after which a branch is looked at although nothing was told of it."""
_LINGER = 5.0
"""Seconds after which a watch ends that nobody waits for."""
_SIGNALS: dict[tuple[str, str], ArrivalSignal] = {}
_MUTEX = threading.Lock()


class ArrivalSignal:
    """Counts the changes of one branch; `wait` returns as soon as there is another."""

    def __init__(self, paths: Paths, branch: str) -> None:
        self._directories = (paths.wal_dir(branch), paths.head_dir(branch))
        self._changed = threading.Condition()
        self._count, self._waiting, self._waited_at = 0, 0, 0.0
        self._thread: threading.Thread | None = None

    @property
    def count(self) -> int:
        """How many changes were noticed; ask before looking at the branch."""
        with self._changed:
            self._start()
            return self._count

    def wait(self, count: int, timeout: float) -> int:
        """Wait until there were more changes than `count`, or so many seconds; return how many."""
        with self._changed:
            self._start()
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: self._count > count, timeout)
            finally:
                self._waiting -= 1
                self._waited_at = time.monotonic()
            return self._count

    def looks(self, stop: threading.Event, pause: Callable[[], float]) -> Iterator[bool]:
        """Yield at once and at each change whether to look at the branch, and False whenever the
        seconds are over that `pause` returns; until `stop` is set. Who waits for nothing costs
        nothing, but for a look now and then that nobody asked for."""
        last_count, looked_at = -1, 0.0
        while not stop.is_set():
            count, clock = self.count, time.monotonic()
            is_due = count != last_count or clock - looked_at > _UNTOLD
            if is_due:
                last_count, looked_at = count, clock
            yield is_due
            self.wait(count, pause())

    def _start(self) -> None:
        """Start the thread that watches, unless it runs. The caller holds the condition."""
        self._waited_at = time.monotonic()
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._watch, name="lakelog-arrivals", daemon=True
            )
            self._thread.start()

    def _watch(self) -> None:
        descriptor = _notifications(self._directories)
        before: tuple[object, ...] | None = _signature(self._directories)
        try:
            while not self._is_over():
                if descriptor >= 0 and select.select([descriptor], [], [], _LOOK_EVERY)[0]:
                    with contextlib.suppress(BlockingIOError):
                        os.read(descriptor, 1 << 16)
                    before = None
                elif descriptor < 0:
                    time.sleep(_LOOK_WITHOUT)
                    before = self._compare(before)
                    continue
                else:
                    before = self._compare(before)
                    continue
                self._notify()
        finally:
            with self._changed:
                if self._thread is threading.current_thread():
                    self._thread = None  # it failed: the next one who waits starts another
            if descriptor >= 0:
                os.close(descriptor)

    def _compare(self, before: tuple[object, ...] | None) -> tuple[object, ...]:
        signature = _signature(self._directories)
        if signature != before and before is not None:
            self._notify()
        return signature

    def _is_over(self) -> bool:
        with self._changed:
            is_idle = not self._waiting and time.monotonic() - self._waited_at > _LINGER
            if is_idle:
                self._thread = None
            return is_idle

    def _notify(self) -> None:
        with self._changed:
            self._count += 1
            self._changed.notify_all()


def signal_of(paths: Paths, branch: str) -> ArrivalSignal:
    """Return the signal of a branch that all of this process share."""
    with _MUTEX:
        key = os.path.abspath(paths.root), branch
        if key not in _SIGNALS:
            _SIGNALS[key] = ArrivalSignal(paths, branch)
        return _SIGNALS[key]


def _notifications(directories: tuple[str, ...]) -> int:
    """Return a descriptor that is readable once something changed; -1 where there is no such."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    except (AttributeError, OSError):
        return -1
    mask = _MODIFY | _CREATE | _MOVED_TO
    watches = [libc.inotify_add_watch(descriptor, os.fsencode(d), mask) for d in directories]
    if descriptor >= 0 and min(watches) < 0:  # the user's limit of watches, or a directory is gone
        os.close(descriptor)
        return -1
    return descriptor


def _signature(directories: tuple[str, ...]) -> tuple[object, ...]:
    """What differs after an append or a move."""
    wals, heads = directories
    stats: list[object] = [_stat(heads)]
    for name in Folder(wals).names():
        stats.append((name, *_stat(f"{wals}/{name}")))
    return tuple(stats)


def _stat(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


def _forget_all() -> None:
    """A child of fork has none of the threads, and may have been forked while one held a lock."""
    global _MUTEX
    _MUTEX = threading.Lock()
    _SIGNALS.clear()


forks.after_in_child(_forget_all)
