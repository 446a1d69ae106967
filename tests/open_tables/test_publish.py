"""Tables of a lake have its rows, once, whatever happens to the lake, in any format."""

from __future__ import annotations

import gc
import hashlib
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from lakelog.history import remove_tag
from tests.support import lakes, table_shops
from tests.support.effort import share
from tests.support.requirements import need
from tests.support.table_shops import SHOPS, TABLE, Shop, assert_table_is, follow, orders, shop_of


@pytest.fixture(params=["iceberg", "delta"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A lake with tables of a format."""
    need(*SHOPS[request.param])
    made = table_shops.shop_of(request.param, tmp_path)
    yield made
    made.lake.close()


def test_a_publish_takes_the_segments_as_they_are(shop: Shop) -> None:
    """Compacted segments are the table's files; what is pending is compacted first."""
    shop.lake.append(orders(30))
    result = shop.publish()
    assert (result.events, result.added, result.copied, result.copied_bytes) == (30, 1, 0, 0)
    assert_table_is(shop)
    [name] = shop.keys()
    assert (shop.folder / "lake" / "segments" / name[:2] / name).exists()


def test_an_erasure_reaches_the_table(shop: Shop) -> None:
    """The table still has what was erased, and is named, until it is published again."""
    shop.lake.append(orders(30))
    shop.publish()
    shop.lake.tag("v1")
    shop.lake.erase(subject="s1", why="asked")
    (status,) = shop.lake.erasures()
    assert not status.is_done
    assert [copy["place"] for copy in status.copies] == ["table"]
    shop.publish()
    assert_table_is(shop)
    shop.publish(ref="v1")
    assert_table_is(shop, "v1")


def test_a_repeated_publish_commits_nothing(shop: Shop) -> None:
    """The state that a table has is not committed again."""
    shop.lake.append(orders(30))
    shop.publish()
    before = shop.written()
    assert not shop.publish().is_new
    assert gc.isenabled()  # it is not while a publish runs
    assert shop.written() == before
    assert len(shop.commits()) == 1


def test_concurrent_publish_takes_back_nothing_of_a_faster_one(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it loads the table another one brings that to a newer state."""
    shop.lake.append(orders(30))
    shop.publish()
    library, name = shop.loader()
    load, overtaken = getattr(library, name), []

    def load_later(*args: Any, **options: Any) -> Any:
        if not overtaken:
            overtaken.append(True)
            shop.lake.append(orders(10))
            assert shop.publish().is_new
        return load(*args, **options)

    shop.lake.append(orders(5))
    monkeypatch.setattr(library, name, load_later)
    result = shop.publish()
    assert (overtaken, result.is_new, result.events) == ([True], False, 45)
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
    assert shop.arrow().num_rows == 20


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
    assert shop.commits() == [tag.snapshot]
    shop.publish()
    [later] = [tag for tag in shop.lake.tags() if tag.name.startswith("published-")]
    assert later.snapshot != tag.snapshot


def test_tables_of_one_name_keep_their_files(tmp_path: Path) -> None:
    """Machines of a shared lake, each with its catalog, may name their tables alike."""
    need(*SHOPS["iceberg"])
    shop = shop_of("iceberg", tmp_path / "one")
    shop.lake.append(orders(20))
    shop.publish()
    other = shop_of("iceberg", tmp_path / "two")
    other.lake.close()
    other.lake = shop.lake
    shop.lake.append(orders(20, 0, 20))
    other.publish()
    assert {tag.snapshot for tag in shop.lake.tags()} == {*shop.commits(), *other.commits()}
    shop.publish()
    assert {tag.snapshot for tag in shop.lake.tags()} == {*other.commits()}
    shop.lake.close()


def test_a_tag_of_an_earlier_version_goes_with_its_state(shop: Shop) -> None:
    shop.lake.append(orders(20))
    shop.publish()
    [tag] = shop.lake.tags()
    # By the name of the target, as until 2026-11.
    target = TABLE if type(shop) is Shop else f"{shop.folder}/tables/{TABLE}"
    digest = hashlib.sha256(target.encode()).hexdigest()[:8]
    shop.lake.tag(f"published-{digest}-{tag.snapshot[:12]}", tag.snapshot)
    remove_tag(shop.lake.store, tag.name)
    shop.lake.append(orders(20, 0, 20))
    shop.publish()
    assert [tag.snapshot for tag in shop.lake.tags()] == shop.commits()[-1:]


def test_a_lake_from_a_backup_brings_its_table_back(shop: Shop) -> None:
    """A table whose state the lake does not have gets the rows of the state that it has."""
    lake, copy = shop.folder / "lake", shop.folder / "copy"
    shop.lake.append(orders(20))
    shop.publish()
    shop.lake.close()
    shutil.copytree(lake, copy)
    shop.lake = lakes.opened(str(lake))
    shop.lake.append(orders(20, 1, 20))
    shop.publish()
    shop.lake.close()
    shutil.rmtree(lake)
    copy.rename(lake)
    shop.lake = lakes.opened(str(lake))
    shop.lake.append(orders(5, 2, 60))
    shop.publish()
    assert_table_is(shop)


def test_types_and_queries_are_tables(shop: Shop) -> None:
    """Rows of a type have its fields as columns; both follow the lake."""
    shop.lake.append(orders(20))
    shop.publish("logs.t1", type="T1")
    shop.publish("logs.counts", query="SELECT type, count(*) AS n FROM events GROUP BY 1")
    shop.lake.append(orders(10, 0, 20))
    shop.publish("logs.t1", type="T1")
    assert not shop.publish("logs.t1", type="T1").is_new
    shop.publish("logs.counts", query="SELECT type, count(*) AS n FROM events GROUP BY 1")
    rows = shop.arrow("logs.t1")
    assert sorted(filter(None, rows["nr"].to_pylist())) == [1, 4, 7, 13, 16, 19, 22, 28]
    counts = shop.arrow("logs.counts")
    assert dict(zip(*counts.select(["type", "n"]).to_pydict().values(), strict=True)) == {
        "T0": 10,
        "T1": 10,
        "T2": 10,
    }


def test_columns_of_rows_follow_their_query(shop: Shop) -> None:
    """A field of another kind, one more, and one that went with a rollback: also in a table with
    no other column, the columns are those of SQL."""
    query = "SELECT * EXCLUDE (time, ingested_at) FROM types.t ORDER BY seq"
    for name, data in (("a", {"n": 1}), ("b", {"n": "x", "m": 1.5})):
        shop.lake.append({"type": "t", "data": data})
        shop.lake.settle()
        shop.lake.tag(name)
        shop.publish("logs.n", query="SELECT n FROM types.t ORDER BY seq")
        shop.publish("logs.t", query=query)
    assert shop.arrow("logs.n").to_pylist() == [{"n": "1"}, {"n": "x"}]
    assert shop.arrow("logs.t").to_pylist() == rows_of(shop, query)
    shop.lake.rollback("a")
    shop.publish("logs.t", query=query)
    assert shop.arrow("logs.t").to_pylist() == rows_of(shop, query)


def test_columns_of_one_name_are_named_as_sql_names_them(shop: Shop) -> None:
    """Of a join, say; readers of tables know no case either."""
    shop.lake.append(orders(1))
    shop.publish(query='SELECT 1 AS a, 2 AS a, 3 AS "A"')
    assert shop.arrow().to_pylist() == [{"a": 1, "a_1": 2, "A_2": 3}]


def rows_of(shop: Shop, query: str) -> list[dict[str, Any]]:
    """The rows of a query by SQL."""
    rows: list[dict[str, Any]] = shop.lake.sql(query).to_arrow_table().to_pylist()
    return rows


@pytest.mark.rounds
@pytest.mark.parametrize("name", ["iceberg", "delta"])
def test_the_table_follows_random_histories(tmp_path: Path, name: str) -> None:
    """After any appends, compactions, rollbacks and retentions the table has the state's rows."""
    need(*SHOPS[name])
    shop = table_shops.shop_of(name, tmp_path, segment_bytes=9_000)
    follow(shop, random.Random(7), share(50))
    shop.lake.close()
