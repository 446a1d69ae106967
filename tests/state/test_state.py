"""Saved states: what is restored is what was saved, whatever the tree, the race or the cleaning."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.chunks import state_index
from lakelog.errors import AlreadyExists, StateRefused, UnknownRef
from lakelog.maintain import hotcopy
from lakelog.state import capture
from lakelog.state.catalog import StateCatalog
from lakelog.state.contents import StateContents
from lakelog.state.restore import restore_state, undo_restore
from lakelog.state.retention import Retention
from lakelog.state.state import list_states, save_state
from tests.support import lakes, state_trees
from tests.support.capabilities import bound_by_modes
from tests.support.state_lakes import lake, make

__all__ = ["lake"]

TREES = int(os.environ.get("LAKELOG_STATE_TREES", "40"))


def test_restored_trees_equal_saved_ones(tmp_path: Path, lake: lakelog.Lake) -> None:
    """Random trees, incrementally: content, modes, owners, times, links, holes and attributes."""
    for seed in range(TREES):
        home = tmp_path / f"tree{seed}"
        state_trees.grow(home, seed)
        before = state_trees.facts(home)
        first = save_state(lake, {"tree": str(home)}, keep=None).state.name
        state_trees.change(home, seed)
        after = state_trees.facts(home)
        second = save_state(lake, {"tree": str(home)}, keep=None).state.name
        for name, expected in ((first, before), (second, after)):
            to = tmp_path / f"{name}-{seed}"
            restore_state(lake, name, to=str(to))
            assert state_trees.facts(to) == expected, seed
        restore_state(lake, first)
        assert state_trees.facts(home) == before, seed
    assert lake.verify().intact


def test_restore_in_place_can_be_undone(tmp_path: Path, lake: lakelog.Lake) -> None:
    """What a restore overwrites is saved before, and undo brings it back; so does undo of that."""
    home = make(tmp_path, {"a": b"one", "sub/b": b"two"})
    name = save_state(lake, {"app": str(home)}).state.name
    (home / "a").write_bytes(b"changed")
    (home / "c").write_bytes(b"new")
    result = restore_state(lake, name)
    assert sorted(p.name for p in home.iterdir()) == ["a", "sub"]
    assert result.backup is not None
    undo_restore(lake)
    assert (home / "a").read_bytes() == b"changed"
    undo_restore(lake)
    assert (home / "a").read_bytes() == b"one"
    assert sorted(os.listdir(tmp_path)) == ["app", "lake"]


def test_several_directories_are_one_state(tmp_path: Path, lake: lakelog.Lake) -> None:
    """They are restored together, one by one by label, and below a directory of another place."""
    one, two = make(tmp_path, {"a": b"1"}, "one"), make(tmp_path, {"a": b"2"}, "two")
    state = save_state(lake, {"one": str(one), "two": str(two)}, name="both").state
    assert [record.label for record in state.directories] == ["one", "two"]
    for home in (one, two):
        (home / "a").write_bytes(b"0")
    restore_state(lake, "both", labels=("two",))
    assert ((one / "a").read_bytes(), (two / "a").read_bytes()) == (b"0", b"2")
    restore_state(lake, "both")
    assert (one / "a").read_bytes() == b"1"
    (tmp_path / "out").mkdir()
    restore_state(lake, "both", to=str(tmp_path / "out"))
    assert (tmp_path / "out" / "two" / "a").read_bytes() == b"2"


def test_unchanged_files_are_not_read_again(tmp_path: Path, lake: lakelog.Lake) -> None:
    """A second save writes only what changed, and takes the rest from the first by its times."""
    files = {f"f{n}": os.urandom(400_000) for n in range(10)}
    home = make(tmp_path, files)
    for path in home.iterdir():
        os.utime(path, (1, 1))
    first = save_state(lake, {"app": str(home)})
    assert first.written > 4_000_000
    (home / "f3").write_bytes(files["f3"][:-1000] + os.urandom(1000))
    second = save_state(lake, {"app": str(home)})
    assert 0 < second.written < 1_200_000
    to = tmp_path / "out"
    restore_state(lake, "latest", to=str(to))
    assert state_trees.facts(to) == state_trees.facts(home)


def test_inserted_bytes_move_no_other_chunk(tmp_path: Path, lake: lakelog.Lake) -> None:
    """Chunks end where the content says: what follows an insertion is stored once."""
    # The same bytes each time: where chunks of others end, one may be longer than that.
    content = random.Random(7).randbytes(8 << 20)
    home = make(tmp_path, {"big": content})
    save_state(lake, {"app": str(home)})
    (home / "big").write_bytes(content[: 3 << 20] + b"inserted" + content[3 << 20 :])
    assert save_state(lake, {"app": str(home)}).written < 2 << 20


def nest(home: Path, name: str, levels: int) -> None:
    """Make directories in each other, deeper than a path can name."""
    home.mkdir()
    inner = os.open(home, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=inner)
        outer, inner = inner, os.open(name, os.O_RDONLY, dir_fd=inner)
        os.close(outer)
    os.close(os.open("leaf", os.O_CREAT, dir_fd=inner))
    os.close(inner)


def test_deeply_nested_directories(tmp_path: Path, lake: lakelog.Lake) -> None:
    """Six hundred levels are saved, restored, replaced and deleted; paths that no restore could
    write are refused in one line."""
    home = tmp_path / "app"
    nest(home, "d", 600)
    save_state(lake, {"app": str(home)}, name="deep")
    (home / "new").touch()
    restore_state(lake, "deep")
    assert sorted(os.listdir(tmp_path)) == ["app", "lake"]
    assert sum(1 for _ in os.walk(home)) == 601
    nest(tmp_path / "long", "directory", 600)
    with pytest.raises(StateRefused, match="paths in it are too long") as refused:
        save_state(lake, {"long": str(tmp_path / "long")})
    assert len(str(refused.value)) < 400
    save_state(lake, {"long": str(tmp_path / "long")}, exclude=("directory",))


def test_concurrent_writes_are_noticed(
    tmp_path: Path, lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that changes while it is read is read again; one that never rests is named."""
    home = make(tmp_path, {"once": bytes(200_000), "always": bytes(200_000), "small": b"x"})
    real, seen = os.pread, dict[str, int]()

    def pread(fd: int, size: int, at: int) -> bytes:
        data = real(fd, size, at)
        name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
        seen[name] = seen.get(name, 0) + 1
        if name == "always" or (name == "once" and seen[name] == 1):
            with open(home / name, "r+b") as file:
                file.write(os.urandom(100))
            os.utime(home / name, ns=(seen[name], seen[name]))
        return data

    monkeypatch.setattr(capture.os, "pread", pread)
    result = save_state(lake, {"app": str(home)})
    assert result.changed == ("app/always",)
    assert seen["once"] == 2
    content = b"".join(StateCatalog(lake).read_file("latest", "once"))
    assert content == (home / "once").read_bytes()


