"""SQLite, DuckDB and PostgreSQL as targets: each runs the same suite of faults."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest

from lakelog.errors import SyncRefused
from lakelog.sync.comparison import check
from lakelog.sync.databases.database_files import SqliteTarget
from lakelog.sync.sync import status
from lakelog.sync.syncer import SyncResult
from lakelog.sync.target import SyncTarget
from tests.support.lakes import EXOTIC, copied, opened
from tests.support.requirements import need_module
from tests.support.sync_places import (
    DuckdbPlace,
    Faulty,
    Place,
    PostgresPlace,
    PostgresServer,
    SqlitePlace,
    expected,
    postgres_server,
    synced,
)
from tests.support.target_suite import TargetSuite, add, collect, rewind, three_segments


class TestSqlite(TargetSuite):
    """With the ADBC driver."""

    @pytest.fixture
    def place(self, home: Path) -> Place:
        need_module("adbc_driver_sqlite")
        return SqlitePlace(home)


def test_sqlite_without_the_driver(home: Path) -> None:
    """The module of the standard library writes the same rows."""
    path, place = str(home / "lake"), SqlitePlace(home)
    with opened(path) as lake:
        lake.append(EXOTIC)
        lake.tag("base")
    add(path, "b", 40)
    for change in (lambda path: None, rewind):
        change(path)
        synced(path, SqliteTarget(place.url, use_adbc=False))
    assert place.rows() == expected(path)


@pytest.mark.parametrize("has_driver", [False, True])
def test_a_trigger_refuses_rows_in_its_words(home: Path, has_driver: bool) -> None:
    """They go into the quarantine, and a trigger that undoes the batch stops the sync."""
    path, place = str(home / "lake"), SqlitePlace(home)
    if has_driver:
        need_module("adbc_driver_sqlite")
    target = SqliteTarget(place.url, use_adbc=has_driver)
    options = {"query": "SELECT seq, message FROM events", "on_error": "quarantine"}
    add(path, "a", 2)
    synced(path, target, **options)
    for number, action in ((1, "ABORT"), (2, "FAIL"), (3, "ROLLBACK")):
        place.ask(
            f"CREATE TRIGGER t{number} BEFORE INSERT ON events WHEN NEW.message = 'b {number}'"
            f" BEGIN SELECT RAISE({action}, 'number {number} is not for us'); END"
        )
    add(path, "b", 40)
    with pytest.raises(SyncRefused, match="number 3 is not for us"):
        synced(path, target, **options)
    place.ask("DROP TRIGGER t3")
    assert synced(path, target, **options).quarantined == 2
    assert place.ask("SELECT count(*) FROM events") == [(40,)]
    with opened(path) as lake:
        reasons = lake.sql("SELECT reason FROM quarantine ORDER BY position").fetchall()
    for number, (reason,) in enumerate(reasons, 1):
        assert f"table events: number {number} is not for us: change the row" in reason


@pytest.mark.parametrize("mode", ["replace", "upsert"])
def test_a_row_that_is_refused_again_is_in_the_quarantine_once(home: Path, mode: str) -> None:
    """Also where all rows are written again, by another process."""
    path, place = str(home / "lake"), SqlitePlace(home)
    place.ask("CREATE TABLE events (seq INTEGER PRIMARY KEY, message CHECK (message <> 'a 1'))")
    options = {"query": "SELECT seq, message FROM events", "on_error": "quarantine", "mode": mode}
    for quarantined in (1, 0):
        if quarantined:
            add(path, "a", 2)
        add(path, "b", 40)
        assert synced(path, place.url, **options).quarantined == quarantined
        place.ask("DELETE FROM events")
    assert synced(path, place.url, **options).quarantined == 0
    with opened(path) as lake:
        assert lake.sql("SELECT position FROM quarantine").fetchall() == [(1,)]


@pytest.mark.parametrize("mode", ["upsert", "append", "replace"])
def test_rollback_to_before_a_row_was_refused(home: Path, mode: str) -> None:
    """Its event stays, and so it is in the quarantine again."""
    path, place = str(home / "lake"), SqlitePlace(home)
    rule = "CHECK (message NOT IN ('a 1', 'b 1'))"
    place.ask(f"CREATE TABLE events (seq INTEGER PRIMARY KEY, message {rule})")
    options = {"query": "SELECT seq, message FROM events", "on_error": "quarantine", "mode": mode}
    refused = "SELECT DISTINCT position FROM quarantine ORDER BY position"
    add(path, "a", 3)
    with opened(path) as lake:
        lake.tag("base")
    assert synced(path, place.url, **options).quarantined == 1
    add(path, "b", 3)
    assert synced(path, place.url, **options).quarantined == 1
    with opened(path) as lake:
        lake.rollback("base")
        assert lake.sql(refused).fetchall() == []
        assert status(lake, place.url)[0].note
    assert synced(path, place.url, **options).quarantined == 1
    with opened(path) as lake:
        assert not status(lake, place.url)[0].note
    add(path, "b", 3)
    assert synced(path, place.url, **options).quarantined == 1
    with opened(path) as lake:
        assert [len(row) for row in lake.sql(refused).fetchall()] == [1, 1]
    assert place.rows(columns="message") == [("a 0",), ("a 2",), ("b 0",), ("b 2",)]


def test_restore_to_before_a_row_was_refused(home: Path) -> None:
    """As after a rollback, also where the lake went on; a state that gc collected is none."""
    path, place = str(home / "lake"), SqlitePlace(home)
    place.ask("CREATE TABLE events (seq INTEGER PRIMARY KEY, message CHECK (message <> 'a 1'))")
    options = {"query": "SELECT seq, message FROM events", "on_error": "quarantine"}
    add(path, "a", 3)
    backup = shutil.copytree(path, home / "backup")
    assert synced(path, place.url, **options).quarantined == 1
    for name in ("", "b"):
        shutil.rmtree(path)
        shutil.copytree(backup, path)
        if name:
            add(path, name, 3)
        assert synced(path, place.url, **options).quarantined == 1
    add(path, "c", 3)
    mark = json.loads(place.ask("SELECT watermark FROM lakelog_sync")[0][0])
    for state in ("snapshot", "refusals"):
        collect(path, mark[state])
    assert not synced(path, place.url, **options).is_rebuilt


def test_rollback_of_a_refused_row_with_its_event(home: Path) -> None:
    """Nothing is filled again for it, nor for one before that was refused in time."""
    path, place = str(home / "lake"), SqlitePlace(home)
    rule = "CHECK (message NOT IN ('a 1', 'b 1'))"
    place.ask(f"CREATE TABLE events (seq INTEGER PRIMARY KEY, message {rule})")
    options = {"query": "SELECT seq, message FROM events", "on_error": "quarantine"}
    add(path, "a", 3)
    synced(path, place.url, **options)
    with opened(path) as lake:
        lake.settle()
        lake.tag("base")
    for name in "bc":
        add(path, name, 3)
        synced(path, place.url, **options)
        with opened(path) as lake:
            lake.rollback("base")
        result = synced(path, place.url, **options)
        assert (result.is_rebuilt, result.total) == (False, 2)


def test_check_while_another_sync_commits(home: Path) -> None:
    """It compares rows and watermark of one moment, also of a file in WAL mode."""
    path, place = str(home / "lake"), SqlitePlace(home)
    add(path, "a", 3)
    synced(path, place.url)
    assert place.ask("PRAGMA journal_mode = wal") == [("wal",)]
    add(path, "b", 3)
    target = cast("SqliteTarget", place.target())
    target.connect()
    # In a process of its own: what SQLite locks is not locked for the same one.
    command = [sys.executable, "-m", "lakelog", "--lake", path, "sync", place.url, "--once"]
    with contextlib.closing(target), target.snapshot():
        assert target.watermarks()["events"].rows == 3
        subprocess.run(command, check=True, stderr=subprocess.PIPE)
        batches = target.read("events", pa.schema([("seq", pa.int64())]), {})
        assert sum(batch.num_rows for batch in batches) == 3
    assert len(place.rows()) == 6


def test_a_column_seq_of_computed_rows_is_one_like_others(home: Path) -> None:
    """In the mode replace it need not be a number, nor have values."""
    path, place = str(home / "lake"), SqlitePlace(home)
    add(path, "a", 3)
    place.ask("CREATE TABLE events (seq TEXT CHECK (seq <> 'a 1'))")
    query = "SELECT nullif(message, 'a 2') AS seq FROM events GROUP BY 1"
    options = {"query": query, "mode": "replace", "on_error": "quarantine"}
    assert synced(path, place.url, **options).quarantined == 1
    synced(path, place.url, table="free", query=query, mode="replace")
    with opened(path) as lake:
        assert check(lake, place.url, "free")[0].is_equal
        place.ask("DELETE FROM free WHERE seq = 'a 1'")
        assert check(lake, place.url, "free", repair=True)[0].missing == 1
    assert len(place.ask("SELECT * FROM free")) == 3


def check_and_repair(lake: Any, place: SqlitePlace, condition: str, *, missing: int) -> None:
    """A check finds no difference but rows that are deleted, and a repair brings them back."""
    assert check(lake, place.url)[0].is_equal
    place.ask(f"DELETE FROM events WHERE {condition}")
    assert check(lake, place.url)[0].missing == missing
    assert check(lake, place.url, repair=True)[0].is_repaired
    assert check(lake, place.url)[0].is_equal


def test_check_of_a_table_that_refused_rows(home: Path) -> None:
    """They are in the quarantine: not missing, and a repair does not write them again."""
    path, place = str(home / "lake"), SqlitePlace(home)
    rule = "CHECK (message NOT IN ('a 1', 'a 2'))"
    place.ask(f"CREATE TABLE events (seq INTEGER PRIMARY KEY, message {rule})")
    add(path, "a", 40)
    query = "SELECT message FROM events"
    assert synced(path, place.url, query=query, on_error="quarantine").quarantined == 2
    with opened(path) as lake:
        check_and_repair(lake, place, "seq = 7", missing=1)
    # Of a table that takes them they are rows like others.
    place.ask("DROP TABLE events")
    place.ask("DELETE FROM lakelog_sync")
    synced(path, place.url, query=query)
    with opened(path) as lake:
        place.ask("UPDATE events SET message = 'mine' WHERE seq = 2")
        assert check(lake, place.url)[0].different == 1


@pytest.mark.parametrize("mode", ["replace", "append"])
def test_check_of_rows_without_keys_that_were_refused(home: Path, mode: str) -> None:
    """They are known by their lines in the quarantine."""
    path, place = str(home / "lake"), SqlitePlace(home)
    place.ask("CREATE TABLE events (message TEXT CHECK (message NOT IN ('a 1', 'a 2')))")
    add(path, "a", 40)
    query = "SELECT message FROM (SELECT message, seq AS n FROM events) WHERE n >= 0"
    options = {"query": query, "mode": mode}
    assert synced(path, place.url, **options, on_error="quarantine").quarantined == 2
    with opened(path) as lake:
        check_and_repair(lake, place, "message IN ('a 7', 'a 8')", missing=2)
    assert synced(path, place.url, **options, on_error="quarantine").total == 38
    # Of a table that takes them they are rows like others.
    place.ask("DROP TABLE events")
    place.ask("DELETE FROM lakelog_sync")
    synced(path, place.url, **options)
    with opened(path) as lake:
        assert check(lake, place.url)[0].is_equal
        place.ask("INSERT INTO events VALUES ('a 1')")
        assert check(lake, place.url)[0].extra == 1


@pytest.mark.matrix
class TestDuckdb(TargetSuite):
    test_refused_rows_go_to_the_quarantine = None  # it has no savepoints

    @pytest.fixture
    def place(self, home: Path) -> Place:
        return DuckdbPlace(home)


def test_concurrent_first_syncs_of_duckdb(home: Path) -> None:
    """Two tables of a new file in one process, as --config has them: one waits for the other."""
    path, place = str(home / "lake"), DuckdbPlace(home)
    add(path, "a", 40)
    is_told = threading.Event()

    def meet(_: SyncTarget) -> None:
        # Both would create the table of watermarks.
        others.append(pool.submit(synced, path, place.url, table="b", say=lambda _: is_told.set()))
        while not is_told.wait(0.01):
            assert not others[0].done()

    others: list[Future[SyncResult]] = []
    with ThreadPoolExecutor(1) as pool:
        synced(path, Faulty(place.target(), "begin", "after", 1, meet))
    assert others[0].result().total == 40
    assert place.rows("b") == place.rows() == expected(path)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        yield running


@pytest.mark.matrix
class TestPostgres(TargetSuite):
    @pytest.fixture
    def place(self, server: PostgresServer) -> Place:
        return PostgresPlace(server)

    def text(self, value: Any) -> Any:
        return value.replace("\0", "\ufffd") if isinstance(value, str) else value


@pytest.mark.parametrize("database", ["postgres", "duckdb"])
def test_check_of_times_that_python_has_not(
    home: Path, server: PostgresServer, database: str
) -> None:
    place = PostgresPlace(server) if database == "postgres" else DuckdbPlace(home)
    path = copied(three_segments, home)
    query = """SELECT CASE seq WHEN 1 THEN DATE '0044-03-15 (BC)' WHEN 2 THEN DATE '12024-03-01'
        ELSE DATE '2024-03-01' END AS d, CASE seq WHEN 1 THEN TIMESTAMP '0044-03-15 (BC) 10:00'
        WHEN 2 THEN TIMESTAMP '12024-03-01 10:00' END AS t, t::TIMESTAMPTZ AS z FROM events"""
    synced(path, place.url, query=query)
    with opened(path) as lake:
        assert check(lake, place.url)[0].is_equal
        place.ask("UPDATE events SET d = NULL WHERE seq IN (1, 2, 3)")
        assert check(lake, place.url)[0].different == 3
