"""Watching: whatever becomes of the files, every line is an event once.

A scenario is a list of steps on one directory. It is played with a watcher that lives on, with
one that dies before each step and is started anew, and with one that is down during each step.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

import lakelog
from lakelog.collect import loop, watch
from lakelog.collect.watch import Watcher
from lakelog.ingest.audit.audit import audit


class Place:
    """A directory of log files, and every line that was ever written to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.written: list[str] = []
        root.mkdir()

    def write(self, name: str, count: int = 3, mode: str = "ab", end: str = "\n") -> None:
        """Write lines that are like no others; the last one ends with `end`."""
        with open(self.root / name, mode) as file:
            for n in range(count):
                self.written.append(f"e{len(self.written)}")
                file.write(b'{"type":"T","subject":"%s"}' % self.written[-1].encode())
                file.write(b"\n" if n < count - 1 else end.encode())

    def end(self, name: str, data: bytes) -> None:
        """End a line."""
        with open(self.root / name, "ab") as file:
            file.write(data)

    def banner(self, name: str, mode: str = "ab") -> None:
        """Write a long beginning that many files share."""
        with open(self.root / name, mode) as file:
            file.write(b'{"type":"BANNER","data":"%s"}\n' % (b"x" * 5000))

    def move(self, old: str, new: str) -> None:
        """Rename a file."""
        os.rename(self.root / old, self.root / new)

    def pack(self, name: str, how: str = "gz") -> None:
        """Put a packed file in the place of a plain one, as logrotate does."""
        path = self.root / name
        data = path.read_bytes()
        packed = gzip.compress(data) if how == "gz" else zstandard.compress(data)
        hidden = self.root / f".{name}"
        hidden.write_bytes(packed)
        os.rename(hidden, self.root / f"{name}.{how}")
        path.unlink()

    def copy_truncate(self, name: str, copy: str) -> None:
        """Copy a file and cut the original to nothing."""
        shutil.copy(self.root / name, self.root / copy)
        os.truncate(self.root / name, 0)

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.root / name).unlink()

    def point(self, name: str, target: str) -> None:
        """Let a link name another file, in one step."""
        made = self.root / ".link"
        made.symlink_to(target)
        os.rename(made, self.root / name)


