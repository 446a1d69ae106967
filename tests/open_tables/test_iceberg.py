"""Iceberg tables of a lake have its rows, once, whatever happens to the lake and to publishes."""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path
from typing import Any

import pytest

from lakelog.errors import ExportRefused, Unreachable
from lakelog.open_tables import PublishResult, TableSource, publish_iceberg
from tests.support import iceberg_rows, lakes
from tests.support.effort import share
from tests.support.requirements import need

need("pyiceberg", "sqlalchemy")
TABLE = "logs.events"


class Shop:
    """A lake and a catalog beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.engines = folder, list[str]()
        (folder / "tables").mkdir(parents=True)
        self.lake = lakes.opened(str(folder / "lake"))
        self.properties = {
            "type": "sql",
            "uri": f"sqlite:///{folder}/catalog.db",
            "warehouse": f"file://{folder}/tables",
        }

    def publish(self, table: str = TABLE, **source: Any) -> PublishResult:
        """Bring the table to the present state, or to another one."""
        return publish_iceberg(
            self.lake, table, TableSource(**source), catalog="shop", properties=self.properties
        )

    def table(self, name: str = TABLE) -> Any:
        """The table, as it is in the catalog."""
        from pyiceberg.catalog import load_catalog

        return load_catalog("shop", **self.properties).load_table(name)

    def written(self) -> int:
        """Bytes below the warehouse."""
        files = [Path(root, name) for root, _, names in os.walk(self.folder) for name in names]
        return sum(f.stat().st_size for f in files if "tables" in f.parts)


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    """A lake with a catalog."""
    made = Shop(tmp_path)
    yield made
    made.lake.close()


def orders(count: int, drift: int = 0, start: int = 0) -> list[dict[str, Any]]:
    """Events whose payloads have other members with each drift."""
    payloads: list[dict[str, Any]] = [
        {"n": 1, "x": 0.5, "nest": {"a": [1, 2], "ok": True}},
        {"n": "one", "new.x": [{"é": 1}], "x": 1.25},
        {"n": 2, "x": 1, "nest": {"a": ["b"], "deep": {"c": None, "d": 3}}},
        {"n": [1.5, None], "N": 7, "m": {"k": "v"}},
    ]
    return [
        {
            "type": f"T{n % 3}",
            "subject": f"s{n}" if n % 4 else None,
            "message": f"order {n}",
            "data": {**payloads[drift % 4], "nr": n} if n % 5 else None,
        }
        for n in range(start, start + count)
    ]


def assert_table_is(shop: Shop, ref: str = "main") -> None:
    """Require the table's rows to be those of a state, in every value."""
    wanted = iceberg_rows.of_lake(shop.lake, ref)
    assert iceberg_rows.of_table(shop.table(), "pyiceberg") == wanted
    for engine in shop.engines:
        rows = iceberg_rows.of_table(shop.table(), engine)
        if engine == "chdb":
            rows, wanted = map(iceberg_rows.without_empty, (rows, wanted))
        assert rows == wanted, engine


def test_a_publish_takes_the_segments_as_they_are(shop: Shop) -> None:
    """Compacted segments are the table's files; what is pending is compacted first."""
    shop.lake.append(orders(30))
    result = shop.publish()
    assert (result.events, result.added, result.copied, result.copied_bytes) == (30, 1, 0, 0)
    assert_table_is(shop)
    [file] = [task.file.file_path for task in shop.table().scan().plan_files()]
    assert file.startswith(f"file://{shop.folder}/lake/segments/")


def test_an_erasure_names_the_table(shop: Shop) -> None:
    """The table still names files that an erasure has rewritten, until it is published again."""
    shop.lake.append(orders(30))
    shop.publish()
    shop.lake.erase(subject="s1", why="asked")
    (status,) = shop.lake.erasures()
    assert not status.is_done
    assert [copy["place"] for copy in status.copies] == ["table"]


def test_a_repeated_publish_commits_nothing(shop: Shop) -> None:
    """The state that a table has is not committed again."""
    shop.lake.append(orders(30))
    shop.publish()
    before = shop.written()
    assert not shop.publish().is_new
    assert shop.written() == before
    assert len(shop.table().snapshots()) == 1


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


