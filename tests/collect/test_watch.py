"""Watching: whatever becomes of the files, every line is an event once.

A scenario is a list of steps on one directory. It is played with a watcher that lives on, with
one that dies before each step and is started anew, and with one that is down during each step.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import lzma
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import lakelog
from lakelog.audit.audit import audit
from lakelog.collect import loop, status_path, watch
from lakelog.collect.watch import Watcher
from lakelog.disk import OpenFile
from tests.support.requirements import give_up
from tests.support.watching import PLAYS, SCENARIOS, Place, Watched, die_at, stored


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies in these plays are made in one step: none need be waited for."""
    monkeypatch.setattr(watch, "STABLE", -1.0)


def test_a_rollback_is_noticed_though_no_file_changes(lake: lakelog.Lake, tmp_path: Path) -> None:
    """The cursors went back with it, so the next round reads the lines again."""
    place = Place(tmp_path / "logs")
    (place.root / "a.log").write_text('{"n":1}\n{"n":2}\n')
    before = lake.snapshot("before")
    watcher = Watcher(lake, [str(place.root)])
    assert watcher.round() == 2
    lake.rollback(before.id)
    assert watcher.round() == 2
    assert watcher.round() == 0
    assert lake.count() == 2
    watcher.close()


@pytest.mark.parametrize("is_as_far", [False, True])
def test_a_restored_backup_is_noticed_though_no_file_changes(
    lake: lakelog.Lake, tmp_path: Path, is_as_far: bool
) -> None:
    """The same, also where the restored lake has as many moves by then as the one before."""
    place = Place(tmp_path / "logs")
    (place.root / "a.log").write_text('{"n":1}\n{"n":2}\n')
    lake.backup(str(tmp_path / "copy"))
    with contextlib.closing(Watcher(lake, [str(place.root)])) as watcher:
        assert watcher.round() == 2
        shutil.rmtree(lake.path)
        shutil.copytree(tmp_path / "copy", lake.path)
        if is_as_far:
            with lakelog.open(lake.path) as other:
                other.snapshot("restored")
        assert watcher.round() == 2
        assert watcher.round() == 0
    assert lake.count() == 2


@pytest.mark.matrix
@pytest.mark.parametrize(("name", "way", "at"), PLAYS)
def test_every_line_once(
    lake: lakelog.Lake,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    way: str,
    at: int,
) -> None:
    """Rotation of every kind, with a watcher that lives, restarts, is down or dies at any step."""
    place = Place(tmp_path / "logs")
    watcher = Watcher(lake, [str(place.root)])
    for number, step in enumerate(SCENARIOS[name]):
        if way == "restart" and number == at:
            watcher.close()
            watcher = Watcher(lake, [str(place.root)])
        step(place)
        if way == "kill" and number == at:
            with monkeypatch.context() as patch:
                patch.setattr("lakelog.ingest.batch.publish", die_at(0))
                with contextlib.suppress(KeyboardInterrupt):
                    watcher.round()
            watcher.close()
            watcher = Watcher(lake, [str(place.root)])
        if not (way == "down" and number == at):
            watcher.round()
    watcher.round(final=True)
    assert stored(lake) == Counter(place.written)
    assert lake.sql("SELECT count(*) FROM quarantine").fetchall() == [(0,)]
    watcher.close()
    again = Watcher(lake, [str(place.root)])
    assert again.round(final=True) == 0
    again.close()
    proof = audit(lake.store, lake.branch_name, lake.engine, [str(place.root)])
    assert not proof.wrong
    assert not proof.failed


