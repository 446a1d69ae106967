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
from lakelog.sync.target import WATERMARKS
from tests.support.elastic_server import ElasticPlace, ElasticServer
from tests.support.influx_server import InfluxPlace, InfluxServer, RealInflux, real_influx
from tests.support.kafka_server import KafkaServer, kafka_server
from tests.support.kafka_topic import TopicPlace
from tests.support.lakes import opened
from tests.support.mysql_server import MysqlPlace, MysqlServer, mysql_server
from tests.support.strict_server import running
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
from tests.support.sync_tampering import (
    ElasticTampering,
    InfluxTampering,
    KafkaTampering,
    SqlTampering,
    StrictInfluxTampering,
    Tampering,
)
from tests.support.target_suite import CHANGES, add, lose

COUNT = int(os.environ.get("LAKELOG_SYNC_SCENARIOS", "2"))
FEW = max(1, COUNT // 4)
STEPS = 14
SIZED = "SELECT *, length(message) AS size FROM events"
MAPPINGS: tuple[dict[str, Any], ...] = (
    {},
    {"query": SIZED},
    {"query": SIZED, "columns": {"size": "bigint"}},
)
"""Other columns and types, which do not change those that are compared."""
METHODS = ("begin", "write", "delete", "commit", "clear")
REASONS = (
    "another history",
    "was emptied",
    "removed from the lake",
    "was rewound",
    "table is gone",
    "column was added",
    "column was dropped",
    "mapping is another one",
    "rows that no sync wrote",
    "sync to another topic",
)
"""Why a sync may refuse."""


class Scenario:
    """One lake, one target, and what happens to both."""

    def __init__(self, home: Path, tampering: Tampering, random: Random) -> None:
        self.path, self.home, self.random = str(home / "lake"), home, random
        self.place, self.tampering = tampering.place, tampering
        self.options: dict[str, Any] = {}
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
                forked(lambda: synced(self.path, target, **self.options))
            else:
                with contextlib.suppress(SyncRefused):
                    synced(self.path, target, **self.options)
        if self.random.random() < 0.3:
            self.refuses()
        self.check()

    def refuses(self) -> None:
        """A sync that may change no row that is there says why, and leaves the table."""
        before, refused = self._rows(), ""
        try:
            synced(self.path, self.place.url, on_rewind="refuse", **self.options)
        except SyncRefused as error:
            refused = str(error)
        if refused:
            assert any(words in refused for words in REASONS), refused
            assert self._rows() == before

    def check(self) -> None:
        refused = ""
        try:
            result = synced(self.path, self.place.url, **self.options)
        except SyncRefused as error:
            refused = str(error)
        if refused:
            assert any(reason in refused for reason in ("table is gone", "another topic")), refused
            self.tampering.forget()
            result = synced(self.path, self.place.url, **self.options)
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

    # --- what is asked for ---

    def is_mapped_otherwise(self) -> None:
        self.options = self.random.choice(MAPPINGS)

    # --- what happens to the target ---

    def is_emptied(self) -> None:
        self.tampering.empty()

    def loses_a_column(self) -> None:
        self.tampering.drop_a_column()

    def is_dropped(self) -> None:
        self.tampering.drop()

    def is_saved(self) -> None:
        self.tampering.save()

    def fails_over(self) -> None:
        self.tampering.fail_over()

    def crashes(self) -> None:
        self.tampering.crash()


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
    Scenario.is_mapped_otherwise,
)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lakelog.clients.connection.pause", lambda attempt: 0.001)


def play(home: Path, tampering: Tampering, number: int, seed: str = "8") -> None:
    random = Random(int(os.environ.get("LAKELOG_SEED", seed)) * 1_000 + number)
    Scenario(home, tampering, random).play()


@pytest.mark.parametrize("number", range(COUNT))
def test_random_scenarios_with_a_file(home: Path, number: int) -> None:
    place: Place = SqlitePlace(home) if number % 3 else DuckdbPlace(home)
    play(home, SqlTampering(place), number, "7")


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.mark.thorough
@pytest.mark.parametrize("number", range(FEW))
def test_random_scenarios_with_postgresql(
    home: Path, postgres: PostgresServer, number: int
) -> None:
    play(home, SqlTampering(PostgresPlace(postgres)), number)


@pytest.fixture(scope="module")
def mysql() -> Iterator[MysqlServer]:
    with mysql_server() as server:
        yield server


@pytest.mark.thorough
@pytest.mark.parametrize("number", range(FEW))
def test_random_scenarios_with_mysql(home: Path, mysql: MysqlServer, number: int) -> None:
    play(home, SqlTampering(MysqlPlace(mysql)), number)


@pytest.mark.matrix
@pytest.mark.parametrize("number", range(COUNT))
def test_random_scenarios_with_elasticsearch(home: Path, number: int) -> None:
    with running(ElasticServer()) as server:
        play(home, ElasticTampering(ElasticPlace(server)), number)


@pytest.mark.matrix
@pytest.mark.parametrize("number", range(COUNT))
def test_random_scenarios_with_influxdb_2(home: Path, number: int) -> None:
    with running(InfluxServer()) as server:
        org = "?org=acme" if number % 2 else ""
        play(home, StrictInfluxTampering(InfluxPlace(server, org)), number)


@pytest.fixture(scope="module")
def influx() -> Iterator[RealInflux]:
    with real_influx() as server:
        yield server


@pytest.mark.thorough
@pytest.mark.parametrize("number", range(FEW))
def test_random_scenarios_with_influxdb(home: Path, influx: RealInflux, number: int) -> None:
    for name in ("events", "lakelog_sync"):
        influx.ask(f'DROP MEASUREMENT "{name}"')
    play(home, InfluxTampering(InfluxPlace(influx)), number)


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaServer]:
    with kafka_server() as server:
        server.client("Producer").list_topics(WATERMARKS, timeout=240)
        yield server


@pytest.mark.thorough
@pytest.mark.parametrize("number", range(FEW))
def test_random_scenarios_with_kafka(home: Path, kafka: KafkaServer, number: int) -> None:
    play(home, KafkaTampering(TopicPlace(kafka, f"scenario{number}")), number)
