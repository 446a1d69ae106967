"""Writers that are interrupted, their helpers, and the trimming of what they leave behind."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import lakelog
from lakelog.disk import disk
from lakelog.refs import Refs
from lakelog.segments import segment
from lakelog.wal.tail import Tail
from lakelog.wal.trimming import trim
from tests.support import lakes

MakeLake = Callable[..., lakelog.Lake]


def numbers(*given: int) -> list[dict[str, Any]]:
    """Events that hold these numbers."""
    return [{"type": "A", "data": n} for n in given]


def rows(lake: lakelog.Lake) -> list[int]:
    """The numbers of all events, sorted."""
    return sorted(int(n) for (n,) in lake.sql("SELECT data FROM events").fetchall())


def wals(lake: lakelog.Lake) -> list[Path]:
    """The WAL files of a lake, by name."""
    return sorted(Path(lake.store.paths.wal_dir("main")).iterdir())


def until(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    while not holds():
        time.sleep(0.001)


# --- the sealer beside a light program ------------------------------------------------------------


def test_a_light_writer_has_its_tail_sealed(make_lake: MakeLake) -> None:
    """With seal=auto a process beside the writer publishes what it rotates; nothing is lost."""
    lake = make_lake(seal="auto", rotate_events=1)
    lake.append(numbers(1))
    lake.append(numbers(2))
    lake.append(numbers(3))
    helper = lake.writer()._helper
    assert helper is not None
    assert helper.wait(240) == 0
    assert lake.stats().segments >= 1  # more if a helper ended before the last append
    assert rows(lake) == [1, 2, 3]


def test_there_is_one_helper_at_a_time(
    make_lake: MakeLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a sealer runs no other is started, however many files are rotated meanwhile."""
    python, started, go = (tmp_path / name for name in ("python", "started", "go"))
    python.write_text(
        f"#!/bin/sh\necho \"$@\" >>'{started}'\nwhile [ ! -e '{go}' ]; do sleep 0.02; done\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    lake = make_lake(seal="auto", rotate_events=1)
    for n in range(6):
        lake.append(numbers(n))
    first = lake.writer()._helper
    go.touch()
    first.wait(240)
    lake.append(numbers(6))
    lake.writer()._helper.wait(240)
    words = f"-m lakelog --lake {lake.path} seal --branch main"
    assert started.read_text().splitlines() == [words, words]
    assert rows(lake) == list(range(7))


@pytest.mark.parametrize("program", ["editor", "nowhere/bin/python3", ""])
def test_a_program_without_a_python_beside_it_goes_on(
    make_lake: MakeLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """Where no sealer can be started, appending goes on; another process may seal.

    A program that Python is only a part of is not started a second time.
    """
    (tmp_path / "editor").write_text(f"#!/bin/sh\ntouch '{tmp_path}/started'\n")
    (tmp_path / "editor").chmod(0o755)
    monkeypatch.setattr(sys, "executable", program and str(tmp_path / program))
    lake = make_lake(seal="auto", rotate_events=1)
    for n in range(4):
        lake.append(numbers(n))
    assert (lake.writer()._helper, (tmp_path / "started").exists()) == (None, False)
    assert (rows(lake), lake.stats().segments) == ([0, 1, 2, 3], 0)
    lake.settle()
    assert rows(lake) == [0, 1, 2, 3]


# --- interrupts -----------------------------------------------------------------------------------


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[BaseException | None], None]]:
    """Hold every sync until it is let go, with an error if one is given."""
    gate, errors = threading.Semaphore(0), list[BaseException | None]()
    real = disk.sync_file

    def sync(fd: int) -> None:
        assert gate.acquire(timeout=240)
        error = errors.pop(0)
        if error is not None:
            raise error
        real(fd)

    def let_go(error: BaseException | None) -> None:
        errors.append(error)
        gate.release()

    monkeypatch.setattr(disk, "sync_file", sync)
    yield let_go
    monkeypatch.undo()


