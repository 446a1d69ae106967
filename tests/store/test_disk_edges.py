"""What the store does at its edges: calls that do half of what they were asked, and late looks."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import lakelog
from lakelog import document
from lakelog.disk import LockFile, NotIntact, disk
from lakelog.errors import GcRefused
from tests.support import seam

MakeLake = Callable[..., lakelog.Lake]


def test_a_short_write_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few bytes the system takes at a time, all are written, in order."""
    real = os.write
    path = str(tmp_path / "f")
    fd = disk.create(path)
    few = SimpleNamespace(write=lambda fd, data: real(fd, bytes(data[:7])))
    monkeypatch.setattr(disk, "os", few)
    disk.write_all(fd, bytes(range(100)))
    monkeypatch.undo()
    disk.close(fd)
    assert disk.read(path) == bytes(range(100))


def test_space_is_written_in_small_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No call writes more than 64 KiB, and all bytes are there, in order."""
    real, sizes = os.write, list[int]()
    path, data = str(tmp_path / "f"), bytes(range(256)) * 1000
    fd = disk.create(path)

    def write(fd: int, data: bytes) -> int:
        sizes.append(len(data))
        return real(fd, data)

    monkeypatch.setattr(disk, "os", SimpleNamespace(write=write))
    disk.write_blocks(fd, data, 100_000)
    monkeypatch.undo()
    disk.close(fd)
    assert disk.read(path) == data + bytes(100_000)
    assert max(sizes) == 1 << 16


def test_an_interrupted_finish_closes_each_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of a closed file may be that of another one by then."""
    files = [disk.begin_object(str(tmp_path / name), b"x") for name in "abc"]
    opened, closed, real = {file.fd for file in files}, list[int](), disk.close

    def close(fd: int) -> None:
        real(fd)
        closed.append(fd)
        if len(closed) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(disk, "close", close)
    with pytest.raises(KeyboardInterrupt):
        disk.finish(files)
    while files:
        files.pop().abandon()
    assert sorted(closed) == sorted(opened)
    assert sorted(disk.listing(str(tmp_path)))[-3:] == ["a", "b", "c"]


def test_what_is_gone_is_no_error(tmp_path: Path) -> None:
    """Removing what is not there is done already; nobody holds a lock on it."""
    disk.remove_dir(str(tmp_path / "none"))
    disk.unlink(str(tmp_path / "none"))
    assert not LockFile(str(tmp_path / "none")).is_held()
    assert not disk.exists(str(tmp_path / "none" / "below"))
    assert disk.listing(str(tmp_path / "none")) == []


def test_a_lock_that_cannot_be_taken_is_an_error(tmp_path: Path) -> None:
    """Only a lock that another holds is no error; a dead descriptor is one."""
    fd = disk.create(str(tmp_path / "f"))
    disk.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        disk.lock(fd)


def test_a_document_is_an_object() -> None:
    """Bytes with the right checksum that are no object are no document."""
    text = b"[1}"
    data = text[:-1] + document.ending(text)
    with pytest.raises(NotIntact, match="not a JSON object"):
        document.decode(data)


def test_gc_refuses_a_condemned_list_it_cannot_read(make_lake: MakeLake) -> None:
    """A damaged list of what is condemned deletes nothing, and says what to do."""
    lake = make_lake()
    lake.append({"type": "A"})
    lake.settle()
    path = Path(lake.store.paths.condemned)
    path.write_bytes(b"{}")
    with pytest.raises(GcRefused, match="delete this file and run gc again"):
        lake.gc()
    path.unlink()
    assert lake.gc().deleted == 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("linked", [True, False])
def test_a_full_disk_at_the_link_of_a_move(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch, code: int, linked: bool
) -> None:
    """A link that fails for want of room was made or not: the number is read back, once."""
    lake = make_lake()
    lake.append({"type": "A"})
    real, left = disk.link, [1]

    def link(source: str, target: str) -> None:
        if "/refs/heads/" in target and left[0]:
            left[0] -= 1
            if linked:
                real(source, target)
            raise OSError(code, "planted")
        real(source, target)

    monkeypatch.setattr(disk, "link", link)
    if linked:
        assert lake.settle().move.number == 2
    else:
        with pytest.raises(OSError, match="planted"):
            lake.settle()
        assert lake.settle().move.number == 2
    assert lake.count() == 1
    assert [entry.move.op for entry in lake.log()] == ["seal", "init"]


