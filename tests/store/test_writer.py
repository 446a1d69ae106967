"""The writer: durable groups, files that rotate, and what happens when the disk fails."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import lakelog
from lakelog.disk import LockFile, disk
from lakelog.errors import LakeNotFound, LakeReplaced, WriterClosed
from lakelog.event import EncodedBatch
from lakelog.wal import frames as wal
from lakelog.wal.tail import Tail, WalFile

MakeLake = Callable[..., lakelog.Lake]
Disk = Callable[..., list[str]]


def files(lake: lakelog.Lake) -> list[WalFile]:
    """Return the WAL files of the only writer of a lake, oldest first."""
    [group] = Tail(lake.store.paths, lake.store.refs, lake.branch_name).scan().values()
    return group


def sequences(lake: lakelog.Lake) -> list[list[int]]:
    """Return the sequence numbers in each WAL file."""
    return [[frame.sequence for frame in file.frames] for file in files(lake)]


def rows(lake: lakelog.Lake) -> list[Any]:
    """Return the payloads of all events as integers, sorted."""
    query = "SELECT data::INT AS n FROM events ORDER BY n"
    return [n for (n,) in lake.sql(query).fetchall()]


def numbers(*values: int) -> list[dict[str, Any]]:
    """Return one event per number."""
    return [{"type": "A", "data": n} for n in values]


def until(condition: Callable[[], object]) -> None:
    """Wait for another thread to get somewhere."""
    while not condition():
        time.sleep(0.001)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Make a function of the disk fail: `failing("sync_file", 2)` its next two calls."""

    def fail(name: str, times: int, before: Callable[..., Any] | None = None) -> list[str]:
        real = getattr(disk, name)
        failed: list[str] = []

        def call(*args: Any, **options: Any) -> Any:
            if len(failed) >= times:
                return real(*args, **options)
            failed.append(name)
            if before is not None:
                before(real, *args)
            raise OSError(errno.EIO, "planted")

        monkeypatch.setattr(disk, name, call)
        return failed

    return fail


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Hold the next sync: (set once a thread is in it, to be set to let it go on)."""
    inside, go = threading.Event(), threading.Event()
    real = disk.sync_file

    def sync(fd: int) -> None:
        inside.set()
        assert go.wait(240)
        real(fd)

    monkeypatch.setattr(disk, "sync_file", sync)
    yield inside, go
    go.set()


# --- files ----------------------------------------------------------------------------------------


def test_no_file_is_made_before_the_first_append(lake: lakelog.Lake) -> None:
    """Opening and reading leave no WAL behind; the first append makes one, with its frame."""
    lake.count()
    lake.writer()
    assert disk.listing(lake.store.paths.wal_dir("main")) == []
    lake.append(numbers(1))
    assert sequences(lake) == [[0]]


def test_a_full_file_is_followed_by_another(make_lake: MakeLake) -> None:
    """Past the limit of events a file is ended; the next append makes the next one."""
    lake = make_lake(rotate_events=3)
    for n in range(7):
        lake.append(numbers(n))
    assert sequences(lake) == [[0, 1, 2], [3, 4, 5], [6]]
    assert [file.ended for file in files(lake)] == [True, True, False]
    assert [file.header.first for file in files(lake) if file.header] == [0, 3, 6]
    assert [LockFile(file.path).is_held() for file in files(lake)] == [False, False, True]
    assert rows(lake) == list(range(7))


def test_a_living_writer_keeps_a_file_and_its_watermark(make_lake: MakeLake) -> None:
    """A full file stays, locked, until the next one is there: whatever others seal and trim, the
    head goes on saying how far this writer was sealed."""
    lake, other = make_lake(rotate_events=3), make_lake()
    lake.append(numbers(0, 1, 2))
    other.settle()
    for n in range(3):
        lake.branch(f"b{n}")
    assert [LockFile(file.path).is_held() for file in files(lake)] == [True]
    assert other.settle().move.wal[lake.writer().name] == 0
    lake.append(numbers(4))
    assert other.settle().move.wal[lake.writer().name] == 1


def test_a_file_rotates_by_its_bytes(make_lake: MakeLake) -> None:
    """The size of the JSON counts, not that of the compressed file."""
    lake = make_lake(rotate_bytes=10_000)
    for _ in range(4):
        lake.append({"type": "A", "message": "x" * 5_000})
    assert sequences(lake) == [[0, 1], [2, 3]]


def test_a_file_rotates_by_its_age(make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file older than the limit is ended by the next append, though it holds little."""
    lake, now = make_lake(rotate_seconds=3600), time.monotonic
    lake.append(numbers(1))
    monkeypatch.setattr(time, "monotonic", lambda: now() + 3601)
    lake.append(numbers(2))
    lake.append(numbers(3))
    assert sequences(lake) == [[0, 1], [2]]


