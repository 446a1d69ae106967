"""A sync that is killed again and again while its lake is rolled back, compacted and trimmed.

SYNC_KILLS sets how often.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import LakelogError
from lakelog.lake import Lake
from lakelog.maintain import retention
from lakelog.sync.syncer import Syncer
from tests.support.effort import share
from tests.support.elastic_server import ElasticPlace, ElasticServer
from tests.support.influx_server import InfluxPlace, real_influx
from tests.support.lakes import opened
from tests.support.strict_server import running
from tests.support.sync_places import (
    DuckdbPlace,
    Place,
    PostgresPlace,
    SqlitePlace,
    expected,
    forked,
    postgres_server,
    synced,
)
from tests.support.target_suite import add

KILLS = int(os.environ.get("SYNC_KILLS", share(25)))


@pytest.fixture(params=["sqlite", "duckdb", "postgres", "elasticsearch", "influxdb"])
def place(request: pytest.FixtureRequest, home: Path) -> Iterator[Place]:
    if request.param == "postgres":
        with postgres_server() as server:
            yield PostgresPlace(server)
    elif request.param == "elasticsearch":
        with running(ElasticServer()) as server:
            yield ElasticPlace(server)
    elif request.param == "influxdb":
        with real_influx() as server:
            yield InfluxPlace(server)
    else:
        yield SqlitePlace(home) if request.param == "sqlite" else DuckdbPlace(home)


@pytest.mark.matrix
@pytest.mark.rounds
def test_crash_recovery_while_the_lake_changes(home: Path, place: Place) -> None:
    path, choose = str(home / "lake"), random.Random(17)
    for name in "abc":
        add(path, name, 60)
    with opened(path) as lake:
        lake.tag("t0")
    killed = 0
    for number in range(KILLS):
        syncer = os.fork()
        if not syncer:
            _sync_for_ever(path, place.url)
        seed = choose.random()
        assert forked(lambda seed=seed, number=number: _change(path, seed, number)) == 0
        time.sleep(choose.uniform(0, 0.15))
        os.kill(syncer, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(syncer, 0)[1]) == -signal.SIGKILL
        # Now and then the table is compared in the middle, too.
        if number % 5 == 4:
            assert forked(lambda: synced(path, place.url)) == 0
            assert place.rows() == expected(path)
    assert killed == KILLS
    result = synced(path, place.url)
    assert place.rows() == expected(path)
    assert result.total == len(place.rows())


def _sync_for_ever(path: str, url: str) -> None:
    with contextlib.suppress(BaseException), lakelog.open(path, create=False) as lake:
        syncer = Syncer(lake, url, batch_rows=40)
        while True:
            # Another process compacts and trims: a segment may go while it is read.
            with contextlib.suppress(LakelogError):
                syncer.run()
            time.sleep(0.005)
    os._exit(9)


def _change(path: str, seed: float, number: int) -> None:
    choose = random.Random(seed)
    with opened(path) as lake:
        for step in range(3):
            lake.append([{"type": "n", "message": f"{number}.{step}.{i}"} for i in range(30)])
            lake.settle()
            kind = choose.choice(["rollback", "undo", "compact", "trim", "tag", "add"])
            with contextlib.suppress(lakelog.LakelogError):
                _do(lake, kind, choose, f"t{number + 1}-{step}")


def _do(lake: Lake, kind: str, choose: random.Random, name: str) -> None:
    if kind == "rollback":
        lake.rollback(choose.choice([tag.name for tag in lake.tags()]))
    elif kind == "undo":
        lake.undo(force=True)
    elif kind == "compact":
        lake.compact()
    elif kind == "trim":
        times = lake.sql("SELECT epoch_us(quantile_disc(time, 0.1)) AS t FROM events")
        cutoff = times.to_arrow_table()["t"][0].as_py()
        retention.apply(lake.store, lake.branch_name, cutoff, lake.engine)
        lake.gc()
    elif kind == "tag":
        lake.tag(name)
