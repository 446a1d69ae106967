"""Syncs beside a model, while lake and target are restored, rolled back, emptied, altered, killed.

Whatever happened: after a sync the table equals the lake, or the sync refused with the reason and
left the table as it was.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

import lakelog
from lakelog.errors import LakelogError, NothingToUndo, SyncRefused
from lakelog.sync.sync import status
from tests.support.lakes import opened
from tests.support.sync_places import (
    DuckdbPlace,
    Faulty,
    Place,
    PostgresPlace,
    PostgresServer,
    SqlitePlace,
    expected,
    forked,
    kill,
    postgres_server,
    synced,
)
from tests.support.target_suite import CHANGES, add, lose

COUNT = int(os.environ.get("LAKELOG_SYNC_SCENARIOS", "2"))
STEPS = 14
METHODS = ("begin", "write", "delete", "commit", "clear")
REASONS = (
    "another history",
    "was emptied",
    "removed from the lake",
    "was rewound",
    "table is gone",
    "column was added",
    "rows that no sync wrote",
)
"""Why a sync may refuse."""


class Scenario:
    """One lake, one target, and what happens to both."""

    def __init__(self, home: Path, place: Place, random: Random) -> None:
        self.path, self.home, self.place, self.random = str(home / "lake"), home, place, random
        self.story, self.names = list[str](), 0
        add(self.path, "first", 3)
        with opened(self.path) as lake:
            lake.tag("base")

    def play(self) -> None:
        for _ in range(STEPS):
            step = self.random.choice(STEPS_OF_LAKE + STEPS_OF_TARGET + (Scenario.sync,) * 4)
            self.story.append(step.__name__)
            step(self)
        self.check()

    # --- what a sync has to be ---

    def sync(self) -> None:
        """Sync, perhaps interrupted once; then to the end."""
        fault = self.random.choice((None, None, kill, lose))
        if fault is not None:
            moment, number = self.random.choice(("before", "after")), self.random.randint(1, 3)
            method = self.random.choice(METHODS)
            target: Any = Faulty(self.place.target(), method, moment, number, fault)
            self.story[-1] += f" ({fault.__name__} {moment} {method} {number})"
            if fault is kill:
                forked(lambda: synced(self.path, target))
            else:
                with contextlib.suppress(SyncRefused):
                    synced(self.path, target)
        if self.random.random() < 0.3:
            self.refuses()
        self.check()

    def refuses(self) -> None:
        """A sync that may change no row that is there says why, and leaves the table."""
        before, refused = self._rows(), ""
        try:
            synced(self.path, self.place.url, on_rewind="refuse")
        except SyncRefused as error:
            refused = str(error)
        if refused:
            assert any(words in refused for words in REASONS), refused
            assert self._rows() == before

    def check(self) -> None:
        refused = ""
        try:
            result = synced(self.path, self.place.url)
        except SyncRefused as error:
            refused = str(error)
        if refused:
            assert "the table is gone" in refused, refused
            self.place.ask("DELETE FROM lakelog_sync")
            result = synced(self.path, self.place.url)
        assert self.place.rows() == expected(self.path), self.story
        assert result.total == len(self.place.rows()), self.story
        with lakelog.open(self.path) as lake:
            found = status(lake, self.place.url)[0]
        assert (found.events_behind, found.note) == (0, ""), self.story

    def _rows(self) -> Any:
        with contextlib.suppress(Exception):
            return self.place.rows()
        return None

    # --- what happens to the lake ---

    def grows(self) -> None:
        self.names += 1
        add(self.path, f"n{self.names % 4}", self.random.randint(1, 9))

    def grows_unsealed(self) -> None:
        with opened(self.path) as lake:
            lake.append([{"type": "tail", "data": {"n": self.random.random()}}])

    def is_backed_up(self) -> None:
        shutil.rmtree(self.home / "backup", ignore_errors=True)
        shutil.copytree(self.path, self.home / "backup")

    def is_restored(self) -> None:
        if not (self.home / "backup").exists():
            return self.is_backed_up()
        shutil.rmtree(self.path)
        shutil.copytree(self.home / "backup", self.path)
        # As many events as may have been lost, under the same numbers.
        for _ in range(self.random.randint(0, 2)):
            self.grows()
        return None

    def is_rolled_back(self) -> None:
        with opened(self.path) as lake:
            lake.rollback(self.random.choice(lake.tags()).name)

    def is_undone(self) -> None:
        with opened(self.path) as lake, contextlib.suppress(NothingToUndo):
            lake.undo(force=True)

    def is_tagged(self) -> None:
        self.names += 1
        with opened(self.path) as lake:
            lake.tag(f"t{self.names}")

    def is_branched(self) -> None:
        self.names += 1
        name = f"b{self.names}"
        with opened(self.path) as lake:
            other = lake.branch(name, "base")
            other.append([{"type": name} for _ in range(self.random.randint(1, 9))])
            other.settle()
            other.close()
            lake.rollback(name)

    def is_compacted(self) -> None:
        with opened(self.path) as lake:
            lake.settle()
            lake.compact()

    def loses_duplicates(self) -> None:
        with contextlib.suppress(LakelogError):
            CHANGES["dedupe"](self.path)

    # --- what happens to the target ---

    def is_emptied(self) -> None:
        with contextlib.suppress(Exception):
            self.place.ask("DELETE FROM events")

    def loses_a_column(self) -> None:
        with contextlib.suppress(Exception):
            self.place.ask("ALTER TABLE events DROP COLUMN message")

    def is_dropped(self) -> None:
        with contextlib.suppress(Exception):
            self.place.ask("DROP TABLE events")

    def is_saved(self) -> None:
        """As a replica that lags behind: rows and watermark of one moment."""
        with contextlib.suppress(Exception):
            for name in ("events", "lakelog_sync"):
                self.place.ask(f"DROP TABLE IF EXISTS saved_{name}")
                self.place.ask(f"CREATE TABLE saved_{name} AS SELECT * FROM {name}")

    def fails_over(self) -> None:
        """To that replica."""
        with contextlib.suppress(Exception):
            self.place.ask("SELECT 1 FROM saved_lakelog_sync")
            columns = "seq, type, source, subject, message, data, id, position"
            self.place.ask("DELETE FROM events")
            self.place.ask("DELETE FROM lakelog_sync")
            self.place.ask("INSERT INTO lakelog_sync SELECT * FROM saved_lakelog_sync")
            self.place.ask(f"INSERT INTO events ({columns}) SELECT {columns} FROM saved_events")

    def crashes(self) -> None:
        if isinstance(self.place, PostgresPlace):
            self.place.server.stop()
            self.place.server.start()


STEPS_OF_LAKE: tuple[Callable[[Scenario], None], ...] = (
    Scenario.grows,
    Scenario.grows,
    Scenario.grows_unsealed,
    Scenario.is_backed_up,
    Scenario.is_restored,
    Scenario.is_restored,
    Scenario.is_rolled_back,
    Scenario.is_undone,
    Scenario.is_tagged,
    Scenario.is_branched,
    Scenario.is_compacted,
    Scenario.loses_duplicates,
)
STEPS_OF_TARGET: tuple[Callable[[Scenario], None], ...] = (
    Scenario.is_emptied,
    Scenario.loses_a_column,
    Scenario.is_dropped,
    Scenario.is_saved,
    Scenario.fails_over,
    Scenario.crashes,
)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lakelog.clients.connection.pause", lambda attempt: 0.001)


@pytest.mark.parametrize("number", range(COUNT))
def test_random_scenarios_with_a_file(home: Path, number: int) -> None:
    place: Place = SqlitePlace(home) if number % 3 else DuckdbPlace(home)
    Scenario(home, place, Random(int(os.environ.get("LAKELOG_SEED", "7")) * 1_000 + number)).play()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        yield running


@pytest.mark.thorough
@pytest.mark.parametrize("number", range(max(1, COUNT // 4)))
def test_random_scenarios_with_postgresql(home: Path, server: PostgresServer, number: int) -> None:
    place = PostgresPlace(server)
    Scenario(home, place, Random(int(os.environ.get("LAKELOG_SEED", "8")) * 1_000 + number)).play()
