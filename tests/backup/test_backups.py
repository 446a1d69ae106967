"""Backups of watched files: whole or not there, verified, kept and let go as asked."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import zstandard
from support import seam

import lakelog
from lakelog.backup import copy, scheduler
from lakelog.backup.copy import DOCUMENT, Backup, DamagedBackup, fault_of, restore
from lakelog.backup.directory import BackupDirectory
from lakelog.backup.scheduler import BackupPlan, BackupScheduler, select_expired
from lakelog.disk import disk
from lakelog.errors import AlreadyExists, InvalidSetting
from lakelog.files.scan import Selection

LINE = b'{"type":"T","subject":"%d"}\n'
TEXT = b"".join(LINE % n for n in range(100))


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A directory with one log file."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/app.log").write_bytes(TEXT)
    return tmp_path / "logs"


def plan(logs: Path, **given: Any) -> BackupPlan:
    """A plan that puts backups beside the logs."""
    return BackupPlan(str(logs.parent / "backups"), **given)


def back_up(lake: lakelog.Lake, logs: Path, **given: Any) -> list[str]:
    """Do one round; return what was said."""
    said: list[str] = []
    made = BackupScheduler(lake, [str(logs)], plan(logs, **given), say=said.append)
    made.run(Selection().scan([str(logs)]))
    made.close()
    return said


def there(logs: Path) -> list[Backup]:
    """The backups that were made, each of them sound."""
    found = BackupDirectory(str(logs.parent / "backups")).scan()
    assert not found.damaged
    assert [fault_of(one) for one in found.backups] == [""] * len(found.backups)
    return found.backups


def files_of(logs: Path) -> set[str]:
    """Names of all files in the backups' directory, however deep."""
    return {name for _, _, names in os.walk(logs.parent / "backups") for name in names}


@pytest.mark.parametrize("packed", [False, True])
def test_a_backup_is_the_file_as_it_was(lake: lakelog.Lake, logs: Path, packed: bool) -> None:
    """Bytes, size, time, mode, path and cursor of the file are kept, packed or not."""
    os.chmod(logs / "app.log", 0o640)
    os.utime(logs / "app.log", ns=(10**18, 10**18 + 7))
    lake.ingest(str(logs))
    back_up(lake, logs, is_packed=packed)
    (one,) = there(logs)
    assert b"".join(copy.contents(one.path, one.packed)) == TEXT
    assert (one.size, one.mtime_ns, one.mode, one.covered) == (len(TEXT), 10**18 + 7, 0o640, 2790)
    assert one.origin == str(logs / "app.log")
    assert one.cursor
    assert os.stat(one.path).st_mode & 0o777 == 0o640
    assert os.path.basename(one.path).startswith("app_")
    assert one.path.endswith(".log.zst" if packed else ".log")
    assert (one.stored < one.size) == packed


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("app.log", "app_20010909_014640.log"),
        ("my.service.log.1", "my.service_20010909_014640.log.1"),
        ("app.log.2.gz", "app_20010909_014640.log.2.gz"),
        ("data.jsonl", "data_20010909_014640.jsonl"),
        ("syslog", "syslog_20010909_014640"),
        (".hidden.log", "dot.hidden_20010909_014640.log"),
        ("a.log" + DOCUMENT, "a_20010909_014640.log.backup.json.copy"),
        ("a\nb.log", "a\nb_20010909_014640.log"),
    ],
)
def test_names_carry_the_time(name: str, made: str) -> None:
    """The time in UTC stands before the ending, and no copy is called like a document."""
    assert copy.name_of(name, 1_000_000_000_000_000, 0, False) == made


def test_long_names_are_cut_and_stay_apart() -> None:
    """Names near the limit of a file system give names of copies and documents within it."""
    long = [os.fsdecode(b"\xff" * 250 + b"%d.log" % n) for n in range(2)]
    made = {copy.name_of(name, 10**15, 99, True) + DOCUMENT for name in long}
    assert len(made) == 2
    assert all(len(os.fsencode(name)) <= 255 for name in made)


@pytest.mark.parametrize(
    "name", [b"new\nline.log", b"\xff\xfe.log", b"a..log", b"-rf", b"a b'\".log"]
)
def test_hostile_names(lake: lakelog.Lake, logs: Path, name: bytes) -> None:
    """Files whatever they are called are backed up, found again and restored."""
    path = logs / os.fsdecode(name)
    path.write_bytes(TEXT[:-1])
    back_up(lake, logs)
    (one,) = [b for b in there(logs) if b.origin == str(path)]
    path.unlink()
    assert restore(one) == str(path)
    assert path.read_bytes() == TEXT[:-1]