def test_files_that_come_and_go_do_not_stop_a_save(tmp_path: Path, lake: lakelog.Lake) -> None:
    """Everything is renamed, linked and removed while it is saved; each save can be restored."""
    home = make(tmp_path, {f"f{n}": os.urandom(1000 * n) for n in range(60)})
    stop = threading.Event()

    def stir() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            (home / f"f{number % 60}").rename(home / "moving")
            os.link(home / "moving", home / f"f{number % 60}")
            (home / "moving").unlink()

    thread = threading.Thread(target=stir)
    thread.start()
    try:
        names = [save_state(lake, {"app": str(home)}).state.name for _ in range(5)]
    finally:
        stop.set()
        thread.join()
    for name in names:
        restore_state(lake, name, to=str(tmp_path / "out"))


def test_unreadable_files_are_named_and_nothing_is_saved(
    tmp_path: Path, lake: lakelog.Lake
) -> None:
    """A state without some of its files would be none."""
    home = make(tmp_path, {"a": b"1", "secret": b"2"})
    (home / "secret").chmod(0)
    with bound_by_modes(), pytest.raises(StateRefused, match="secret"):
        save_state(lake, {"app": str(home)})
    assert save_state(lake, {"app": str(home)}, exclude=("secret",)).state.files == 1


def test_retention_prunes_only_automatic_names(tmp_path: Path) -> None:
    """Named states stay; gc then deletes what no state needs, and keeps what is tagged."""
    home = make(tmp_path, {"a": b"1"})
    with lakes.opened(str(tmp_path / "lake"), gc_grace_hours=0, history_days=0) as lake:
        save_state(lake, {"app": str(home)}, name="release")
        for number in range(6):
            (home / "a").write_bytes(os.urandom(60_000 + number))  # one chunk
            result = save_state(lake, {"app": str(home)}, keep=3)
        assert len(result.pruned) == 1
        assert len(list_states(lake)) == 4
        assert len(StateCatalog(lake).clean(Retention(1))) == 2
        assert [state.name for state in list_states(lake)][1:] == ["release"]
        for number in range(110):  # beyond the newest hundred moves, which gc keeps
            lake.append([{"type": "N", "data": {"n": number}}])
            lake.settle()
        before = len(list((tmp_path / "lake" / "states").glob("*/*.zst")))
        lake.gc()
        assert len(list((tmp_path / "lake" / "states").glob("*/*.zst"))) == 4 < before
        assert lake.verify().intact
        restore_state(lake, "release")
        assert (home / "a").read_bytes() == b"1"


