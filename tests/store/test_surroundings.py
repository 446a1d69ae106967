"""What surrounds a lake: users and mounts of odd names, lakes left open, states that are gone."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import lakelog
from lakelog import history
from lakelog.disk import FileSystem, disk
from lakelog.errors import SnapshotGone, UnknownRef, UnsupportedStore
from lakelog.history import window as history_window
from lakelog.query.lake_tables import SegmentChoice

MakeLake = Callable[..., lakelog.Lake]


def test_a_lake_that_nobody_closed_frees_its_descriptors(home: Path) -> None:
    """A program that opens lakes and drops them does not run out of descriptors."""

    def use() -> None:
        lake = lakelog.open(str(home / "lake"))
        lake.append({"type": "A"})
        del lake
        gc.collect()

    def held() -> list[str]:
        files = []
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # closed since it was listed
                files.append(os.readlink(f"/proc/self/fd/{fd}"))
        return [name for name in files if name.startswith(str(home))]

    for _ in range(6):
        use()
    assert held() == []
    with lakelog.open(str(home / "lake")) as lake:
        assert lake.count() == 6


def test_a_user_of_any_name_may_tag(home: Path) -> None:
    """A name or message that is no UTF-8 does not stop an operation."""
    code = """import sys, lakelog
with lakelog.open(sys.argv[1]) as lake:
    lake.append({"type": "A"})
    lake.snapshot(sys.argv[2])
    lake.tag("v1", message=sys.argv[2])
    print(ascii(lake.tags()[0].message), ascii(lake.log()[0].move.author))
    lake.branch("b", message=sys.argv[2])
"""
    command = [sys.executable, "-c", code, str(home / "lake"), b"caf\xe9"]
    root = Path(lakelog.__file__).parent.parent
    env = {**os.environb, b"USER": b"Ren\xe9", b"PYTHONPATH": os.fsencode(root)}
    env.pop(b"LAKELOG_AUTHOR", None)
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    assert done.stderr == b""
    assert b"caf" in done.stdout
    assert b"Ren" in done.stdout


def test_the_output_of_a_program_is_its_own(home: Path) -> None:
    """No long statement of the engine adds a bar of its progress to the output of `python -c`."""
    code = """import sys, lakelog
with lakelog.open(sys.argv[1]) as lake:
    lake.append({"type": "A"})
    for asked in (lake.engine(), lake.engine().cursor()):
        print(*asked.execute("SELECT current_setting('enable_progress_bar')").fetchone())
"""
    env = {**os.environ, "PYTHONPATH": str(Path(lakelog.__file__).parent.parent)}
    command = [sys.executable, "-c", code, str(home / "lake")]
    done = subprocess.run(command, env=env, capture_output=True, check=True)
    assert done.stdout.split() == [b"False", b"False"]


@pytest.mark.parametrize("kind", ["virtiofs", "fuse.sshfs", "fuse.rclone"])
def test_a_remote_mount_is_seen_through_a_link(tmp_path: Path, kind: str) -> None:
    """A link to a shared folder is refused like the folder, whatever program serves it."""
    (tmp_path / "re mote").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "re mote")
    point = str(tmp_path / "re mote").replace(" ", "\\040")
    mounts = f"/ / ext4 rw 0 0\nx\udcff {point} {kind} rw 0 0\n".encode("utf-8", "surrogateescape")
    with mock.patch.object(disk, "read", return_value=mounts), pytest.raises(UnsupportedStore):
        FileSystem(str(tmp_path / "link" / "lake")).refuse_remote()


def gone(make_lake: MakeLake) -> tuple[lakelog.Lake, str]:
    """A lake, and the id of a state that left its window."""
    lake = make_lake(gc_grace_hours=0, history_days=0)
    lake.append({"type": "A"})
    old = lake.settle().move
    for _ in range(101):
        lake.append({"type": "B"})
        lake.settle()
    lake.gc()
    lake.store.manifests.forget()
    return lake, f"@{old.number}"


@pytest.mark.parametrize("verb", ["at", "tag", "branch", "rollback"])
def test_a_state_outside_the_window_is_refused_in_words(make_lake: MakeLake, verb: str) -> None:
    """It is no damage: gc has deleted it, as it was told to, and the message says so."""
    lake, old = gone(make_lake)
    calls = {
        "at": lambda: lake.at(old),
        "tag": lambda: lake.tag("v1", old),
        "branch": lambda: lake.branch("b", old),
        "rollback": lambda: lake.rollback(old),
    }
    with pytest.raises(UnknownRef, match="outside the kept history"):
        calls[verb]()


def test_a_state_that_gc_may_delete_any_moment_is_refused(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A condemned state is no target once half the grace is over, though its file is there."""
    lake = make_lake(gc_grace_hours=24, history_days=0)
    lake.branch("dev").close()
    with make_lake(branch="dev") as dev:
        dev.append({"type": "A"})
        old = dev.settle().move.snapshot
    with make_lake(branch="dev") as dev:
        history.delete_branch(lake.store, "dev", dev.settle)
    time.sleep(0.02)  # the clock of files is coarse
    lake.gc()
    assert lake.at(old).count() == 1
    lake.tag("early", old)
    lake.store.refs.forget()
    disk.unlink(lake.store.paths.tag("early"))
    now = disk.now_us() + 13 * 3_600_000_000
    monkeypatch.setattr(history_window, "lake_time", lambda store: now)
    with pytest.raises(UnknownRef, match="outside the kept history"):
        lake.rollback(old)


@pytest.mark.parametrize(
    "read",
    [
        lambda lake: lake.sql("SELECT type FROM events").fetchall(),
        lambda lake: [("A",)] * lake.view("health").num_rows,
    ],
)
def test_a_reader_that_lost_a_race_retries(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch, read: Callable[[lakelog.Lake], Any]
) -> None:
    """A segment collected between two steps of a query costs one more look, not an error."""
    lake.append({"type": "A"})
    lake.settle()
    verify, calls = (
        SegmentChoice.verify,
        [SnapshotGone("gone"), None, SnapshotGone("a"), SnapshotGone("b")],
    )

    def gone_once(self: SegmentChoice, entries: object, **how: bool) -> None:
        if (error := calls.pop(0)) is not None:
            raise error
        verify(self, entries, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(SegmentChoice, "verify", gone_once)
    assert read(lake) == [("A",)]
    lake.append({"type": "A"})
    lake.settle()
    with pytest.raises(SnapshotGone):
        read(lake)
