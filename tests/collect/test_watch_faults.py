"""Watching when things go wrong: odd files, a full disk, clocks that jump, others at the files."""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.audit.audit import audit
from lakelog.collect import watch
from lakelog.ingest import group
from lakelog.lines import source
from tests.support import seam
from tests.support.watched_records import proven
from tests.support.watching import Place, Watched, stored


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No copy need be waited for."""
    monkeypatch.setattr(watch, "STABLE", -1.0)


def faults(lake: lakelog.Lake) -> dict[str, str]:
    """What the watcher stored about files it could not read, by their names."""
    query = "SELECT subject, message FROM events WHERE type = 'lakelog.watch'"
    return {Path(subject).name: message for subject, message in lake.sql(query).fetchall()}


@pytest.mark.thorough
def test_many_files_share_one_move(lake: lakelog.Lake, tmp_path: Path) -> None:
    """What 240 files of three formats brought is one move; the next lines of all another."""
    place = Place(tmp_path / "logs")
    for n in range(80):
        place.write(f"{n}.log", 2)
        (place.root / f"{n}.txt").write_text(f"2024-01-02 03:04:05 INFO a.b: text {n}\n  and on\n")
        (place.root / f"{n}.oos").write_text(
            f"2026-05-01T12:00:00|A|b|c|s{n}|{{}}\n2026-05-01T|{n}\n"
        )
    with Watched(lake, place) as watcher:
        before = len(list(lake.log()))
        assert watcher.round(final=True) == 320
        assert len(list(lake.log())) == before + 1
        for n in range(0, 80, 3):
            place.write(f"{n}.log", 1)
        watcher.round(final=True)
        assert len(list(lake.log())) == before + 2
    query = "SELECT count(DISTINCT origin), count(*) FROM events WHERE message LIKE '%and on'"
    assert lake.sql(query).fetchall() == [(80, 80)]
    query = "SELECT count(DISTINCT origin), min(position), max(position) FROM quarantine"
    assert lake.sql(query).fetchall() == [(80, 32, 33)]
    assert watcher.totals.quarantined == 80
    proven(lake, place)


def test_files_that_begin_alike_stay_apart(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Files with the same long beginning, taken in together, keep their own lines; equal files
    are files of their own, but for one with the name of a rotation of another."""
    place = Place(tmp_path / "logs")
    for n in range(4):
        place.banner(f"{n}.log")
    with Watched(lake, place) as watcher:
        assert watcher.round() == 4
        for n in range(4):
            place.write(f"{n}.log", 3)
        watcher.round()
        (place.root / "2.log.1").write_bytes((place.root / "2.log").read_bytes())
        watcher.round()
    proven(lake, place)