def test_what_was_written_before_a_removal_is_read(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Lines written between the last look and the removal of a file are read all the same."""
    place = Place(tmp_path / "logs")
    watcher = Watcher(lake, [str(place.root)])
    place.write("a.log")
    watcher.round()
    place.write("a.log", 4, end="")
    place.remove("a.log")
    watcher.round()
    assert stored(lake) == Counter(place.written)
    watcher.close()


def test_rotated_names_belong_to_the_pattern(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A pattern takes rotated and packed names too, and no others."""
    place = Place(tmp_path / "logs")
    for name in ("a.log", "a.log.1", "a.log-20240101", "a.log.2024-01-01", "b.log.2.gz"):
        place.write(name.removesuffix(".gz"))
    place.pack("b.log.2")
    for name in ("a.txt", ".a.log", "a.log.tmp", "a.log~", "core"):
        (place.root / name).write_bytes(b'{"type":"T","subject":"no"}\n')
    watcher = Watcher(lake, [str(place.root)], patterns=("*.log",))
    watcher.round()
    assert stored(lake) == Counter(place.written)
    watcher.close()


def test_a_copy_in_progress_waits(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of a copy of a known file, plain or packed, is not taken for another file."""
    monkeypatch.setattr(watch, "STABLE", 0.0)
    place = Place(tmp_path / "logs")
    place.banner("a.log")
    place.write("a.log", 200)
    with Watched(lake, place) as watcher:
        watcher.round()
        # However slow the machine is, the copy is not left alone for that long.
        monkeypatch.setattr(watch, "STABLE", 3600.0)
        data = (place.root / "a.log").read_bytes()
        packed = gzip.compress(data)
        for part in (0.3, 0.7, 1.0):
            (place.root / "a.log.2").write_bytes(data[: int(len(data) * part)])
            (place.root / "a.log.1.gz").write_bytes(packed[: int(len(packed) * part)])
            assert watcher.round() == 0
        monkeypatch.setattr(watch, "STABLE", 0.0)
        assert watcher.round() == 0
        assert not watcher.has_arriving_files
    assert stored(lake) == Counter(place.written)


def test_a_packed_file_is_read_once_its_writer_has_closed_it(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two equal looks are enough then, while one that is still open waits on."""
    monkeypatch.setattr(watch, "STABLE", 3600.0)
    place = Place(tmp_path / "logs")
    with Watched(lake, place) as watcher, (place.root / "a.log.1.gz").open("wb") as file:
        if OpenFile(file.fileno()).is_open_for_writing() is None:
            give_up("leases on the file system of TMPDIR")
        file.write(gzip.compress(b'{"type":"T","subject":"packed"}\n'))
        file.flush()
        assert [watcher.round() for _ in range(3)] == [0, 0, 0]
        assert watcher.has_arriving_files
        file.close()
        assert watcher.round() == 1
        assert not watcher.has_arriving_files


def test_empty_packed_files_leave_nothing_to_do(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Logs that were rotated and packed without a line in them are read once, not for ever."""
    place = Place(tmp_path / "logs")
    place.write("a.log")
    for number in (1, 2, 3):
        (place.root / f"a.log.{number}.gz").write_bytes(gzip.compress(b""))
    with Watched(lake, place) as watcher:
        watcher.round()
        watcher.round()
        assert not watcher.is_behind
        assert not watcher.has_arriving_files
    assert stored(lake) == Counter(place.written)


@pytest.mark.matrix
@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress], ids=["gz", "xz"])
def test_a_truncated_packed_file_leaves_nothing_to_do(
    lake: lakelog.Lake, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    """Lines up to where it is cut are read and the fault is told once; the rest, once it comes."""
    root, said = tmp_path / "logs", list[str]()
    root.mkdir()
    lines = [b'{"type":"T","subject":"%d","data":{"x":%d}}\n' % (n, n**9) for n in range(20_000)]
    whole = pack(b"".join(lines))
    (root / "cut.log.packed").write_bytes(whole[: len(whole) // 2])
    watcher = Watcher(lake, [str(root)], say=said.append)
    read = watcher.round(final=True)
    while watcher.is_behind:
        read += watcher.round(final=True)  # a slow machine needs more than one
    assert 0 < read < len(lines)
    assert not watcher.has_arriving_files
    assert watcher.round(final=True) == 0
    assert not watcher.is_behind
    assert watcher.has_unreadable
    assert sum("too early" in text for text in said) == 1
    watcher.close()
    (root / "cut.log.packed").write_bytes(whole)
    with contextlib.closing(Watcher(lake, [str(root)])) as another:
        another.round(final=True)
        assert not another.has_unreadable
    assert sum(stored(lake).values()) == len(lines)


def test_faults_are_told_once_and_stored(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A damaged file is said once, is an event, and does not keep the others from being read."""
    place = Place(tmp_path / "logs")
    place.write("a.log")
    (place.root / "bad.gz").write_bytes(gzip.compress(b"x" * 1000)[:-9])
    os.mkfifo(place.root / "pipe")
    (place.root / "loop").symlink_to(place.root)
    said: list[str] = []
    watcher = Watcher(lake, [str(place.root), str(tmp_path / "none")], say=said.append)
    for _ in range(3):
        watcher.round()
    assert sum("bad.gz" in text for text in said) == 1
    assert sum("none" in text for text in said) == 1
    query = "SELECT subject, level FROM events WHERE type = 'lakelog.watch' ORDER BY subject"
    assert [level for _, level in lake.sql(query).fetchall()] == ["WARN"] * 3, "and the pipe"
    assert stored(lake) == Counter(place.written)
    watcher.close()


@pytest.mark.parametrize("poll", [True, False])
def test_lines_become_visible_while_it_runs(lake: lakelog.Lake, tmp_path: Path, poll: bool) -> None:
    """A running watcher takes in what is written, with hints and by scanning alone."""
    place = Place(tmp_path / "logs")
    watcher, stop = Watcher(lake, [str(place.root)]), threading.Event()
    thread = threading.Thread(
        target=loop.run,
        args=(watcher, stop),
        kwargs={"interval": 0.2, "poll": poll, "say": lambda text: None},
    )
    thread.start()
    try:
        for _ in range(3):
            place.write("a.log")
            until = time.monotonic() + 240
            while stored(lake) != Counter(place.written) and time.monotonic() < until:
                time.sleep(0.02)
            assert stored(lake) == Counter(place.written)
    finally:
        stop.set()
        thread.join()
    assert watcher.totals.events == len(place.written)


def test_it_stops_in_silence_while_files_move(
    lake: lakelog.Lake, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A directory in which much happens is no error of the one who leaves it."""
    (tmp_path / "logs").mkdir()
    old, new, is_over = tmp_path / "logs" / "old", tmp_path / "logs" / "new", threading.Event()

    def move() -> None:
        while not is_over.is_set():
            old.touch()
            old.rename(new)

    mover = threading.Thread(target=move)
    mover.start()
    for _ in range(20):
        stop = threading.Event()
        watcher = Watcher(lake, [str(tmp_path / "logs")], patterns=("*.log",))
        threading.Timer(0.05, stop.set).start()
        loop.run(watcher, stop, interval=1, poll=False, say=lambda text: None)
    is_over.set()
    mover.join()
    assert caplog.messages == []


def test_each_branch_has_a_status_of_its_own(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Watchers of branches whose names differ in a slash alone each say what they did."""
    for branch in ("site/a", "site-a"):
        lake.branch(branch)
        folder = tmp_path / branch
        folder.mkdir(parents=True)
        with lakelog.open(lake.path, branch=branch) as branch_lake:
            watcher = Watcher(branch_lake, [str(folder)])
            watcher.round()
            watcher.close()
    for branch in ("site/a", "site-a"):
        with lakelog.open(lake.path, branch=branch) as branch_lake:
            status = json.loads(Path(status_path(branch_lake)).read_text())
        assert status["roots"] == [str(tmp_path / branch)]