def test_close_ends_the_file_and_lets_it_go(make_lake: MakeLake) -> None:
    """A closed writer's file has its END and no lock, so that anyone may seal and trim it."""
    lake = make_lake()
    lake.append(numbers(1))
    lake.close()
    [file] = files(lake)
    assert file.ended
    assert not LockFile(file.path).is_held()
    other = make_lake()
    other.settle()
    assert disk.listing(other.store.paths.wal_dir("main")) == []


def test_an_inline_writer_seals_what_it_rotates(make_lake: MakeLake) -> None:
    """With seal=inline the appending process itself keeps the log short."""
    lake = make_lake(seal="inline", rotate_events=2)
    for n in range(20):
        lake.append(numbers(n))
        assert len(disk.listing(lake.store.paths.wal_dir("main"))) <= 3
    assert lake.stats().segments > 0
    assert rows(lake) == list(range(20))


@pytest.mark.parametrize("size", [10, 2_000, 3_000_000])
def test_a_huge_batch_becomes_frames_of_bounded_size(lake: lakelog.Lake, size: int) -> None:
    """Frames hold at most 4,096 events, and one MiB unless a single event is larger."""
    count = max(3, min(10_000, 3_000_000 // size))
    lake.append([{"type": "A", "message": "x" * size, "data": n} for n in range(count)])
    frames = [frame for file in files(lake) for frame in file.frames]
    assert sum(frame.events for frame in frames) == count
    for frame in frames:
        assert frame.events <= wal.Frame.EVENTS_MAX
        assert frame.raw <= wal.Frame.RAW_MAX + 4096 or frame.events == 1
    assert rows(lake) == list(range(count))


def test_a_file_unlinked_under_a_living_writer_is_noticed(lake: lakelog.Lake) -> None:
    """A writer thought dead, its sealed file trimmed, goes on in a new file and loses nothing."""
    lake.append(numbers(1))
    lake.settle()
    [file] = files(lake)
    os.unlink(file.path)
    lake.append(numbers(2))
    lake.append(numbers(3))
    assert [f.n for f in files(lake)] == [1]
    assert sequences(lake) == [[1, 2]]
    assert rows(lake) == [1, 2, 3]


def test_a_commit_reads_no_times(lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose times were read gets new ones with the next write, which makes a sync slow."""
    lake.append(numbers(1))
    lake.append(numbers(2))  # from now on all files are open
    asked: list[str] = []

    [file] = files(lake)
    wal_file = os.stat(file.path)
    real_stat = os.stat

    def noted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(of: Any) -> Any:
            if os.path.samestat(real_stat(of), wal_file):
                asked.append(name)
            return real(of)

        return call

    for name in ("stat", "fstat", "lstat"):
        monkeypatch.setattr(os, name, noted(name, getattr(os, name)))
    lake.append(numbers(3))
    monkeypatch.undo()
    assert asked == []


def test_a_lake_that_was_moved_goes_on(lake: lakelog.Lake) -> None:
    """A writer whose lake has another path by now still has its file; no lake is made beside."""
    lake.append(numbers(1))
    os.rename(lake.path, f"{lake.path}-moved")
    lake.append(numbers(2))
    assert not os.path.exists(lake.path)
    os.rename(f"{lake.path}-moved", lake.path)
    assert rows(lake) == [1, 2]


def remove(path: str, is_moved: bool) -> None:
    """Remove a lake, or move it away."""
    if is_moved:
        os.rename(path, f"{path}-away")
    else:
        shutil.rmtree(path)


@pytest.mark.parametrize("before", [0, 1])
def test_an_append_to_a_removed_lake_says_so(make_lake: MakeLake, before: int) -> None:
    """Nothing is made in the place of a lake that is gone, and nothing is acknowledged."""
    lake = make_lake()
    lake.append(numbers(*range(before)))
    remove(lake.path, is_moved=False)
    for _ in range(2):
        with pytest.raises(LakeNotFound, match="was removed: nothing was stored"):
            lake.append(numbers(11))
    lake.close()
    assert not os.path.exists(lake.path)
    make_lake()


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("is_moved", [False, True])
def test_an_append_to_a_lake_that_was_created_again_is_refused(
    make_lake: MakeLake, before: int, is_moved: bool
) -> None:
    """Removed, or moved away, and made anew under a writer: nothing of it gets into the new one."""
    lake = make_lake()
    lake.append(numbers(*range(before)))
    remove(lake.path, is_moved)
    new = make_lake()
    new.append(numbers(10))
    for _ in range(2):
        with pytest.raises(LakeReplaced, match="open it again"):
            lake.append(numbers(11))
    lake.close()
    assert rows(new) == [10]
    with make_lake() as again:
        again.append(numbers(12))
    assert rows(new) == [10, 12]


@pytest.mark.parametrize("rotate_events", [1, 1000])
@pytest.mark.parametrize("is_moved", [False, True])
def test_an_append_to_a_lake_that_was_restored_is_refused(
    make_lake: MakeLake, is_moved: bool, rotate_events: int
) -> None:
    """Its copy has files of the same names, and lacks frames that are acknowledged."""
    lake = make_lake(rotate_events=rotate_events)
    lake.append(numbers(1))
    copy = f"{lake.path}-copy"
    lake.backup(copy)
    lake.append(numbers(2))
    remove(lake.path, is_moved)
    shutil.copytree(copy, lake.path)
    for _ in range(2):
        with pytest.raises(LakeReplaced, match="open it again"):
            lake.append(numbers(3))
    lake.close()
    again = make_lake()
    again.append(numbers(4))
    assert rows(again) == [1, 4]


def test_a_restored_lake_that_came_as_far_is_read_anew(make_lake: MakeLake) -> None:
    """It has moves of the same numbers, which say something else: who had it open before reads
    those, and publishes behind them."""
    lake = make_lake()
    lake.append(numbers(1))
    lake.settle()
    copy = f"{lake.path}-copy"
    lake.backup(copy)
    lake.append(numbers(2))
    number = lake.settle().move.number
    assert rows(lake) == [1, 2]
    remove(lake.path, is_moved=False)
    shutil.copytree(copy, lake.path)
    with make_lake() as other:
        other.append(numbers(3))
        assert other.settle().move.number == number
        assert rows(lake) == [1, 3]
        lake.snapshot("after it was restored")
        assert rows(other) == [1, 3]
        other.verify().require()


def test_finished_files_of_a_restored_lake_are_read_anew(make_lake: MakeLake) -> None:
    """Its copy of a file that was read to its end lacks the last frames."""
    reader = make_lake()
    with make_lake() as writer:
        writer.append(numbers(1))
        writer.backup(f"{reader.path}-copy")
        writer.append(numbers(2))
    assert rows(reader) == [1, 2]
    remove(reader.path, is_moved=False)
    shutil.copytree(f"{reader.path}-copy", reader.path)
    assert rows(reader) == [1]
    reader.append(numbers(3))
    assert rows(reader) == [1, 3]


def test_a_changed_setting_is_not_another_lake(make_lake: MakeLake) -> None:
    """lakelog.json is another file then, and the writer goes on, in its file and in the next."""
    lake = make_lake(rotate_events=2)
    for n in range(6):
        lake.append(numbers(n))
        lake.store.change_settings(lake.store.settings)
    assert rows(lake) == list(range(6))


# --- a disk that fails ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sync_file", "write_all"])
def test_a_failed_write_moves_the_batch_to_the_next_file(
    lake: lakelog.Lake, failing: Disk, name: str
) -> None:
    """After one failure the file is abandoned; the same batch is stored once, in the next."""
    first = lake.append(numbers(1))
    assert failing(name, 1) == []
    second = lake.append(numbers(2))
    third = lake.append(numbers(3))
    assert sequences(lake)[1:] == [[1, 2]]
    assert [file.header.doubtful for file in files(lake) if file.header] == [(), ()]
    assert rows(lake) == [1, 2, 3]
    assert [r.ids[0][-2:] for r in (first, second, third)] == [":0", ":1", ":2"]
    lake.settle()
    assert rows(lake) == [1, 2, 3]


def test_a_torn_append_is_atomic(lake: lakelog.Lake, failing: Disk) -> None:
    """Half a frame at the end of an abandoned file is no event; sealing removes the file."""
    lake.append(numbers(1))
    failing("write_all", 1, lambda real, fd, data: real(fd, data[:100]))
    lake.append(numbers(2))
    assert [file.torn > 0 for file in files(lake)] == [True, False]
    assert rows(lake) == [1, 2]
    lake.settle()
    assert rows(lake) == [1, 2]


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("name", ["sync_file", "write_all", "link", "create"])
def test_a_failure_of_both_files_is_an_error(
    lake: lakelog.Lake, failing: Disk, name: str, before: int
) -> None:
    """When the next file fails too nothing is acknowledged; later appends work and are right."""
    lake.append(numbers(*range(before)))
    failing(name, 2 if before and name in ("sync_file", "write_all") else 1)
    if before and name in ("link", "create"):
        failing("write_all", 1)
    with pytest.raises(OSError, match="planted"):
        lake.append(numbers(10))
    lake.append(numbers(11))
    lake.append(numbers(12))
    maybe = [10] if 10 in rows(lake) else []  # it may be there, as a whole
    kept = [*range(before), *maybe, 11, 12]
    assert rows(lake) == kept
    newest = files(lake)[-1]
    assert newest.header
    # What was only in a temporary file is not there for certain.
    is_certain = not before and name != "link"
    assert newest.header.doubtful == (() if is_certain else (before,))
    lake.settle()
    assert rows(lake) == kept
    assert lake.count() == len(kept)


def test_two_failures_in_a_row_are_both_doubtful(lake: lakelog.Lake, failing: Disk) -> None:
    """The next good file names every sequence whose fate is unknown."""
    failing("sync_dir", 3)
    lake.store.make_branch_dirs("main")
    for n in range(3):
        with pytest.raises(OSError, match="planted"):
            lake.append(numbers(n))
    lake.append(numbers(3))
    newest = files(lake)[-1]
    assert newest.header
    assert newest.header.doubtful == (0, 1, 2)
    seen = rows(lake)
    assert seen[-1] == 3
    lake.settle()
    lake.append(numbers(4))
    assert rows(lake) == [*seen, 4]


def test_a_publish_leaves_a_new_lake_in_its_place_alone(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events of a lake that was removed while it was sealed do not come into the next one."""
    lake = make_lake(seal="never")
    lake.append(numbers(1, 2, 3))
    make_object_dir = disk.make_object_dir

    def replaced(path: str) -> None:
        monkeypatch.undo()
        shutil.rmtree(lake.path)
        with lakelog.open(lake.path, settings={"seal": "never"}) as other:
            other.append(numbers(10))
        make_object_dir(path)

    monkeypatch.setattr(disk, "make_object_dir", replaced)
    with pytest.raises(LakeReplaced, match="open it again"):
        lake.settle()
    with lakelog.open(lake.path) as other:
        assert rows(other) == [10]
        assert other.verify().problems == ()


@pytest.mark.parametrize("is_settled", [False, True])
@pytest.mark.parametrize("outages", [1, 3])
@pytest.mark.parametrize(("name", "count"), [("sync_file", 2), ("write_all", 2), ("sync_dir", 1)])
def test_retry_of_a_failed_append_is_stored_once(
    lake: lakelog.Lake, failing: Disk, name: str, count: int, outages: int, is_settled: bool
) -> None:
    """Who stores the same lines until they are stored has them once, whatever the failed attempts
    have left, and whatever was sealed of it meanwhile."""
    lake.append(numbers(0))
    batch = EncodedBatch.of(numbers(1))
    for outage in range(outages):
        # At first that of its file, and that of the next one.
        failing(name, 1 if outage else count)
        if name == "sync_dir" and not outage:
            failing("write_all", 1)
        with pytest.raises(OSError, match="planted"):
            lake.append_encoded(batch, retries=True)
        if is_settled:
            lake.settle()
    lake.append_encoded(batch, retries=True)
    lake.append(numbers(2))
    assert rows(lake) == [0, 1, 2]
    lake.settle()
    lake.append(numbers(3))
    assert rows(lake) == [0, 1, 2, 3]
    assert lake.verify().problems == ()


@pytest.mark.parametrize(("rotate_events", "doubtful"), [(1, ()), (1000, (1,))])
def test_a_long_outage_leaves_a_short_header(
    make_lake: MakeLake, failing: Disk, rotate_events: int, doubtful: tuple[int, ...]
) -> None:
    """Of appends that fail on a full disk only one in a file with a name is doubtful."""
    lake = make_lake(rotate_events=rotate_events)
    lake.append(numbers(0))
    failed = failing("sync_file", 100)
    while len(failed) < 100:
        with pytest.raises(OSError, match="planted"):
            lake.append(numbers(1))
    lake.append(numbers(2))
    newest = files(lake)[-1]
    assert newest.header
    assert newest.header.doubtful == doubtful
    maybe = [1] if doubtful else []
    assert rows(lake) == [0, *maybe, 2]
    lake.append(numbers(3))
    lake.settle()
    assert rows(lake) == [0, *maybe, 2, 3]


def test_a_file_whose_directory_was_not_synced_counts_once(
    lake: lakelog.Lake, failing: Disk
) -> None:
    """The error came after the link: the event may be seen, once, now and after sealing."""
    lake.writer()
    failing("sync_dir", 1)
    with pytest.raises(OSError, match="planted"):
        lake.append(numbers(1))
    lake.append(numbers(2))
    seen = rows(lake)
    assert seen in ([1, 2], [2])
    lake.settle()
    assert rows(lake) == seen


def test_all_waiting_callers_get_the_error(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group that fails fails for each of its callers, and none of its events is acknowledged."""
    inside, go = threading.Event(), threading.Event()
    real, calls = disk.sync_file, []

    def sync(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 1:
            inside.set()
            assert go.wait(240)
        if 1 < len(calls) < 4:
            raise OSError(errno.ENOSPC, "planted")
        real(fd)

    monkeypatch.setattr(disk, "sync_file", sync)
    outcomes: list[object] = []

    def append(n: int) -> None:
        try:
            lake.append(numbers(n))
            outcomes.append(n)
        except OSError as error:
            outcomes.append(error.errno)

    threads = [threading.Thread(target=append, args=(n,)) for n in range(6)]
    threads[0].start()
    inside.wait()
    for thread in threads[1:]:
        thread.start()
    until(lambda: len(lake.writer()._queue) >= 5)
    go.set()
    for thread in threads:
        thread.join()
    assert sorted(outcomes, key=str) == [0, *[errno.ENOSPC] * 5]
    lake.append(numbers(9))
    assert [n for n in rows(lake) if n in (0, 9)] == [0, 9]


# --- threads --------------------------------------------------------------------------------------


def test_waiting_callers_share_one_frame(
    lake: lakelog.Lake, stuck: tuple[threading.Event, threading.Event]
) -> None:
    """While one sync runs others queue up, and the next sync serves them all."""
    inside, go = stuck
    threads = [threading.Thread(target=lake.append, args=(numbers(n),)) for n in range(16)]
    threads[0].start()
    inside.wait()
    for thread in threads[1:]:
        thread.start()
    until(lambda: len(lake.writer()._queue) >= 15)
    go.set()
    for thread in threads:
        thread.join()
    [file] = files(lake)
    assert [frame.events for frame in file.frames] == [1, 15]
    assert rows(lake) == list(range(16))


def test_only_frames_with_ids_are_keyed(
    lake: lakelog.Lake, stuck: tuple[threading.Event, threading.Event]
) -> None:
    """Callers with ids and callers without do not share a frame, so plain ones pay nothing."""
    inside, go = stuck
    batches = [numbers(0), numbers(1), [{"type": "A", "id": "x", "data": 2}], numbers(3)]
    threads = [threading.Thread(target=lake.append, args=(batch,)) for batch in batches]
    threads[0].start()
    inside.wait()
    for waiting, thread in enumerate(threads[1:], 1):
        thread.start()
        until(lambda n=waiting: len(lake.writer()._queue) >= n)
    go.set()
    for thread in threads:
        thread.join()
    [file] = files(lake)
    assert [frame.flags & wal.Frame.KEYED for frame in file.frames] == [0, 0, wal.Frame.KEYED, 0]
    assert rows(lake) == [0, 1, 2, 3]


def test_concurrent_appends_of_sixteen_threads_are_exact(make_lake: MakeLake) -> None:
    """Every append of every thread is acknowledged with its own ids, and is there once."""
    lake = make_lake(rotate_events=50)
    receipts: dict[int, str] = {}

    def append(thread: int) -> None:
        for n in range(thread * 100, thread * 100 + 20):
            [receipts[n]] = lake.append(numbers(n)).ids

    threads = [threading.Thread(target=append, args=(t,)) for t in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    query = "SELECT data::INT, origin || ':' || position FROM events"
    assert dict(lake.sql(query).fetchall()) == receipts
    assert lake.count() == len(receipts) == len(set(receipts.values())) == 320
    assert [s for file in sequences(lake) for s in file] == list(range(files(lake)[-1].last + 1))


def test_close_waits_for_the_append_that_runs(
    lake: lakelog.Lake, make_lake: MakeLake, stuck: tuple[threading.Event, threading.Event]
) -> None:
    """An append under way is stored and acknowledged; the file behind it ends whole, unlocked."""
    inside, go = stuck
    append = threading.Thread(target=lake.append, args=(numbers(1),))
    append.start()
    inside.wait()
    close = threading.Thread(target=lake.close)
    close.start()
    until(lambda: lake.writer()._closed)
    with pytest.raises(WriterClosed):
        lake.append(numbers(2))
    go.set()
    append.join()
    close.join()
    [file] = files(lake)
    assert file.ended
    assert not LockFile(file.path).is_held()
    assert rows(make_lake()) == [1]


def test_an_append_concurrent_with_close_is_stored_or_refused(make_lake: MakeLake) -> None:
    """Of appends racing with close exactly those are there that returned."""
    lake = make_lake()
    done: list[int] = []

    def append(thread: int) -> None:
        for n in range(thread * 1000, thread * 1000 + 1000):
            try:
                lake.append(numbers(n))
            except WriterClosed:
                return
            done.append(n)

    threads = [threading.Thread(target=append, args=(t,)) for t in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(done) >= 20)
    lake.close()
    for thread in threads:
        thread.join()
    assert files(lake)[-1].ended
    assert rows(make_lake()) == sorted(done)


def test_an_interrupted_caller_does_not_stop_the_others(
    lake: lakelog.Lake, stuck: tuple[threading.Event, threading.Event]
) -> None:
    """Ctrl-C while waiting for another thread's sync ends that append alone."""
    inside, go = stuck
    interrupted: list[int] = []

    def once(number: int, _: object) -> None:
        if not interrupted:
            interrupted.append(number)
            raise KeyboardInterrupt

    def interrupt() -> None:
        until(lambda: lake.writer()._queue)
        while not interrupted:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.01)

    before = signal.signal(signal.SIGINT, once)
    running = threading.Thread(target=lake.append, args=(numbers(1),))
    interrupting = threading.Thread(target=interrupt)
    running.start()
    inside.wait()
    interrupting.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            lake.append(numbers(2))
    finally:
        interrupting.join()
        signal.signal(signal.SIGINT, before)
    go.set()
    running.join()
    after = threading.Thread(target=lake.append, args=(numbers(3),), daemon=True)
    after.start()
    after.join(240)
    assert not after.is_alive()
    assert [n for n in rows(lake) if n != 2] == [1, 3]
