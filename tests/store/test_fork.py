"""Fork in the middle of everything: parent and child go on as two writers, nothing is doubled."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import database
from lakelog.disk import LockFile, disk
from lakelog.errors import QueryFailed
from lakelog.wal import frames as wal
from lakelog.wal.tail import PendingFrames
from tests.support.requirements import give_up
from tests.support.tree import ROOT

MakeLake = Callable[..., lakelog.Lake]


@pytest.fixture(autouse=True)
def _no_garbage_of_other_tests() -> None:
    """A child that frees an engine which another test made without lakelog would end."""
    gc.collect()


@contextlib.contextmanager
def threads(count: int, work: Callable[[int, threading.Event], None]) -> Iterator[None]:
    """Run `work(index, stop)` in threads until the block ends."""
    stop = threading.Event()
    started = [threading.Thread(target=work, args=(n, stop)) for n in range(count)]
    for thread in started:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in started:
            thread.join()


def in_child(work: Callable[[], object]) -> int:
    """Fork; do the work in the child and leave it without closing anything. Returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(60)  # a child that waits for a lock of a thread it does not have
    try:
        work()
    except BaseException:
        os._exit(1)
    os._exit(0)


def wait(*pids: int) -> None:
    """Require that the children ended well."""
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * len(pids)


def event(name: str) -> dict[str, Any]:
    """An event with a name."""
    return {"type": "T", "subject": name}


def found(lake: lakelog.Lake) -> list[str]:
    """The names of all events, sorted."""
    return sorted(name for (name,) in lake.sql("SELECT subject FROM events").fetchall())


def test_fork_in_the_middle_of_threads_that_append(make_lake: MakeLake) -> None:
    """Forks find their turn among busy threads; children and parent lose and double nothing."""
    lake = make_lake(rotate_events=200)
    acked: list[str] = []

    def append(index: int, stop: threading.Event) -> None:
        number = 0
        while not stop.is_set():
            name = f"parent-{index}-{number}"
            lake.append(event(name))
            acked.append(name)
            number += 1

    def child(me: int) -> None:
        for number in range(10):
            lake.append(event(f"child-{me}-{number}"))

    with threads(4, append):
        wait(*(in_child(lambda me=me: child(me)) for me in range(20)))
    acked += [f"child-{me}-{number}" for me in range(20) for number in range(10)]
    assert found(lake) == sorted(acked)
    origins = lake.sql("SELECT count(DISTINCT origin) FROM events").fetchall()
    assert origins == [(21,)]


def test_children_of_children_are_writers_of_their_own(make_lake: MakeLake) -> None:
    """A grandchild has an id of its own too, and each generation sees what the one before did."""
    lake = make_lake()
    lake.append(event("parent"))

    def grandchild() -> None:
        lake.append(event("grandchild"))

    def child() -> None:
        lake.append(event("child"))
        wait(in_child(grandchild))
        assert found(lake) == ["child", "grandchild", "parent"]

    wait(in_child(child))
    lake.append(event("parent again"))
    rows = lake.sql("SELECT subject, origin FROM events").fetchall()
    assert sorted(name for name, _ in rows) == ["child", "grandchild", "parent", "parent again"]
    assert len({origin for _, origin in rows}) == 3


def test_a_child_that_dies_leaves_its_events(make_lake: MakeLake) -> None:
    """A child that is killed or just leaves has its events sealed, its file trimmed, its lock not
    kept by the parent."""
    lake = make_lake()
    lake.append(event("parent"))
    wait(in_child(lambda: lake.append(event("left"))))

    def be_killed() -> None:
        lake.append(event("killed"))
        os.kill(os.getpid(), signal.SIGKILL)

    pid = in_child(be_killed)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert found(lake) == ["killed", "left", "parent"]
    lake.settle()
    assert found(lake) == ["killed", "left", "parent"]
    assert len(os.listdir(lake.store.paths.wal_dir("main"))) == 1  # the living parent's
    lake.append(event("after"))
    assert lake.count() == 4


def test_a_child_leaves_the_lock_of_its_parent_alone(make_lake: MakeLake) -> None:
    """While the parent lives its file stays, whatever its children close, seal and trim."""
    lake = make_lake()
    lake.append(event("parent"))

    def child() -> None:
        lake.append(event("child"))
        lake.settle()
        lake.close()

    wait(in_child(child))
    [name] = [f for f in os.listdir(lake.store.paths.wal_dir("main")) if lake.writer().name in f]
    assert LockFile(f"{lake.store.paths.wal_dir('main')}/{name}").is_held()
    lake.append(event("parent again"))
    assert found(lake) == ["child", "parent", "parent again"]


