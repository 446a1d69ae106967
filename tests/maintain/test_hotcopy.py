"""Backup of a lake in use: a state of the branch, incremental, and what repair fetches from."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import lakelog
from lakelog import remotes
from lakelog.cli import cli
from lakelog.disk import disk
from lakelog.errors import AlreadyExists, Damaged
from lakelog.history.thinning import KEEP_MOVES
from lakelog.settings import parse
from lakelog.store import Store
from tests.support import damage, lakes, seam

MakeLake = Callable[..., lakelog.Lake]


def rows(path: object) -> list[tuple[str, int]]:
    """Every event of a lake, by writer and position."""
    with lakelog.open(str(path), create=False) as lake:
        assert lake.verify().problems == ()
        query = "SELECT origin, position FROM events ORDER BY ALL"
        return lake.sql(query).fetchall()


def test_a_second_backup_copies_only_what_is_new(lake: lakelog.Lake, home: Path) -> None:
    """Segments, moves, tags and the live tail are there after each run, and nothing is copied
    twice but WALs."""
    to = home / "copy"
    for name in "ABC":
        lake.append({"type": name, "id": name})
        lake.settle()
    lake.tag("v1")
    lake.append({"type": "tail"})
    first = lake.backup(str(to))
    assert rows(to) == rows(lake.path)
    lake.append({"type": "D"})
    lake.settle()
    second = lake.backup(str(to))
    assert rows(to) == rows(lake.path)
    assert second.files < first.files / 2
    assert lake.backup(str(to)).files <= 1  # the WAL of a living writer
    lake.store.refs.forget()
    with lakelog.open(str(to)) as copy:
        assert copy.at("v1").count() == 3
        assert [e.move.number for e in copy.log()] == [e.move.number for e in lake.log()]


def test_a_backup_follows_compaction_gc_and_branches(make_lake: MakeLake, home: Path) -> None:
    """A copy stays one while its lake is compacted, collected, rolled back and branched."""
    lake, to = make_lake(gc_grace_hours=0, history_days=0), home / "copy"
    for n in range(3):
        for m in range(5):
            lake.append({"type": f"{n}-{m}", "id": f"{n}-{m}"})
            lake.settle()
        lake.tag(f"v{n}")
        lake.compact()
        lake.branch(f"b{n}")
        for _ in range(110 if n == 1 else 0):
            lake.snapshot()
        lake.gc()
        lake.backup(str(to))
        assert rows(to) == rows(lake.path)
    lake.rollback("v0")
    lake.backup(str(to))
    assert rows(to) == rows(lake.path)
    with lakelog.open(str(to)) as copy:
        assert sorted(copy.branches()) == ["b0", "b1", "b2", "main"]


def test_a_backup_concurrent_with_writers_is_one_state(home: Path) -> None:
    """Of each writer the copy holds a beginning: all that was acknowledged before it began."""
    path, to = home / "lake", home / "copy"
    code = """import sys, lakelog
with lakelog.open(sys.argv[1]) as lake:
    for n in range(100_000):
        lake.append({"type": "A", "data": n})
        if n % 20 == 19:
            lake.settle()
"""
    lakes.opened(str(path), rotate_events=50).close()
    root = str(Path(lakelog.__file__).parent.parent)
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=root) for _ in range(2)
    ]
    try:
        with lakelog.open(str(path)) as lake:
            while lake.count() < 50:
                time.sleep(0.05)
            for _ in range(4):
                before = lake.sql("SELECT origin, position FROM events").fetchall()
                lake.backup(str(to))
                found = rows(to)
                assert set(before) <= set(found)
                assert len(set(found)) == len(found)
                for name in {name for name, _ in found}:
                    places = [n for who, n in found if who == name]
                    assert places == list(range(len(places)))
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()


def test_repair_fetches_from_a_backup(lake: lakelog.Lake, home: Path) -> None:
    """What a backup holds, repair brings back."""
    for name in "ABC":
        lake.append({"type": name})
        lake.settle()
    lake.backup(str(home / "copy"))
    lake.close()
    for kind in ("segments", "manifests"):
        for file in Path(lake.path, kind).rglob("*.*"):
            file.write_bytes(b"")
    done = damage.repaired(lake.path, str(home / "copy"))
    assert done.lost == []
    assert len(rows(lake.path)) == 3


def test_backups_that_fail_leave_the_files_of_one(
    lake: lakelog.Lake, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a backup is tried, a full disk does not get fuller by it."""
    copy = home / "copy"
    lake.append({"type": "A"})
    lake.settle()
    lake.append({"type": "B"})

    def full(name: str, real: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if name == "link" and f"{copy}/segments/" in args[-1]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **options)

    left = []
    with monkeypatch.context() as patch:
        seam.install(patch, full)
        for _ in range(3):
            with pytest.raises(OSError, match="No space"):
                lake.backup(copy)
            left.append(len(list(copy.rglob(f"*{disk.TEMPORARY}*"))))
    assert left == [1, 1, 1]  # its WAL
    lake.backup(copy)
    assert rows(copy) == rows(lake.path)