def test_the_hierarchy_is_that_of_the_sources(lake: lakelog.Lake, logs: Path) -> None:
    """Files of the same name in other directories have their backups apart."""
    for folder in ("web/a", "web/b"):
        (logs / folder).mkdir(parents=True)
        (logs / folder / "x.log").write_bytes(folder.encode())
    back_up(lake, logs)
    found = {os.path.dirname(b.path).split("backups")[1]: b for b in there(logs)}
    assert set(found) == {"", "/web/a", "/web/b"}
    assert next(copy.contents(found["/web/b"].path, False)) == b"web/b"


def test_only_what_changed_is_copied_and_not_too_often(
    lake: lakelog.Lake, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unchanged or renamed file is not copied again, a changed one after the interval."""
    back_up(lake, logs, interval=100)
    back_up(lake, logs, interval=100)
    os.rename(logs / "app.log", logs / "app.log.1")
    back_up(lake, logs, interval=100)
    assert len(there(logs)) == 1
    (logs / "app.log").write_bytes(b"new\n")
    (logs / "other.log").write_bytes(b"other\n")
    back_up(lake, logs, interval=100)
    assert [b.size for b in there(logs)] == [len(TEXT), 6]
    now = disk.now_us()
    monkeypatch.setattr(disk, "now_us", lambda: now + 100_000_000)
    back_up(lake, logs, interval=100)
    assert [b.size for b in there(logs)] == [len(TEXT), 6, 4]


def test_a_clock_that_steps_back(
    lake: lakelog.Lake, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal and earlier times collide with nothing, and the order is that of making."""
    times = itertools.chain([10**15, 10**15, 10**15 - 5_000_000], itertools.repeat(10**15))
    for n in range(5):
        with open(logs / "app.log", "ab") as file:
            file.write(b"line\n")
        at = next(times)
        monkeypatch.setattr(disk, "now_us", lambda at=at: at)
        back_up(lake, logs, interval=0.0)
        assert [b.size for b in there(logs)] == [len(TEXT) + 5 * (i + 1) for i in range(n + 1)]
    assert len(files_of(logs)) == 2 * 5 + 1


def test_backups_below_the_logs_are_not_input(lake: lakelog.Lake, logs: Path) -> None:
    """A directory of backups inside the watched one is seen by no scan, ingest or audit."""
    made = BackupScheduler(lake, [str(logs)], BackupPlan(str(logs / "backups")))
    made.run(Selection().scan([str(logs)]))
    made.close()
    assert list(Selection().scan([str(logs)]).files) == [str(logs / "app.log")]
    assert len(lake.ingest(str(logs)).files) == 1
    with pytest.raises(InvalidSetting, match="must not contain"):
        BackupScheduler(lake, [str(logs)], BackupPlan(str(logs.parent)))


def rewrite(path: Path) -> None:
    """Other bytes in the place of the first, as many."""
    with open(path, "r+b") as file:
        file.write(b"X" * 1000)


def grow(path: Path) -> None:
    """More lines at the end."""
    with open(path, "ab") as file:
        file.write(LINE % 0)


@pytest.mark.parametrize(
    ("change", "kept"),
    [(grow, True), (rewrite, False), (lambda path: os.truncate(path, 10), False)],
)
def test_a_file_that_changes_while_it_is_copied(
    lake: lakelog.Lake,
    logs: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
    kept: bool,
) -> None:
    """Growth leaves a copy of what was there; what is rewritten each time is not kept at all."""
    real = disk.write_pieces

    def write(*args: Any, **rest: Any) -> str:
        made = real(*args, **rest)
        if not isinstance(args[1], tuple):  # else it is a document
            change(logs / "app.log")
            (logs / "app.log").touch()
        return made

    monkeypatch.setattr(disk, "write_pieces", write)
    monkeypatch.setattr(copy, "_TRIES", 1)
    said = back_up(lake, logs)
    assert [b.size for b in there(logs)] == ([len(TEXT)] if kept else [])
    assert any("changed while" in text for text in said) != kept
    assert not any(name.startswith(disk.TEMPORARY) for name in files_of(logs))


def test_what_is_read_back_decides(
    lake: lakelog.Lake, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A medium that does not keep what was written is found out before the copy has a name."""
    real = disk.write_pieces

    def write(*args: Any, **rest: Any) -> str:
        made = real(*args, **rest)
        if not isinstance(args[1], tuple):  # else it is a document
            with open(made, "r+b") as file:
                file.write(b"\0")
        return made

    monkeypatch.setattr(disk, "write_pieces", write)
    assert "not what was written" in back_up(lake, logs)[0]
    assert there(logs) == []


@pytest.mark.parametrize("packed", [False, True])
def test_death_at_every_step(
    make_lake: Callable[..., lakelog.Lake],
    logs: Path,
    monkeypatch: pytest.MonkeyPatch,
    packed: bool,
) -> None:
    """Whenever the process dies, what has a name is whole, and the next round has all it needs."""
    steps, died = 0, True
    lake = make_lake()
    while died:
        steps += 1
        grow(logs / "app.log")
        made = BackupScheduler(
            lake, [str(logs)], plan(logs, interval=0.0, keep=2, is_packed=packed)
        )
        fault = seam.Fault(steps, seam.Killed())
        with monkeypatch.context() as patch:
            seam.install(patch, fault)
            try:
                made.run(Selection().scan([str(logs)]))
                died = bool(fault.fired)
            except seam.Killed:
                pass
            fault.release()
        made.close()
        for one in there(logs):
            assert one.size % len(LINE % 0) in (len(TEXT) % len(LINE % 0), 0) or one.size
        for name in files_of(logs):
            if not name.startswith(".") and not name.endswith(DOCUMENT):
                (path,) = (logs.parent / "backups").rglob(name)
                data = path.read_bytes()
                assert (zstandard.decompress(data) if packed else data).startswith(TEXT)
        back_up(lake, logs, interval=0.0, keep=2, is_packed=packed)
        assert there(logs)[-1].size == os.path.getsize(logs / "app.log")
        assert len(there(logs)) <= 2
        assert BackupDirectory(str(logs.parent / "backups")).scan().undocumented == []
        assert not any(name.startswith(disk.TEMPORARY) for name in files_of(logs))
    assert steps > 10


class Full:
    """A hook: from the `at`-th change that needs room on, there is none."""

    NEEDS: ClassVar = {"write_all", "create", "link", "make_dir", "sync_file", "sync_dir"}

    def __init__(self, at: int) -> None:
        self.left, self.fired = at, False

    def __call__(self, name: str, real: seam.Hook, *args: Any, **kwargs: Any) -> Any:
        """Fail, or do what was asked."""
        self.left -= name in self.NEEDS
        if name in self.NEEDS and self.left <= 0:
            self.fired = True
            error = OSError(errno.ENOSPC, "no space left on device")
            seam.tear(name, args, error)
            raise error
        return real(*args, **kwargs)


@pytest.mark.damaged  # an append that found no room leaves a torn frame
def test_a_full_disk_at_every_step(
    make_lake: Callable[..., lakelog.Lake], logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said once, stored as an event, nothing half-made or lost, and over once there is room."""
    lake = make_lake()
    lake.append({"type": "FIRST"})
    for step in itertools.count(1):
        grow(logs / "app.log")
        said: list[str] = []
        made = BackupScheduler(lake, [str(logs)], plan(logs, interval=0.0), say=said.append)
        before = len(there(logs)) if step > 1 else 0
        fault = Full(step)
        for _ in range(2):
            with monkeypatch.context() as patch:
                seam.install(patch, fault)
                made.run(Selection().scan([str(logs)]))
        if not fault.fired:
            break
        if step > 2:  # the mark is there
            assert len(there(logs)) in (before, before + 1)
        made.run(Selection().scan([str(logs)]))
        made.close()
        assert there(logs)[-1].size == os.path.getsize(logs / "app.log")
        assert BackupDirectory(str(logs.parent / "backups")).scan().undocumented == []
        assert sum("is full" in text for text in said) <= 1, said
        assert not any(name.startswith(disk.TEMPORARY) for name in files_of(logs))
    assert step > 8
    made.close()


def test_a_full_disk_is_an_event(
    lake: lakelog.Lake, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed is in the lake with the directory, once, and the recovery is said."""
    said: list[str] = []
    made = BackupScheduler(lake, [str(logs)], plan(logs), say=said.append)

    def full(*_: Any, **__: Any) -> str:
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "write_pieces", full)
        for _ in range(3):
            made.run(Selection().scan([str(logs)]))
    made.run(Selection().scan([str(logs)]))
    made.close()
    query = "SELECT subject, level FROM events WHERE type = 'lakelog.backup'"
    assert lake.sql(query).fetchall() == [(str(logs.parent / "backups"), "ERROR")]
    assert len(said) == 2
    assert "is full" in said[0]
    assert "again" in said[1]
    assert len(there(logs)) == 1


def test_one_file_that_fails_does_not_keep_the_others(
    lake: lakelog.Lake, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is too large for the disk's limit is named, and the others are backed up."""
    (logs / "zero.log").write_bytes(b"0\n")
    real = disk.write_all

    def write(fd: int, data: bytes) -> None:
        if data.startswith(TEXT[:50]):
            raise OSError(errno.EFBIG, "file too large")
        real(fd, data)

    monkeypatch.setattr(disk, "write_all", write)
    assert "app.log: not backed up: file too large" in back_up(lake, logs)[0]
    assert [os.path.basename(b.source) for b in there(logs)] == ["zero.log"]


def test_two_managers_take_turns(lake: lakelog.Lake, logs: Path) -> None:
    """While one writes, the other leaves the directory alone; then it finds nothing to do."""
    shelf = BackupDirectory(str(logs.parent / "backups"))
    with shelf.claim() as alone:
        assert alone
        assert back_up(lake, logs) == []
        assert there(logs) == []
    back_up(lake, logs)
    back_up(lake, logs)
    assert len(there(logs)) == 1


def test_what_others_left_there_stays(lake: lakelog.Lake, logs: Path) -> None:
    """Files without a document, of an older system say, are never touched; damaged ones named."""
    folder = logs.parent / "backups"
    folder.mkdir()
    (folder / "app_20200101_000000.log").write_bytes(b"old\n")
    (folder / f"x.log{DOCUMENT}").write_bytes(b"{}")
    back_up(lake, logs, keep=1, age_us=0)
    found = BackupDirectory(str(folder)).scan()
    assert found.undocumented == [str(folder / "app_20200101_000000.log")]
    assert list(found.damaged) == [str(folder / "x.log")]
    assert len(found.backups) == 1


def fake(number: int, made: int, name: str = "a") -> Backup:
    """A backup of no file."""
    raw = name.encode().hex()
    return Backup(f"{name}{number}", number, made, name, raw, "", 1, 1, False, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("keep", "age", "present", "gone"),
    [
        (None, None, "ab", []),
        (2, None, "ab", [1, 2]),
        (1, None, "ab", [1, 2, 3]),
        (0, None, "ab", [1, 2, 3]),
        (None, 50, "ab", [1, 2]),
        (None, 5, "ab", [1, 2, 3]),
        (None, 5, "b", [1, 2, 3, 4]),
        (None, 5, "", [1, 2, 3, 4, 5]),
        (3, 85, "ab", [1]),
    ],
)
def test_retention(keep: int | None, age: int | None, present: str, gone: list[int]) -> None:
    """The newest so many of a file stay, and the last one of a file that is there always."""
    made = [fake(1, 10), fake(2, 40), fake(3, 60), fake(4, 70), fake(5, 80, "b")]
    left = select_expired(made, keep=keep, age_us=age, now_us=100, present=set(present))
    assert [b.number for b in left] == gone


def test_retention_goes_by_the_order_of_making() -> None:
    """A clock that stepped back does not make the newest backup the oldest."""
    made = [fake(1, 90), fake(2, 10)]
    left = select_expired(made, keep=1, age_us=None, now_us=100, present={"a"})
    assert [b.number for b in left] == [1]


def test_a_restore_is_atomic(lake: lakelog.Lake, logs: Path) -> None:
    """It keeps time and mode, overwrites only by force, and takes no damaged backup."""
    os.chmod(logs / "app.log", 0o604)
    os.utime(logs / "app.log", ns=(10**18, 10**18))
    back_up(lake, logs, is_packed=True)
    (one,) = there(logs)
    (logs / "app.log").write_bytes(b"now\n")
    with pytest.raises(AlreadyExists, match="--force"):
        restore(one)
    assert (logs / "app.log").read_bytes() == b"now\n"
    restore(one, force=True)
    status = os.stat(logs / "app.log")
    assert (logs / "app.log").read_bytes() == TEXT
    assert (status.st_mtime_ns, status.st_mode & 0o777) == (10**18, 0o604)
    assert restore(one, f"{logs}/new/") == f"{logs}/new/app.log"
    (logs / "dir/app.log").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        restore(one, f"{logs}/dir", force=True)
    data = bytearray(Path(one.path).read_bytes())
    data[len(data) // 2] ^= 1
    Path(one.path).write_bytes(data)
    (logs / "app.log").unlink()
    with pytest.raises(DamagedBackup):
        restore(one)
    assert not (logs / "app.log").exists()
    assert not [name for name in os.listdir(logs) if name.startswith(".")]


def test_the_lake_knows_where_backups_are(lake: lakelog.Lake, logs: Path) -> None:
    """Directories are remembered, the last one first, as long as they are there."""
    back_up(lake, logs)
    other = BackupScheduler(lake, [str(logs)], BackupPlan(str(logs.parent / os.fsdecode(b"\xff"))))
    other.run(Selection().scan([str(logs)]))
    other.close()
    assert [s.root for s in scheduler.backup_directories(lake)] == [
        str(logs.parent / os.fsdecode(b"\xff")),
        str(logs.parent / "backups"),
    ]
    os.rename(logs.parent / "backups", logs.parent / "away")
    assert len(scheduler.backup_directories(lake)) == 1


def test_others_on_one_directory_keep_theirs(lake: lakelog.Lake, logs: Path) -> None:
    """Retention takes backups of watched files only, not those of another manager's."""
    back_up(lake, logs)
    other = logs.parent / "more"
    other.mkdir()
    for n in range(3):
        (other / "x.log").write_bytes(b"x" * (n + 1))
        made = BackupScheduler(lake, [str(other)], plan(logs, interval=0.0, keep=1, age_us=0))
        made.run(Selection().scan([str(other)]))
        made.close()
    assert [b.size for b in there(logs)] == [len(TEXT), 3]


def test_idle_rounds_do_nothing(
    lake: lakelog.Lake, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While no file changes the directory of backups is not looked through."""
    monkeypatch.setattr(scheduler, "CHECK", 0.0)
    looks: list[int] = []
    real = BackupDirectory.scan

    def look(shelf: BackupDirectory) -> Any:
        looks.append(1)
        return real(shelf)

    monkeypatch.setattr(BackupDirectory, "scan", look)
    made = BackupScheduler(lake, [str(logs)], plan(logs, remove=True))

    def see(times: int) -> int:
        looks.clear()
        for _ in range(times):
            made(Selection().scan([str(logs)]))
            if made._running is not None:
                made._running.result()
        return len(looks)

    assert see(1) > 0
    assert see(5) == 0
    grow(logs / "app.log")
    assert see(5) == 0  # the interval is not over
    (logs / "new.log").write_bytes(TEXT)
    assert see(1) > 0
    made.close()
    assert len(there(logs)) == 2


def test_an_unforeseen_failure_is_said(
    lake: lakelog.Lake, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a fault of our own ends the backups in silence."""
    monkeypatch.setattr(scheduler, "select_expired", lambda *_, **__: 1 / 0)
    assert "ZeroDivisionError" in back_up(lake, logs)[0]


def test_rotation_between_the_scan_and_the_copy(lake: lakelog.Lake, logs: Path) -> None:
    """What a name means when it is opened is copied; a file that went is not complained of."""
    (logs / "b.log").write_bytes(b"b\n")
    said: list[str] = []
    made = BackupScheduler(lake, [str(logs)], plan(logs), say=said.append)
    found = Selection().scan([str(logs)])
    (logs / "app.log").rename(logs / "app.log.1")
    (logs / "app.log").write_bytes(b"new\n")
    (logs / "b.log").unlink()
    made.run(found)
    made.run(Selection().scan([str(logs)]))
    made.close()
    assert said == []
    kept = {os.path.basename(b.source): b.size for b in there(logs)}
    assert kept == {"app.log": 4, "app.log.1": len(TEXT)}


def test_a_link_is_followed_and_kept(lake: lakelog.Lake, logs: Path) -> None:
    """The copy holds what the link names; restored by force, a file takes the link's place."""
    outside = logs.parent / "outside.log"
    outside.write_bytes(b"outside\n")
    (logs / "app.log").unlink()
    (logs / "app.log").symlink_to(outside)
    (logs / "loop.log").symlink_to("loop.log")
    back_up(lake, logs)
    (one,) = there(logs)
    assert one.size == 8
    with pytest.raises(AlreadyExists):
        restore(one)
    outside.write_bytes(b"changed\n")
    restore(one, force=True)
    assert outside.read_bytes() == b"changed\n"
    assert (logs / "app.log").read_bytes() == b"outside\n"
    assert not (logs / "app.log").is_symlink()
