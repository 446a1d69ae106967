"""Saved states: what is mounted in a directory stays mounted, and what nobody may rename stays."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import RollbackRefused, StateRefused
from lakelog.rollback.rollback import rollback, undo
from lakelog.state import exchange, restore_plan
from lakelog.state.restore import restore_state
from lakelog.state.state import save_state
from tests.support import state_trees
from tests.support.cli import run
from tests.support.requirements import MOUNTS, give_up, need
from tests.support.state_lakes import lake, make
from tests.torture import mounts

__all__ = ["lake"]
IMMUTABLE, FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x10, 0x80086601, 0x40086602
Mount = Callable[[Path, Path], None]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount a directory or file at another place, of the same file system."""
    need(MOUNTS)

    def bind(source: Path, place: Path) -> None:
        mounts.run("mount", "--bind", str(source), str(place))

    yield bind
    mounts.release(tmp_path)


def make_mounted(tmp_path: Path, mount: Mount) -> tuple[Path, Path]:
    """Make a directory in which, two levels below, another one is mounted."""
    volume = make(tmp_path, {"1": b"1", "in/2": b"2"}, "a volume")
    home = make(tmp_path, {"a": b"a", "sub/b": b"b", "sub/x y/below": b""})
    mount(volume, home / "sub/x y")
    return home, volume


@pytest.mark.parametrize("paths", [(), ("sub/x y",), ("sub",), ("sub/x y/1", "sub/x y/in", "a")])
def test_mounted_directories_are_restored_in_place(
    tmp_path: Path, lake: lakelog.Lake, mount: Mount, paths: tuple[str, ...]
) -> None:
    """Its files change; it stays mounted, and what is around it stays in its place."""
    home, volume = make_mounted(tmp_path, mount)
    save_state(lake, {"app": str(home)}, name="one")
    for path in (home / "sub/x y/1", home / "sub/x y/in/2", home / "a", home / "sub/b"):
        path.write_bytes(b"changed")
    if not paths:
        (volume / "in").chmod(0o700)
        (volume / "new").write_bytes(b"new")
        volume.chmod(0o711)
        (home / "sub").chmod(0o711)
    before, time = state_trees.facts(home), os.stat(volume).st_mtime_ns
    assert restore_state(lake, "one", paths=paths).notes == ()
    assert paths[:1] not in (("sub",), ("sub/x y",)) or os.stat(volume).st_mtime_ns == time
    assert (volume / "1").read_bytes() == b"1"
    assert (volume / "in/2").read_bytes() == b"2"
    assert (home / "a").read_bytes() == (
        b"changed" if paths[:1] in (("sub",), ("sub/x y",)) else b"a"
    )
    if paths:
        return
    one = state_trees.facts(home)
    assert one["."][:2] == before["."][:2]
    assert one["sub/x y"][1] == 0o755
    assert sorted(os.listdir(volume)) == ["1", "in"]
    save_state(lake, {"app": str(home)}, name="two")
    rollback(lake, "one", ("state",))
    assert state_trees.facts(home) == one
    (volume / "1").write_bytes(b"changed")
    rollback(lake, "one", ("state",))
    assert state_trees.facts(home) == one
    undo(lake)
    assert (volume / "1").read_bytes() == b"changed"
    assert sorted(os.listdir(tmp_path)) == ["a volume", "app", "lake"]


def test_mount_points_that_would_have_to_go_are_refused(
    tmp_path: Path, lake: lakelog.Lake, mount: Mount
) -> None:
    """A mounted file that differs, and a mounted directory that the state does not have: nothing
    changes, and the next save is none of a restore that waits."""
    home = make(tmp_path, {"a": b"1", "conf": b"2"})
    save_state(lake, {"app": str(home)}, name="without")
    (home / "sub").mkdir()
    volume = make(tmp_path, {"b": b"3", "conf": b"2"}, "volume")
    mount(volume, home / "sub")
    with pytest.raises(StateRefused, match=f"{home}/sub is a mount point.*unmount it"):
        restore_state(lake, "without")
    mount(volume / "conf", home / "conf")
    save_state(lake, {"app": str(home)}, name="with")
    (home / "a").write_bytes(b"4")
    (home / "conf").write_bytes(b"5")
    before = state_trees.facts(home)
    for paths in ((), ("conf",)):
        with pytest.raises(StateRefused, match=f"{home}/conf is a mount point.*unmount it"):
            restore_state(lake, "with", paths=paths)
        assert state_trees.facts(home) == before
    with pytest.raises(RollbackRefused, match="nothing was changed"):
        rollback(lake, "without", ("state",))
    save_state(lake, {"app": str(home)})
    # What is chosen next to them goes back.
    restore_state(lake, "with", paths=("a",))
    assert (home / "a").read_bytes() == b"1"


def set_immutable(path: Path, *, on: bool) -> None:
    """Do as `chattr +i` or `-i`."""
    with path.open("rb") as file:
        (flags,) = struct.unpack("l", fcntl.ioctl(file, FS_IOC_GETFLAGS, bytes(8)))
        flags = flags | IMMUTABLE if on else flags & ~IMMUTABLE
        fcntl.ioctl(file, FS_IOC_SETFLAGS, struct.pack("l", flags))