class Callers:
    """Threads that append, and what each of them got."""

    def __init__(self, lake: lakelog.Lake) -> None:
        self._lake, self._threads = lake, list[threading.Thread]()
        self.got: dict[int, BaseException | None] = {}

    def start(self, number: int) -> None:
        """Let another thread append a number."""
        thread = threading.Thread(target=self._append, args=(number,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _append(self, number: int) -> None:
        try:
            self._lake.append(numbers(number))
            self.got[number] = None
        except BaseException as error:
            self.got[number] = error

    def join(self) -> None:
        """Wait for all of them."""
        for thread in self._threads:
            thread.join(240)
            assert not thread.is_alive()


def in_line(lake: lakelog.Lake) -> tuple[Callers, Any]:
    """Caller 1 leads and is stuck; 2 and 3 wait, in this order."""
    callers, writer = Callers(lake), lake.writer()
    callers.start(1)
    until(lambda: writer._leader)
    for number in (2, 3):
        callers.start(number)
        until(lambda number=number: len(writer._queue) == number - 1)
    return callers, writer


def interrupted_once(real: Callable[..., None]) -> Callable[..., None]:
    """A function that Ctrl-C interrupts as it is first called."""
    calls = iter(range(10))

    def call(*args: Any) -> None:
        if next(calls) == 0:
            raise KeyboardInterrupt
        real(*args)

    return call


@pytest.mark.parametrize("where", ["in the sync", "before it wakes", "while it wakes the others"])
def test_an_interrupted_leader_wakes_those_it_wrote_for(
    lake: lakelog.Lake,
    stuck: Callable[[BaseException | None], None],
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    """Ctrl-C in the thread that writes for others is its own; they are told, or served."""
    callers, writer = in_line(lake)
    real, wakes = writer._wake, list[int]()

    def wake(group: list[Any], *rest: Any) -> None:
        wakes.append(len(group))
        if len(group) == 2 and wakes.count(2) == 1:
            raise KeyboardInterrupt
        real(group, *rest)

    if where == "in the sync":
        stuck(None)
        stuck(KeyboardInterrupt())
    elif where == "before it wakes":
        stuck(None)
        until(lambda: callers.got)  # caller 1, whose group has no others
        monkeypatch.setattr(writer, "_call_next", interrupted_once(writer._call_next))
        stuck(None)
    else:
        monkeypatch.setattr(writer, "_wake", wake)
        stuck(None)
        stuck(None)
    callers.join()
    assert callers.got[1] is None
    assert isinstance(callers.got[2], KeyboardInterrupt)
    if where == "in the sync":
        assert "try it again" in str(callers.got[3])
    else:
        assert callers.got[3] is None
    stuck(None)
    lake.append(numbers(4))
    assert [n for n in rows(lake) if n in (1, 4)] == [1, 4]
    assert where == "in the sync" or rows(lake) == [1, 2, 3, 4]


def test_a_caller_interrupted_before_it_leads_lets_the_next_one_lead(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between becoming the leader and leading stores nothing and stops nobody."""
    writer = lake.writer()

    def lead(own: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_lead", lead)
        with pytest.raises(KeyboardInterrupt):
            lake.append(numbers(1))
    callers = Callers(lake)
    callers.start(2)
    callers.join()
    assert callers.got == {2: None}
    assert rows(lake) == [2]


def test_an_interrupt_while_waiting_leads_to_the_next_in_line(
    lake: lakelog.Lake,
    stuck: Callable[[BaseException | None], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A caller that was made leader and interrupted at once hands the lead on to who waits."""
    callers, writer = in_line(lake)
    real, turns = writer._lead, list[int]()

    def lead(own: Any) -> None:
        turns.append(1)
        if len(turns) == 1:
            raise KeyboardInterrupt
        real(own)

    monkeypatch.setattr(writer, "_lead", lead)
    stuck(None)
    stuck(None)
    callers.join()
    assert isinstance(callers.got[2], KeyboardInterrupt)
    assert (callers.got[1], callers.got[3]) == (None, None)
    assert rows(lake) == [1, 3]


@contextlib.contextmanager
def interrupt_at(moment: int) -> Iterator[None]:
    """Raise KeyboardInterrupt where CPython would after a signal: as a function of Python begins,
    or one of C returns. `moment` counts these."""
    moments = itertools.count()
    # What the collector calls meanwhile is no moment of the append, and CPython drops its errors.
    gc.disable()

    def profile(frame: object, event: str, _: object) -> None:
        if event in ("call", "c_return") and next(moments) == moment:
            sys.setprofile(None)
            raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)
        gc.enable()


@pytest.mark.parametrize("rotate_events", [1, 1000])
def test_an_interrupt_at_any_moment_is_raised_once(make_lake: MakeLake, rotate_events: int) -> None:
    """Whenever Ctrl-C comes, later appends are stored, and no acknowledged one is lost."""
    lake = make_lake(rotate_events=rotate_events)
    acknowledged: list[int] = []
    for moment in itertools.count():
        lake.append(numbers(3 * moment))
        try:
            with interrupt_at(moment):
                lake.append(numbers(3 * moment + 1))
            break
        except KeyboardInterrupt:
            lake.append(numbers(3 * moment + 2))
            acknowledged += [3 * moment, 3 * moment + 2]
    assert len(acknowledged) > 100
    assert set(acknowledged) <= set(rows(lake))
    assert len(rows(lake)) == len(set(rows(lake)))
    lake.close()
    assert set(acknowledged) <= set(rows(make_lake()))


# --- trimming -------------------------------------------------------------------------------------


def test_a_sealer_whose_segment_is_gone_trims_nothing(make_lake: MakeLake) -> None:
    """The last place of events is never removed: without the segment, the WAL stays."""
    with make_lake() as lake:
        lake.append(numbers(1))
    other = make_lake()
    other.sealer().seal()
    (entry,) = other.store.manifests.segments(
        other.store.manifests.load(other.store.refs.head("main").move.snapshot)
    )
    file = Path(other.store.paths.object("segments", entry.key))
    tail = Tail(other.store.paths, other.store.refs, "main")
    file.rename(f"{other.path}/away")
    assert (trim(other.store, "main", tail), len(wals(other))) == (0, 1)
    Path(f"{other.path}/away").rename(file)
    assert (trim(other.store, "main", tail), len(wals(other))) == (1, 0)
    assert rows(other) == [1]


def test_a_writer_of_another_machine_is_believed_dead_only_after_the_grace(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock taken on another machine may not be seen here: its file waits for the grace."""
    lake, other = make_lake(), make_lake()
    there = SimpleNamespace(nodename="elsewhere")
    with monkeypatch.context() as patch:
        patch.setattr(os, "uname", lambda: there)
        lake.append(numbers(1))
    writer: Any = lake.writer()
    disk.close(writer._fd)
    writer._fd = -1
    other.settle()
    (file,) = wals(other)
    tail = Tail(other.store.paths, other.store.refs, "main")
    old = time.time() - 3600 * (other.store.settings.gc_grace_hours + 1)
    assert (trim(other.store, "main", tail), file.exists()) == (0, True)
    os.utime(file, (old, old))
    assert (trim(other.store, "main", tail), file.exists()) == (1, False)
    assert rows(other) == [1]


def while_it_trims(patch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something between the look of the next trim and its first removal."""
    real, done = Refs.sync, list[str]()

    def sync(refs: Refs, branch: str, digest: str) -> None:
        real(refs, branch, digest)
        if not done:
            done.append(branch)
            act()

    patch.setattr(Refs, "sync", sync)


def test_concurrent_trims(make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another process trimmed first is no error, and is not counted twice."""
    with make_lake() as lake:
        lake.append(numbers(1))
    lake, other = make_lake(), make_lake()
    lake.sealer().seal()
    tails = [Tail(lake.store.paths, lake.store.refs, "main") for _ in range(2)]
    also: list[int] = []
    while_it_trims(monkeypatch, lambda: also.append(trim(other.store, "main", tails[1])))
    assert (trim(lake.store, "main", tails[0]), also) == (0, [1])
    assert (wals(lake), rows(lake)) == ([], [1])


def test_a_file_that_grew_since_it_was_read_is_not_trimmed(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a writer appended between the look and the lock, before it died, is not lost."""
    lake, other = make_lake(), make_lake()
    lake.append(numbers(1))
    other.sealer().seal()
    writer: Any = lake.writer()

    def die() -> None:
        lake.append(numbers(2))
        disk.close(writer._fd)
        writer._fd = -1

    while_it_trims(monkeypatch, die)
    assert trim(other.store, "main", Tail(other.store.paths, other.store.refs, "main")) == 0
    assert len(wals(other)) == 1
    assert rows(other) == [1, 2]
    other.settle()
    assert (wals(other), rows(other)) == ([], [1, 2])


def test_a_torn_end_is_kept_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trim that died after keeping a torn end is done again, and keeps it no second time."""
    path = str(home / "lake")
    lakes.torn(path)
    real = disk.unlink

    def unlink(path: str) -> None:
        if path.endswith(".zst"):
            raise OSError(5, "planted")
        real(path)

    with lakelog.open(path) as lake:
        (file,) = wals(lake)
        with monkeypatch.context() as patch:
            patch.setattr(disk, "unlink", unlink)
            lake.settle()  # what is published is durable: a failing trim is no error
        (kept,) = os.listdir(lake.store.paths.cut)
        tail = Tail(lake.store.paths, lake.store.refs, "main")
        assert trim(lake.store, "main", tail) == 1
        assert os.listdir(lake.store.paths.cut) == [kept]
        assert not file.exists()
        assert lake.count() == 3


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "rows_wanted"),
    [(0, 65_536), (33_000_000, 65_536), (34_000_000, 131_072), (200_000_000, 524_288)],
)
def test_segments_grow_with_the_lake(lake: lakelog.Lake, events: int, rows_wanted: int) -> None:
    """A large lake has some two hundred segments at least, so that a query shuts most of them."""
    assert segment.rows_target(lake.store.settings, events) == rows_wanted
