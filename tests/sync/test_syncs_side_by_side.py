"""Two syncs of one table: of two processes, and of two machines of a shared lake."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.errors import SyncRefused
from lakelog.lake import Lake
from lakelog.remotes.shared import attach
from lakelog.sync.comparison import check
from lakelog.sync.sync import status, sync
from lakelog.sync.syncer import Syncer
from lakelog.sync.target import SyncTarget
from tests.support.sync_places import Faulty, SqlitePlace, expected, synced
from tests.support.target_suite import add


@pytest.mark.parametrize("method", ["connect", "watermarks", "begin"])
def test_concurrent_sync_takes_back_nothing_of_a_faster_one(home: Path, method: str) -> None:
    """It knew an older state of the lake: it goes on to the one that the table has."""
    path, place = str(home / "lake"), SqlitePlace(home)
    add(path, "first", 5)
    synced(path, place.url)
    add(path, "second", 5)

    def overtake(_: SyncTarget) -> None:
        add(path, "third", 5)
        assert synced(path, place.url).written == 10

    target: Any = Faulty(place.target(), method, "before", 1, overtake)
    result = synced(path, target, on_rewind="refuse")
    assert (result.written, result.deleted, result.total) == (0, 0, 15)
    assert place.rows() == expected(path)


@contextlib.contextmanager
def machines(home: Path) -> Iterator[tuple[Lake, Lake]]:
    """Two directories of one lake."""
    paths = [str(home / name) for name in ("one", "two")]
    for path in paths:
        attach(f"file://{home}/bucket", path)
    with lakelog.open(paths[0]) as one, lakelog.open(paths[1]) as two:
        yield one, two


def _append(lake: Lake, count: int) -> None:
    lake.append([{"type": "x", "data": {"n": n}} for n in range(count)])


def test_incremental_sync_of_a_machine_that_has_not_heard_of_the_newest(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine has synced states that have not arrived: they stay, and are asked for."""
    monkeypatch.setattr("lakelog.sync.syncer._SEALS", 1.0)
    monkeypatch.setattr("lakelog.sync.syncer._SEAL_EVERY", 1e9)
    place = SqlitePlace(home)
    with machines(home) as (one, two):
        with contextlib.closing(Syncer(two, place.url, continuous=True)) as syncer:
            _append(two, 1)
            assert syncer.run().total == 1
            # It has sealed as often as it may: now it goes to the newest state that is here.
            _append(one, 5)
            assert sync(one, place.url).total == 6
            result = syncer.run()
            assert (result.deleted, result.is_rebuilt, result.total) == (0, False, 6)
        assert len(place.rows()) == 6


def test_status_of_a_machine_that_has_not_heard_of_the_newest(home: Path) -> None:
    place = SqlitePlace(home)
    with machines(home) as (one, two):
        two.exchange()
        _append(one, 5)
        sync(one, place.url)
        found = status(two, place.url)[0]
    assert (found.events_behind, found.note) == (0, "")


def test_check_on_a_machine_that_has_not_heard_of_the_newest(home: Path) -> None:
    place = SqlitePlace(home)
    with machines(home) as (one, two):
        two.exchange()
        _append(one, 5)
        sync(one, place.url)
        assert check(two, place.url)[0].is_equal


def test_check_in_a_lake_that_was_restored(home: Path) -> None:
    """What the table was synced to is gone, and nothing is damaged."""
    path, place = str(home / "lake"), SqlitePlace(home)
    add(path, "first", 5)
    shutil.copytree(path, home / "backup")
    add(path, "second", 5)
    synced(path, place.url)
    shutil.rmtree(path)
    (home / "backup").rename(path)
    with lakelog.open(path) as lake:
        with pytest.raises(SyncRefused, match=r"not in the lake any more.*: sync first"):
            check(lake, place.url)
        sync(lake, place.url)
        assert check(lake, place.url)[0].is_equal


def test_sync_that_goes_on_waits_for_a_bucket_that_is_away(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakelog.sync.syncer._WAIT", 0.001)
    place, said, stop = SqlitePlace(home), list[str](), threading.Event()
    with machines(home) as (one, _):
        _append(one, 5)
        os.rename(home / "bucket", home / "elsewhere")

        def hear(problem: str) -> None:
            said.append(problem)
            if "waiting for it" in problem:
                os.rename(home / "elsewhere", home / "bucket")

        with contextlib.closing(Syncer(one, place.url, continuous=True, say=hear)) as syncer:
            assert syncer.run(stop).written == 5
    assert [problem.split()[-1] for problem in said] == ["again", "it", "again"]
