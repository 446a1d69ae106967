"""The queue: what it does when it is full, when the disk is slow, and when it fails.

Slowness and failures come from the seam below the store (`disk`), as in the tests of the store.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.disk import File, OpenFile, disk
from lakelog.loggers.buffer import DiskBuffer
from lakelog.loggers.destination import LakeDestination, queue_of
from lakelog.loggers.queue import EVENT_BYTES_MAX, EventQueue
from lakelog.loggers.values import encode_event
from tests.conftest import MakeLake


def line(number: int, text: str = "") -> bytes:
    """An event as a line."""
    data = {"n": number, "text": text}
    return encode_event({"time": "2026-01-01T00:00:00Z", "type": "log", "data": data})


def queue_on(lake: lakelog.Lake, full: str = "buffer", **limits: Any) -> EventQueue:
    """A queue of its own on a lake."""
    destination = LakeDestination(lake)
    own = DiskBuffer(destination.buffers) if full == "buffer" else None
    return EventQueue(destination, own, full, **limits)


def numbers(lake: lakelog.Lake) -> list[int]:
    """What the lake has, in order."""
    query = "SELECT (data->>'n')::INT FROM events ORDER BY 1"
    return [n for (n,) in lake.sql(query).fetchall()]


class Syncs:
    """Holds every sync of a file until it is released; or lets them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free, self.waiting = threading.Event(), threading.Event()
        self.free.set()
        self.error: OSError | None = None
        self._sync = disk.sync_file
        monkeypatch.setattr(disk, "sync_file", self._held)

    def _held(self, fd: int) -> None:
        if not self.free.is_set():
            self.waiting.set()
            self.free.wait(240)
        if self.error is not None:
            raise self.error
        self._sync(fd)


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    return Syncs(monkeypatch)


def until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def on_disk(lake: lakelog.Lake) -> int:
    """How many lines the buffers of a lake hold."""
    files = Path(lake.path, "cache/buffer").iterdir()
    return sum(file.read_bytes().count(b"\n") for file in files)


def test_what_waits_for_a_slow_sync_is_on_disk(make_lake: MakeLake, syncs: Syncs) -> None:
    """While the disk syncs, lines move to the buffer, which survives the process: another process
    finds them there; in the end each is stored once."""
    lake = make_lake()
    queue = queue_on(lake)
    queue.put(line(0))
    assert queue.flush(240)
    syncs.free.clear()
    queue.put(line(1))
    until(syncs.waiting.is_set)
    for n in range(2, 50):
        queue.put(line(n))
    # Lines leave the memory before they are written, and may have been late before the sync was.
    until(lambda: on_disk(lake) >= 48)
    syncs.free.set()
    assert queue.flush(240)
    assert numbers(lake) == list(range(50))
    queue.close()
    assert os.listdir(f"{lake.path}/cache/buffer") == []


def test_a_slow_sync_at_the_start_keeps_no_line_in_memory(
    make_lake: MakeLake, syncs: Syncs
) -> None:
    """From the first line on, without a moment in which the queue was idle, and though no later
    call brings others."""
    lake = make_lake()
    queue = queue_on(lake)
    syncs.free.clear()
    queue.put(line(0))
    until(syncs.waiting.is_set)
    queue.put(line(1))
    until(lambda: on_disk(lake) == 2)
    syncs.free.set()
    assert queue.flush(240)
    assert numbers(lake) == [0, 1]
    assert queue.stats().stored == 2
    queue.close()


def test_what_was_buffered_is_stored_in_its_order(make_lake: MakeLake, syncs: Syncs) -> None:
    """What came after it waits until the buffer is empty."""
    lake = make_lake()
    queue = queue_on(lake)
    queue.put(line(0))
    assert queue.flush(240)
    for start in (1, 101):
        syncs.free.clear()
        syncs.waiting.clear()
        queue.put(line(start))
        until(syncs.waiting.is_set)
        for n in range(start + 1, start + 50):
            queue.put(line(n))
        until(lambda: queue.stats().buffered_bytes)
        until(lambda: not queue._lines)
        syncs.free.set()
        for n in range(start + 50, start + 100):
            queue.put(line(n))
        assert queue.flush(240)
    found = lake.sql("SELECT (data->>'n')::INT FROM events ORDER BY seq").fetchall()
    assert found == [(n,) for n in range(201)]
    queue.close()


def test_the_buffer_of_a_dead_process_is_recovered(make_lake: MakeLake, syncs: Syncs) -> None:
    """The next process that logs stores what is there, also where some of it was stored before."""
    lake = make_lake()
    dead = DiskBuffer(f"{lake.path}/cache/buffer")
    lines = dead.add([line(n) for n in range(100)])
    LakeDestination(lake).store(lines[:60])  # it died before it emptied the file
    os.write(dead._fd, b'{"id":"torn')
    os.close(dead._fd)
    queue = queue_on(lake)
    queue.put(line(100))
    assert queue.flush(240)
    assert numbers(lake) == list(range(101))
    assert os.listdir(f"{lake.path}/cache/buffer") == []
    queue.close()