def test_a_torn_last_frame_is_kept_aside(make_lake: MakeLake) -> None:
    """When a dead writer's file is trimmed, the bytes of its unfinished frame are kept."""
    lake = make_lake()
    lake.append({"type": "A"})
    writer: Any = lake.writer()
    path = f"{lake.path}/wal/main/{writer.name}-000000.jsonl.zst"
    disk.close(writer._fd)
    writer._fd = -1
    with open(path, "ab") as file:
        file.write(b"half a frame")
    with lakelog.open(lake.path) as other:
        other.settle()
        assert not os.path.exists(path)
        (kept,) = os.listdir(other.store.paths.cut)
        assert Path(other.store.paths.cut, kept).read_bytes() == b"half a frame"
        assert other.count() == 1


def test_a_cache_that_cannot_be_written_fails_nothing(make_lake: MakeLake) -> None:
    """Where cache/ cannot even hold a lock, all that is durable is done and reported as done."""
    lake = make_lake(seal="never")
    lake.append([{"type": "A", "id": "1"}, {"type": "B"}])
    lake.settle()
    shutil.rmtree(lake.store.paths.cache)
    Path(lake.store.paths.cache).write_text("in the way")
    try:
        with make_lake() as other:
            other.append({"type": "C", "id": "2"})
            other.settle()
            other.tag("v1")
            assert other.compact().removed == 2
            assert other.at("v1").count() == other.count() == 3
            other.rollback("v1")
    finally:
        Path(lake.store.paths.cache).unlink()
        os.mkdir(lake.store.paths.cache)


def test_a_full_disk_after_the_move_is_no_failure(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was published is published, though its hint and the rest do not fit any more."""
    lake = make_lake()
    real = disk.replace_whole

    def full(path: str, data: bytes, *, sync: bool = True) -> None:
        if path.endswith("/hint") or "/cache/" in path:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data, sync=sync)

    monkeypatch.setattr(disk, "replace_whole", full)
    lake.append({"type": "A"})
    lake.settle()
    lake.tag("v1")
    lake.snapshot("one")
    monkeypatch.undo()
    assert [e.move.op for e in make_lake().log()] == ["snapshot", "seal", "init"]


def test_two_processes_never_spill_into_one_directory(make_lake: MakeLake) -> None:
    """In two containers on one lake both may be process number 1."""
    query = "SELECT current_setting('temp_directory')"
    used = {lake.sql(query).fetchone() for lake in (make_lake(), make_lake())}
    assert len(used) == 2


def test_states_near_by_are_found_without_reading_all(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REF~1 reads the moves as far back as it goes, an id every kept one, and that once; a whole
    one a few again, to find its place."""
    lake = make_lake()
    for number in range(70):
        lake.snapshot(str(number))
    log = [entry.move.snapshot for entry in lake.log()]
    reader, real = make_lake(), disk.read
    read: list[str] = []
    monkeypatch.setattr(disk, "read", lambda path, *most: (read.append(path), real(path, *most))[1])
    for ref, most in (("main~1", 4), (log[40], 84), (log[50][:20], 74), ("main~3", 6)):
        read.clear()
        assert reader.at(ref).id in log
        assert sum("/heads/" in path for path in read) <= most, ref
    assert reader.at("main~3").id == log[3]
    assert reader.at(log[40][:10]).id == log[40]


def test_a_directory_that_another_process_made_is_durable_before_its_object(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may die between making a directory of objects and syncing its name; an object that
    another process puts into it then survives a power cut."""
    path = home / "segments" / "ab"
    path.mkdir(parents=True)
    synced: list[str] = []

    def watch(name: str, real: Callable[..., Any], *given: Any, **named: Any) -> Any:
        if name == "sync_dir":
            synced.append(given[0])
        return real(*given, **named)

    seam.install(monkeypatch, watch)
    disk.put_object(f"{path}/one", b"1")
    disk.put_object(f"{path}/two", b"2")
    assert synced == [str(path.parent), str(path), str(path)]
    path.rename(home / "gone")
    disk.put_object(f"{path}/three", b"3")
    assert path.is_dir()


def test_an_empty_lake_has_no_directory_of_objects(make_lake: MakeLake) -> None:
    """Directories that would be empty are made when their first object comes."""
    lake = make_lake()
    folders = [path for path in Path(lake.path).rglob("*") if path.is_dir()]
    assert len(folders) < 20
    lake.append({"type": "A"})
    lake.settle()
    segments = list(Path(lake.path, "segments").iterdir())
    assert [len(list(folder.iterdir())) for folder in segments] == [1]