def make_layered(tmp_path: Path, mount: Mount) -> Path:
    """Make a directory that is of an image, as that of a program in a container may be."""
    make(
        tmp_path, {"app/a": b"1", "app/sub/b": b"2", "app/gone/c": b"3", "app/turn/d": b"4"}, "low"
    )
    for name in ("up", "work", "layered"):
        (tmp_path / name).mkdir()
    layers = f"lowerdir={tmp_path}/low,upperdir={tmp_path}/up,workdir={tmp_path}/work"
    try:
        mounts.run("mount", "-t", "overlay", "-o", layers, "overlay", str(tmp_path / "layered"))
    except OSError:
        give_up("a file system that overlays can stand on")
    return tmp_path / "layered" / "app"


def test_directories_of_a_lower_layer_are_restored(
    tmp_path: Path, lake: lakelog.Lake, mount: Mount
) -> None:
    """They cannot be renamed: what is in them is, and those that go are deleted in their place."""
    home = make_layered(tmp_path, mount)
    image = state_trees.facts(home)
    save_state(lake, {"app": str(home)}, name="image")
    others = make(tmp_path, {"a": b"5", "sub/b": b"6", "turn": b"7", "new/e": b"8"}, "others")
    (others / "sub").chmod(0o700)
    save_state(lake, {"app": str(others)}, name="others")
    restore_state(lake, "others", to=str(home))
    assert state_trees.facts(home) == state_trees.facts(others)
    save_state(lake, {"app": str(home)}, name="two")
    rollback(lake, "image", ("state",))
    assert state_trees.facts(home) == image
    undo(lake)
    assert state_trees.facts(home) == state_trees.facts(others)
    assert os.listdir(home.parent) == ["app"]


def test_what_nobody_may_rename_is_refused(
    tmp_path: Path, lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with the flag for immutable ones: nothing changes, and later saves do not wait."""
    home = make(tmp_path, {"a": b"1", "b": b"2"})
    save_state(lake, {"app": str(home)}, name="one")
    (home / "a").write_bytes(b"changed")
    try:
        set_immutable(home / "a", on=True)
    except OSError:
        give_up("a user and a file system that can have immutable files")
    try:
        with pytest.raises(StateRefused, match="may not replace"):
            restore_state(lake, "one", paths=("a",))
        save_state(lake, {"app": str(home)})
        # Should it turn out too late, the error says which path it is, and who goes on.
        with monkeypatch.context() as patch:
            patch.setattr(restore_plan, "is_exchangeable", lambda _: True)
            said = run(lake.path, "state", "restore", "one", "a", "--yes", code=1).stderr
        assert said.startswith(f"lakelog: error: {home}/a: no permission")
        assert "a restore has begun there" in said
        set_immutable(home / "a", on=False)
        save_state(lake, {"app": str(home)})
        assert (home / "a").read_bytes() == b"1"
        assert not [p for p in home.iterdir() if p.name.startswith(exchange.STAGING)]
    finally:
        set_immutable(home / "a", on=False)


def test_all_names_in_a_mount_point_are_restored(
    tmp_path: Path, lake: lakelog.Lake, mount: Mount
) -> None:
    """Each of them is exchanged by itself."""
    home = make(tmp_path, {f"f{n}": b"%d" % n for n in range(200)})
    mount(home, home)
    save_state(lake, {"app": str(home)}, name="one")
    before = state_trees.facts(home)
    for path in home.iterdir():
        path.write_bytes(b"changed")
    restore_state(lake, "one")
    assert state_trees.facts(home) == before


@pytest.mark.needs(MOUNTS)
def test_a_full_disk_is_named_and_nothing_changes(tmp_path: Path) -> None:
    """Of the directory and the lake, which both may be full."""
    with (
        mounts.tmpfs(tmp_path / "app", 200 << 10) as home,
        mounts.tmpfs(tmp_path / "disk", 400 << 10) as disk,
    ):
        (home / "a").write_bytes(noise := os.urandom(120_000))
        run(disk / "lake", "state", "save", "one", "--dir", str(home))
        (home / "a").write_bytes(changed := noise[::-1])
        said = run(disk / "lake", "state", "restore", "one", "--yes", code=1).stderr
        assert said.startswith(f"lakelog: error: {home}: the disk is full")
        assert (home / "a").read_bytes() == changed
        assert os.listdir(home) == ["a"]
        with contextlib.suppress(OSError), (disk / "fill").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(512))
        said = run(disk / "lake", "state", "save", "two", "--dir", str(home), code=1).stderr
        assert said.startswith(f"lakelog: error: {disk}/lake/")
        assert "the disk is full" in said
        (disk / "fill").unlink()
        mounts.grow(home, 400 << 10)
        run(disk / "lake", "state", "restore", "one", "--yes")
        assert (home / "a").read_bytes() == noise