def test_a_backup_goes_nowhere_else(make_lake: MakeLake, home: Path) -> None:
    """A directory with other content, another lake, the lake itself, and a copy that was written
    to are refused before anything is changed."""
    lake, other = make_lake(), make_lake("other")
    lake.append({"type": "A"})
    lake.settle()
    (home / "full").mkdir()
    (home / "full" / "x").write_text("x")
    for to in ("full", "other", "lake", "lake/inside"):
        with pytest.raises(AlreadyExists):
            lake.backup(str(home / to))
    lake.backup(str(home / "copy"))
    with lakelog.open(str(home / "copy")) as copy:
        copy.append({"type": "B"})
        with pytest.raises(AlreadyExists, match="written to"):
            lake.backup(str(home / "copy"))
        assert copy.count() == 2
        copy.settle()
    with pytest.raises(AlreadyExists, match="written to"):
        lake.backup(str(home / "copy"))
    for number in range(2 * KEEP_MOVES):
        lake.snapshot(f"snapshot {number}")
    assert lake.gc().packed > KEEP_MOVES
    with pytest.raises(AlreadyExists, match="written to"):
        lake.backup(str(home / "copy"))
    assert other.count() == 0


def test_a_backup_to_the_lake_by_another_path_is_refused(lake: lakelog.Lake, home: Path) -> None:
    """It would replace the WAL that a writer has open, and lose what that appends."""
    lake.append({"type": "A"})
    (home / "link").symlink_to(lake.path)
    for to in ("link", "link/inside", "link/wal/main"):
        with pytest.raises(AlreadyExists, match="is the lake itself"):
            lake.backup(home / to)
    lake.append({"type": "B"})
    lake.close()
    assert len(rows(lake.path)) == 2


def test_a_later_backup_has_the_settings_of_now(lake: lakelog.Lake, home: Path) -> None:
    """Settings that changed since the first backup are in the next, also if the lake was open."""
    lake.backup(home / "copy")
    Store.load(lake.path).change_settings(parse({"history_days": 90}, lake.store.settings))
    lake.backup(home / "copy")
    assert Store.load(str(home / "copy")).settings.history_days == 90


def test_a_restored_backup_knows_its_remotes(lake: lakelog.Lake, home: Path) -> None:
    """A lake that is replaced by its backup goes on with the remotes of that time."""
    lake.append({"type": "A"})
    for name in ("origin", "other"):
        remotes.add_tested(lake.store, name, str(home / name))
    remotes.push(lake, "origin", branches=["main"])
    remotes.fetch(lake, "origin")
    lake.backup(home / "copy")
    remotes.remove(lake.store, "other")
    lake.backup(home / "copy")
    lake.append({"type": "B"})
    remotes.push(lake, "origin", branches=["main"])
    lake.close()
    shutil.rmtree(lake.path)
    shutil.copytree(home / "copy", lake.path)
    with lakelog.open(lake.path, create=False) as restored:
        assert restored.store.remote_names() == ["origin"]
        assert restored.count() == 1
        remotes.pull(restored, "origin")
        assert restored.count() == 2


@pytest.mark.damaged
def test_a_damaged_object_is_named_and_not_copied(lake: lakelog.Lake, home: Path) -> None:
    """Damage does not spread: the file is named, and all others are copied."""
    for name in "AB":
        lake.append({"type": name})
        lake.settle()
    lake.backup(str(home / "copy"))
    shutil.rmtree(home / "copy")
    file = next(Path(lake.path, "segments").rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(Damaged, match=file.name):
        lake.backup(str(home / "copy"))
    names = {f.name for f in Path(home, "copy", "segments").rglob("*.parquet")}
    assert len(names) == 1
    assert file.name not in names


def test_the_verb_says_what_it_copied(lake: lakelog.Lake, home: Path) -> None:
    """`lakelog backup LAKE TO` works on a lake in use; the second run has next to nothing to do.
    Without LAKE it is that of --lake."""
    lake.append({"type": "A"})
    lake.settle()
    run = CliRunner().invoke(cli, ["backup", lake.path, str(home / "copy"), "--json"])
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["files"] > 3
    run = CliRunner().invoke(cli, ["backup", lake.path, str(home / "copy"), "--json"])
    assert json.loads(run.stdout)["files"] <= 1
    lake.append({"type": "B"})
    run = CliRunner().invoke(cli, ["--lake", lake.path, "backup", str(home / "copy"), "--json"])
    assert run.exit_code == 0, run.output
    assert rows(home / "copy") == rows(lake.path)


def test_concurrent_backups_to_one_copy_wait_for_each_other(lake: lakelog.Lake, home: Path) -> None:
    """The second would take away what the first has staged."""
    for type_ in "ab":
        lake.append({"type": type_})
        lake.settle()
    lake.append({"type": "pending"})
    copy, failed = home / "copy", list[BaseException]()

    def again() -> None:
        try:
            lake.backup(copy)
        except BaseException as error:
            failed.append(error)

    other = threading.Thread(target=again)

    def meanwhile(done: int, _: int) -> None:
        if done == 1:
            other.start()
            other.join(0.3)  # in vain, where it waits

    lake.backup(copy, meanwhile)
    other.join()
    assert not failed
    assert rows(copy) == rows(lake.path)
