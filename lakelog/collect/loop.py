"""The loop around a watcher: notifications, pauses, compaction alongside, and restarts when idle.

After REST_AFTER seconds without a new line the process is restarted, because what it loaded to
ingest lines takes five times the memory that waiting needs. It keeps its process id and its open
files; the caller restarts it (`RestartRequested`). Compaction runs in a process of its own, so that
no line waits for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lakelog.collect.status import Say
from lakelog.collect.watch import Watcher
from lakelog.errors import LakelogError
from lakelog.files import printable
from lakelog.maintain import BackgroundWork
from lakelog.runtime.lazy import Lazy
from lakelog.store import SealerProcess

if TYPE_CHECKING:
    from watchdog import events, observers
else:
    events, observers = Lazy("watchdog.events"), Lazy("watchdog.observers")


PAUSE, SHORT, LONG = 0.2, 0.02, 0.9
"""Least seconds between two rounds, so that one publish holds many lines; the shorter one after
MANY new lines, the longer one after FEW: then the lines of a second are one publish."""
FEW, MANY = 200, 10_000
RELAXED = 5.0
"""Where the file system sends notifications, scans are this much less frequent."""
ARRIVING = 0.5
"""Seconds between two rounds, at most, while a file is not read because it may still be written:
nothing notifies of its being complete."""
SHARE = 0.01
"""Where it sends notifications, scanning uses this share of a core at most: the more files, the
less often."""
REST_AFTER = 15.0
_COMPACT_EVERY = 60.0
_M_ARENA_MAX = -8
"""The parameter of glibc's mallopt for the number of heaps."""
_M_MMAP_THRESHOLD, _MMAPPED = -3, 131_072
"""Blocks of this many bytes or more are mappings of their own, which return to the system when
they are freed. Unless it is set, glibc raises the threshold to the largest block ever freed."""


class RestartRequested(Exception):
    """No line arrived for a while: restart the process and continue with `memory`."""

    def __init__(self, memory: dict[str, Any]) -> None:
        super().__init__("no line arrived for a while")
        self.memory = memory


class CompactionRuns:
    """Runs compaction and other maintenance that is due in a process of its own, from time to
    time."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher, self._since = watcher, time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether a run is in progress."""
        return self._process is not None and self._process.poll() is None

    def run_if_due(self) -> None:
        """Start a run if the last one was long ago and there is enough to do."""
        if self.running or time.monotonic() - self._since < _COMPACT_EVERY:
            return
        self._since = time.monotonic()
        lake = self._watcher.lake
        if BackgroundWork(lake).is_due():
            self._process = SealerProcess(lake.store, lake.branch_name).start()

    def close(self) -> None:
        """End the run in progress; what it published stays, the rest never happened."""
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
    """Watch until `stop` is set: a round at every notification, and every `interval` seconds anyway
    (five times that where the file system sends notifications of all files).

    With `renew` it raises RestartRequested, the files still open, once a restart would free memory.
    """
    # Before the first round, which starts the engine's threads: glibc gives each its heap when it
    # allocates first.
    _share_arena()
    wake = threading.Event()
    observer = None if poll else _observe(watcher, wake, say)
    compaction, rounds = CompactionRuns(watcher), _RetryingRounds(watcher, say)
    active_at, resting = time.monotonic(), False
    try:
        while not stop.is_set():
            new = rounds.round()
            if new:
                active_at = time.monotonic()
                compaction.run_if_due()
            elif renew and _may_rest(watcher, compaction, active_at):
                # The descriptors stay open over the exec, so that files which lose their names
                # meanwhile are read to their ends.
                resting = True
                raise RestartRequested(watcher.memory())
            # With many thousand files a scan takes long enough to be felt: then it comes less
            # often.
            patience = watcher.scan_seconds / SHARE if observer else 0.0
            # A notification brings the next round forward; the scan remains, because notifications
            # can be lost.
            is_notified = observer is not None and not watcher.has_links
            rhythm = interval * RELAXED if is_notified else interval
            _wait(watcher, stop, wake, _pause(new), max(rhythm, patience))
        # What was written until the stop is ingested too.
        rounds.round()
    finally:
        # It is a process of its own, which would outlive this one.
        compaction.close()
        if observer is not None:
            # watchdog 7.1 may still be reading: its thread would print a traceback where the
            # directory was removed, and an error where something is written right now.
            with _quiet_threads():
                observer.stop()
                observer.join(5)
        if not resting:
            watcher.close()


