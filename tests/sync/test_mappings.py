"""Mappings: what is followed, computed again as a whole, or refused, and never wrong."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import duckdb
import pytest

import lakelog
from lakelog.errors import InvalidSetting, QueryFailed, SyncRefused
from lakelog.lake import Lake
from lakelog.sync.comparison import check
from lakelog.sync.syncer import Syncer
from tests.support.lakes import opened
from tests.support.random_mappings import random_mapping
from tests.support.sync_places import Rows, SqlitePlace, synced
from tests.support.target_suite import add, rewind

COUNT = int(os.environ.get("LAKELOG_MAPPINGS", "12"))
MODES = ("upsert", "append", "replace")


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Lake]]:
    """One lake at four moments: it grows, is rolled back, and compacted."""
    home, lakes = tmp_path_factory.mktemp("stages"), list[Lake]()
    path = str(home / "lake")
    with contextlib.ExitStack() as stack:
        for number, change in enumerate((_begin, _grow, rewind, _compact)):
            change(path)
            copy = str(home / f"stage-{number}")
            shutil.copytree(path, copy)
            lakes.append(stack.enter_context(lakelog.open(copy)))
        yield lakes


def _begin(path: str) -> None:
    for name in "ab":
        add(path, name, 6)
    with opened(path) as lake:
        lake.tag("base")


def _grow(path: str) -> None:
    for name in "cad":
        add(path, name, 5)


def _compact(path: str) -> None:
    add(path, "b", 3)
    with opened(path) as lake:
        lake.compact()


def _answer(lake: Lake, query: str) -> Rows:
    """What the lake itself says, in the order of all values."""
    return sorted(lake.sql(query.rstrip(";")).fetchall(), key=repr)


def _table(path: str, columns: list[str]) -> Rows:
    with contextlib.closing(duckdb.connect(path)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        listed = ", ".join(f'"{name}"' for name in columns)
        return sorted(connection.sql(f"SELECT {listed} FROM events").fetchall(), key=repr)


def _play(stages: list[Lake], target: str, query: str, mode: str) -> str:
    """Sync a mapping at each stage; return what became of it."""
    for number, lake in enumerate(stages):
        try:
            with contextlib.closing(
                Syncer(lake, f"duckdb:{target}", None, query, mode=mode, batch_rows=7)
            ) as syncer:
                syncer.run()
        except QueryFailed as error:
            words = str(error)
            assert number == 0 or "several rows" in words, f"{query}\n{words}"
            return "refused"
        columns = list(lake.sql(query.rstrip(";")).columns)
        assert _table(target, columns) == _answer(lake, query), f"{mode} at {number}: {query}"
    return "recomputed" if mode == "replace" else "followed"


@pytest.mark.parametrize("number", range(max(1, COUNT // 12)))
def test_random_mappings_are_followed_recomputed_or_refused(
    home: Path, stages: list[Lake], number: int
) -> None:
    random = Random(int(os.environ.get("LAKELOG_SEED", "40")) * 1_000 + number)
    found = Counter[str]()
    for _ in range(12):
        query, mode = random_mapping(random), random.choice(MODES)
        target = str(home / "target.duckdb")
        found[_play(stages, target, query, mode)] += 1
        Path(target).unlink(missing_ok=True)
    assert found["refused"] < 12


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT * FROM (FROM events LIMIT 3)", "LIMIT"),
        ("SELECT * FROM (SELECT DISTINCT ON (type) * FROM events)", "DISTINCT"),
        ("SELECT seq FROM (SELECT max(seq) AS seq FROM events GROUP BY type)", "GROUP BY"),
        ("SELECT max(seq) AS seq FROM events", "max"),
        ("SELECT * FROM events WHERE type IN (SELECT type FROM events)", "subquery over a table"),
        ("SELECT * FROM events e WHERE EXISTS (FROM events f WHERE f.seq > e.seq)", "subquery"),
        ("SELECT e.* FROM events e JOIN events f ON f.seq = e.seq + 1", "a join of events"),
        ("FROM events UNION ALL FROM events", "UNION"),
        ("WITH events AS (FROM events LIMIT 3) FROM events", "LIMIT"),
        ("FROM events USING SAMPLE 2", "SAMPLE"),
        ("SELECT 7 AS seq", "no event"),
        ("SELECT seq + 1 AS seq, type FROM events", "not the one of the event"),
        ("SELECT * REPLACE (7 AS seq) FROM events", "not the one of the event"),
        ("SELECT seq, unnest([1, 2]) AS n FROM events", "several rows of one event"),
        ("SELECT * FROM types.a", "types.a, where it may read `events` alone"),
        ("SELECT * FROM read_text('/etc/hostname')", "read_text"),
    ],
)
def test_refuses_what_cannot_be_followed(
    home: Path, stages: list[Lake], query: str, words: str
) -> None:
    place = SqlitePlace(home)
    with pytest.raises(QueryFailed, match=words):
        synced(stages[0].path, place.url, query=query)


def test_replace_computes_again_only_what_changed(home: Path) -> None:
    """A table keeps no rows of an older answer."""
    path, place = str(home / "lake"), SqlitePlace(home)
    _begin(path)
    _grow(path)
    query = "SELECT type, count(*) AS n FROM events GROUP BY type"
    options = {"query": query, "mode": "replace"}
    assert synced(path, place.url, **options).written == 4
    assert synced(path, place.url, **options).commits == 0
    add(path, "x", 2)
    assert synced(path, place.url, **options).written == 5
    rewind(path)
    with pytest.raises(SyncRefused, match="events were removed"):
        synced(path, place.url, on_rewind="refuse", **options)
    synced(path, place.url, **options)
    found = dict(place.ask("SELECT type, n FROM events"))
    assert found == {"a": 6, "b": 6, "after": 40}


def test_a_table_of_a_lake_without_events_is_what_the_mapping_says(home: Path) -> None:
    """A count of no events is a row, when the lake is new and when it is taken back to that."""
    path, place = str(home / "lake"), SqlitePlace(home)
    with opened(path) as lake:
        lake.tag("empty")
    counted = {"query": "SELECT count(*) AS n FROM events", "mode": "replace"}
    for numbers in ([0], [3], [0]):
        if numbers == [3]:
            add(path, "a", 3)
        for mode in ("upsert", "append"):
            synced(path, place.url, table=mode, query="SELECT seq FROM events", mode=mode)
        synced(path, place.url, table="counted", **counted)
        assert place.ask("SELECT n FROM counted") == [(n,) for n in numbers]
        with opened(path) as lake:
            assert [result.is_equal for result in check(lake, place.url)] == [True] * 3
            lake.rollback("empty")


def test_replace_needs_a_target_with_transactions(stages: list[Lake]) -> None:
    with pytest.raises(InvalidSetting, match="cannot exchange all rows"):
        Syncer(stages[0], "influxdb://localhost/b", mode="replace")


@pytest.mark.parametrize("end", [" --", "; -- all", " /* all */", ";"])
def test_comment_at_the_end_of_a_mapping(home: Path, stages: list[Lake], end: str) -> None:
    place = SqlitePlace(home)
    synced(stages[0].path, place.url, query=f"SELECT seq, upper(type) AS t FROM events{end}")
    assert place.ask("SELECT count(*), min(t) FROM events") == [(12, "A")]
