"""Removing processed files: only what is backed up, verified, published and left alone."""

from __future__ import annotations

import contextlib
import gzip
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import seam

import lakelog
from lakelog.audit.audit import Audit, audit
from lakelog.backup import delete
from lakelog.backup.copy import fault_of
from lakelog.backup.directory import BackupDirectory, copies_of
from lakelog.backup.scheduler import BackupPlan, BackupScheduler, backup_directories
from lakelog.collect import watch
from lakelog.collect.watch import Watcher
from lakelog.files.scan import FileScan, FileState, Selection
from tests.support.effort import share

LINE = '{"type":"T","subject":"%s"}\n'
TURNS = share(9)


class Place:
    """A directory of logs with a watcher that removes what it processed."""

    def __init__(self, lake: lakelog.Lake, root: Path, **given: Any) -> None:
        self.lake, self.root, self.written = lake, root / "logs", list[str]()
        self.root.mkdir(exist_ok=True)
        self.plan = BackupPlan(str(root / "backups"), remove=True, **{"interval": 0.0, **given})
        self.said: list[str] = []

    def write(self, name: str, count: int = 3, old: bool = True) -> None:
        """Add lines that are like no others; make the file look old."""
        with open(self.root / name, "a") as file:
            for _ in range(count):
                self.written.append(f"e{len(self.written)}")
                file.write(LINE % self.written[-1])
        if old:
            self.age(name)

    def age(self, name: str) -> None:
        """Let a file look as if it was left alone for a minute."""
        when = time.time() - 60
        os.utime(self.root / name, (when, when))

    def round(self, *, ingest: bool = True) -> None:
        """Take in what is new, then back up and remove."""
        if ingest:
            watcher = Watcher(self.lake, [str(self.root)], say=self.said.append)
            watcher.round()
            watcher.close()
        made = BackupScheduler(self.lake, [str(self.root)], self.plan, say=self.said.append)
        made.run(Selection().scan([str(self.root)]))
        made.close()

    def names(self) -> list[str]:
        """The files that are left."""
        return sorted(os.listdir(self.root))

    def stored(self) -> Counter[str]:
        """How often each line is in the lake."""
        query = "SELECT subject FROM events WHERE type = 'T'"
        return Counter(subject for (subject,) in self.lake.sql(query).fetchall())

    def audit(self, *paths: str) -> Audit:
        """Audit with the backups that the lake knows."""
        known = backup_directories(self.lake)
        return audit(
            self.lake.store,
            "main",
            self.lake.engine,
            list(paths),
            backups=lambda name, keys: copies_of(known, name, keys),
        )


