"""The queue between callers and the disk: a call costs microseconds, and a thread stores the lines.

What is lost, and when. `LINGER` after the first line the thread takes what waits and gives it to
its destination, which writes it to the page cache at once; from then on it survives `kill -9`.
A line that has waited for `LATE` is overdue. If the interpreter is busy, the call that sees it
leaves the interpreter to the thread for `YIELD` at most. If a sync or a broken disk holds the
thread up, that call or the *guard*, which looks every `GUARD`, moves what waits to the disk buffer
(buffer.py). So a killed process loses the events of the last 50 ms at most, and only a power
failure loses more: what was not synced yet.

Nothing is lost at the end of the process: `exits` calls `finish`, which stores what waits; from
then on `put` stores directly, so that what other exit handlers and daemon threads log is stored
too. A child of `fork` starts with an empty queue, since its parent stores what waited.

When the queue is full, `full` says what happens: "buffer" moves what waits to the disk buffer and
waits for room when that is full too; "block" waits; "drop" drops the oldest lines and counts them.
While the destination fails (a full disk, a lake that cannot be written), nobody waits: what finds
no room is dropped and counted, and the thread tries again with growing pauses.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from dataclasses import dataclass
from typing import Protocol

from lakelog.errors import LakelogError
from lakelog.loggers import exits
from lakelog.loggers.buffer import DiskBuffer
from lakelog.runtime import forks
from lakelog.wal import Frame

LINGER, GUARD = 0.01, 0.008
LATE, YIELD = 0.025, 0.004
EVENTS_MAX, BYTES_MAX = 50_000, 32 << 20
EVENT_BYTES_MAX = 64 << 20
POLICIES = ("buffer", "block", "drop")
_PAUSE_MIN, _PAUSE_MAX = 0.1, 5.0


class Destination(Protocol):
    """Where the lines of a queue go."""

    erased: int
    """Lines that it left out since somebody looked, as they are of erased events."""

    def store(self, lines: list[bytes]) -> None:
        """Store up to a frame of lines. Raises OSError, LakelogError; then none is stored."""

    def prepare(self, lines: list[bytes], buffer: DiskBuffer | None) -> list[bytes]:
        """Choose the lines of the next `store`: the first ones, perhaps safe in the buffer."""

    def stored(self, lines: list[bytes], buffer: DiskBuffer | None) -> None:
        """Called after each `store` that succeeded."""

    def recover(self) -> None:
        """Store what earlier processes left, when the thread starts."""

    def finish(self) -> None:
        """Called once the process may store no more; may be repeated."""

    def close(self) -> None:
        """Free what is open."""

    def after_fork(self) -> None:
        """In a child: forget what is the parent's."""


@dataclass(frozen=True)
class QueueStats:
    """What became of the events of a queue: `stored` are durable; `waiting` in memory and on disk;
    `dropped` found no room, `refused` could not be stored as they were; `error` is the last."""

    stored: int
    waiting: int
    buffered_bytes: int
    dropped: int
    refused: int
    error: str


