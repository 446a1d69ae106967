"""A sync that goes on: it waits for servers, shares files, and makes few segments."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.clients.connection import ConnectionLost
from lakelog.sync.syncer import Syncer
from lakelog.sync.target import SyncTarget
from tests.support.sync_places import DuckdbPlace, SqlitePlace, expected
from tests.support.target_suite import add


class Away:
    """A target that cannot be reached at first."""

    def __init__(self, inner: SyncTarget, times: int) -> None:
        self._inner, self.left = inner, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def connect(self) -> None:
        self.left -= 1
        if self.left >= 0:
            raise ConnectionLost("the server is away")
        self._inner.connect()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lakelog.clients.connection.pause", lambda attempt: 0.001)
    monkeypatch.setattr("lakelog.sync.syncer._WAIT", 0.001)


@pytest.fixture
def path(home: Path) -> str:
    path = str(home / "lake")
    add(path, "a", 5)
    return path


def test_waits_for_a_server_that_is_away(home: Path, path: str) -> None:
    """However long; it says so once, and when the table is synced again."""
    place, said = SqlitePlace(home), list[str]()
    with lakelog.open(path) as lake:
        target: Any = Away(place.target(), 30)
        with contextlib.closing(Syncer(lake, target, continuous=True, say=said.append)) as syncer:
            assert syncer.run().written == 5
    assert [words.rpartition(";")[2].strip() for words in said[:2]] == [
        "trying again",
        "waiting for it",
    ]
    assert said[2].endswith("is synced again")
    assert len(said) == 3
    assert place.rows() == expected(path)


def test_signal_ends_the_waiting(home: Path, path: str) -> None:
    stop = threading.Event()
    with lakelog.open(path) as lake:
        target: Any = Away(SqlitePlace(home).target(), 1 << 40)
        with contextlib.closing(Syncer(lake, target, continuous=True)) as syncer:
            thread = threading.Timer(0.1, stop.set)
            thread.start()
            assert syncer.run(stop).commits == 0
            thread.join()


def test_does_not_make_a_segment_in_each_round(home: Path, path: str) -> None:
    place = SqlitePlace(home)
    with lakelog.open(path) as lake:
        before = lake.store.state("main").totals.segments
        with contextlib.closing(Syncer(lake, place.url, continuous=True)) as syncer:
            for number in range(12):
                lake.append([{"type": "b", "data": {"n": number}}])
                syncer.run()
            assert lake.store.state("main").totals.segments <= before + 4
            # What others seal is synced at once.
            lake.settle()
            syncer.run()
            assert lake.store.state("main").totals.segments <= before + 5
    assert place.rows() == expected(path)


def test_duckdb_file_is_free_between_rounds(home: Path, path: str) -> None:
    place = DuckdbPlace(home)
    program = "import duckdb, sys; print(duckdb.connect(sys.argv[1]).sql('FROM events'))"
    with (
        lakelog.open(path) as lake,
        contextlib.closing(Syncer(lake, place.url, continuous=True)) as syncer,
    ):
        for _ in range(2):
            syncer.run()
            command = [sys.executable, "-c", program, str(place.path)]
            subprocess.run(command, check=True, capture_output=True)
        lake.append([{"type": "b"}])
        assert syncer.run().written == 1
    assert place.rows() == expected(path)
