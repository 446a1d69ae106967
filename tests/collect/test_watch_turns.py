"""Watching large files: they take turns with all others, and every line comes in once."""

from __future__ import annotations

import gzip
import os
from collections import Counter
from pathlib import Path

import pytest

import lakelog
from lakelog.collect import turns, watch
from lakelog.collect.turns import Reading
from lakelog.ingest import batch, group
from lakelog.lines import source
from tests.support.watched_records import proven
from tests.support.watching import Place, Watched, stored

LARGE = 12_000
"""Lines of a file that needs several turns."""


@pytest.fixture(autouse=True)
def _small_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn is a few chunks; no copy need be waited for."""
    monkeypatch.setattr(watch, "STABLE", -1.0)
    monkeypatch.setattr(turns, "SIZE", 1 << 17)
    monkeypatch.setattr(turns, "SECONDS", 600.0)
    monkeypatch.setattr(source.Source, "CHUNK", 1 << 16)
    monkeypatch.setattr(source, "_NEAR", 1 << 10)
    monkeypatch.setattr(group, "PIECE_MAX", 1 << 16)


def finish(watcher: watch.Watcher) -> None:
    """Go on until every file is at its end."""
    for _ in range(200):
        watcher.round(final=True)
        if not watcher.is_behind:
            return
    raise AssertionError("the files never end")


def test_small_files_do_not_wait_for_large_ones(lake: lakelog.Lake, tmp_path: Path) -> None:
    """While four large files are caught up with, each line of a small one is there after the next
    round, and so is that of a packed one."""
    place = Place(tmp_path / "logs")
    for name in ("a.log", "b.log", "c.log", "d.log"):
        place.write(name, LARGE)
    place.pack("d.log")
    rounds = 0
    with Watched(lake, place) as watcher:
        watcher.round()
        while watcher.is_behind:
            rounds += 1
            place.write("small.log", 2)
            line = place.written[-1]
            place.write("packed.log", 2)
            (place.root / f"packed.log.{rounds}.gz").write_bytes(
                gzip.compress((place.root / "packed.log").read_bytes())
            )
            (place.root / "packed.log").unlink()
            packed = place.written[-1]
            before = stored(lake)
            assert before[line] == 0
            watcher.round()
            assert (stored(lake)[line], stored(lake)[packed]) == (1, 1)
        assert watcher.totals.events == len(place.written)
    assert rounds > 2
    proven(lake, place)


@pytest.mark.matrix
@pytest.mark.parametrize("how", ["rename", "remove", "pack", "truncate", "replace"])
def test_a_large_file_is_rotated_between_its_turns(
    lake: lakelog.Lake, tmp_path: Path, how: str
) -> None:
    """A file that is renamed, removed, packed, cut or replaced while it has turns gives each line
    once, and so does the one that has its name then."""
    place = Place(tmp_path / "logs")
    place.write("other.log", LARGE)
    place.write("a.log", LARGE)
    with Watched(lake, place) as watcher:
        watcher.round()
        assert watcher.is_behind
        place.write("a.log", 10)
        if how == "rename":
            place.move("a.log", "a.log.1")
        elif how == "remove":
            place.remove("a.log")
        elif how == "pack":
            place.pack("a.log")
        elif how == "truncate":
            place.copy_truncate("a.log", "a.log.1")
        else:
            place.write("a.new", 5)
            place.move("a.new", "a.log")
        place.write("a.log", 3)
        finish(watcher)
        place.write("a.log", 3)
        finish(watcher)
    assert stored(lake) == Counter(place.written)


def test_rotation_before_a_packed_file_is_opened(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Logs that are rotated between the scan and the turn of an older, packed one give each line
    once: the turn does not read what has its name by then."""
    place = Place(tmp_path / "logs")
    place.write("a.log.1", 20)
    place.pack("a.log.1")
    place.write("a.log", 20)
    with Watched(lake, place) as watcher:
        begin = watcher._turns._begin

        def begin_late(
            path: str, name: str, mode: str, identity: tuple[int, int], limit: int | None
        ) -> Reading:
            watcher._turns._begin = begin
            place.move("a.log.1.gz", "a.log.2.gz")
            place.write("a.log", 10)
            place.move("a.log", "a.log.1")
            place.pack("a.log.1")
            os.utime(place.root / "a.log.1.gz")  # as a log that was flushed once more before
            place.write("a.log", 5)
            return begin(path, name, mode, identity, limit)

        watcher._turns._begin = begin_late
        finish(watcher)
        assert watcher._turns._begin is begin
        place.write("a.log", 5)
        finish(watcher)
    assert stored(lake) == Counter(place.written)


def test_a_watcher_that_dies_between_two_turns(lake: lakelog.Lake, tmp_path: Path) -> None:
    """What a turn brought is published; the next watcher goes on from there."""
    place = Place(tmp_path / "logs")
    place.write("a.log", LARGE)
    with Watched(lake, place) as watcher:
        first = watcher.round()
        assert 0 < first < LARGE
    with Watched(lake, place) as watcher:
        finish(watcher)
        assert watcher.totals.events == LARGE - first
    proven(lake, place)


def test_another_reader_of_a_file_that_has_turns(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Where somebody else takes the file in between two turns, nothing is doubled."""
    place = Place(tmp_path / "logs")
    place.write("a.log", LARGE)
    with Watched(lake, place) as watcher:
        watcher.round()
        lake.ingest(str(place.root / "a.log"))
        place.write("a.log", 5)
        finish(watcher)
    proven(lake, place)


def test_a_lake_that_fails_between_turns(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn whose publish fails is repeated from the cursor on."""
    place = Place(tmp_path / "logs")
    place.write("a.log", LARGE)

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with Watched(lake, place) as watcher:
        watcher.round()
        with monkeypatch.context() as patch:
            patch.setattr(batch, "publish", fail)
            with pytest.raises(OSError, match="No space"):
                watcher.round()
        finish(watcher)
    proven(lake, place)
