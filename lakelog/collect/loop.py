"""The loop around a watcher: hints, pauses, compaction beside it, and rest when nothing comes.

After REST_AFTER seconds without a new line the process is renewed: what it loaded to take lines in
is five times what it needs to wait for them. It goes on as the same process, with the same files
held open; whoever runs it does the renewing (`RestartRequested`). Compaction is a process of its
own, so that no line waits for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from lakelog.collect.watch import Say, Watcher
from lakelog.errors import LakelogError
from lakelog.ingest.cursors import printable
from lakelog.store import compact, gc
from lakelog.store.sealer_process import start_sealer

PAUSE, SHORT, LONG = 0.2, 0.02, 0.9
"""Seconds between two rounds at least, so that one publish takes many lines; the shorter one
where MANY came, the longer one where only FEW did: a second's lines are one publish then."""
FEW, MANY = 200, 10_000
RELAXED = 5.0
"""Where the file system gives hints, a scan is only needed this much less often."""
SHARE = 0.01
"""Where it gives hints, scanning takes this share of a core at most: many files are scanned less
often."""
REST_AFTER = 15.0
_COMPACT_EVERY = 60.0
_M_ARENA_MAX = -8
"""The parameter of glibc's mallopt that says how many heaps there are."""
_M_MMAP_THRESHOLD, _MMAPPED = -3, 131_072
"""From how many bytes on a block is a mapping of its own, which goes back to the system once it is
freed. Where nobody says so, glibc raises this to the largest block that was ever freed."""


class RestartRequested(Exception):
    """Nothing came for a while: renew the process and go on with `memory`."""

    def __init__(self, memory: dict[str, Any]) -> None:
        super().__init__("nothing came for a while")
        self.memory = memory


class Compaction:
    """Compaction and what else is due in a process of its own, now and then while lines come."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher, self._since = watcher, time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether one is going on."""
        return self._process is not None and self._process.poll() is None

    def now_and_then(self) -> None:
        """Start one if the last is long ago and there is enough to do."""
        if self.running or time.monotonic() - self._since < _COMPACT_EVERY:
            return
        self._since = time.monotonic()
        store, branch = self._watcher.lake.store, self._watcher.lake.branch_name
        state = store.state(branch)
        if compact.is_due(store.manifests.entries(state), store.settings) or gc.is_due(store):
            self._process = start_sealer(store, branch)

    def close(self) -> None:
        """End the one that is going on; what it did is kept or was never there."""
        if self._process is not None:
            if self.running:
                self._process.terminate()
            self._process.wait()


def run(
    watcher: Watcher,
    stop: threading.Event,
    *,
    interval: float,
    poll: bool,
    say: Say,
    renew: bool = False,
) -> None:
    """Watch until `stop` is set: a round at every hint, and every `interval` seconds anyway (five
    times that where there are hints).

    With `renew` it raises Rest, the files still held open, where there is something to win.
    """
    _share_arena()
    wake = threading.Event()
    observer = None if poll else _observe(watcher, wake, say)
    interval *= RELAXED if observer else 1.0
    compaction, rounds = Compaction(watcher), _RetryingRounds(watcher, say)
    last, resting = time.monotonic(), False
    try:
        while not stop.is_set():
            new = rounds.round()
            if new:
                last = time.monotonic()
                compaction.now_and_then()
            elif renew and _may_rest(watcher, compaction, last):
                resting = True
                raise RestartRequested(watcher.memory())
            patience = watcher.scan_seconds / SHARE if observer else 0.0
            pause = _pause(new)
            _wait(watcher, stop, wake, pause, max(interval, patience))
        rounds.round()
    finally:
        compaction.close()
        if observer is not None:
            with _quiet_threads():
                observer.stop()
                observer.join(5)
        if not resting:
            watcher.close()


def _share_arena() -> None:
    """Let all threads share one heap: glibc gives each of the engine's threads one of its own, of
    which little goes back to the system."""
    with contextlib.suppress(AttributeError):  # not of this C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAPPED)


def _pause(new: int) -> float:
    """Return how long to wait at least after a round that brought so many events."""
    if new > MANY:
        return SHORT
    return LONG if 0 < new < FEW else PAUSE


def _wait(
    watcher: Watcher, stop: threading.Event, wake: threading.Event, pause: float, interval: float
) -> None:
    """Wait for a hint, at most for the interval, at least for the pause."""
    stop.wait(SHORT if watcher.behind else pause)
    until = time.monotonic() + (0.0 if watcher.behind else max(interval - pause, 0))
    while not (stop.is_set() or wake.is_set() or watcher.holding) and time.monotonic() < until:
        wake.wait(min(PAUSE, max(until - time.monotonic(), 0.01)))
    wake.clear()


def _may_rest(watcher: Watcher, compaction: Compaction, last: float) -> bool:
    """Whether nothing came for a while, nothing is going on, and memory would be won."""
    idle = not (watcher.holding or watcher.waiting or watcher.behind or watcher.busy)
    quiet = idle and not compaction.running
    return quiet and "duckdb" in sys.modules and time.monotonic() - last > REST_AFTER


class _RetryingRounds:
    """Does rounds; a lake that fails for a while (a full disk) does not end the watching. What it
    fails of is said once, and when it is over."""

    def __init__(self, watcher: Watcher, say: Say) -> None:
        self._watcher, self._say, self._trouble = watcher, say, ""

    def round(self) -> int:
        """Do a round; return the number of new events."""
        try:
            new = self._watcher.round()
        except (LakelogError, OSError) as error:
            trouble = _words(error, self._watcher.lake.store.paths.root)
            if trouble != self._trouble:
                self._say(f"{trouble}; nothing is lost, trying again until it works")
            self._trouble = trouble
            time.sleep(1.0)
            return 0
        if self._trouble:
            self._say(f"it works again, which was: {self._trouble}")
            self._trouble = ""
        return new


def _words(error: Exception, root: str) -> str:
    """Say what is wrong, and where: in the lake, if the error does not know a path."""
    reason = getattr(error, "strerror", None)
    if reason is None:
        return str(error)
    return f"the lake {printable(root)} cannot be written: {reason}"


@contextlib.contextmanager
def _quiet_threads() -> Iterator[None]:
    """Keep threads quiet that end while what they look at is taken from them."""
    before, threading.excepthook = threading.excepthook, lambda args: None
    try:
        yield
    finally:
        threading.excepthook = before


def _observe(watcher: Watcher, wake: threading.Event, say: Say) -> Any:
    """Start to be woken by the file system; None where that cannot be had."""
    from watchdog.events import FileSystemEventHandler
    from watchdog.observers import Observer

    class Handler(FileSystemEventHandler):
        """Wakes the watcher."""

        def on_any_event(self, event: Any) -> None:
            """Anything but reading brings the next round forward."""
            if event.event_type not in ("opened", "closed_no_write"):
                wake.set()

    observer = Observer()
    try:
        for root in watcher.totals.roots:
            folder = root if os.path.isdir(root) else os.path.dirname(root)
            observer.schedule(Handler(), folder, recursive=os.path.isdir(root))
        observer.start()
    except OSError as error:
        say(f"no hints from the file system ({error.strerror or error}): scanning instead")
        return None
    return observer
