"""Opening a lake and making one: each refusal names the place, and what to do there."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import lakelog
from lakelog import document
from lakelog.cli.exits import FAILED, USAGE
from lakelog.disk import disk
from lakelog.errors import (
    AlreadyExists,
    DamagedLake,
    InvalidName,
    LakeNotFound,
    UnknownRef,
    UnsupportedStore,
)
from lakelog.settings import DEFAULTS, parse
from lakelog.store import Store
from tests.support import damage
from tests.support.cli import run

MakeLake = Callable[..., lakelog.Lake]


def test_a_lake_is_not_made_over_another(lake: lakelog.Lake) -> None:
    """`init` where there is a lake is an error, and leaves that lake as it is."""
    lake.append({"type": "A"})
    with pytest.raises(AlreadyExists, match="a lake already exists at"):
        Store.create(lake.path)
    assert "a lake already exists at" in run(lake.path, "init", code=FAILED).output
    assert lake.count() == 1


def test_a_lake_is_not_made_among_other_files(tmp_path: Path) -> None:
    """A directory that holds something else is refused, and nothing is added to it."""
    (tmp_path / "photos").mkdir()
    with pytest.raises(AlreadyExists, match="choose another directory"):
        lakelog.open(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_lake_is_not_made_inside_another(lake: lakelog.Lake) -> None:
    """Neither among its files nor beside them, and nothing is left there."""
    for name in ("segments", "segments/00/deep", "new"):
        path = Path(lake.path, name)
        was_there = path.exists()
        assert "inside the lake at" in run(path, "init", code=FAILED).output
        with pytest.raises(AlreadyExists, match="inside the lake at"):
            lakelog.open(path)
        assert path.exists() == was_there


def test_a_path_that_cannot_hold_a_lake_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty one, one that is no Unicode, and bytes; nothing is made."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidName, match="empty"):
        lakelog.open("")
    with pytest.raises(InvalidName, match="not valid Unicode"):
        lakelog.open(os.fsdecode(b"non\xffutf8"))
    with pytest.raises(TypeError, match="text, not bytes"):
        lakelog.open(b"lake")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_lake_moved_to_a_path_that_the_engine_does_not_take_is_refused(
    lake: lakelog.Lake,
) -> None:
    """At once, with the path, and not by an error of the engine in each query."""
    lake.append({"type": "A"})
    lake.close()
    moved = lake.path + os.fsdecode(b"\xff")
    os.rename(lake.path, moved)
    with pytest.raises(InvalidName, match="not valid Unicode: choose another path"):
        lakelog.open(moved)
    assert "not valid Unicode" in run(moved, "sql", "FROM events", code=USAGE).output
    os.rename(moved, lake.path)


def test_below_a_file_there_is_no_lake(tmp_path: Path) -> None:
    """A path that goes through a file names no lake; that is all there is to say."""
    (tmp_path / "file").write_text("text")
    with pytest.raises(LakeNotFound, match="lakelog init"):
        Store.load(str(tmp_path / "file" / "lake"))


def test_two_that_make_one_lake_get_the_same(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who loses the race for lakelog.json opens the winner's lake, and its settings."""
    path, made = str(home / "lake"), list[lakelog.Lake]()
    real = disk.link

    def link(source: str, target: str) -> None:
        if target.endswith("lakelog.json") and not made:
            monkeypatch.setattr(disk, "link", real)
            made.append(lakelog.open(path, settings={"seal": "never", "rotate_events": 7}))
        real(source, target)

    monkeypatch.setattr(disk, "link", link)
    with lakelog.open(path) as loser, made[0] as winner:
        assert loser.store.lake_id == winner.store.lake_id
        assert loser.store.settings.rotate_events == 7
        loser.append({"type": "A"})
        winner.append({"type": "B"})
        assert winner.count() == 2


def test_a_lake_made_between_the_look_and_the_making_is_opened(home: Path) -> None:
    """Whoever finds the directory taken when making it opens the lake that is there."""
    first = Store.create(str(home / "lake"))
    assert Store.create_or_load(str(home / "lake"), DEFAULTS).lake_id == first.lake_id