def test_a_cursor_that_moved_meanwhile(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another process was faster with one of many files, nothing is taken twice."""
    place = Place(tmp_path / "logs")
    for n in range(6):
        place.write(f"{n}.log", 3)
    real = group.commit

    def slow(*args: Any) -> None:
        monkeypatch.setattr(group, "commit", real)
        lake.ingest(str(place.root / "3.log"))
        real(*args)

    monkeypatch.setattr(group, "commit", slow)
    with Watched(lake, place) as watcher:
        for _ in range(3):  # where the machine stands still, a round ends before it took all
            watcher.round()
    proven(lake, place)


def test_two_watchers_of_one_directory(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Watchers in two threads that do not know of each other take each line once."""
    place = Place(tmp_path / "logs")
    stop = threading.Event()

    def follow() -> None:
        with Watched(lake, place) as watcher:
            while not stop.is_set():
                watcher.round()
            watcher.round()

    threads = [threading.Thread(target=follow) for _ in range(2)]
    for thread in threads:
        thread.start()
    for n in range(60):
        place.write(f"{n % 7}.log", 5)
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    proven(lake, place)


@pytest.mark.parametrize("at", [1, 2, 3, 5, 8, 12])
def test_a_full_disk_is_waited_out(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """While the lake's disk is full nothing is lost; what waited comes in once there is room."""
    place = Place(tmp_path / "logs")
    place.write("a.log")
    with Watched(lake, place) as watcher:
        watcher.round()
        place.write("a.log")
        place.write("new.log")
        full = seam.Fault(at, OSError(errno.ENOSPC, "No space left on device"), sticky=True)
        with monkeypatch.context() as patch:
            seam.install(patch, full)
            with pytest.raises((OSError, lakelog.LakelogError)):
                watcher.round()
        assert full.fired
        watcher.round()
        watcher.round()
    proven(lake, place)


def test_clocks_that_jump(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that jumps a year either way, and times of files with it, loses nothing."""
    place, real = Place(tmp_path / "logs"), time.time
    with Watched(lake, place) as watcher:
        for shift in (0, -31_536_000, 31_536_000, -5, 0):
            monkeypatch.setattr(time, "time", lambda shift=shift: real() + shift)
            place.write("a.log")
            os.utime(place.root / "a.log", (real() + shift, real() + shift))
            watcher.round()
            assert stored(lake) == Counter(place.written)
    proven(lake, place)


def test_files_no_one_can_read(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pipes, devices, sockets and links that lead nowhere are said, and so is a file that
    goes before it is opened; that is no fault of the others."""
    place = Place(tmp_path / "logs")
    place.write("a.log")
    os.mkfifo(place.root / "pipe.log")
    (place.root / "null.log").symlink_to("/dev/null")
    (place.root / "loop.log").symlink_to("loop.log")
    (place.root / "gone.log").write_text('{"type":"no"}\n')
    real = source.Source.__init__

    def vanishing(self: source.Source, path: str, name: str = "", **options: Any) -> None:
        if "gone" in path:
            Path(path).unlink(missing_ok=True)
        real(self, path, name, **options)

    monkeypatch.setattr(source.Source, "__init__", vanishing)
    with Watched(lake, place) as watcher:
        for _ in range(3):
            watcher.round()
    assert set(faults(lake)) == {"loop.log", "pipe.log", "null.log", "gone.log"}
    assert faults(lake)["null.log"] == "left out: it is a device"
    assert stored(lake) == Counter(place.written)


def test_a_bomb_and_an_endless_line(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that inflates without end is said and left; what there is of an endless line is
    quarantined as it comes, and the lines behind it are read."""
    monkeypatch.setattr(source, "RATIO_MAX", 50)
    monkeypatch.setattr(source, "_RATIO_FROM", 1 << 20)
    monkeypatch.setattr(source.Source, "LINE_MAX", 1 << 20)
    monkeypatch.setattr(source.Source, "CHUNK", 1 << 18)
    monkeypatch.setattr(group, "PIECE_MAX", 1 << 18)
    place = Place(tmp_path / "logs")
    (place.root / "bomb.gz").write_bytes(gzip.compress(b'{"a":"' + b"0" * (32 << 20)))
    place.write("a.log")
    with Watched(lake, place) as watcher:
        for _ in range(4):
            place.end("a.log", b"x" * (1 << 19))
            watcher.round()
        place.end("a.log", b"\n")
        place.write("a.log", 2)
        watcher.round()
    assert "inflates over" in faults(lake)["bomb.gz"]
    reasons = lake.sql("SELECT DISTINCT reason FROM quarantine WHERE line LIKE 'xxx%'").fetchall()
    assert any("bytes is too long" in reason for (reason,) in reasons)
    assert stored(lake) == Counter(place.written)
    (proof,) = audit(lake.store, lake.branch_name, lake.engine, [str(place.root / "a.log")]).files
    assert not proof.wrong


def test_a_watched_lake_is_a_fault(lake: lakelog.Lake) -> None:
    """Of a lake nothing is ingested, its own least of all, and that is told once."""
    with contextlib.closing(watch.Watcher(lake, [lake.path])) as watcher:
        assert [watcher.round(final=True) for _ in range(3)] == [0, 0, 0]
    assert faults(lake) == {Path(lake.path).name: "it is a lake, whose files are no input"}


def test_a_file_taken_in_before_gives_nothing_new(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Ingest a file, then watch it, pack a copy of it, rotate it, pack that: nothing is new."""
    place = Place(tmp_path / "logs")
    place.write("a.log", 500)
    assert lake.ingest(str(place.root / "a.log")).events == 500
    with Watched(lake, place) as watcher:
        assert watcher.round() == 0
        (place.root / "a.log.2.gz").write_bytes(gzip.compress((place.root / "a.log").read_bytes()))
        assert watcher.round() == 0
        place.move("a.log", "a.log.1")
        assert watcher.round() == 0
        place.pack("a.log.1")
        assert watcher.round() == 0
    assert lake.ingest(str(place.root)).events == 0
    proven(lake, place)


def test_a_linked_file_that_is_rotated_where_it_is(lake: lakelog.Lake, tmp_path: Path) -> None:
    """As in Kubernetes, whose links name the current files: what is rotated is read to its end, by
    the same watcher and by a later one, also once the link is gone."""
    pod, links = Place(tmp_path / "pods-of-a-node"), tmp_path / "logs" / "containers"
    links.mkdir(parents=True)
    (links / "a.log").symlink_to(pod.root / "0.log")
    pod.write("0.log")
    for number in range(5):
        watcher = watch.Watcher(lake, [str(links)])
        watcher.round()
        assert watcher.has_links
        if number % 2:
            watcher.close()
        pod.write("0.log")
        pod.move("0.log", f"0.log.20261129-17000{number}")
        if number < 4:
            pod.write("0.log")
        else:
            (links / "a.log").unlink()
        watcher = watch.Watcher(lake, [str(links)]) if number % 2 else watcher
        watcher.round()
        watcher.close()
    assert stored(lake) == Counter(pod.written)


def test_a_directory_that_a_link_leads_to(lake: lakelog.Lake, tmp_path: Path) -> None:
    """As where each release of a program has its own logs: the link leads to another, to which no
    notification belongs, and what the old one still writes is read."""
    old, new = Place(tmp_path / "release-1"), Place(tmp_path / "release-2")
    current = tmp_path / "current"
    current.symlink_to(old.root)
    watcher = watch.Watcher(lake, [str(current)])
    old.write("a.log")
    watcher.round()
    assert watcher.has_links
    current.unlink()
    current.symlink_to(new.root)
    old.write("a.log")
    new.written = [*old.written]
    new.write("a.log")
    watcher.round()
    watcher.close()
    assert stored(lake) == Counter(new.written)
