"""The space after a WAL's frames: overwritten, torn, read while it is written, and given back."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import lakelog
from lakelog.disk import disk
from lakelog.wal import frames as wal
from lakelog.wal import trimming as trim
from lakelog.wal.tail import Tail, WalFile
from tests.support import lakes

SECTOR = 512


def only(lake: lakelog.Lake) -> Path:
    """The one WAL of a lake."""
    (file,) = Path(lake.path, "wal/main").iterdir()
    return file


def kill(lake: lakelog.Lake) -> None:
    """Let the writer die: its lock is free, and its file stays as it is."""
    writer = lake.writer()
    disk.close(writer._fd)
    writer._fd = -1


def read(lake: lakelog.Lake) -> WalFile:
    """The one WAL of a lake as a new reader sees it."""
    [[file]] = Tail(lake.store.paths, lake.store.refs, "main").scan().values()
    return file


def test_most_commits_keep_the_size_of_the_file(make_lake: Callable[..., lakelog.Lake]) -> None:
    """Of 300 small commits few grow the file, it is never twice as long as what it holds and 8 KiB,
    and closing gives the space back."""
    lake = make_lake(seal="never")
    sizes = []
    for n in range(300):
        lake.append({"type": "A", "data": n})
        sizes.append(only(lake).stat().st_size)
        assert sizes[-1] <= 2 * read(lake).used + 8192
    assert len(set(sizes)) < 10
    assert lake.stats().wal_bytes == read(lake).used < sizes[-1]
    lake.close()
    with lakes.opened(lake.path) as again:
        assert only(again).stat().st_size == read(again).used
        assert again.count() == 300


def test_one_event_takes_no_space(lake: lakelog.Lake) -> None:
    """The first frame of a file has no space, nor has a large one: such a sync writes it anyway."""
    lake.append({"type": "A"})
    assert only(lake).stat().st_size == read(lake).used
    lake.append({"type": "B", "data": os.urandom(100_000).hex()})
    assert only(lake).stat().st_size == read(lake).used


def test_commits_of_a_page_or_more_are_compressed(lake: lakelog.Lake) -> None:
    """What fills no page stands in the file as it is; longer frames are far shorter than that."""
    lake.append([{"type": "SMALL", "data": n} for n in range(40)])
    assert only(lake).read_bytes().count(b'"SMALL"') == 40
    before = read(lake).used
    lake.append([{"type": "LARGE", "data": n} for n in range(1000)])
    assert read(lake).used - before < 10_000
    assert lake.count() == 1040


@pytest.mark.damaged
@pytest.mark.parametrize("size", [40, 700, 3000, 9000])
def test_any_sectors_of_an_unsynced_frame_are_no_damage(
    make_lake: Callable[..., lakelog.Lake], size: int
) -> None:
    """Whatever sectors of the last write are missing, what was acknowledged is there, and what is
    left of the frame is torn, not damaged."""
    lake, dice = make_lake(seal="never"), random.Random(size)
    for n in range(dice.randint(2, 9)):
        lake.append({"type": "A", "data": [n, dice.randbytes(dice.randint(1, 900)).hex()]})
    old, count = only(lake).read_bytes(), lake.count()
    lake.append({"type": "LAST", "data": dice.randbytes(size // 2).hex()})
    new = only(lake).read_bytes()
    kill(lake)
    changed = [
        at for at in range(0, len(new), SECTOR) if new[at : at + SECTOR] != old[at : at + SECTOR]
    ]
    whole = 0
    for _ in range(60):
        kept = {at for at in changed if dice.random() < 0.5}
        stop = dice.choice([len(new), len(new), dice.randint(len(old), len(new))])
        parts = [
            (old.ljust(len(new), b"\0") if at in changed and at not in kept else new)[
                at : at + SECTOR
            ]
            for at in range(0, len(new), SECTOR)
        ]
        only(lake).write_bytes(b"".join(parts)[:stop])
        file = read(lake)
        assert file.damage is None
        assert sum(frame.events for frame in file.frames) in (count, count + 1)
        whole += sum(frame.events for frame in file.frames) > count
        assert {p.kind for p in lake.verify().problems} <= {"torn"}
    assert whole < 60 or len(changed) < 2


@pytest.mark.damaged
def test_a_lost_sector_under_later_frames_is_damage(lake: lakelog.Lake) -> None:
    """Zeros in the place of a frame are its damage, not the end, if a frame comes after them."""
    for n in range(4):
        lake.append({"type": "A", "data": n})
    at = read(lake).frames[1].offset
    kill(lake)
    data = bytearray(only(lake).read_bytes())
    data[at : at + 40] = bytes(40)
    only(lake).write_bytes(data)
    assert read(lake).damage == at
    with pytest.raises(lakelog.errors.DamagedWal):
        lakelog.open(lake.path).count()


def test_frames_written_while_a_reader_reads_are_no_damage(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that passed the place of a frame before it was written, and sees a later frame,
    looks again before it calls the file damaged."""
    for n in range(3):
        lake.append({"type": "A", "data": n})
    pread, late = os.pread, [2]

    def slow(fd: int, size: int, at: int) -> bytes:
        data = pread(fd, size, at)
        if late[0] and size > 100:
            late[0] -= 1
            with ThreadPoolExecutor(1) as other:  # whose reader has locks of its own
                end = other.submit(read_quietly, lake).result().used
                for n in range(2):
                    other.submit(lake.append, {"type": "B", "data": n}).result()
            fresh = pread(fd, size, at)
            data = data[: end - at + 30] + fresh[end - at + 30 :]
        return data

    def read_quietly(lake: lakelog.Lake) -> WalFile:
        with monkeypatch.context() as inner:
            inner.setattr(os, "pread", pread)
            return read(lake)

    monkeypatch.setattr(os, "pread", slow)
    file = read(lake)
    assert file.damage is None
    assert len(file.frames) >= 5


def test_a_frame_written_over_space_keeps_its_file(lake: lakelog.Lake) -> None:
    """A file in which a frame took the place of space since it was read is not trimmed, though it
    has the same size and its writer is dead."""
    for n in range(3):
        lake.append({"type": "A", "data": n})
    tail = Tail(lake.store.paths, lake.store.refs, "main")
    [[seen]] = tail.scan().values()
    lake.settle()
    size = only(lake).stat().st_size
    lake.append({"type": "LATE"})
    assert only(lake).stat().st_size == size
    kill(lake)
    assert not trim._remove(lake.store, seen, newest=True)
    assert lake.count() == 4


def test_space_is_never_less_than_its_head() -> None:
    """Whatever room is left after a frame, what is written ends where space can begin."""
    for room in range(-20, 40):
        for frame in (200, 1 << 20):
            stop = 10_000
            head, zeros = wal.space_after(stop, stop + room, frame)
            space = head + bytes(zeros)
            whole = max(stop + room, stop + len(space))
            data = (b"x" * stop + space).ljust(whole, b"\0")
            assert wal.is_space(data[stop:])
            if space:
                assert int.from_bytes(space[4:8], "little") == whole - stop - 8
            assert room in (0, *range(8, 40)) or frame > 200 or len(space) > 4096
