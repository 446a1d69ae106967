"""Saved states: a restore touches what differs, alone, and finds a way where others own a part."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.errors import StateRefused, UnknownRef
from lakelog.rollback.rollback import rollback, undo
from lakelog.state import exchange, filesystems, restore_plan
from lakelog.state.catalog import StateCatalog
from lakelog.state.restore import RestoreRequest, restore_state, undo_restore
from lakelog.state.state import save_state
from tests.support import lakes, state_trees
from tests.support.capabilities import bound_by_modes
from tests.support.deaths import dies
from tests.support.requirements import give_up
from tests.support.state_lakes import lake, make

__all__ = ["lake"]
FILES = {f"d{n % 5}/{'x' * (n % 3)}/f{n}": b"%d" % n * 100 for n in range(40)}
STEP = int(os.environ.get("LAKELOG_STATE_STEP", "9"))


def inodes(home: Path) -> dict[str, int]:
    return {str(p.relative_to(home)): os.lstat(p).st_ino for p in home.rglob("*") if not p.is_dir()}


@pytest.mark.parametrize(
    "changed", [["d1/x/f1"], ["d1/x/f1", "d1/x/f16"], ["d1/x/f1", "d4/x/f4"], ["d1/f21", "new/new"]]
)
def test_equal_files_stay(
    tmp_path: Path, lake: lakelog.Lake, request: pytest.FixtureRequest, changed: list[str]
) -> None:
    """They are the same files afterwards, also for a program that has them open; undo too."""
    home = make(tmp_path, FILES)

    def hold(names: list[str]) -> None:
        # As programs have them open; of a file that is gone, another could get the inode.
        for name in names:
            request.addfinalizer((home / name).open().close)

    (home / "link").symlink_to("nowhere")
    os.link(home / "d0/f0", home / "d0/hard")
    save_state(lake, {"app": str(home)}, name="one")
    hold([name for name in changed if name in FILES])
    before, old = state_trees.facts(home), inodes(home)
    for name in changed:
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).unlink(missing_ok=True)
        (home / name).write_bytes(b"changed")
    after, new = state_trees.facts(home), inodes(home)
    hold(changed)
    restore_state(lake, "one")
    assert state_trees.facts(home) == before
    assert {n for n, inode in inodes(home).items() if inode != old[n]} == set(changed) & set(old)
    undo_restore(lake)
    assert state_trees.facts(home) == after
    assert {n for n, inode in inodes(home).items() if inode != new[n]} == set(changed)
    rollback(lake, "one", ("state",))
    assert state_trees.facts(home) == before
    assert {n for n, inode in inodes(home).items() if inode != old[n]} <= set(changed)
    undo(lake)
    assert state_trees.facts(home) == after
    assert sorted(os.listdir(tmp_path)) == ["app", "lake"]


def test_random_trees_are_restored_over_what_became_of_them(
    tmp_path: Path, lake: lakelog.Lake
) -> None:
    """Whatever differs: kinds, names of one file, attributes, directories that came or went."""
    for seed in range(12):
        home = tmp_path / f"tree{seed}"
        state_trees.grow(home, seed, 40)
        name = save_state(lake, {"tree": str(home)}, keep=None).state.name
        before = state_trees.facts(home)
        state_trees.change(home, seed)
        after = state_trees.facts(home)
        restore_state(lake, name)
        assert state_trees.facts(home) == before, seed
        undo_restore(lake)
        assert state_trees.facts(home) == after, seed


def test_times_of_directories_alone_are_set_back(tmp_path: Path, lake: lakelog.Lake) -> None:
    """Nothing is exchanged then."""
    home = make(tmp_path, FILES)
    save_state(lake, {"app": str(home)}, name="one")
    before, old = state_trees.facts(home), os.stat(home / "d1").st_ino
    os.utime(home / "d1", (1, 1))
    restore_state(lake, "one")
    assert state_trees.facts(home) == before
    assert os.stat(home / "d1").st_ino == old


def test_data_at_another_place_in_a_file_is_no_equal_file(
    tmp_path: Path, lake: lakelog.Lake
) -> None:
    """With the time, size and data of the saved one, it has its holes elsewhere."""
    home = make(tmp_path, FILES)

    def write(at: int) -> bytes:
        (home / "holes").unlink(missing_ok=True)
        with (home / "holes").open("wb") as file:
            file.truncate(1 << 20)
            file.seek(at)
            file.write(b"data" * (64 << 10))
        os.utime(home / "holes", ns=(10**18, 10**18))
        return (home / "holes").read_bytes()

    wanted = write(0)
    save_state(lake, {"app": str(home)}, name="one")
    assert write(512 << 10) != wanted
    rollback(lake, "one", ("state",))
    assert (home / "holes").read_bytes() == wanted


def test_names_of_one_file_stay_together(tmp_path: Path, lake: lakelog.Lake) -> None:
    """Also where one of them is in a directory that is made anew, and another is not."""
    home = make(tmp_path, {"a/one": b"1", "a/two": b"2", "a/three": b"3", "b/four": b"4"})
    os.link(home / "a/one", home / "b/one")
    save_state(lake, {"app": str(home)}, name="one")
    before = state_trees.facts(home)
    for name in ("a/two", "a/three"):
        (home / name).write_bytes(b"changed")
    restore_state(lake, "one")
    assert state_trees.facts(home) == before
    (home / "b/one").unlink()
    (home / "b/one").write_bytes(b"1")
    restore_state(lake, "one")
    assert state_trees.facts(home)["b/one"][5] == before["b/one"][5]


def test_directory_whose_parent_is_another_users_is_restored(
    tmp_path: Path, lake: lakelog.Lake
) -> None:
    """What differs in it is exchanged; a place where nothing can be is refused by a dry run."""
    (tmp_path / "srv").mkdir()
    home = make(tmp_path / "srv", FILES | {"gone/a": b"1"})
    save_state(lake, {"app": str(home)}, name="one")
    before, inode = state_trees.facts(home), os.stat(home).st_ino
    for name in ("d1/x/f1", "d4/x/f4"):
        (home / name).write_bytes(b"changed")
    (home / "gone" / "a").unlink()
    (home / "gone").rmdir()
    (home / "new").write_bytes(b"new")
    home.chmod(0o750)
    after = state_trees.facts(home)
    (tmp_path / "srv").chmod(0o555)
    with bound_by_modes():
        restore_state(lake, "one")
        assert state_trees.facts(home) == before
        assert os.stat(home).st_ino == inode
        undo_restore(lake)
        assert state_trees.facts(home) == after
        rollback(lake, "one", ("state",))
        assert state_trees.facts(home) == before
        with pytest.raises(StateRefused, match="may not write"):
            RestoreRequest(lake, "one", to=f"{tmp_path}/srv/other").check()
    assert os.listdir(tmp_path / "srv") == ["app"]


def test_what_cannot_be_deleted_is_left_and_named(tmp_path: Path, lake: lakelog.Lake) -> None:
    """The restore is done, and so are later ones."""
    home = make(tmp_path, {"a/1": b"1", "b/2": b"2"})
    save_state(lake, {"app": str(home)}, name="one")
    before = state_trees.facts(home)
    (home / "rooted").mkdir()
    (home / "rooted" / "file").write_bytes(b"")
    os.chown(home / "rooted", 1234, 1234)
    (home / "a/1").write_bytes(b"changed")
    with bound_by_modes(owns_all=False):
        (note,) = restore_state(lake, "one").notes
        assert state_trees.facts(home) == before
        (left,) = [p for p in tmp_path.iterdir() if p.name.startswith(exchange.STAGING)]
        assert f"left at {left}" in note
        assert [p.name for p in left.rglob("*")] == ["rooted", "file"]
        (home / "a/1").write_bytes(b"changed")
        save_state(lake, {"app": str(home)})
        assert not restore_state(lake, "one").notes
    assert state_trees.facts(home) == before


@pytest.mark.parametrize("is_mount", [False, True])
def test_crash_at_every_step_of_a_partial_restore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_mount: bool
) -> None:
    """All of it is old or new after the next save; without it, too, where one exchange does."""
    home, lake_path = make(tmp_path, {"a/1": b"1", "a/2": b"2", "b/3": b"3"}), f"{tmp_path}/lake"
    monkeypatch.setattr(restore_plan, "is_exchangeable", lambda p: not is_mount or p != str(home))
    facts: dict[str, Any] = {}
    with lakes.opened(lake_path) as opened:
        save_state(opened, {"app": str(home)}, name="old")
        facts["old"] = state_trees.facts(home)
        (home / "a/1").write_bytes(b"changed")
        (home / ("b" if is_mount else "a") / "new").write_bytes(b"new")
        (home / "c").mkdir() if is_mount else None
        save_state(opened, {"app": str(home)}, name="new")
        facts["new"] = state_trees.facts(home)

    def restore(name: str) -> None:
        with lakes.opened(lake_path) as opened:
            restore_state(opened, name)

    at, present = 1, "new"
    while dies(lambda: restore("new" if present == "old" else "old"), at, str(tmp_path)):  # noqa: B023
        if not is_mount:
            now = {n: f[6:7] for n, f in state_trees.facts(home).items() if "lakelog" not in n}
            assert now in [{n: f[6:7] for n, f in known.items()} for known in facts.values()]
        with lakes.opened(lake_path) as opened, exchange.alone(opened.store):
            exchange.recover(opened.store)
        present = next(name for name, known in facts.items() if known == state_trees.facts(home))
        assert sorted(os.listdir(tmp_path)) == ["app", "lake"]
        at += STEP
    assert at > 30


def test_single_paths_are_restored(tmp_path: Path, lake: lakelog.Lake) -> None:
    """Files and directories, missing parents too; all else stays as it is."""
    home = make(tmp_path, {"a/b/1": b"1", "a/b/2": b"2", "c/3": b"3", "c/4": b"4"})
    os.link(home / "c/3", home / "c/hard")
    save_state(lake, {"app": str(home)}, name="one")
    for path in home.rglob("?"):
        if path.is_file():
            path.write_bytes(b"changed")
    restore_state(lake, "one", paths=("app/a/b/1", "c/hard"))
    found = {n: (home / n).read_bytes() for n in ("a/b/1", "a/b/2", "c/3", "c/4", "c/hard")}
    changed = b"changed"
    assert found == {
        "a/b/1": b"1",
        "a/b/2": changed,
        "c/3": changed,
        "c/4": changed,
        "c/hard": b"3",
    }
    undo_restore(lake)
    assert (home / "a/b/1").read_bytes() == changed
    (home / "a").rename(tmp_path / "away")
    restore_state(lake, "one", paths=("a/b/2", "c"))
    assert sorted(os.listdir(home / "a/b")) == ["2"]
    assert (home / "c/4").read_bytes() == b"4"
    restore_state(lake, "one", paths=("a/b/2",), to=str(tmp_path / "out"))
    assert [p.name for p in sorted((tmp_path / "out").rglob("*"))] == ["a", "b", "2"]
    (home / "c/4").write_bytes(changed)
    for missing in ("a/none", "", "/"):
        with pytest.raises(UnknownRef, match="no file"):
            restore_state(lake, "one", paths=(missing,))
    assert (home / "c/4").read_bytes() == changed
    assert b"".join(StateCatalog(lake).read_file("one", "app/a/b/1")) == b"1"
    assert sorted(os.listdir(tmp_path)) == ["app", "away", "lake", "out"]


def test_neighbours_in_a_directory_are_restored(tmp_path: Path, lake: lakelog.Lake) -> None:
    """Also two of one directory that is not restored as a whole, and with what is in them."""
    files = {"sub/a": b"1", "sub/b": b"2", "sub/c/d": b"3", "sub/c/e": b"4", "f": b"5"}
    home = make(tmp_path, {"sub/stays": b"6"} | files)
    save_state(lake, {"app": str(home)}, name="one")
    for name in files:
        (home / name).write_bytes(b"changed")
    restore_state(lake, "one", paths=("sub/a", "sub/b", "sub/c", "f"))
    assert {name: (home / name).read_bytes() for name in files} == files


def test_what_was_excluded_goes_unless_paths_are_named(tmp_path: Path, lake: lakelog.Lake) -> None:
    """An undo brings it back."""
    home = make(tmp_path, {"a": b"1", "b": b"2", "kept.log": b"3"})
    save_state(lake, {"app": str(home)}, name="one", exclude=("*.log",))
    (home / "a").write_bytes(b"changed")
    restore_state(lake, "one", paths=("a", "b"))
    assert (home / "kept.log").read_bytes() == b"3"
    (home / "a").write_bytes(b"changed")
    restore_state(lake, "one")
    assert sorted(os.listdir(home)) == ["a", "b"]
    undo_restore(lake)
    assert (home / "kept.log").read_bytes() == b"3"


def test_a_file_alone_keeps_its_special_bits(tmp_path: Path, lake: lakelog.Lake) -> None:
    """Where the file system has ACLs, none is inherited, and the mode stays the saved one."""
    home = make(tmp_path, {"tool": b"1", "other": b"2"})
    os.link(home / "other", home / "another")
    for name in ("tool", "other"):
        (home / name).chmod(0o4750)
    save_state(lake, {"app": str(home)}, name="one")
    (home / "tool").write_bytes(b"changed")
    restore_state(lake, "one")
    (home / "other").write_bytes(b"changed")
    restore_state(lake, "one", paths=("other",))
    assert [stat.S_IMODE(os.stat(home / n).st_mode) for n in ("tool", "other")] == [0o4750] * 2


def test_devices_are_named_and_refused(tmp_path: Path, lake: lakelog.Lake) -> None:
    """Unless they are there, or skipped."""
    home = make(tmp_path, {"a": b"1"})
    try:
        os.mknod(home / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        give_up("a user who may make devices")
    assert save_state(lake, {"app": str(home)}, name="one").skipped == ("app/null",)
    (home / "a").write_bytes(b"2")
    restore_state(lake, "one")
    assert stat.S_ISCHR(os.stat(home / "null").st_mode)
    (home / "null").unlink()
    with pytest.raises(StateRefused, match="null, a device"):
        restore_state(lake, "one")
    (home / "a").write_bytes(b"2")
    assert restore_state(lake, "one", skip=True).notes == ("app: left out: null",)
    assert {p.name: p.read_bytes() for p in home.iterdir()} == {"a": b"1"}


@pytest.mark.parametrize("shared", [False, True])
def test_saves_and_restores_of_a_directory_exclude_each_other(
    tmp_path: Path, lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """From whatever lake they are: one waits for the other, and says so if that takes long. Saves
    of one directory do not wait for each other."""
    home = make(tmp_path, {"a": b"1"})
    save_state(lake, {"app": str(home)}, name="one")
    (home / "a").write_bytes(b"2")
    with filesystems.holding([str(home)], shared=shared):
        monkeypatch.setattr(filesystems, "PATIENCE", 0.05)
        with pytest.raises(StateRefused, match="another process"):
            restore_state(lake, "one")
        if shared:
            save_state(lake, {"app": str(home)})
        else:
            with pytest.raises(StateRefused, match="another process"):
                save_state(lake, {"app": str(home)})
        monkeypatch.setattr(filesystems, "PATIENCE", 60.0)
        thread = threading.Thread(target=restore_state, args=(lake, "one"))
        thread.start()
        time.sleep(0.05)
        assert (home / "a").read_bytes() == b"2"
    thread.join()
    assert (home / "a").read_bytes() == b"1"