def test_settings_that_no_lakelog_wrote_are_named(lake: lakelog.Lake) -> None:
    """An impossible setting in lakelog.json is an error that names the file and the setting."""
    body = {"format": 1, "lake": lake.store.lake_id, "settings": {"rotate_events": -1}}
    path = Path(lake.store.paths.config)
    before = path.read_bytes()
    path.write_bytes(document.encode(body))
    with pytest.raises(DamagedLake, match=r"lakelog\.json.*rotate_events"):
        lakelog.open(lake.path)
    path.write_bytes(before)


def test_a_document_of_no_object_is_named(lake: lakelog.Lake) -> None:
    """A file whose checksum holds around no JSON is damage like any other, in one line."""
    path = Path(lake.store.paths.config)
    before = path.read_bytes()
    path.write_bytes(b'{"format":' + document.ending(b'{"format":}'))
    with pytest.raises(DamagedLake, match=r"lakelog\.json.*not a JSON object"):
        lakelog.open(lake.path)
    path.write_bytes(before)


def test_a_disk_without_hard_links_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that allows no links is refused in words that say what to use instead."""

    def link(source: str, target: str) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(disk, "link", link)
    with pytest.raises(UnsupportedStore, match="use a local disk"):
        lakelog.open(str(tmp_path / "lake"))
    assert list((tmp_path / "lake").iterdir()) == []


def test_a_lake_opens_where_mounts_are_hidden(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that hides the list of mounts is no reason to refuse a lake."""
    real = disk.read

    def read(path: str, *most: int) -> bytes:
        if path.startswith("/proc/"):
            raise FileNotFoundError(errno.ENOENT, "hidden", path)
        return real(path, *most)

    monkeypatch.setattr(disk, "read", read)
    with lakelog.open(str(home / "lake")) as made:
        made.append({"type": "A"})
        assert made.count() == 1


def test_a_copy_without_its_empty_folders_is_a_lake(make_lake: MakeLake, home: Path) -> None:
    """What a tool leaves out of a copy for being empty is made anew by whatever needs it."""
    for name in "ABC":
        with make_lake() as lake:
            lake.append({"type": name})
        with make_lake() as other:
            other.settle()
    copy = damage.copied(lake.path, home / "copy")
    for folder, _, _ in os.walk(copy, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    assert not os.path.exists(f"{copy}/wal")
    for act in ("compact", "snapshot", "gc"):
        with lakelog.open(damage.copied(copy, home / act)) as again:
            getattr(again, act)()
            assert again.count() == 3
            again.append({"type": "D"})
            again.settle()
            assert (again.count(), again.verify().problems) == (4, ())


def test_settings_are_kept_whole(lake: lakelog.Lake) -> None:
    """What is changed stands in lakelog.json for the next process, the rest as it was."""
    wanted = {**lake.store.settings.unlike(), "rotate_events": 9}
    lake.store.change_settings(parse(wanted))
    with lakelog.open(lake.path) as again:
        assert again.store.settings.unlike() == wanted


def test_a_read_of_a_lake_that_was_moved_says_so(make_lake: MakeLake) -> None:
    """Not that a branch is missing, which would send somebody to the list of branches."""
    lake = make_lake()
    lake.append([{"type": "A"}])
    lake.settle()
    os.rename(lake.path, f"{lake.path}-moved")
    with pytest.raises(UnknownRef, match="is gone: was the lake moved"):
        lake.count()
    os.rename(f"{lake.path}-moved", lake.path)
    assert lake.count() == 1


def test_inside_of_a_lake_it_is_named(lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """./lake is not there; the directory that somebody is in is meant."""
    monkeypatch.chdir(lake.path)
    said = run("lake", "stats", code=FAILED).stderr
    assert f"no lake at {lake.path}/lake, but at {lake.path}: name that one" in said


def test_a_removed_current_directory_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a file of which nobody knows which."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    said = run("lake", "stats", code=FAILED).stderr
    assert said == (
        "lakelog: error: the directory that this shell is in was removed: change to another one\n"
    )
