"""Iceberg tables have columns by their numbers, tags, and one line of what their catalogs say."""

from __future__ import annotations

import functools
import random
import warnings
from pathlib import Path
from typing import Any

import pytest

from lakelog.errors import ExportRefused, Unreachable
from lakelog.open_tables import publish_iceberg
from tests.support import iceberg_rows, spark_rows
from tests.support.attached import SharedMachines
from tests.support.effort import share
from tests.support.requirements import need
from tests.support.table_shops import TABLE, Shop, assert_table_is, follow, orders

need("pyiceberg", "sqlalchemy")


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    """A lake with a catalog."""
    made = Shop(tmp_path)
    yield made
    made.lake.close()


@pytest.mark.parametrize("drift", range(4))
def test_fields_have_the_numbers_of_their_members(shop: Shop, drift: int) -> None:
    """Members of other kinds are other columns, and those that are there keep their numbers."""
    shop.lake.append(orders(20))
    shop.publish()
    first = shop.table().schema().find_field("fields.nr")
    shop.lake.append(orders(20, drift, 20))
    shop.publish()
    assert shop.table().schema().find_field("fields.nr") == first
    assert_table_is(shop)


def test_tags_become_tags_of_the_table(shop: Shop) -> None:
    """A tag of the state that is published names the snapshot; a publish at a tag is its state."""
    shop.lake.append(orders(20))
    shop.lake.compact()
    shop.lake.tag("v1")
    shop.publish(ref="v1")
    shop.lake.append(orders(20, 1, 20))
    shop.publish()
    snapshot = shop.table().snapshot_by_name("v1").snapshot_id
    rows = shop.table().scan(snapshot_id=snapshot).to_arrow()
    assert sorted(rows["seq"].to_pylist()) == [*range(20)]


def test_machines_of_a_shared_lake_publish_one_table(tmp_path: Path) -> None:
    """No machine needs the directory of another, and what one drops there the table still has."""
    machines = SharedMachines(tmp_path)
    properties = {"type": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db"}
    properties["warehouse"] = f"file://{tmp_path}"
    for name, start in ("a", 0), ("b", 20):
        machines[name].exchange()
        machines[name].append(orders(20, 0, start))
        publish_iceberg(machines[name], TABLE, properties=properties)
    for path in [*tmp_path.glob("[ab]/segments/*/*.parquet")]:
        path.unlink()
    from pyiceberg.catalog import load_catalog

    with load_catalog("default", **properties) as catalog:
        rows = catalog.load_table(TABLE).scan().to_arrow()
    assert sorted(rows["seq"].to_pylist()) == [*range(40)]
    machines.close()


def test_foreign_tables_are_refused(shop: Shop, tmp_path: Path) -> None:
    """A table of something else, or that another program changed, is left alone, in one line."""
    shop.lake.append(orders(10))
    shop.publish()
    with pytest.raises(ExportRefused, match="is not a table of this lake, branch and query"):
        shop.publish(type="T1")
    with pytest.raises(ExportRefused, match=r"name a table as NAMESPACE\.TABLE"):
        shop.publish("events")
    table = shop.table()
    table.append(table.scan().to_arrow().slice(0, 1))
    table.catalog.close()
    shop.lake.append(orders(10, 0, 10))
    with pytest.raises(ExportRefused, match="newest commit was not made by lakelog"):
        shop.publish()


@pytest.mark.parametrize(
    "properties",
    [
        {"type": "rest", "uri": "http://127.0.0.1:9"},
        {"type": "sql", "uri": "sqlite:////nowhere/at/all.db"},
        {"type": "none"},
        {},
    ],
    ids=["refused", "no directory", "unknown", "not configured"],
)
def test_failing_catalogs_are_one_line(shop: Shop, properties: dict[str, str]) -> None:
    """What a catalog says comes as one line that names it, and nothing is tagged."""
    shop.lake.append(orders(3))
    with pytest.raises(Unreachable, match=r"^Iceberg catalog none: ") as caught:
        publish_iceberg(shop.lake, TABLE, catalog="none", properties=properties)
    assert "\n" not in str(caught.value)
    assert shop.lake.tags() == []


@pytest.mark.parametrize("value", ["INTERVAL 1 DAY", "[TIMESTAMP_NS '2026-01-01']"])
def test_types_that_iceberg_lacks_are_refused(shop: Shop, value: str) -> None:
    """One line says what to do, and nothing is tagged."""
    told = r"^[^\n]*'x[^\n]*: cast what Iceberg cannot hold, as in CAST\(x AS VARCHAR\)$"
    with pytest.raises(ExportRefused, match=told):
        shop.publish(query=f"SELECT {value} AS x")
    assert shop.lake.tags() == []


def test_two_publishers_commit_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who loses the race for the commit looks again, and finds the state in the table."""
    from pyiceberg.catalog.sql import SqlCatalog

    shop.lake.append(orders(10))
    commit, turns, won = SqlCatalog.commit_table, [1], []

    def slow(catalog: Any, table: Any, requirements: Any, changes: Any) -> Any:
        if turns and any(type(change).__name__ == "AddSnapshotUpdate" for change in changes):
            turns.pop()
            won.append(shop.publish())
        return commit(catalog, table, requirements, changes)

    monkeypatch.setattr(SqlCatalog, "commit_table", slow)
    assert not shop.publish().is_new
    assert won[0].is_new
    assert len(shop.table().snapshots()) == 1
    assert_table_is(shop)


def test_a_lost_answer_is_looked_up(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit whose answer was lost is not made a second time."""
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.exceptions import CommitStateUnknownException

    shop.lake.append(orders(10))
    commit, lost = SqlCatalog.commit_table, []

    def deaf(catalog: Any, table: Any, requirements: Any, changes: Any) -> Any:
        answer = commit(catalog, table, requirements, changes)
        if not lost and any(type(change).__name__ == "AddSnapshotUpdate" for change in changes):
            lost.append(answer)
            raise CommitStateUnknownException("the answer was lost")
        return answer

    monkeypatch.setattr(SqlCatalog, "commit_table", deaf)
    assert not shop.publish().is_new
    assert lost
    assert len(shop.table().snapshots()) == 1
    assert_table_is(shop)


@pytest.mark.thorough
@pytest.mark.parametrize("engine", ["duckdb", "polars", "daft"])
def test_engines_agree_on_the_table(tmp_path: Path, engine: str) -> None:
    """The same of the table as another engine reads it."""
    need(engine)
    shop = Shop(tmp_path)
    shop.engines = [engine]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Iceberg scan planning")  # of Polars: by pyiceberg
        follow(shop, random.Random(8), share(50))
    shop.lake.close()


@pytest.mark.thorough
def test_spark_reads_the_files_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same of the files that a table names, as Spark reads them."""
    need("pyspark", "java")
    shop = Shop(tmp_path, segment_bytes=9_000)
    shop.engines = ["spark"]
    with spark_rows.reading(tmp_path / "rows") as read:
        by_spark = functools.partial(iceberg_rows.by_files, read=read)
        monkeypatch.setitem(iceberg_rows.READERS, "spark", by_spark)
        follow(shop, random.Random(9), share(50))
    shop.lake.close()
