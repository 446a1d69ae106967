"""Wall clocks that are wrong or set back decide nothing: what was acknowledged first counts, and
history goes on from the moment the clock is right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import lakelog
from lakelog.disk import disk
from lakelog.values import to_micros
from tests.support import lakes

HOUR = 3_600_000_000
YEARS = 14 * 365 * 24 * HOUR


class Wall:
    """A wall clock that can be set; `shift` in microseconds."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        real, self.shift = disk.now_us, 0
        patch.setattr(disk, "now_us", lambda: real() + self.shift)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    return Wall(monkeypatch)


def _put(lake: lakelog.Lake, message: str, id: str = "x") -> None:
    lake.append({"type": "T", "id": id, "message": message})


def _messages(lake: lakelog.Lake) -> list[str]:
    return [m for (m,) in lake.sql("SELECT message FROM events ORDER BY message").fetchall()]


def test_an_acknowledged_event_outlives_a_clock_that_was_set_back(
    tmp_path: Path, wall: Wall
) -> None:
    path = str(tmp_path / "lake")
    with lakes.opened(path) as first, lakes.opened(path) as second:
        _put(first, "first")
        assert _messages(first) == ["first"]
        wall.shift = -5_000_000
        _put(second, "second")
        assert _messages(first) == _messages(second) == ["first"]
        second.settle()
        assert _messages(first) == ["first"]


@pytest.mark.parametrize("harm", ["deleted", "another boot", "shortened"])
def test_a_lost_cache_does_not_lose_the_order(tmp_path: Path, wall: Wall, harm: str) -> None:
    """F8.5: the tail itself tells, on the first append of a boot."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        _put(lake, "first")
    clock = Path(path, "cache/clock")
    known = clock.read_bytes()
    if harm == "deleted":
        clock.unlink()
    else:
        clock.write_bytes(bytes(8) + bytes(16) if harm == "another boot" else known[:3])
    wall.shift = -5_000_000
    with lakes.opened(path) as lake:
        _put(lake, "second")
        assert _messages(lake) == ["first"]


def test_a_cache_that_cannot_be_written_stops_no_append(tmp_path: Path) -> None:
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        Path(path, "cache/clock").mkdir()
        _put(lake, "a", "a")
        _put(lake, "b", "a")
        assert _messages(lake) == ["a"]


def test_stamps_return_to_the_wall_clock_once_wrong_ones_are_sealed(
    tmp_path: Path, wall: Wall
) -> None:
    path = str(tmp_path / "lake")
    wall.shift = YEARS
    with lakes.opened(path) as lake:
        _put(lake, "wrong", "w")
    wall.shift = 0
    with lakes.opened(path) as lake:  # still in the WAL: it came first
        _put(lake, "again", "w")
        assert _messages(lake) == ["wrong"]
        lake.settle()
    with lakes.opened(path) as lake:
        lake.settle()
        _put(lake, "right", "r")
        (when,) = lake.sql("SELECT ingested_at FROM events WHERE id = 'r'").fetchall()[0]
        assert to_micros(when) < disk.now_us() + HOUR


def test_a_move_of_a_clock_years_ahead_misleads_nobody(tmp_path: Path, wall: Wall) -> None:
    path = str(tmp_path / "lake")
    with lakes.opened(path, history_days=1, gc_grace_hours=1) as lake:
        _put(lake, "a", "a")
        lake.snapshot("right")
        wall.shift = YEARS
        _put(lake, "b", "b")
        lake.snapshot("years ahead")
        wall.shift = 0
        between = disk.now_us()
        _put(lake, "c", "c")
        lake.snapshot("right again")
        newest = next(iter(lake.log())).move
        assert newest.time < disk.now_us() + HOUR
        assert lake.at(_iso(disk.now_us())).count() == 3
        assert lake.at(_iso(between)).count() == 1
        assert not lake.verify().problems


def test_gc_thins_and_ends_the_history_of_a_clock_that_was_ahead(
    tmp_path: Path, wall: Wall
) -> None:
    path = str(tmp_path / "lake")
    with lakes.opened(path, history_days=1, gc_grace_hours=0, history_dense_hours=1) as lake:
        wall.shift = YEARS
        for n in range(120):
            lake.append({"type": "T", "data": {"n": n}})
            lake.settle()
        wall.shift = -3 * 24 * HOUR
        for n in range(120):
            lake.append({"type": "T", "data": {"n": n}})
            lake.settle()
        wall.shift = 0
        _age(path, 4 * 24 * 3600)
        lake.gc()
        _age(path, 4 * 24 * 3600)
        lake.gc()
        kept = sum(entry.events is not None for entry in lake.log())
        assert 100 <= kept <= 110, "what a wrong clock dated 2040 was kept for fourteen years"
        assert lake.count() == 240


def _age(path: str, seconds: float) -> None:
    """Make every file older."""
    for folder, _, names in os.walk(path):
        for name in names:
            status = os.stat(f"{folder}/{name}")
            os.utime(f"{folder}/{name}", (status.st_atime - seconds, status.st_mtime - seconds))


def _iso(micros: int) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(micros / 1e6, datetime.UTC).isoformat()