def test_rollback_keeps_states_of_old_tags(tmp_path: Path, lake: lakelog.Lake) -> None:
    """States are tags: going back and forth in the lake loses none of them."""
    home = make(tmp_path, {"a": b"1"})
    save_state(lake, {"app": str(home)}, name="old")
    (home / "a").write_bytes(b"2")
    save_state(lake, {"app": str(home)}, name="new")
    lake.rollback("old")
    lake.gc()
    assert [state.name for state in list_states(lake)] == ["new", "old"]
    assert b"".join(StateCatalog(lake).read_file("new", "app/a")) == b"2"
    assert [each.path for each in StateCatalog(lake).diff("old", "new")] == ["app/a"]


def test_too_many_files_are_refused(
    tmp_path: Path, lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index that no reader would take is not written; nothing is saved then."""
    home = make(tmp_path, {f"f{n}": b"x" for n in range(100)})
    monkeypatch.setattr(state_index, "INDEX_MAX", 5_000)
    with pytest.raises(StateRefused, match="101 files are too many"):
        save_state(lake, {"app": str(home)})
    assert list_states(lake) == []


def test_long_indices_are_read_in_parts(tmp_path: Path, lake: lakelog.Lake) -> None:
    """Also where a name looks like the place between two entries."""
    home = make(tmp_path, {f"f{n}" + "x" * 200: b"x" for n in range(6_000)})
    for name in ('},{"path":', 'a"},{"path":"b', "\\"):
        (home / name).write_bytes(b"y")
    save_state(lake, {"app": str(home)}, name="one")
    restore_state(lake, "one", to=str(tmp_path / "out"))
    assert state_trees.facts(tmp_path / "out") == state_trees.facts(home)


def test_diff_compares_contents(tmp_path: Path, lake: lakelog.Lake) -> None:
    """A file whose size and times stay is changed by its bytes; one that only moved to another
    chunk, or got holes, is not. Each difference is named."""
    noise = os.urandom(9 << 20)
    files = {"edited": b"1234", "touched": b"t", "gone": b"g", "bits": b"b", "kind": b"k"}
    home = make(tmp_path, files | {f"small{n}": noise[n * 9000 :][:9000] for n in range(40)})
    (home / "big").write_bytes(noise)
    (home / "zeros").write_bytes(bytes(1 << 20))
    for path in home.iterdir():
        os.utime(path, (1, 1))
    save_state(lake, {"app": str(home)}, name="old")
    (home / "edited").write_bytes(b"1243")
    (home / "gone").unlink()
    (home / "new").write_bytes(b"new")
    (home / "bits").chmod(0o711)
    (home / "kind").unlink()
    (home / "kind").symlink_to("big")
    (home / "small0").unlink()
    os.link(home / "small1", home / "small0")
    for size in (0, 1 << 20):  # all of it is a hole then
        os.truncate(home / "zeros", size)
    for path in home.iterdir():
        os.utime(path, (1, 1), follow_symlinks=False)
    os.utime(home / "touched", (2, 2))
    save_state(lake, {"app": str(home)}, name="new")
    changes = {each.path: each for each in StateCatalog(lake).diff("old", "new")}
    facts = {path: (x.change, x.before, x.after, x.what) for path, x in changes.items()}
    assert facts == {
        "app/bits": ("changed", 1, 1, ("mode",)),
        "app/edited": ("changed", 4, 4, ("content",)),
        "app/gone": ("removed", 1, None, ()),
        "app/kind": ("changed", 1, None, ("kind",)),
        "app/new": ("added", None, 3, ()),
        "app/small1": ("changed", 9000, 9000, ("kind",)),
        "app/small0": ("changed", 9000, 9000, ("content",)),
        "app/touched": ("changed", 1, 1, ("time",)),
    }
    assert StateCatalog(lake).diff("old", "old") == []


def test_hot_copies_have_the_states(tmp_path: Path, lake: lakelog.Lake) -> None:
    """A backup of the lake holds its state directories; the next one copies only what is new."""
    home = make(tmp_path, {"a": os.urandom(500_000)})
    save_state(lake, {"app": str(home)}, name="one")
    copied = hotcopy.copy(lake.store, str(tmp_path / "copy"))
    assert copied.bytes > 500_000
    assert hotcopy.copy(lake.store, str(tmp_path / "copy")).bytes < 10_000
    with lakelog.open(tmp_path / "copy") as other:
        restore_state(other, "one", to=str(tmp_path / "out"))
    assert (tmp_path / "out" / "a").read_bytes() == (home / "a").read_bytes()


def test_wrong_requests_change_nothing(tmp_path: Path, lake: lakelog.Lake) -> None:
    """Taken names, the lake's own directory, links and unknown states are refused."""
    home = make(tmp_path, {"a": b"1"})
    save_state(lake, {"app": str(home)}, name="one")
    with pytest.raises(AlreadyExists):
        save_state(lake, {"app": str(home)}, name="one")
    with pytest.raises(StateRefused, match="newest"):
        save_state(lake, {"app": str(home)}, name="latest")
    with pytest.raises(StateRefused, match="lake itself"):
        save_state(lake, {"app": str(tmp_path)})
    with pytest.raises(StateRefused, match="label"):
        save_state(lake, {"../x": str(home)})
    with pytest.raises(NotADirectoryError):
        save_state(lake, {"a": str(home / "a")})
    (tmp_path / "link").symlink_to(home)
    for to in ("link", "lake", "lake/x", "app/a", "none/x", "."):
        with pytest.raises(StateRefused):
            restore_state(lake, "one", to=str(tmp_path / to))
    lake.append([{"type": "N"}])
    lake.tag("plain")
    with pytest.raises(UnknownRef, match="no saved state"):
        StateCatalog(lake).find("plain")
    with pytest.raises(UnknownRef):
        undo_restore(lake)
    assert len(list_states(lake)) == 1


def test_a_file_of_the_latest_state_is_read_from_one_state(
    tmp_path: Path, lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save of another directory while a file is looked for does not change what is read."""
    save_state(lake, {"app": str(make(tmp_path, {"a": b"one"}))})
    other = tmp_path / "other"
    other.mkdir()
    locate = StateContents.locate

    def saving(*arguments: Any) -> tuple[str, bytes]:
        found = locate(*arguments)
        save_state(lake, {"other": str(other)})
        return found

    monkeypatch.setattr(StateContents, "locate", saving)
    assert b"".join(StateCatalog(lake).read_file("latest", "app/a")) == b"one"