def test_the_buffer_of_another_branch_is_left_alone(make_lake: MakeLake) -> None:
    """What a dead process logged to a branch is stored there, by the next that logs to it."""
    lake = make_lake()
    lake.append([{"type": "before", "data": {"n": -1}}])
    lake.branch("try.it")
    trial = lakelog.open(lake.path, branch="try.it")
    dead = queue_of(trial)
    assert dead._buffer is not None
    dead._buffer.add([line(7)])
    dead._buffer.after_fork()
    for branch, n in ((lake, 1), (trial, 2)):
        queue = EventQueue(LakeDestination(branch), None)
        queue.put(line(n))
        assert queue.flush(240)
        queue.close()
    assert (numbers(lake), numbers(trial)) == ([-1, 1], [-1, 2, 7])


def test_a_buffer_in_use_is_left_alone(make_lake: MakeLake) -> None:
    """Only files of dead processes are recovered: the lock of a living one protects its own."""
    lake = make_lake()
    living = DiskBuffer(f"{lake.path}/cache/buffer")
    living.add([line(0)])
    queue = queue_on(lake)
    queue.put(line(1))
    assert queue.flush(240)
    assert numbers(lake) == [1]
    living.drain(queue.destination.store)
    assert numbers(lake) == [0, 1]
    living.close()
    queue.close()


def test_what_is_as_long_as_what_was_stored_stays_buffered(make_lake: MakeLake) -> None:
    """A line that waits in the buffer while one with an id of the program's own is stored."""
    lake = make_lake()
    destination = LakeDestination(lake)
    buffer = DiskBuffer(destination.buffers)
    stored, waiting = (b'{"id":"%d",' % n + line(n)[1:] for n in range(2))
    destination.store(destination.prepare([stored], None))
    buffer.add([waiting])
    destination.stored([stored], buffer)
    buffer.drain(destination.store)
    assert numbers(lake) == [0, 1]
    buffer.close()
    destination.close()


def test_what_is_logged_goes_to_the_lake_that_is_there(make_lake: MakeLake) -> None:
    """A lake that is removed and made again, as between two tests, gets what is logged later."""
    path = make_lake().path
    queue = queue_of(path)
    queue.put(line(0))
    assert queue.flush(240)
    shutil.rmtree(path)
    lake = make_lake()
    queue_of(path).put(line(1))
    queue.put(line(2))
    assert queue.flush(240)
    assert numbers(lake) == [1, 2]
    queue.close()


def test_a_full_queue_blocks(make_lake: MakeLake, syncs: Syncs) -> None:
    """With "block" a caller waits for room, and nothing is lost."""
    lake = make_lake()
    queue = queue_on(lake, "block", events_max=10)
    syncs.free.clear()
    done = threading.Event()

    def log() -> None:
        for n in range(100):
            queue.put(line(n))
        done.set()

    thread = threading.Thread(target=log)
    thread.start()
    until(lambda: len(queue._lines) + len(queue._storing) >= 10)
    assert not done.wait(0.1)
    syncs.free.set()
    thread.join()
    assert queue.flush(240)
    assert numbers(lake) == list(range(100))
    assert queue.stats().dropped == 0
    queue.close()


def test_a_full_queue_drops_the_oldest_and_counts(make_lake: MakeLake, syncs: Syncs) -> None:
    """With "drop" a caller never waits; what was dropped is counted, the newest stay."""
    lake = make_lake()
    queue = queue_on(lake, "drop", events_max=10)
    syncs.free.clear()
    queue.put(line(0))
    until(syncs.waiting.is_set)
    for n in range(1, 100):
        queue.put(line(n))
    syncs.free.set()
    assert queue.flush(240)
    stored = numbers(lake)
    assert stored[0] == 0
    assert stored[1:] == list(range(101 - len(stored), 100))
    assert queue.stats().dropped == 100 - len(stored) > 0
    queue.close()


def test_a_full_queue_goes_to_disk(make_lake: MakeLake, syncs: Syncs) -> None:
    """With "buffer", the default, a caller neither waits nor loses anything."""
    lake = make_lake()
    queue = queue_on(lake, events_max=10)
    syncs.free.clear()
    for n in range(1_000):
        queue.put(line(n))
    assert queue.stats().buffered_bytes
    syncs.free.set()
    assert queue.flush(240)
    assert numbers(lake) == list(range(1_000))
    assert queue.stats().dropped == 0
    queue.close()


def test_a_failing_disk_is_retried(
    make_lake: MakeLake, syncs: Syncs, capsys: pytest.CaptureFixture[str]
) -> None:
    """The caller notices nothing; one line says what is wrong, and all is stored once it works."""
    lake = make_lake()
    queue = queue_on(lake)
    syncs.error = OSError(errno.ENOSPC, "No space left on device")
    for n in range(10):
        queue.put(line(n))
    until(lambda: queue.stats().error)
    assert not queue.flush(0.05)
    syncs.error = None
    assert queue.flush(240)
    assert numbers(lake) == list(range(10))
    assert capsys.readouterr().err.count("No space left on device") == 1
    queue.close()


