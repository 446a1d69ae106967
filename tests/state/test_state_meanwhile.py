"""A program that writes into a directory between the look at it and the exchange loses nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import lakelog
from lakelog.rollback import rollback as rolling_back
from lakelog.state import exchange, restore
from lakelog.state.restore_plan import RestorePlan
from lakelog.state.state import save_state
from tests.support.deaths import dies
from tests.support.state_lakes import lake, make

__all__ = ["lake"]
FILES = {"conf/a": b"1", "conf/b": b"2", "data/c": b"3", "d": b"4"}
STEP = int(os.environ.get("LAKELOG_STATE_STEP", "9"))
Write = Callable[[Path], None]


def _append(home: Path) -> None:
    with open(home / "d", "ab") as file:
        file.write(b" meanwhile")


def _create(home: Path) -> None:
    (home / "conf/new").write_bytes(b"meanwhile")


def _replace(home: Path) -> None:
    (home / "other").write_bytes(b"9")
    os.utime(home / "other", ns=(0, os.stat(home / "conf/a").st_mtime_ns))
    os.replace(home / "other", home / "conf/a")


def _link(home: Path) -> None:
    (home / "conf/link").unlink()
    (home / "conf/link").symlink_to("other")


def meanwhile(monkeypatch: pytest.MonkeyPatch, write: Callable[[], None]) -> None:
    """Write after the directories were read, before anything is exchanged."""
    original = RestorePlan.extract

    def extract(*arguments: object) -> object:
        write()
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(RestorePlan, "extract", extract)


def changed(tmp_path: Path) -> Path:
    """A directory of which everything differs from what was saved."""
    home = tmp_path / "app"
    for name in FILES:
        (home / name).write_bytes(b"new " + FILES[name])
    return home


def kept(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if ".lakelog-changed-" in path.name)


def content(home: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in home.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.parametrize("write", [_append, _create, _replace, _link])
@pytest.mark.parametrize("way", ["restore", "rollback"])
def test_what_is_written_meanwhile_is_kept(
    tmp_path: Path, lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch, write: Write, way: str
) -> None:
    """Under a name beside the directory, which is told; the directory itself is what was saved."""
    home = make(tmp_path, FILES)
    (home / "conf/link").symlink_to("a")
    save_state(lake, {"app": str(home)}, name="one")
    changed(tmp_path)
    with monkeypatch.context() as patched:
        meanwhile(patched, lambda: write(home))
        if way == "restore":
            notes = restore.restore_state(lake, "one").notes
        else:
            notes = rolling_back.rollback(lake, "one", ("state",)).notes
    assert content(home) == FILES
    (backup,) = kept(tmp_path)
    expected = content(backup)
    assert expected.keys() >= FILES.keys()
    assert write is not _append or expected["d"] == b"new 4 meanwhile"
    assert write is not _create or expected["conf/new"] == b"meanwhile"
    assert write is not _replace or expected["conf/a"] == b"9"
    assert write is not _link or os.readlink(backup / "conf/link") == "other"
    (note,) = notes
    assert note.endswith(f"is kept as {backup}")
    assert sorted(os.listdir(tmp_path)) == ["app", backup.name, "lake"]
    assert not restore.undo_restore(lake).notes if way == "restore" else True


def test_file_that_is_written_meanwhile_is_kept(
    tmp_path: Path, lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one file is exchanged alone, it stays beside it, and is part of the next state."""
    home = make(tmp_path, FILES)
    save_state(lake, {"app": str(home)}, name="one")
    (home / "d").write_bytes(b"new")
    with monkeypatch.context() as patched:
        meanwhile(patched, lambda: _append(home))
        (note,) = restore.restore_state(lake, "one").notes
    (backup,) = kept(home)
    assert backup.read_bytes() == b"new meanwhile"
    assert str(backup) in note
    assert (home / "d").read_bytes() == b"4"


def test_directory_that_comes_meanwhile_is_kept(
    tmp_path: Path, lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There was none to save before the restore."""
    home = make(tmp_path, FILES)
    save_state(lake, {"app": str(home)}, name="one")
    home.rename(tmp_path / "moved")
    meanwhile(monkeypatch, lambda: bool(make(tmp_path, {"x": b"mine"})) and None)
    restore.restore_state(lake, "one")
    (backup,) = kept(tmp_path)
    assert (content(home), content(backup)) == (FILES, {"x": b"mine"})


@pytest.mark.parametrize("writes", [True, False])
def test_crash_recovery_keeps_what_was_written_meanwhile(
    tmp_path: Path, lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch, writes: bool
) -> None:
    """Whenever the restore dies, once the exchange is noted; and what nobody wrote to is gone."""
    home = make(tmp_path, FILES)
    save_state(lake, {"app": str(home)}, name="one")
    path, at = lake.path, 1
    lake.close()
    while True:
        changed(tmp_path)

        def run() -> None:
            with lakelog.open(path) as opened:
                meanwhile(pytest.MonkeyPatch(), lambda: _append(home) if writes else None)
                restore.restore_state(opened, "one")

        has_died = dies(run, at, str(tmp_path))
        with lakelog.open(path) as opened, exchange.alone(opened.store):
            exchange.recover(opened.store)
        backups = kept(tmp_path)
        is_restored = content(home) == FILES
        assert len(backups) == (writes and is_restored), at
        for backup in backups:
            assert content(backup)["d"] == b"new 4 meanwhile"
            shutil.rmtree(backup)
        assert sorted(os.listdir(tmp_path)) == ["app", "lake"]
        if not has_died:
            break
        at += STEP
