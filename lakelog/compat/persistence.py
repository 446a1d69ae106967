"""The older persistence manager under its old name: events of an asyncio program, in batches.

    manager = create_event_persistence({"persistence": {"database_path": "events"}})
    await manager.start()
    await manager.queue_event({"event_type": "mutation", "action": "create", "data": {...}})
    await manager.stop()                           # everything queued is stored now

An event is encoded when it is queued, so that what happens to the dict afterwards changes nothing,
and stored by a thread: once `batch_size` events wait, or the oldest has waited `batch_timeout`
seconds. The queue is bounded: awaiting `queue_event` waits for room (a thread without an event
loop waits in the call). What cannot be stored as an event is quarantined with the reason; the
caller gets False. While the disk refuses to write, events wait and are tried again.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, overload

from lakelog.compat.event_store import EventDatabase, encode_events, open_lake
from lakelog.compat.omega import EventRow
from lakelog.errors import InvalidEvent, InvalidSetting, LakelogError, WriterClosed
from lakelog.event import EncodedBatch
from lakelog.lake import Lake
from lakelog.maintain import Stats
from lakelog.values import JsonObject
from lakelog.wal import Tail

DEFAULTS = {
    "database_path": "events",
    "batch_size": 100,
    "batch_timeout": 5.0,
    "retention_days": 30,
    "cleanup_interval_hours": 24,
    "queue_size": 10_000,
}
"""Settings of the member `persistence` of a configuration. Zero days keep events for good."""
_BYTES_MAX = 16_000_000  # of the queue, however few events they are
_TAKEN_MAX, _TAKEN_BYTES_MAX = 1000, 4_000_000  # stored at once
_TURN = 50  # events that a task may queue before others have their turn: about a millisecond
_FIRST_CLEANUP = 60.0
_MEASURED_EVERY = 5.0
_PAUSES = (0.05, 0.2, 1.0, 5.0)
"""Seconds between attempts to store, the last one repeatedly."""
_PATIENCE = 10.0
"""Seconds that `stop` goes on trying to store."""
_ORIGIN = "persistence"
_CLEANUP = """import sys, lakelog
with lakelog.open(sys.argv[1], create=False) as lake:
    lake.retention(sys.argv[2], apply=True)"""
EncodedLine = tuple[bytes, str | None]


class EventPersistenceManager:
    """Stores queued events in a lake, off the event loop. Threads and tasks may share it.

    `config` has `enable_persistence` and a member `persistence` with DEFAULTS to be changed, which
    may also stand beside it; other members are ignored. Raises InvalidSetting.
    """

    def __init__(self, config: Mapping[str, object] | None = None) -> None:
        self.config, self.enabled = _settings(config or {})
        self._queue: deque[EncodedLine] = deque()
        self._rejected: deque[tuple[str, str]] = deque()
        self._bytes = self._unstored = self._refused = self._stored = self._calls = 0
        self._since, self._last_error, self._is_draining = 0.0, "", False
        self._changed = threading.Condition()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._tasks: set[asyncio.Task[int]] = set()
        self._state = "new"
        self._lake: Lake | None = None
        self._database: EventDatabase | None = None
        self._thread: threading.Thread | None = None
        self._pool = ThreadPoolExecutor(1, "lakelog-events")
        self._measured: dict[str, object] = {"total_events": 0, "database_size_mb": 0.0}
        self._cleanup: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Open the lake and begin to store. Raises LakelogError, OSError where that fails."""
        if self.enabled and self._state != "running":
            await asyncio.get_running_loop().run_in_executor(None, self._start)

    async def stop(self) -> None:
        """Store everything that was queued, then close.

        Raises OSError if the disk refuses it for 10 seconds; the events then wait for a `start`.
        """
        if not self.enabled or self._state != "running":
            return
        # Batches that are still being queued were handed over before: they belong to what is kept.
        # They wait for no room any more, which a full disk would never give them.
        self._is_draining = True
        self._wake()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(None, self._stop)

    def queue_event(self, event: Mapping[str, object]) -> QueueReply:
        """Queue an event; awaiting it waits for room in the queue. Return whether it will be
        stored: False if it was quarantined, or persistence is not enabled.

        Raises WriterClosed after `stop`.
        """
        if not self.enabled:
            return QueueReply(False)
        try:
            # Encoded at once: the caller may change its dict afterwards.
            batch, _ = encode_events([event])
        except InvalidEvent as error:
            return QueueReply(self._reject(error.reason, event))
        with self._changed:
            self._require_open()
            self._queue.append((batch.lines[0], batch.ids[0]))
            self._bytes += len(batch.lines[0])
            self._unstored += 1
            self._calls += 1
            # The age of the oldest one decides when it is stored.
            if len(self._queue) == 1:
                self._since = time.monotonic()
            # The thread looks by itself when the oldest event is due; it is woken for no other.
            if len(self._queue) in (1, self.config["batch_size"]) or self._bytes > _TAKEN_BYTES_MAX:
                self._changed.notify()
        if self._has_room():
            # Each fiftieth call gives way: a loop that only queues would hold up its program.
            return QueueReply(True, None if self._calls % _TURN else _pause)
        return QueueReply(True, self._wait_for_room())

    def queue_events_batch(self, events: Iterable[Mapping[str, object]]) -> Awaitable[int]:
        """Queue events, in turns with other tasks; return how many will be stored."""
        batch = list(events)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return QueueReply(sum(bool(self.queue_event(event)) for event in batch))
        # A task, so that the events are queued even if the caller does not wait for it.
        task = loop.create_task(self._queue_all(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def get_stats(self) -> PersistenceStats:
        """Return enabled, running, total_stored (events written by this manager, equal ones
        included), queue_size, refused, last_error, and database_stats {total_events,
        database_size_mb, database_path}, which is some seconds old. It may be awaited."""
        return PersistenceStats(
            enabled=self.enabled,
            running=self._state == "running",
            total_stored=self._stored,
            queue_size=self._unstored,
            refused=self._refused,
            last_error=self._last_error,
            database_stats={**self._measured, "database_path": self.config["database_path"]},
        )

    def get_events(self, **filters: object) -> StoredEvents:
        """Return stored events as `EventDatabase.get_events` does; a thread looks them up.

        Await them, or use them as a list, which waits. After `stop` the lake is opened for that.
        Raises WriterClosed before `start`.
        """
        if self._database is None and self._state != "stopped":
            raise WriterClosed("the persistence manager is not running: start it")
        return StoredEvents(self._pool.submit(self._look_up, filters))

    def _look_up(self, filters: JsonObject) -> list[EventRow]:
        database = self._database
        if database is not None:
            return database.get_events(**filters)
        # After the end the lake was closed: it is opened for this look.
        with EventDatabase(self.config["database_path"]) as closed_database:
            return closed_database.get_events(**filters)

    async def _queue_all(self, events: list[Mapping[str, object]]) -> int:
        return sum([bool(await self.queue_event(event)) for event in events])

    def _require_open(self) -> None:
        """Refuse events once the last ones are being stored; the lock is held."""
        if self._state in ("stopping", "stopped"):
            raise WriterClosed("the persistence manager is stopped: start it again")

    def _has_room(self) -> bool:
        # Nobody makes room before the start: waiting for it would be for ever.
        if self._state == "new" or self._is_draining:
            return True
        return self._unstored <= self.config["queue_size"] and self._bytes <= _BYTES_MAX

    def _wait_for_room(self) -> Callable[[], Generator[Any, None, None]]:
        """Wait in a thread without an event loop; else return what awaiting does."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            with self._changed:
                self._changed.wait_for(lambda: self._has_room() or self._state == "stopped")
            return _pause
        future = loop.create_future()
        with self._changed:
            self._waiting.append((loop, future))
        return lambda: future.__await__()

    def _reject(self, reason: str, event: object) -> bool:
        """Keep for the quarantine what is no event."""
        try:
            shown_event = json.dumps(event, default=repr)
        except (ValueError, TypeError, RecursionError):
            shown_event = repr(event)
        with self._changed:
            self._require_open()
            self._rejected.append(
                (reason, shown_event.encode("utf-8", "backslashreplace").decode())
            )
            self._refused += 1
        return False

    def _start(self) -> None:
        self._lake = open_lake(self.config["database_path"])
        self._database = EventDatabase(self._lake)
        self._measure()
        # Only once it can store: else a failed start would leave a manager that takes events.
        self._state, self._is_draining = "running", False
        self._thread = threading.Thread(target=self._run, name="lakelog-persistence", daemon=True)
        self._thread.start()
        # A program that ends without `stop` keeps its events all the same.
        atexit.register(self._stop_at_exit, os.getpid())

    def _stop(self) -> None:
        with self._changed:
            self._state = "stopping"
            self._changed.notify_all()
        # Outside of the lock, which the thread needs to end.
        if self._thread is not None:
            self._thread.join()
        atexit.unregister(self._stop_at_exit)
        self._state, unstored = "stopped", self._unstored
        self._wake()
        self._pool.shutdown()
        self._pool = ThreadPoolExecutor(1, "lakelog-events")
        if self._cleanup is not None:
            self._cleanup.wait()
        if self._lake is not None:
            self._measure()
            self._lake.close()
            self._lake = self._database = None
        # Said loudly: the events are in memory only.
        if unstored:
            raise OSError(f"{unstored} events are not stored yet: {self._last_error}")

    def _stop_at_exit(self, process: int) -> None:
        # A forked child has a copy of the queue, which is not its own to store.
        if process == os.getpid() and self._state == "running":
            self._stop()

    def _run(self) -> None:
        """Store batches until stopped; the thread's main function."""
        measured = time.monotonic()
        cleanup, failures, give_up = measured + _FIRST_CLEANUP, 0, 0.0
        while True:
            with self._changed:
                # Woken early only by a full batch; the queue is asked again each second at most.
                if not self._is_due() and not failures:
                    self._changed.wait(self._until_due())
                # With failures everything that waits is tried again, due or not.
                batch = self._take() if self._is_due() or failures else []
            if self._state == "stopping":
                give_up = give_up or time.monotonic() + _PATIENCE
            try:
                self._store(batch)
                failures = 0
            except (OSError, LakelogError) as error:
                with self._changed:
                    # In front, in their order: they are the oldest.
                    self._queue.extendleft(reversed(batch))
                    self._last_error = str(error)
                if give_up and time.monotonic() > give_up:
                    return
                # In the thread: nobody waits for it but the events.
                time.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
                failures += 1
                continue
            clock = time.monotonic()
            if clock - measured > _MEASURED_EVERY and batch:
                self._measure()
                measured = clock
            # Nothing may be left, not even what was refused.
            if self._state == "stopping" and not self._queue and not self._rejected:
                return
            if self.config["retention_days"] and clock > cleanup:
                self._clean_up()
                cleanup = clock + self.config["cleanup_interval_hours"] * 3600

    def _is_due(self) -> bool:
        """Whether something has to be stored now; the lock is held."""
        if not self._queue:
            return bool(self._rejected) or self._state == "stopping"
        return (
            len(self._queue) >= self.config["batch_size"]
            or self._bytes > _TAKEN_BYTES_MAX
            or self._state == "stopping"
            or time.monotonic() - self._since >= self.config["batch_timeout"]
        )

    def _until_due(self) -> float:
        seconds = self._since + self.config["batch_timeout"] - time.monotonic()
        return max(min(seconds, 1.0), 0.001) if self._queue else 1.0

    def _take(self) -> list[EncodedLine]:
        """Take the oldest events; the lock is held."""
        batch: list[EncodedLine] = []
        size = 0
        while self._queue and len(batch) < _TAKEN_MAX and size <= _TAKEN_BYTES_MAX:
            batch.append(self._queue.popleft())
            size += len(batch[-1][0])
        self._since = time.monotonic()
        return batch

    def _store(self, batch: list[EncodedLine]) -> None:
        """Store lines, and what was rejected. Raises OSError, LakelogError."""
        lake = self._lake
        assert lake is not None
        # One by one, removed only once it is stored.
        while self._rejected:
            reason, rejected_line = self._rejected[0]
            lake.quarantine([(_ORIGIN, time.time_ns() // 1000, reason, rejected_line)])
            self._rejected.popleft()
        if not batch:
            return
        lines, ids = [line for line, _ in batch], [id for _, id in batch]
        lake.append_encoded(EncodedBatch(b"\n".join(lines), ids, True))
        with self._changed:
            self._stored += len(batch)
            self._unstored -= len(batch)
            self._bytes -= sum(len(line) for line, _ in batch)
            self._last_error = ""
        # Outside of the lock of the queue, which those who wake need.
        if self._has_room():
            self._wake()

    def _wake(self) -> None:
        """Let everybody go on who waits for room."""
        with self._changed:
            waiting, self._waiting = self._waiting, []
            self._changed.notify_all()
        for loop, future in waiting:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                # The loop's own thread has to wake its tasks.
                loop.call_soon_threadsafe(_release, future)

    def _measure(self) -> None:
        """Count the events and bytes of the lake, without its engine."""
        lake = self._lake
        assert lake is not None
        with contextlib.suppress(LakelogError, OSError):
            # A tail of its own, that is dropped: it keeps in memory what it read.
            tail = Tail(lake.store.paths, lake.store.refs, lake.branch_name)
            measured = Stats.measure(lake.store, lake.branch_name, tail)
            self._measured = {
                "total_events": measured.events + measured.pending,
                "database_size_mb": round(Stats.disk_bytes(lake.store) / 1e6, 3),
            }

    def _clean_up(self) -> None:
        """Remove old events in a process of its own: here the engine would hold up the loop."""
        # The last one still runs: a second would wait for its lock.
        if self._cleanup is not None and self._cleanup.poll() is None:
            return
        span = f"{self.config['retention_days']:f}d"
        path = self.config["database_path"]
        with contextlib.suppress(OSError):
            self._cleanup = subprocess.Popen(
                [sys.executable, "-c", _CLEANUP, path, span],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )


class QueueReply:
    """A value that is there at once; awaiting it may wait for something else."""

    def __init__(
        self, value: int, wait: Callable[[], Generator[Any, None, None]] | None = None
    ) -> None:
        self._value, self._wait = value, wait

    def __bool__(self) -> bool:
        return bool(self._value)

    def __int__(self) -> int:
        return int(self._value)

    def __await__(self) -> Generator[Any, None, Any]:
        if self._wait is not None:
            # Without a loop there is nothing to wait for.
            yield from self._wait()
        return self._value


class PersistenceStats(dict[str, object]):
    """Statistics; awaiting them gives them as they are."""

    def __await__(self) -> Generator[Any, None, dict[str, object]]:
        yield
        return self


class StoredEvents(Sequence[EventRow]):
    """Rows that a thread looks up: a list, or something to await."""

    def __init__(self, rows: Future[list[EventRow]]) -> None:
        self._rows = rows

    def __await__(self) -> Generator[object, None, list[EventRow]]:
        return asyncio.wrap_future(self._rows).__await__()

    @overload
    def __getitem__(self, index: int) -> EventRow: ...

    @overload
    def __getitem__(self, index: slice) -> list[EventRow]: ...

    def __getitem__(self, index: int | slice) -> EventRow | list[EventRow]:
        return self._rows.result()[index]

    def __len__(self) -> int:
        return len(self._rows.result())

    def __eq__(self, other: object) -> bool:
        return self._rows.result() == other

    def __repr__(self) -> str:
        return repr(self._rows.result())


def create_event_persistence(config: Mapping[str, object] | None = None) -> EventPersistenceManager:
    """Return a manager for a configuration; `start` it. Raises InvalidSetting."""
    return EventPersistenceManager(config)


def _pause() -> Generator[Any, None, None]:
    """Let other tasks have their turn."""
    yield


def _release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _settings(config: Mapping[str, object]) -> tuple[JsonObject, bool]:
    """Return the settings and whether persistence is enabled. Raises InvalidSetting."""
    nested = config.get("persistence")
    if not isinstance(nested, (Mapping, type(None))):
        raise InvalidSetting(f"persistence is an object of settings, not {nested!r}")
    options = {**config, **(nested or {})}
    settings = {name: options.get(name, default) for name, default in DEFAULTS.items()}
    settings["database_path"] = os.fspath(settings["database_path"])
    for name, value in settings.items():
        if name == "database_path":
            continue
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not (0 if name == "retention_days" else 1e-9) <= value < 10**9:
            raise InvalidSetting(f"{name} is a number above 0, not {value!r}")
    return settings, bool(options.get("enable_persistence", True))