@pytest.mark.parametrize("attempts", [1, 3])
def test_what_a_failed_write_left_is_stored_once(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    """A write that fails behind its last byte leaves events, which are not stored once more."""
    lake = make_lake()
    queue = queue_on(lake)
    queue.put(line(0))
    assert queue.flush(240)
    failures, write, link = [], OpenFile.write_blocks, File.link

    def written(self: OpenFile, data: bytes, zeros: int = 0) -> None:
        write(self, data, zeros)
        failures.append(len(data))
        raise OSError(errno.ENOSPC, "No space left on device")

    def refused(self: File, path: str) -> None:
        if path.endswith(".zst") and len(failures) <= attempts:
            failures.append(0)
            raise OSError(errno.ENOSPC, "No space left on device")
        link(self, path)

    monkeypatch.setattr(OpenFile, "write_blocks", written)
    monkeypatch.setattr(File, "link", refused)
    for n in range(1, 5):
        queue.put(line(n))
    assert queue.flush(240)
    assert failures
    assert numbers(lake) == list(range(5))
    queue.close()


def test_a_full_queue_on_a_failing_disk_does_not_block(make_lake: MakeLake, syncs: Syncs) -> None:
    """Nobody waits for a disk that may never work again: the oldest are dropped and counted."""
    queue = queue_on(make_lake(), "block", events_max=10)
    syncs.error = OSError(errno.EROFS, "Read-only file system")
    queue.put(line(0))
    until(lambda: queue.stats().error)
    for n in range(1, 50):
        queue.put(line(n))
    assert queue.stats().dropped >= 39
    syncs.error = None
    assert queue.flush(240)
    queue.close()


def test_an_event_beyond_the_limit_is_refused(make_lake: MakeLake) -> None:
    """It is counted; a long one below the limit is stored, though longer than the queue."""
    lake = make_lake()
    queue = queue_on(lake, bytes_max=1_000)
    assert not queue.put(line(0, "x" * EVENT_BYTES_MAX))
    assert queue.put(line(1, "x" * 10_000_000))
    assert queue.flush(240)
    assert numbers(lake) == [1]
    assert queue.stats().refused == 1
    queue.close()


def test_a_lake_that_was_closed_does_not_stop_the_queue(make_lake: MakeLake) -> None:
    """The queue has a lake of its own, so an application may close the one that it gave."""
    lake = make_lake()
    queue = queue_on(lake)
    lake.close()
    queue.put(line(0))
    assert queue.flush(240)
    assert numbers(make_lake()) == [0]
    queue.close()


def test_closing_stores_and_a_later_put_still_counts(make_lake: MakeLake) -> None:
    """As at exit: from then on a line is durable when `put` returns."""
    lake = make_lake()
    queue = queue_on(lake)
    queue.put(line(0))
    queue.close()
    assert numbers(lake) == [0]
    queue.put(line(1))
    assert numbers(lake) == [0, 1]
    queue.close()


def test_a_seal_that_fails_stores_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With seal=inline the queue's thread seals; whether that works, the frame is durable."""
    lake = lakelog.open(tmp_path / "lake", settings={"seal": "inline", "rotate_events": 2})
    queue = queue_on(lake)
    link = disk.link

    def refused(source: str, target: str, *rest: Any) -> Any:
        if "/refs/heads/" in target:
            raise OSError(errno.ENOSPC, "No space left on device")
        return link(source, target, *rest)

    monkeypatch.setattr(disk, "link", refused)
    for n in range(12):
        queue.put(line(n))
        assert queue.flush(240)
    assert (queue.stats().stored, queue.stats().error) == (12, "")
    monkeypatch.undo()
    queue.close()
    assert numbers(lake) == list(range(12))


def test_what_is_moved_while_the_buffer_is_drained_stays_in_order(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right after the thread drained the buffer a call moves lines there; others may follow."""
    lake = make_lake()
    queue = queue_on(lake)
    drain, moved = DiskBuffer.drain, [False]

    def drained(buffer: DiskBuffer, store: Callable[[list[bytes]], None]) -> None:
        drain(buffer, store)
        if not moved[0]:
            moved[0] = True
            for n in range(5, 10):
                queue.put(line(n))
            queue._move_to_buffer()
            for n in range(10, 13):
                queue.put(line(n))

    monkeypatch.setattr(DiskBuffer, "drain", drained)
    with queue._store_lock:
        for n in range(5):
            queue.put(line(n))
        assert queue._move_to_buffer()
    assert queue.flush(240)
    query = "SELECT (data->>'n')::INT FROM events ORDER BY seq"
    assert [n for (n,) in lake.sql(query).fetchall()] == list(range(13))
    assert queue.stats().error == ""
    queue.close()