def test_an_unsynced_batch_of_the_parent_is_not_the_child_s(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers that wait in the parent while it forks are served there, once, by the parent."""
    lake = make_lake()
    lake.append(event("first"))
    forked, syncing = threading.Event(), threading.Event()
    real = disk.sync_file

    def slow(fd: int) -> None:
        syncing.set()
        forked.wait(0.3)
        real(fd)

    monkeypatch.setattr(disk, "sync_file", slow)
    waiting = [
        threading.Thread(target=lambda n=n: lake.append(event(f"waiting-{n}"))) for n in range(4)
    ]
    for thread in waiting:
        thread.start()
    syncing.wait()
    pid = in_child(lambda: lake.append(event("child")))
    forked.set()
    for thread in waiting:
        thread.join()
    wait(pid)
    assert found(lake) == ["child", "first", *(f"waiting-{n}" for n in range(4))]


def test_a_child_queries_with_a_database_of_its_own(make_lake: MakeLake) -> None:
    """A lake that was queried before the fork answers in the child, and still in the parent."""
    lake = make_lake()
    lake.append([event("a"), {**event("b"), "id": "b"}])
    lake.settle()
    lake.append({**event("b again"), "id": "b"})
    assert found(lake) == ["a", "b"]

    def child() -> None:
        assert found(lake) == ["a", "b"]
        lake.append(event("c"))
        assert lake.count() == 3
        assert lake.sql('SELECT count(*) FROM "main".events').fetchall() == [(3,)]

    wait(in_child(child))
    assert found(lake) == ["a", "b", "c"]


def test_a_child_may_leave_in_the_ordinary_way(tmp_path: Path) -> None:
    """A child of a process that has queried ends by itself, though it may not free the database."""
    script = """
import os, sys, lakelog
lake = lakelog.open(sys.argv[1])
lake.append({"type": "T"})
assert lake.sql("SELECT type FROM events").fetchall() == [("T",)]
pid = os.fork()
if pid == 0:
    assert lake.sql("SELECT type FROM events").fetchall() == [("T",)]
    sys.exit(7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    command = [sys.executable, "-c", script, str(tmp_path / "lake")]
    assert subprocess.run(command, cwd=ROOT, timeout=240, capture_output=True).returncode == 7


def test_fork_while_other_threads_query(make_lake: MakeLake) -> None:
    """A child forked while threads query, settle and open lakes waits for none of their locks."""
    lake = make_lake()
    lake.append(event("first"))

    def work(index: int, stop: threading.Event) -> None:
        while not stop.is_set():
            with lakelog.open(lake.path) as other:
                other.append(event("more"))
                assert other.count() > 0
            lake.count()

    with threads(3, work):
        pids = [in_child(lambda: (lake.append(event("child")), lake.count())) for _ in range(15)]
        wait(*pids)
    assert found(lake).count("child") == 15


def test_fork_while_another_thread_counts_a_tail(make_lake: MakeLake) -> None:
    """A child counts a tail of its own, though a thread that it lacks was counting another."""
    lake = make_lake()
    head, began, go_on = lake.settle(), threading.Event(), threading.Event()

    class SlowFrames(dict[str, list[wal.Frame]]):
        def values(self) -> Any:
            began.set()
            go_on.wait()
            return super().values()

    slow = PendingFrames(head, SlowFrames(), {})
    with threads(1, lambda *_: slow.events):
        began.wait()
        pid = in_child(lambda: PendingFrames(head, {}, {}).events)
        go_on.set()
        wait(pid)


def test_a_child_frees_no_engine_of_its_parent(make_lake: MakeLake) -> None:
    """Engines that the parent left as garbage are not freed by a child's collector, which would
    end the child, and a pool of workers would wait for it for ever."""
    lake = make_lake()
    lake.append(event("parent"))
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            engine = database.connect(lake.store.paths, lake.store.settings)
            engine.execute("SELECT sum(i) FROM range(10_000_000) t(i)").fetchall()
            cycle: list[object] = [engine]
            cycle.append(cycle)
        del engine, cycle
        wait(in_child(lambda: (gc.collect(), lake.append(event("child")))))
    finally:
        gc.enable()
    assert found(lake) == ["child", "parent"]


def test_a_child_frees_no_engine_that_runs_only_sql(tmp_path: Path) -> None:
    """Nor one that was loaded without the package of relations, as for counts and verbs."""
    script = """
import gc, os, signal, sys, lakelog
from lakelog import database
lake = lakelog.open(sys.argv[1])
gc.disable()
for _ in range(3):
    engine = database.connect_engine(lake.store.paths, lake.store.settings).cursor()
    engine.execute("SELECT i FROM range(10_000_000) t(i)").fetchone()
    cycle = [engine]
    cycle.append(cycle)
del engine, cycle
assert "duckdb" not in sys.modules
pid = os.fork()
if pid == 0:
    signal.alarm(60)
    gc.collect()
    lake.append({"type": "T"})
    os._exit(7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    command = [sys.executable, "-c", script, str(tmp_path / "lake")]
    assert subprocess.run(command, cwd=ROOT, timeout=240, capture_output=True).returncode == 7


HALF_READ: dict[str, Callable[[Any], Any]] = {
    "rows": lambda relation: relation.iter_rows(10),
    "row": lambda relation: (relation.fetchone(), relation)[1:],
    "narrowed": lambda relation: (narrowed := relation.filter("type <> ''"), narrowed.fetchmany(2)),
    "batches": lambda relation: relation.to_arrow_reader(100),
}


@pytest.mark.parametrize("reading", HALF_READ)
def test_a_child_leaves_what_its_parent_reads(make_lake: MakeLake, reading: str) -> None:
    """It may let go of rows that are half read, and ask itself; the parent reads on."""
    lake = make_lake()
    lake.append([event(str(number)) for number in range(60_000)])
    rows = HALF_READ[reading](lake.sql("SELECT * FROM events"))
    held = [rows]
    if reading in ("rows", "batches"):
        next(rows)
    del rows

    def child() -> None:
        held.clear()
        gc.collect()
        assert len(lake.sql("SELECT * FROM events").fetchall()) == 60_000

    wait(in_child(child))
    if reading == "rows":
        assert len([*held[0]]) == 60_000 - 1


@pytest.mark.parametrize("way", ["handled", "local"])
@pytest.mark.parametrize("reading", HALF_READ)
def test_a_child_leaves_what_other_threads_read(
    make_lake: MakeLake, reading: str, way: str
) -> None:
    """Python lets go of what they have as soon as there is a child: of the exception that one
    handles, with all that its traceback holds, and of what is theirs alone."""
    lake = make_lake()
    lake.append([event(str(number)) for number in range(60_000)])
    is_reading, is_over, of_thread = threading.Event(), threading.Event(), threading.local()

    def fail() -> None:
        rows = HALF_READ[reading](lake.sql("SELECT * FROM events"))
        if reading in ("rows", "batches"):
            next(rows)
        if way == "local":
            of_thread.rows = rows
        raise ValueError

    def work() -> None:
        try:
            fail()
        except ValueError:
            is_reading.set()
            is_over.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    assert is_reading.wait(60)
    try:
        wait(in_child(lambda: len(lake.sql("SELECT * FROM events").fetchall()) == 60_000 or 1 / 0))
    finally:
        is_over.set()
        thread.join()


def test_a_child_opens_the_locks_of_threads_that_it_lacks(make_lake: MakeLake) -> None:
    """Those of libstdc++, which a thread holds for an instant in many steps of the engine."""
    lake = make_lake()
    lake.append([event(str(number)) for number in range(1_000)])
    assert len(lake.sql("SELECT * FROM events").fetchall()) == 1_000
    try:
        library = ctypes.CDLL("libstdc++.so.6")
        begin, end = library._ZNSt10_Sp_lockerC1EPKv, library._ZNSt10_Sp_lockerD1Ev
    except (OSError, AttributeError):
        give_up("libstdc++")
    pointers: dict[int, ctypes.c_void_p] = {}
    while len(pointers) < 16:
        locker, pointer = ctypes.create_string_buffer(2), ctypes.c_void_p(random.getrandbits(40))
        begin(locker, pointer)
        pointers[locker.raw[0]] = pointer
        end(locker)
    lockers = [ctypes.create_string_buffer(2) for _ in pointers]
    for number, locker in enumerate(lockers):
        begin(locker, pointers[number])
    try:
        pid = in_child(lambda: len(lake.sql("SELECT * FROM events").fetchall()) == 1_000 or 1 / 0)
    finally:
        for locker in lockers:
            end(locker)
    wait(pid)


def test_a_child_does_not_read_on(make_lake: MakeLake) -> None:
    """Rows that the parent has begun are its own: the child is told so, and does not wait."""
    lake = make_lake()
    lake.append([event(str(number)) for number in range(60_000)])
    rows = lake.sql("SELECT * FROM events").iter_rows(10)
    next(rows)

    def child() -> None:
        with pytest.raises(QueryFailed, match="ask again"):
            list(rows)

    wait(in_child(child))
    assert len([*rows]) == 60_000 - 1


def _append_in_worker(path: str, name: str) -> str:
    with lakelog.open(path, create=False) as lake:
        lake.append(event(name))
        return lake.writer().name


def test_multiprocessing_by_fork(make_lake: MakeLake) -> None:
    """A pool of forked workers appends beside its parent: each event once, each lake its own id."""
    lake = make_lake()
    lake.append(event("parent"))
    names = [f"job-{n}" for n in range(24)]
    with multiprocessing.get_context("fork").Pool(4) as pool:
        writers = pool.starmap(_append_in_worker, [(lake.path, name) for name in names])
    assert len(set(writers)) == len(names)
    assert found(lake) == sorted([*names, "parent"])