class EventQueue:
    """A bounded queue of WAL lines with its thread; safe for threads, forks, signal handlers."""

    def __init__(
        self,
        destination: Destination,
        buffer: DiskBuffer | None,
        full: str = "buffer",
        events_max: int = EVENTS_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        if full not in POLICIES:
            raise ValueError(f"full is one of {', '.join(POLICIES)}, not {full!r}")
        self.destination, self.full = destination, full
        self._buffer = buffer
        self._events_max, self._bytes_max = events_max, bytes_max
        self.stored = self.dropped = self.refused = 0
        self.error = ""
        self._is_direct = self._has_recovered = False
        self._reset()
        exits.watch(self)

    def _reset(self) -> None:
        # Reentrant: a signal handler or a finalizer may log in the middle of a put.
        self._lock, self._store_lock = threading.RLock(), threading.RLock()
        self._lines: list[bytes] = []
        self._storing: list[bytes] = []
        self._size = self._taken_size = 0
        self._put = self._done = 0
        self._taken = self._oldest = 0.0
        # A lock, for an event is not reentrant: released, it ends every wait of the thread.
        self._wake, self._busy = threading.Lock(), threading.Event()
        self._wake.acquire()
        self._drains = 0
        self._is_idle, self._is_failing = True, False
        self._thread: threading.Thread | None = None

    def put(self, line: bytes) -> bool:
        """Add a line; False if it was refused for its size. Never raises for what it stands for."""
        forks.notice()
        size = len(line)
        if size > EVENT_BYTES_MAX:
            self.refused += 1
            self._complain(f"an event of {size:,} bytes is too long: at most {EVENT_BYTES_MAX:,}")
            return False
        if self._size + size > self._bytes_max or len(self._lines) >= self._events_max:
            self._make_room(size)
        with self._lock:
            self._lines.append(line)
            self._size += size
            self._put += 1
            # Unlocked it could be set for a line that the thread has taken meanwhile.
            if not self._oldest:
                self._oldest = time.monotonic()
        if self._is_idle:
            self._rouse()
            return True
        if exits.is_in_pool:  # whose handlers may have come after the first event
            exits.arm()
        if time.monotonic() - self._oldest > LATE:
            self._catch_up()
        return True

    def refuse(self, reason: str, count: int = 1) -> None:
        """Count events that cannot be stored; say so once."""
        self.refused += count
        self._complain(reason)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until what was put before is stored, or `timeout` seconds; whether it is."""
        forks.notice()
        until = None if timeout is None else time.monotonic() + timeout
        target = self._put
        while self._done < target or self._buffered:
            if not self._is_alive:
                self._drain()
                return self._done >= target and not self._buffered
            if until is not None and time.monotonic() >= until:
                return False
            self._rouse()
            # Not a condition: a signal handler may flush in the middle of a put of its own thread.
            time.sleep(0.001)
        return True

    def finish(self, timeout: float = 10.0) -> None:
        """Store what waits, end the thread, and store directly from now on; may be repeated."""
        forks.notice()
        self._is_direct = True
        if self._is_alive and not self._is_in_thread:
            self._rouse()
            until = time.monotonic() + timeout
            # Not `join`, which takes locks that may be held where a signal came.
            while self._is_alive and time.monotonic() < until:
                time.sleep(0.001)
        self._is_idle = True  # so that every later put stores what it brings
        self._drain()
        self.destination.finish()

    def close(self) -> None:
        """Finish and free what is open; a later put opens it again."""
        self.finish()
        with self._store_lock:
            if self._buffer is not None:
                self._buffer.close()
            self.destination.close()

    def stats(self) -> QueueStats:
        """Counts since the start."""
        waiting = self._put - self._done
        return QueueStats(
            self.stored, waiting, self._buffered, self.dropped, self.refused, self.error
        )

    def is_in_use(self) -> bool:
        """Whether a signal came in the middle of a put or a store of this thread."""
        is_held: bool = self._lock._is_owned()  # type: ignore[attr-defined]  # as Condition asks
        return is_held or self._drains == threading.get_ident()

    def after_fork(self) -> None:
        """In a child: what waited is the parent's to store."""
        self._reset()
        self.stored = self.dropped = self.refused = 0
        # A worker that was killed may have left lines since the parent began.
        self._is_direct = self._has_recovered = False
        self.destination.after_fork()
        if self._buffer is not None:
            self._buffer.after_fork()

    # --- the thread ---

    @property
    def _is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def _is_in_thread(self) -> bool:
        return self._thread is not None and self._thread.ident == threading.get_ident()

    @property
    def _buffered(self) -> int:
        return self._buffer.size if self._buffer is not None else 0

    def _rouse(self) -> None:
        """Wake the thread, start it, or do its work where no thread can run any more."""
        self._is_idle = False
        if self._is_direct and not self._is_in_thread:
            if not self._is_alive:
                self._is_idle = True
                self._drain()
        elif self._thread is None:
            self._start()
        else:
            exits.arm()  # again, for the first call may have been one of another thread
        self._hurry()

    def _hurry(self) -> None:
        with contextlib.suppress(RuntimeError):  # another caller was quicker
            self._wake.release()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            # Anew: a worker of a server may have become one of gevent since it was forked.
            self._wake, self._busy = threading.Lock(), threading.Event()
            self._wake.acquire()
            # A daemon: who waits for all threads must not wait for this one, which `exits` ends.
            thread = threading.Thread(target=self._run, name="lakelog-queue", daemon=True)
            guard = threading.Thread(target=self._guard, name="lakelog-guard", daemon=True)
            self._thread = thread
            exits.arm()
            try:
                thread.start()
                if self.full == "buffer" and self._buffer is not None:
                    guard.start()
            except RuntimeError:  # the interpreter is shutting down
                self._is_direct = self._is_idle = True
                if not thread.ident:
                    self._thread = None
                    self._drain()

    def _run(self) -> None:
        pause = 0.0
        # From the first line on: under load there is no idle moment in which to set it.
        self._busy.set()
        self._recover()
        while True:
            if not self._lines and not self._storing and not self._buffered:
                if self._is_direct:
                    return
                self._busy.clear()
                self._is_idle = True
                # Looked at again, for a put may have come before anybody could see it idle.
                if not self._lines and not self._is_direct:
                    self._wake.acquire()
                self._is_idle = False
                self._busy.set()
                wait = LINGER
            else:
                wait = LINGER - (time.monotonic() - self._taken)
            if pause or wait > 0:
                self._wake.acquire(timeout=pause or wait)
            failed = not self._store_next()
            # A destination that fails is asked less and less often; at the end just once more.
            pause = min(max(2 * pause, _PAUSE_MIN), _PAUSE_MAX) if failed else 0.0
            if failed and self._is_direct:
                return

    def _recover(self) -> None:
        if not self._has_recovered:
            self._has_recovered = True
            try:
                self.destination.recover()
            except (OSError, LakelogError) as error:
                self._fail(error)
            self._note_erased(0)

    def _drain(self) -> None:
        """Store all that waits in this thread, unless the destination fails."""
        if self._drains == threading.get_ident():
            return  # a signal handler or a finalizer logs meanwhile: that is stored next
        # A daemon thread that the end of the interpreter froze may hold the lock for ever.
        if not self._store_lock.acquire(timeout=1.0):
            return
        try:
            self._drains = threading.get_ident()
            self._recover()
            while self._lines or self._storing or self._buffered:
                if not self._store_next():
                    return
            if self._is_direct and self._buffer is not None:
                self._buffer.remove_empty()
        finally:
            self._drains = 0
            self._store_lock.release()

    def _store_next(self) -> bool:
        """Store the next lines, in the order in which they came; False if the destination fails."""
        with self._store_lock:
            try:
                if self._storing:  # what failed the last time
                    self._store_taken()
                while self._lines or self._buffered:
                    # What is buffered was put before what waits in memory.
                    if self._buffered and self._buffer is not None:
                        self._buffer.drain(self._store_buffered)
                    if self._take():
                        self._store_taken()
                    if len(self._lines) < Frame.EVENTS_MAX // 2 and not self._buffered:
                        break  # the rest may wait for more to come
                return True
            except (OSError, LakelogError) as error:
                self._fail(error)
                return False

    def _store_taken(self) -> None:
        self.destination.store(self._storing)
        # At once: what Ctrl-C interrupts behind this must not be stored again.
        lines, self._storing, self._is_failing = self._storing, [], False
        with self._lock:
            self._size -= self._taken_size
            self._note_erased(len(lines))
            self._done += len(lines)
        self.destination.stored(lines, self._buffer)

    def _note_erased(self, count: int) -> None:
        """Count lines that were given to the destination, which leaves those out that were
        erased."""
        erased, self.destination.erased = self.destination.erased, 0
        self.stored += count - min(count, erased)
        if erased:
            self.refuse("events were left out, which were erased", erased)

    def _take(self) -> bool:
        """Choose what is stored next, up to a frame; False if that is not for memory to say."""
        with self._lock:
            # Meanwhile a call may have moved what waited to the buffer; that comes first.
            if self._buffered or not self._lines:
                return False
            batch = Frame.split_lines(self._lines[: Frame.EVENTS_MAX])[0]
            frame = self.destination.prepare(batch, self._buffer)
            self._taken_size = sum(map(len, batch[: len(frame)]))
            del self._lines[: len(frame)]
            self._taken = time.monotonic()
            self._oldest = self._oldest if self._lines else 0.0
        self._storing = frame
        return True

    def _store_buffered(self, lines: list[bytes]) -> None:
        for batch in Frame.split_lines(lines):
            self.destination.store(batch)
            self._note_erased(len(batch))
            self._is_failing = False

    # --- no room ---

    def _guard(self) -> None:
        """Move what waits to the disk buffer while a store takes long."""
        thread = self._thread
        while thread is self._thread and not self._is_direct:
            self._busy.wait()
            time.sleep(GUARD)
            if self._is_late:
                self._move_to_buffer()

    @property
    def _is_late(self) -> bool:
        """Whether a line has waited in memory for longer than it should."""
        return bool(self._lines) and 0.0 < self._oldest < time.monotonic() - LATE

    def _catch_up(self) -> None:
        """Let the thread go on; if that takes too long, move what waits to the disk buffer."""
        # A busy interpreter gives each thread that waits for it a turn every 5 ms only, and storing
        # needs several: the call that finds lines late leaves the interpreter to it.
        until = time.monotonic() + YIELD
        while self._is_late and not self._is_failing and self._is_alive:
            if self._is_in_thread:
                return
            if time.monotonic() > until:
                if not self._move_to_buffer():
                    self._oldest = time.monotonic()  # so that not every call tries again
                return
            time.sleep(0.0002)

    def _move_to_buffer(self) -> bool:
        """Move all lines that wait to the disk buffer; False if it cannot take them."""
        buffer = self._buffer
        if buffer is None or self.full != "buffer" or buffer.is_full:
            return False
        with self._lock:
            before, lines, self._lines = buffer.added, self._lines, []
            try:
                buffer.add(lines)
            except OSError:
                return False
            finally:  # Ctrl-C may come anywhere, also behind the call
                if buffer.added == before:
                    self._lines[:0] = lines
                else:
                    self._oldest = 0.0
                    self._size -= sum(map(len, lines))
                    self._done += len(lines)
            return True

    def _make_room(self, size: int) -> None:
        """Wait for room, or make it, as the policy says."""
        if self._move_to_buffer():
            return
        # In the thread's own call (a destination that logs) it would wait for itself.
        waits = self.full != "drop" and not self._is_in_thread
        while waits and not self._is_failing and self._is_full(size):
            if not self._is_alive:
                self._rouse()
            self._hurry()
            time.sleep(0.001)
        with self._lock:
            if not self._is_full(size):
                return
            # A sixteenth at a time, for each removal moves what stays.
            count = max(len(self._lines) // 16, 1)
            while self._lines and self._is_full(size):
                dropped = self._lines[:count]
                del self._lines[:count]
                self._size -= sum(map(len, dropped))
                self._done += len(dropped)
                self.dropped += len(dropped)

    def _is_full(self, size: int) -> bool:
        count = len(self._lines) + len(self._storing)
        # A line larger than the whole queue is accepted when it is alone.
        return count > 0 and (self._size + size > self._bytes_max or count >= self._events_max)

    def _fail(self, error: Exception) -> None:
        self._is_failing = True
        self._complain(f"{type(error).__name__}: {error}")

    def _complain(self, message: str) -> None:
        """Remember an error, and print it the first time: the caller must not notice."""
        is_new, self.error = not self.error, message
        if is_new and sys.stderr is not None:
            with contextlib.suppress(Exception):
                sys.stderr.write(f"lakelog: {message}\n")
