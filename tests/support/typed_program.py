"""A program that uses the whole Python API, for a type checker: it must find nothing, nor `Any`."""

from __future__ import annotations

import asyncio
import datetime
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, assert_type

import polars

import lakelog
from lakelog import Event, Lake, PinnedLake, Receipt, Relation, Settings, Snapshot
from lakelog.event import EncodedBatch

if TYPE_CHECKING:
    import dask.dataframe
    import pyspark.sql


def store(home: pathlib.Path) -> Lake:
    """Events as literals, as Event, as a generator and as a table."""
    lake = lakelog.open(home / "lake", settings={"history_days": 7})
    now = datetime.datetime.now(datetime.UTC)
    assert_type(lake.append({"type": "deploy", "time": now, "data": {"version": 3}}), Receipt)
    event: Event = {"type": "note", "message": "typed", "level": "INFO"}
    lake.append(event)
    lake.append([event, {"type": "note", "extra": 1}], dedupe="content")
    lake.append({"type": "n", "data": n} for n in range(3))
    assert_type(asyncio.run(later(lake)), Receipt)
    lake.append(lake.sql("SELECT 'copied' AS type FROM events"))
    lake.append_encoded(EncodedBatch.of([{"type": "encoded"}]))
    lake.quarantine([("a.log", 0, "no event", "text")])
    return lake


def ask(lake: Lake) -> None:
    """SQL, and everything that a relation declares."""
    relation = lake.sql("SELECT type, count(*) AS n FROM events WHERE type <> ? GROUP BY 1", ["x"])
    assert_type(relation, Relation)
    first: tuple[object, ...] | None = relation.fetchone()
    columns: list[str] = relation.columns
    shape: tuple[int, int] = relation.shape
    assert first is not None
    rows = [*relation.fetchall(), *relation.fetchmany(2), *relation, *relation.iter_rows()]
    assert len(rows) >= len(relation) == shape[0]
    assert len(columns) == shape[1] == len(relation.types)
    table, reader = relation.to_arrow_table(), relation.to_arrow_reader()
    assert table.num_rows == reader.read_all().num_rows == relation.arrow().read_all().num_rows
    assert relation.pl().height == table.num_rows
    assert set(relation.fetchnumpy()) == set(columns)
    relation.interrupt()
    narrowed = relation.filter("n > 0").order("n DESC").limit(1).project("n").distinct()
    assert_type(narrowed.aggregate("sum(n)"), Relation)
    assert lake.view("status").num_rows >= 0
    assert lake.schema("deploy").num_rows >= 0
    assert_type(lake.explain("FROM events"), tuple[int, int])
    assert_type(lake.search("note OR level>=WARN", since="2h", limit=5, rank=True), Relation)
    events: list[Event] = lake.tail(2, where="type = 'note'")
    following: Iterator[Event] = lake.follow(where="type = 'later'")
    assert events
    assert following is not None


def look_back(lake: Lake) -> None:
    """History: tags, branches, moves and differences."""
    moment: Snapshot = lake.snapshot("typed")
    assert lake.tag("v1").name == "v1"
    state = lake.at("v1")
    assert_type(state, PinnedLake)
    assert_type(state.search("note", oldest=True), Relation)
    assert state.count() == state.stats().events == lake.count()
    assert state.snapshot().id == state.id
    assert_type(state.sql("FROM events"), Relation)
    assert_type(state.to_polars(), polars.LazyFrame)
    assert lake.to_polars().collect().height == lake.count()
    with lake.branch("trial") as trial:
        trial.append({"type": "tried"})
    assert lake.branches() == ["main", "trial"]
    assert [tag.name for tag in lake.tags()] == ["v1"]
    lake.append({"type": "late"})
    assert lake.diff("v1", "main").added
    assert_type(lake.rollback("v1"), Snapshot)
    assert_type(lake.undo(), Snapshot)
    assert lake.log(5)
    assert moment.id


def hand_over(lake: Lake, spark: pyspark.sql.SparkSession) -> None:
    """Tables of other engines, of which not all can be installed side by side."""
    assert_type(lake.to_dask(), dask.dataframe.DataFrame)
    assert lake.to_ray().count() == lake.to_daft().count_rows() == lake.to_spark(spark).count()
    state = lake.at("v1")
    assert state.to_ray().count() == state.to_daft().count_rows() == state.to_spark(spark).count()
    assert_type(state.to_dask(), dask.dataframe.DataFrame)


def care(lake: Lake, home: pathlib.Path) -> None:
    """Files in, and the lake kept in order."""
    (home / "in.jsonl").write_text('{"type": "file"}\n')
    assert lake.ingest([home / "in.jsonl"], source="typed").events == 1
    written = lake.export("events", home / "out.csv.gz", partition_by=[], shard_rows=1000)
    assert written.rows > lake.at("v1").export("events", home / "out", format="jsonl").rows
    assert_type(written.bytes, int)
    assert_type(written.files, dict[str, int])
    assert lake.sql('FROM "v1".status').columns == lake.sql("FROM status").columns
    assert lake.trace(str(lake.append({"id": "t1", "type": "traced"}).ids[0])) is not None
    receipt = lake.append({"type": "paid", "subject": "order"}, expect={"order": 0})
    assert_type(receipt.versions, dict[str, int])
    stream = lake.stream("order", after=0, limit=10)
    assert_type(stream, lakelog.streams.EventStream)
    assert [event["version"] for event in stream] == [stream.version]
    assert lake.at("v1").stream("order").version == 0
    subscription = lake.subscribe("all", where="type = 'traced'", from_="end")
    assert_type(subscription, lakelog.subscriptions.Subscription)
    subscription.close()
    assert lake.subscriptions() is not None
    lake.verify().require()
    lake.backup(home / "copy")
    lake.compact(workers="local:1")
    assert_type(lake.expire("give up earlier states", dry_run=False).deleted, int)
    lake.retention("10000d")
    assert_type(lake.preview_erasure(subject="nobody").events, int)
    status = lake.erase(subject="nobody", why="asked")
    assert_type(status.is_done, bool)
    assert_type(lake.erasure_receipt(status.erasure.key), bytes)
    lake.protect(["email"], types=["SIGNUP"])
    assert_type(lake.preview_erasure(subject=["nobody"]).keys, int)
    assert_type(lake.erase(subject=["nobody"], why="asked", rows=True).is_done, bool)
    assert_type([status.is_done for status in lake.erasures()], list[bool])
    lake.gc(dry_run=True)
    assert lake.stats().events == lake.count()
    assert lakelog.dedupe.plan(lake, "type") is not None


def database(lake: Lake) -> None:
    """The interface of PEP 249, and the one error that all others are."""
    with lakelog.connect(lake.path) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM events WHERE type = ?", ["note"])
        assert cursor.fetchone() is not None
    try:
        lake.sql("SELECT nothing FROM events").fetchall()
    except lakelog.LakelogError as error:
        print(error)


async def later(lake: lakelog.Lake) -> Receipt:
    """Append as asyncio programs do."""
    return await lake.aappend({"type": "awaited", "data": {"n": 1}}, dedupe="content")


def main(home: pathlib.Path) -> None:
    """Run all of it."""
    settings = Settings()
    assert settings.memory_bytes == 0
    with store(home) as lake:
        ask(lake)
        look_back(lake)
        care(lake, home)
        database(lake)
