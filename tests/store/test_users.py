"""A lake of one user, or of a group, in which root or another of them does something."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import lakelog
from lakelog import remotes
from lakelog.disk import LockFile
from lakelog.state.state import save_state
from tests.support import cli
from tests.support.capabilities import bound_by_modes
from tests.support.requirements import give_up

USER = 12_345


@pytest.fixture
def private() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("private")
@pytest.mark.parametrize("mode", [0o755, 0o2770])
def test_what_root_makes_in_a_lake_belongs_to_its_user(tmp_path: Path, mode: int) -> None:
    """Directories and locks, to which the user writes, too."""
    if os.geteuid() != 0:
        give_up("a user who may give files away")
    path, home = tmp_path / "lake", tmp_path / "app"
    home.mkdir()
    with lakelog.open(path) as lake:
        lake.append({"type": "A"})
    for each in [path, *path.rglob("*")]:
        os.chown(each, USER, USER)
    path.chmod(mode)
    before = {each for each in path.rglob("*") if each.is_dir()}
    with lakelog.open(path) as lake:
        save_state(lake, {"app": str(home)})
        lake.branch("other")
        with LockFile(f"{lake.store.paths.cache}/new.lock").claim() as claim:
            assert claim
        lake.gc()
    made = [p for p in path.rglob("*") if (p.is_dir() and p not in before) or p.suffix == ".lock"]
    assert len(made) > 4
    for each in made:
        status = each.stat()
        assert (status.st_uid, status.st_gid) == (USER, USER), each
        bits = 0o2777 if each.is_dir() else 0o666
        if each.is_dir() or each.name in ("new.lock", "states.lock"):
            assert stat.S_IMODE(status.st_mode) == mode & bits, each


@pytest.mark.usefixtures("private")
@pytest.mark.parametrize("mode", [0o755, 0o2770, 0o700])
def test_what_one_user_stores_is_read_by_those_who_read_the_lake(tmp_path: Path, mode: int) -> None:
    """Whatever the umask of that user; files of a lake of one user stay private."""
    path = tmp_path / "lake"
    lakelog.open(path).close()
    path.chmod(mode)
    old = set(path.rglob("*"))
    with lakelog.open(path) as lake:
        lake.append({"type": "A"})
        lake.settle()
        lake.append({"type": "B"})
        lake.verify().require()
        new = set(path.rglob("*")) - old
        stored = [each for each in new if each.is_file() and "cache" not in each.parts]
        assert {stat.S_IMODE(each.stat().st_mode) for each in stored} == {0o600 | mode & 0o444}
        # What each of them goes on writing.
        for name in ("clock", "verified.jsonl"):
            status = (path / "cache" / name).stat()
            assert stat.S_IMODE(status.st_mode) == mode & 0o666


@pytest.mark.usefixtures("private")
@pytest.mark.parametrize("mode", [0o755, 0o2770, 0o700])
def test_a_lake_made_in_a_directory_of_a_group_is_theirs(tmp_path: Path, mode: int) -> None:
    """From its first file on, and so is a remote and a backup: all who may write there do."""
    paths = [tmp_path / name for name in ("lake", "remote", "copy")]
    for path in paths:
        path.mkdir()
        path.chmod(mode)
    with lakelog.open(paths[0]) as lake:
        lake.append({"type": "A"})
        remotes.add_tested(lake.store, "home", str(paths[1]))
        remotes.push(lake, "home", branches=["main"])
        lake.backup(paths[2])
    for path in paths:
        for each in path.rglob("*"):
            bits = 0o2777 if each.is_dir() else 0o644
            assert stat.S_IMODE(each.stat().st_mode) & bits == mode & bits, each


def test_lock_of_another_user_is_held_all_the_same(tmp_path: Path) -> None:
    """A lock takes no more than to read its file."""
    lock = tmp_path / "some.lock"
    lock.touch()
    lock.chmod(0o444)
    with bound_by_modes(), LockFile(str(lock)).claim() as one, LockFile(str(lock)).claim() as other:
        assert one
        assert not other
    with bound_by_modes(), LockFile(str(lock)).hold(shared=True) as held:
        assert held


def test_a_lake_that_cannot_be_written_says_what_can_be_asked(tmp_path: Path) -> None:
    """What needs a state, and finds events that are not published, names the last one that is."""
    path = tmp_path / "lake"
    with lakelog.open(path) as lake:
        lake.append({"type": "A"})
        published = f"@{lake.settle().move.number}"
        lake.append({"type": "B"})
    folders = [folder for folder in (path, *path.rglob("*")) if folder.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    try:
        with bound_by_modes():
            for verb in (["replay", "--speed", "max"], ["decisions"], ["connect", "--print"]):
                assert published in cli.run(path, *verb, code=1).stderr
                cli.run(path, *verb, "--at", published)
    finally:
        for folder in folders:
            folder.chmod(0o755)