def test_rollback_and_retention_reach_the_table(shop: Shop) -> None:
    """What left the branch leaves the table, and comes back with it."""
    shop.lake.append(orders(20))
    shop.publish()
    shop.lake.tag("v1")
    shop.lake.append(orders(20, 1, 20))
    shop.publish()
    shop.lake.rollback("v1")
    shop.publish()
    assert_table_is(shop, "v1")
    shop.lake.append({"type": "OLD", "time": "2001-01-01T00:00:00Z"})
    shop.publish()
    shop.lake.retention("365d", apply=True)
    shop.publish()
    assert_table_is(shop)
    assert shop.table().scan().to_arrow().num_rows == 20


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


def test_a_state_of_the_past_is_copied_where_it_has_to_be(shop: Shop) -> None:
    """Segments that were never compacted have no seq: of a past state they are copied, once."""
    shop.lake.append(orders(20))
    shop.lake.settle()
    shop.lake.tag("raw")
    result = shop.publish(ref="raw")
    assert (result.added, result.copied) == (1, 1)
    assert_table_is(shop, "raw")
    assert shop.publish().copied == 0
    assert_table_is(shop)


def test_gc_keeps_what_the_table_has(shop: Shop) -> None:
    """Files of the published state stay when the branch goes on, and go with the next publish."""
    shop.lake.append(orders(20))
    shop.publish()
    shop.lake.append(orders(20, 0, 20))
    shop.lake.compact()
    [tag] = [tag for tag in shop.lake.tags() if tag.name.startswith("published-")]
    assert (
        tag.snapshot
        == dict(shop.table().current_snapshot().summary.additional_properties)["lakelog.state"]
    )
    shop.publish()
    [later] = [tag for tag in shop.lake.tags() if tag.name.startswith("published-")]
    assert later.snapshot != tag.snapshot


def test_types_and_queries_are_tables(shop: Shop) -> None:
    """Rows of a type have its fields as columns; both follow the lake."""
    shop.lake.append(orders(20))
    shop.publish("logs.t1", type="T1")
    shop.publish("logs.counts", query="SELECT type, count(*) AS n FROM events GROUP BY 1")
    shop.lake.append(orders(10, 0, 20))
    shop.publish("logs.t1", type="T1")
    assert not shop.publish("logs.t1", type="T1").is_new
    shop.publish("logs.counts", query="SELECT type, count(*) AS n FROM events GROUP BY 1")
    rows = shop.table("logs.t1").scan().to_arrow()
    assert sorted(filter(None, rows["nr"].to_pylist())) == [1, 4, 7, 13, 16, 19, 22, 28]
    counts = shop.table("logs.counts").scan().to_arrow()
    assert dict(zip(*counts.select(["type", "n"]).to_pydict().values(), strict=True)) == {
        "T0": 10,
        "T1": 10,
        "T2": 10,
    }


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
    shop.lake.append(orders(10, 0, 10))
    with pytest.raises(ExportRefused, match="newest snapshot was not made by lakelog"):
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


@pytest.mark.rounds
def test_the_table_follows_random_histories(tmp_path: Path) -> None:
    """After any appends, compactions, rollbacks and retentions the table has the state's rows."""
    shop = Shop(tmp_path)
    follow(shop, random.Random(7), share(50))
    shop.lake.close()


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


def follow(shop: Shop, chance: random.Random, states: int) -> None:
    """Change a lake at random, and publish it so many times, in every state."""
    lake, tags = shop.lake, ["start"]
    lake.append(orders(5))
    lake.settle()
    lake.tag("start")
    for nr in range(states):
        for _ in range(chance.randrange(1, 4)):
            step = chance.choice(["append", "append", "settle", "compact", "rollback", "retain"])
            if step == "append":
                lake.append(orders(chance.randrange(1, 30), chance.randrange(4), nr * 100))
            elif step == "settle":
                lake.settle()
            elif step == "compact":
                lake.compact()
            elif step == "rollback" and chance.random() < 0.4:
                lake.rollback(chance.choice(tags))
            elif step == "retain":
                lake.append({"type": "OLD", "time": "2001-01-01T00:00:00Z", "data": {"n": nr}})
                lake.retention("365d", apply=True)
        if chance.random() < 0.3:
            tags.append(f"t{nr}")
            lake.tag(tags[-1])
        past = chance.choice(tags) if chance.random() < 0.2 else None
        shop.publish(ref=past)
        assert_table_is(shop, past or "main")