Step = Callable[[Place], None]
SCENARIOS: dict[str, list[Step]] = {
    "growth": [lambda p: p.write("a.log")] * 6,
    "rename": [
        lambda p: p.write("a.log"),
        lambda p: p.write("a.log"),
        lambda p: p.move("a.log", "a.log.1"),
        lambda p: p.write("a.log"),
        lambda p: p.move("a.log.1", "a.log.2"),
        lambda p: p.move("a.log", "a.log.1"),
        lambda p: p.write("a.log"),
    ],
    "written after rename": [
        lambda p: p.write("a.log"),
        lambda p: p.move("a.log", "a.log.1"),
        lambda p: p.write("a.log.1"),
        lambda p: p.write("a.log"),
        lambda p: p.write("a.log.1"),
    ],
    "copytruncate": [
        lambda p: p.write("a.log", 5),
        lambda p: p.copy_truncate("a.log", "a.log.1"),
        lambda p: p.write("a.log", 2),
        lambda p: p.write("a.log", 9),
        lambda p: p.copy_truncate("a.log", "a.log.2"),
        lambda p: p.write("a.log", 30),
    ],
    "gzip after rename": [
        lambda p: p.write("a.log"),
        lambda p: p.move("a.log", "a.log.1"),
        lambda p: p.write("a.log"),
        lambda p: p.pack("a.log.1"),
        lambda p: p.write("a.log"),
        lambda p: p.move("a.log.1.gz", "a.log.2.gz"),
        lambda p: p.write("a.log"),
    ],
    "zstd after rename": [
        lambda p: p.write("a.log"),
        lambda p: p.move("a.log", "a.log.1"),
        lambda p: p.pack("a.log.1", "zst"),
        lambda p: p.write("a.log"),
        lambda p: p.move("a.log", "a.log.1"),
        lambda p: p.pack("a.log.1", "zst"),
    ],
    "truncate and rewrite": [
        lambda p: p.write("a.log"),
        lambda p: p.write("a.log"),
        lambda p: p.copy_truncate("a.log", "k"),
        lambda p: p.write("a.log", 8),
        lambda p: p.copy_truncate("a.log", "l"),
        lambda p: p.write("a.log", 1),
    ],
    "moved away and written anew": [
        lambda p: p.write("a.log"),
        lambda p: p.move("a.log", "old"),
        lambda p: p.write("a.log", mode="wb"),
        lambda p: p.write("b.log"),
        lambda p: p.move("b.log", "a.log.1"),
        lambda p: p.write("a.log"),
    ],
    "equal headers": [
        lambda p: p.banner("a.log"),
        lambda p: p.write("a.log"),
        lambda p: p.banner("b.log"),
        lambda p: p.write("b.log"),
        lambda p: p.move("a.log", "a.log.1"),
        lambda p: p.banner("a.log"),
        lambda p: p.write("a.log"),
        lambda p: p.write("b.log"),
    ],
    "empty files": [
        lambda p: (p.root / "a.log").touch(),
        lambda p: (p.root / "b.log").touch(),
        lambda p: p.write("b.log"),
        lambda p: p.write("a.log"),
        lambda p: p.move("a.log", "c.log"),
        lambda p: (p.root / "a.log").touch(),
    ],
    "partial last line": [
        lambda p: p.write("a.log", 2, end=""),
        lambda p: p.end("a.log", b"\n"),
        lambda p: p.write("a.log", 1, end=""),
        lambda p: p.end("a.log", b"\r\n"),
        lambda p: p.write("a.log", 2),
        lambda p: p.move("a.log", "a.log.1"),
    ],
    "symlink switch": [
        lambda p: p.write("x1"),
        lambda p: p.point("current", "x1"),
        lambda p: p.write("x1"),
        lambda p: p.write("x2"),
        lambda p: p.point("current", "x2"),
        lambda p: p.write("x2"),
        lambda p: p.remove("current"),
    ],
    "growing past its fingerprint": [lambda p: p.write("a.log", 40)] * 6,
    "inode reuse": [
        lambda p: p.write("a.log"),
        lambda p: p.pack("a.log"),
        lambda p: p.write("b.log"),
        lambda p: p.pack("b.log"),
        lambda p: p.write("a.log"),
        lambda p: p.write("a.log"),
    ],
    "directories": [
        lambda p: (p.root / "d").mkdir(),
        lambda p: p.write("d/a.log"),
        lambda p: p.write("d/a.log"),
        lambda p: p.move("d", "e"),
        lambda p: p.write("e/a.log"),
        lambda p: (p.root / "d").mkdir(),
        lambda p: p.write("d/a.log"),
    ],
}
PLAYS = [
    (name, way, at)
    for name, steps in SCENARIOS.items()
    for way in ("restart", "down", "kill")
    for at in range(len(steps))
] + [(name, "alive", 0) for name in SCENARIOS]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies in these plays are made in one step: none need be waited for."""
    monkeypatch.setattr(watch, "STABLE", -1.0)


def stored(lake: lakelog.Lake) -> Counter[str]:
    """How often each line is there."""
    query = "SELECT subject FROM events WHERE type = 'T'"
    return Counter(subject for (subject,) in lake.sql(query).fetchall())


def die_at(place: int) -> Callable[..., None]:
    """A publish that never comes back, the `place`-th time."""
    calls = [0]

    def tell(*_: object, **__: object) -> None:
        calls[0] += 1
        if calls[0] > place:
            raise KeyboardInterrupt

    return tell


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
    monkeypatch.setattr(watch, "STABLE", 0.3)
    place = Place(tmp_path / "logs")
    place.banner("a.log")
    place.write("a.log", 200)
    with Watched(lake, place) as watcher:
        time.sleep(0.4)
        watcher.round()
        data = (place.root / "a.log").read_bytes()
        packed = gzip.compress(data)
        for part in (0.3, 0.7, 1.0):
            (place.root / "a.log.2").write_bytes(data[: int(len(data) * part)])
            (place.root / "a.log.1.gz").write_bytes(packed[: int(len(packed) * part)])
            assert watcher.round() == 0
        time.sleep(0.4)
        assert watcher.round() == 0
        assert not watcher.waiting
    assert stored(lake) == Counter(place.written)


class Watched(Watcher):
    """A watcher of one place that lets go of its files at the end."""

    def __init__(self, lake: lakelog.Lake, place: Place) -> None:
        super().__init__(lake, [str(place.root)])

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
            until = time.monotonic() + 20
            while stored(lake) != Counter(place.written) and time.monotonic() < until:
                time.sleep(0.02)
            assert stored(lake) == Counter(place.written)
    finally:
        stop.set()
        thread.join()
    assert watcher.totals.events == len(place.written)