def _share_arena() -> None:
    """Let all threads share one heap: glibc gives each of the engine's threads its own, which
    returns little to the system."""
    with contextlib.suppress(AttributeError):  # not of this C library
        # Both: the arenas bound how many heaps there are, the threshold what large blocks leave
        # behind in them.
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAPPED)


def _pause(new: int) -> float:
    """Return the least pause after a round that ingested so many events."""
    if new > MANY:
        return SHORT
    return LONG if 0 < new < FEW else PAUSE


def _wait(
    watcher: Watcher, stop: threading.Event, wake: threading.Event, pause: float, interval: float
) -> None:
    """Wait for a notification, at most for the interval, at least for the pause."""
    stop.wait(SHORT if watcher.is_behind else pause)
    if watcher.has_arriving_files:
        interval = min(interval, ARRIVING)
    # Behind or with open ends there is work without any notification, so only the pause counts.
    until = time.monotonic() + (0.0 if watcher.is_behind else max(interval - pause, 0))
    while (
        not (stop.is_set() or wake.is_set() or watcher.has_open_ends) and time.monotonic() < until
    ):
        # In slices, because `stop` is set by a signal handler and does not set `wake`.
        wake.wait(min(PAUSE, max(until - time.monotonic(), 0.01)))
    wake.clear()


def _may_rest(watcher: Watcher, compaction: CompactionRuns, active_at: float) -> bool:
    """Whether no line arrived for a while, nothing is in progress, and a restart would free
    memory."""
    idle = not (
        watcher.has_open_ends
        or watcher.has_arriving_files
        or watcher.is_unsettled
        or watcher.is_behind
        or watcher.is_busy
    )
    # With neither of these loaded, a new process would be as large as this one.
    is_large = not {"duckdb", "pyarrow"}.isdisjoint(sys.modules)
    quiet = idle and not compaction.running
    return quiet and is_large and time.monotonic() - active_at > REST_AFTER


class _RetryingRounds:
    """Runs rounds; a lake that fails for a while (a full disk) does not end the watching. Each
    failure is reported once, and once more when it is over."""

    def __init__(self, watcher: Watcher, say: Say) -> None:
        self._watcher, self._say, self._trouble = watcher, say, ""

    def round(self) -> int:
        """Run a round; return the number of new events."""
        try:
            new = self._watcher.round()
        except (LakelogError, OSError) as error:
            trouble = _words(error, self._watcher.lake.store.paths.root)
            # Once for each trouble: a full disk would fill the log as well.
            if trouble != self._trouble:
                self._say(f"{trouble}; nothing is lost, trying again until it works")
            self._trouble = trouble
            # Not `stop.wait`: the loop asks `stop` right after this.
            time.sleep(1.0)
            return 0
        if self._trouble:
            self._say(f"resolved: {self._trouble}")
            self._trouble = ""
        return new


def _words(error: Exception, root: str) -> str:
    """Return what is wrong, and where: in the lake, if the error does not name a path."""
    reason = getattr(error, "strerror", None)
    if reason is None:
        return str(error)
    return f"the lake {printable(root)} cannot be written: {reason}"


@contextlib.contextmanager
def _quiet_threads() -> Iterator[None]:
    """Silence threads that read a directory which is being removed, or after they were stopped."""
    previous, threading.excepthook = threading.excepthook, lambda args: None
    log = logging.getLogger("watchdog")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        threading.excepthook = previous
        log.setLevel(level)


def _observe(watcher: Watcher, wake: threading.Event, say: Say) -> Any:
    """Start to receive notifications from the file system; None where there are none."""

    class Handler(events.FileSystemEventHandler):
        """Wakes the watcher."""

        def on_any_event(self, event: Any) -> None:
            """Anything but reading brings the next round forward."""
            # Reading the files causes these two; each would bring the next round forward without
            # end.
            if event.event_type not in ("opened", "closed_no_write"):
                wake.set()

    observer = observers.Observer()
    try:
        for root in watcher.totals.roots:
            # A single file is watched by its directory: a notification for the file itself would
            # end with its first rotation.
            folder = root if os.path.isdir(root) else os.path.dirname(root)
            observer.schedule(Handler(), folder, recursive=os.path.isdir(root))
        observer.start()
    # Usually the inotify limits of the user (ENOSPC, EMFILE); before Python 3.12 watchdog fails on
    # more than a thousand nested directories, too.
    except (OSError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        say(f"no notifications from the file system ({reason}): scanning instead")
        return None
    return observer