@pytest.fixture
def place(lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place whose files need not be waited for."""
    monkeypatch.setattr(watch, "STABLE", -1.0)
    return Place(lake, tmp_path)


def test_rotated_files_go_and_others_stay(place: Place) -> None:
    """What was rotated is removed after its backup; what is written to stays; all lines stay."""
    for name in ("a.log", "a.log.1", "b.log.2026-11-19", "c-20261119.log"):
        place.write(name)
    packed = gzip.compress((LINE % "packed").encode())
    (place.root / "a.log.2.gz").write_bytes(packed)
    place.age("a.log.2.gz")
    place.round()
    assert place.names() == ["a.log"]
    assert place.stored() == Counter([*place.written, "packed"])
    found = backup_directories(place.lake)[0].scan().backups
    assert len(found) == 5
    assert not any(map(fault_of, found))
    told = place.lake.sql("SELECT count(*) FROM events WHERE message LIKE 'removed%'").fetchall()
    assert told == [(4,)]
    place.round()
    assert place.names() == ["a.log"]


def test_a_removed_file_is_audited_by_its_backup(place: Place) -> None:
    """The audit reads the backup: sound while all is there, wrong where a row is not."""
    place.write("a.log.1", 300)
    place.write("a.log")
    place.round()
    assert place.names() == ["a.log"]
    for paths in ((), (str(place.root / "a.log.1"),), (str(place.root),)):
        proof = place.audit(*paths)
        (gone,) = [f for f in proof.files if f.backup]
        assert (gone.source, gone.lines, gone.stored) == (str(place.root / "a.log.1"), 300, 300)
        assert not proof.wrong
        assert not proof.failed
    place.lake.compact()
    assert not place.audit().wrong
    first = f"@{place.lake.log()[-1].move.number}"
    place.lake.rollback(first, cursors=False)
    (gone,) = [f for f in place.audit().wrong if f.backup]
    assert gone.missing == 300


def test_a_damaged_backup_is_no_proof(place: Place) -> None:
    """Only a backup that reads as what was copied stands for its file."""
    place.write("a.log.1", 1000)
    place.round()
    (one,) = backup_directories(place.lake)[0].scan().backups
    data = bytearray(Path(one.path).read_bytes())
    data[len(data) // 2] ^= 1
    Path(one.path).write_bytes(data)
    (file,) = place.audit().files
    assert (file.backup, file.gone) == ("", "no such file now")


def test_the_backup_of_another_file_is_no_proof(place: Place) -> None:
    """Of two files of one name that are gone, each is read from its own backup, or from none."""
    place.write("a.log.1", 5)
    place.round()
    place.write("a.log.1", 7)
    watcher = Watcher(place.lake, [str(place.root)])
    watcher.round()
    watcher.close()
    (place.root / "a.log.1").unlink()
    found = sorted((f.lines, bool(f.backup), bool(f.gone)) for f in place.audit().files)
    assert found == [(5, True, False), (7, False, True)]


@pytest.mark.parametrize("after", [None, 30.0])
def test_quiet_files_go_if_asked(
    lake: lakelog.Lake, tmp_path: Path, after: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file under its first name goes only when asked for, once it was left alone so long."""
    monkeypatch.setattr(watch, "STABLE", -1.0)
    place = Place(lake, tmp_path, remove_after=after)
    place.write("old.log")
    place.write("new.log", old=False)
    place.round()
    assert place.names() == (["new.log", "old.log"] if after is None else ["new.log"])


def test_what_is_not_published_stays(place: Place) -> None:
    """Without rows, with some, or with an unfinished last line a file is backed up and stays."""
    place.write("a.log.1")
    place.round(ingest=False)
    assert place.names() == ["a.log.1"]
    assert "not all of it is published" in place.said[0]
    place.round()
    assert place.names() == []
    (place.root / "b.log.1").write_text(LINE % "x" + "{half")
    place.age("b.log.1")
    place.round()
    assert place.names() == ["b.log.1"]


def test_a_file_that_somebody_has_open_stays(place: Place) -> None:
    """A writer that still has the rotated file open keeps it there; it goes once that closed it."""
    place.write("a.log.1")
    with open(place.root / "a.log.1", "a") as file:
        place.round()
        assert place.names() == ["a.log.1"]
        assert any("open for writing" in text for text in place.said)
        file.write("")
    place.age("a.log.1")
    place.round()
    assert place.names() == []


Change = Callable[[Place], object]
CHANGES: dict[str, Change] = {
    "grown": lambda p: p.write("a.log.1", 1),
    "other bytes, same time": lambda p: (p.root / "a.log.1").write_text(
        "".join(LINE % f"x{n}" for n in range(3))
    ),
    "another file of its name": lambda p: os.replace(p.root / "b", p.root / "a.log.1"),
    "damaged backup": lambda p: os.truncate(
        backup_directories(p.lake)[0].scan().backups[0].path, 7
    ),
    "no backup": lambda p: os.unlink(backup_directories(p.lake)[0].scan().backups[0].path),
    "a link": lambda p: (
        os.rename(p.root / "a.log.1", p.root / "b"),
        os.symlink("b", p.root / "a.log.1"),
    ),
    "rows taken back": lambda p: p.lake.rollback(f"@{p.lake.log()[-1].move.number}"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_is_looked_at_again(place: Place, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """Whatever changes between the backup and the removal, the file stays."""
    place.write("a.log.1")
    (place.root / "b").write_bytes((place.root / "a.log.1").read_bytes())
    before = os.stat(place.root / "a.log.1")
    with monkeypatch.context() as patch:
        patch.setattr(delete, "QUIET", 1e9)
        place.round()
    (seen,) = [s for s in Selection().scan([str(place.root)]).files.values() if s.path[-1] == "1"]
    (one, *_) = [
        b for b in backup_directories(place.lake)[0].scan().backups if b.source == seen.path
    ]
    CHANGES[change](place)
    with contextlib.suppress(OSError):
        os.utime(place.root / "a.log.1", ns=(before.st_atime_ns, before.st_mtime_ns))
    try:
        reason = delete.remove(place.lake.store, "main", seen, one, label=None, stop=lambda: False)
    except OSError as error:
        reason = str(error)
    if change == "another file of its name":  # it holds the very same bytes
        assert reason == ""
    else:
        assert reason
        assert ("since its backup" in reason) == (change == "grown")
        assert "a.log.1" in place.names()


def test_the_name_is_looked_at_last(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is renamed away at the last moment leaves the one that took its name alone."""
    place.write("a.log.1")
    real = delete._digest

    def digest(fd: int, stop: Any) -> str:
        (place.root / "a.log.1").rename(place.root / "a.log.2")
        (place.root / "a.log.1").write_text(LINE % "new")
        return real(fd, stop)

    monkeypatch.setattr(delete, "_digest", digest)
    place.round()
    assert place.names() == ["a.log.1", "a.log.2"]
    assert any("another file has its name" in text for text in place.said)


def test_death_at_every_step(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever the process dies, each line is in the lake once, the file or its backup whole."""
    step, died = 0, True
    while died:
        step += 1
        place.write(f"a.log.{step}")
        watcher = Watcher(place.lake, [str(place.root)])
        watcher.round()
        watcher.close()
        made = BackupScheduler(place.lake, [str(place.root)], place.plan)
        fault = seam.Fault(step, seam.Killed())
        with monkeypatch.context() as patch:
            seam.install(patch, fault)
            with contextlib.suppress(seam.Killed):
                made.run(Selection().scan([str(place.root)]))
            died = bool(fault.fired)
        fault.release()
        made.close()
        found = BackupDirectory(str(tmp_path / "backups")).scan()
        whole = {b.origin for b in found.backups if not fault_of(b)}
        for number in range(1, step + 1):
            path = place.root / f"a.log.{number}"
            assert path.exists() or str(path) in whole
        assert not found.damaged
        assert place.stored() == Counter(place.written)
    place.round()
    assert place.names() == []
    assert not place.audit().wrong
    assert step > 8


@pytest.mark.rounds
def test_kill_9_while_logs_rotate(tmp_path: Path) -> None:
    """A watcher that is killed at random and started again loses, doubles and breaks nothing."""
    logs, chance = tmp_path / "logs", random.Random(4)
    logs.mkdir()
    words = [
        "watch",
        str(logs),
        "--interval",
        "0.1",
        "--backup-dir",
        str(tmp_path / "backups"),
        "--backup-interval",
        "0.1",
        "--backup-zstd",
        "--remove-processed",
        "--remove-after",
        "1s",
        "-q",
    ]
    command = [sys.executable, "-m", "lakelog", "--lake", str(tmp_path / "lake"), *words]
    written = 0
    for turn in range(TURNS):
        with subprocess.Popen(command) as running:
            until = time.monotonic() + 1.5 + chance.random()
            while time.monotonic() < until:
                with open(logs / "a.log", "a") as file:
                    for _ in range(20):
                        file.write(LINE % f"e{written}")
                        written += 1
                if chance.random() < 0.1:
                    os.rename(logs / "a.log", logs / f"a.log.{written}")
                time.sleep(0.02)
            running.send_signal(signal.SIGKILL if turn < TURNS - 1 else signal.SIGTERM)
    time.sleep(2.1)
    assert subprocess.run([*command, "--once"], check=False).returncode == 0
    with lakelog.open(str(tmp_path / "lake"), create=False) as lake:
        place = Place(lake, tmp_path)
        assert place.stored() == Counter(f"e{n}" for n in range(written))
        found = backup_directories(lake)[0].scan()
        assert not any(map(fault_of, found.backups))
        assert not found.undocumented
        proof = place.audit()
        assert not proof.wrong
        assert any(f.backup for f in proof.files)
        assert lake.verify().problems == ()


def test_it_runs_beside_the_watcher(place: Place) -> None:
    """A round started by a scan does not keep the caller, and a second one does not overlap it."""
    place.write("a.log.1")
    made = BackupScheduler(place.lake, [str(place.root)], place.plan)
    watcher = Watcher(place.lake, [str(place.root)], after=made)
    until = time.monotonic() + 240
    while place.names() and time.monotonic() < until:
        watcher.round()
        time.sleep(0.05)
    watcher.close()
    made.close()
    assert place.names() == []
    assert (made.copies, made.removals) == (1, 1)
    assert place.stored() == Counter(place.written)


@pytest.mark.parametrize(
    ("name", "quiet", "after", "finished"),
    [
        ("a.log", 1e6, None, False),
        ("a.log.1", 60, None, True),
        ("a.log.1", 1, None, False),
        ("a.log.gz", 60, None, True),
        ("app-20260101.log", 60, None, True),
        ("app.2026-01-01", 60, None, True),
        ("app-2.log", 60, None, False),
        ("server.8080", 60, None, False),
        ("a.log", 60, 50.0, True),
        ("a.log", 40, 50.0, False),
    ],
)
def test_which_files_are_finished(
    name: str, quiet: float, after: float | None, finished: bool
) -> None:
    """Rotated and packed names count once they are quiet; others for as long as was asked."""
    seen = FileState(f"/x/{name}", 1, 1, 1, 10**18)
    assert delete.is_finished(seen, 1e9 + quiet, after) is finished
    assert FileScan().files == {}
