"""Append: what may be handed over, what is refused, and what a receipt says."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest

import lakelog
from lakelog import history
from lakelog.disk import disk
from lakelog.errors import InvalidEvent, UnknownRef, WriterClosed

MakeLake = Callable[..., lakelog.Lake]
KEY = "origin || ':' || position"


def types(lake: lakelog.Lake) -> list[str]:
    """Return the types of all events, in the order they were appended."""
    return [t for (t,) in lake.sql("SELECT type FROM events ORDER BY position").fetchall()]


# --- what may be handed over ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "events",
    [
        [{"type": "A"}, {"type": "B"}],
        ({"type": "A"}, {"type": "B"}),
        iter([{"type": "A"}, {"type": "B"}]),
        ({"type": t} for t in "AB"),
        {"x": {"type": "A"}, "y": {"type": "B"}}.values(),
    ],
)
def test_any_iterable_of_dicts_is_a_batch(lake: lakelog.Lake, events: Any) -> None:
    """Lists, tuples, generators and views of dicts are stored in their order."""
    assert lake.append(events).count == 2
    assert types(lake) == ["A", "B"]


def test_one_dict_is_one_event(lake: lakelog.Lake) -> None:
    """A single dict needs no list around it."""
    assert lake.append({"type": "A"}).count == 1
    assert types(lake) == ["A"]


def test_an_empty_batch_stores_nothing(lake: lakelog.Lake) -> None:
    """No events: an empty receipt, and no file is made for it."""
    receipt = lake.append([])
    assert (receipt.count, receipt.ids) == (0, [])
    assert disk.listing(lake.store.paths.wal_dir("main")) == []
    assert lake.count() == 0


@pytest.mark.parametrize(
    ("events", "index"),
    [
        (None, 0),
        ("text", 0),
        (b"bytes", 0),
        (7, 0),
        ([None], 0),
        (["text"], 0),
        ([{"type": "A"}, []], 1),
        ([{"type": "A"}, {"type": "B"}, {"x": 1}], 2),
        ({}, 0),
    ],
)
def test_a_batch_with_a_bad_event_is_refused_atomically(
    lake: lakelog.Lake, events: Any, index: int
) -> None:
    """One bad event refuses its batch, names its place, and nothing of it is stored."""
    with pytest.raises(InvalidEvent, match=f"^event {index}: ") as caught:
        lake.append(events)
    assert caught.value.index == index
    assert lake.count() == 0


def test_an_unknown_way_to_dedupe_is_refused(lake: lakelog.Lake) -> None:
    """Only None and "content" are ways to dedupe."""
    with pytest.raises(InvalidEvent, match="dedupe is None or 'content'"):
        lake.append({"type": "A"}, dedupe="id")


def test_events_are_not_changed_by_appending(lake: lakelog.Lake) -> None:
    """The caller's dicts and payloads are left as they were."""
    event = {"event_type": "A", "level": "info", "x": 1, "data": {"y": [1]}}
    before = json.dumps(event)
    lake.append([event, event])
    assert json.dumps(event) == before


# --- Arrow ----------------------------------------------------------------------------------------

NEW_YEAR = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    "stream",
    [
        pa.table({"type": ["A", "B"], "time": [NEW_YEAR, NEW_YEAR], "n": [1, None]}),
        pa.table({"type": ["A", "B"], "ts": [NEW_YEAR, NEW_YEAR], "n": [1, None]}).to_batches()[0],
        pl.DataFrame({"type": ["A", "B"], "time": [NEW_YEAR, NEW_YEAR], "n": [1, None]}),
    ],
)
def test_an_arrow_stream_is_a_batch(lake: lakelog.Lake, stream: Any) -> None:
    """Rows of tables, record batches and frames are events; nulls are left out."""
    assert lake.append(stream).count == 2
    rows = lake.sql("SELECT type, data, epoch_us(time) FROM events ORDER BY position").fetchall()
    micros = int(NEW_YEAR.timestamp()) * 1_000_000
    assert rows == [("A", '{"n":1}', micros), ("B", None, micros)]


def test_a_duckdb_relation_and_a_reader_are_batches(lake: lakelog.Lake) -> None:
    """Relations of DuckDB and streaming readers are taken like tables."""
    with duckdb.connect() as connection:
        lake.append(connection.sql("SELECT 'A' AS type, {'a': 1.5} AS data, 5 AS n"))
    lake.append(pa.table({"type": ["B"]}).to_reader())
    rows = lake.sql("SELECT type, data FROM events ORDER BY position").fetchall()
    assert rows == [("A", '{"a":1.5,"n":5}'), ("B", None)]


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('{"a": 1.10}', '{"a":1.1}'),
        ('{\n  "a": [1,\n 2]\n}', '{"a":[1,2]}'),
        ('{"n": 123456789012345678901234567890}', '{"n":123456789012345678901234567890}'),
        ('{"a":1,"a":2}', '{"a":1,"a":2}'),
        ("7", "7"),
        ("hello", '"hello"'),
        ("", '""'),
        ('1}\n{"type":"X"', '"1}\\n{\\"type\\":\\"X\\""'),
        ('1,"x":2', '"1,\\"x\\":2"'),
    ],
)
@pytest.mark.parametrize("extra", [False, True])
def test_data_text_of_an_arrow_stream_is_json_or_text(
    lake: lakelog.Lake, text: str, data: str, extra: bool
) -> None:
    """A text column `data` holds JSON, in any layout; what is no JSON is kept as text."""
    columns: dict[str, Any] = {"type": ["A"], "data": [text]}
    lake.append(pa.table({**columns, "more": [True]} if extra else columns))
    [(stored,)] = lake.sql("SELECT data FROM events").fetchall()
    if not extra:
        assert stored == data
    elif data.startswith('{"a":1,'):  # a repeated key cannot be merged with others
        assert stored == f'{{"data":{data},"more":true}}'
    elif data.startswith("{"):
        assert stored == data[:-1] + ',"more":true}'
    else:
        assert stored == f'{{"data":{data},"more":true}}'


def test_arrow_types_become_json(lake: lakelog.Lake) -> None:
    """Decimals keep their digits; dates, binaries, lists, structs and nanoseconds become JSON."""
    lake.append(
        pa.table(
            {
                "type": pa.array(["A"]).dictionary_encode(),
                "time": pa.array([1_588_205_198_899_710_123], pa.timestamp("ns", "UTC")),
                "dec": [decimal.Decimal("1.10")],
                "day": [dt.date(2024, 1, 2)],
                "bin": [b"x"],
                "list": [[1, None]],
                "struct": [{"x": 1, "y": None}],
                "ns": pa.array([1_588_205_198_899_710_999], pa.timestamp("ns")),
            }
        )
    )
    [(micros, data)] = lake.sql("SELECT epoch_us(time), data FROM events").fetchall()
    assert micros == 1_588_205_198_899_710
    assert data == (
        '{"dec":1.10,"day":"2024-01-02","bin":"x","list":[1,null],"struct":{"x":1,"y":null},'
        '"ns":"2020-04-30T00:06:38.899710999"}'
    )


def test_a_date_column_may_be_the_time(lake: lakelog.Lake) -> None:
    """A column of dates counts as midnight UTC."""
    lake.append(pa.table({"type": ["A"], "time": [dt.date(2024, 1, 1)]}))
    assert lake.sql("SELECT time::VARCHAR FROM events").fetchall() == [("2024-01-01 00:00:00+00",)]


def test_an_arrow_stream_without_type_is_refused(lake: lakelog.Lake) -> None:
    """A null type in a stream is refused like one in a dict, with its row."""
    with pytest.raises(InvalidEvent, match=r"^event 1: no type"):
        lake.append(pa.table({"type": ["A", None]}))
    assert lake.count() == 0


@pytest.mark.parametrize("type_", [pa.date32(), pa.timestamp("us"), pa.duration("s")])
def test_an_arrow_value_that_python_has_not_is_refused(
    lake: lakelog.Lake, type_: pa.DataType
) -> None:
    """A year such as 12000, or an engine's infinity, is an invalid event, not a stray error."""
    largest = pa.array([2 ** (type_.bit_width - 1) - 1], f"int{type_.bit_width}").view(type_)
    with pytest.raises(InvalidEvent, match="none of Python's"):
        lake.append(pa.table({"type": ["A"], "x": largest}))
    assert lake.count() == 0


def test_a_frame_of_a_type_that_arrow_has_not_is_refused(lake: lakelog.Lake) -> None:
    """Polars has integers of 128 bits."""
    frame = pl.DataFrame({"type": ["A"], "n": pl.Series([2**100], dtype=pl.Int128)})
    with pytest.raises(InvalidEvent, match="cannot be read"):
        lake.append(frame)


def test_what_a_query_gives_can_be_appended_to_another_lake(make_lake: MakeLake) -> None:
    """SELECT * of one lake is a stream for another, which gives its own origin and seq."""
    source, target = make_lake("source"), make_lake("target")
    source.append([{"type": "A", "id": "1", "level": "info", "data": {"n": 2**70}}, {"type": "B"}])
    source.settle()
    target.append(source.sql("SELECT * FROM events"))
    query = "SELECT time, type, level, data, id FROM events ORDER BY position"
    assert target.sql(query).fetchall() == source.sql(query).fetchall()
    assert target.sql("SELECT DISTINCT origin FROM events").fetchall() == [(target.writer().name,)]


# --- receipts -------------------------------------------------------------------------------------


def test_a_receipt_has_an_id_for_every_event(lake: lakelog.Lake) -> None:
    """Given ids come back as they are; other events are known by origin and position."""
    first = lake.append([{"type": "A"}, {"type": "B", "id": "b"}, {"type": "C", "id": ""}])
    second = lake.append({"type": "D", "id": 7})
    query = f"SELECT CASE WHEN id <> '' THEN id ELSE {KEY} END FROM events ORDER BY position"
    assert first.ids + second.ids == [k for (k,) in lake.sql(query).fetchall()]
    assert repr(first) == "Receipt(count=3)"


@pytest.mark.parametrize("count", [4096, 4097, 10_000])
def test_a_large_batch_has_right_ids(lake: lakelog.Lake, count: int) -> None:
    """A batch of several frames is stored whole and in order, and its ids name its events."""
    receipt = lake.append([{"type": "A", "data": i} for i in range(count)])
    query = f"SELECT {KEY}, data::BIGINT FROM events ORDER BY position"
    rows = lake.sql(query).fetchall()
    assert rows == list(zip(receipt.ids, range(count), strict=True))


def test_ids_are_right_when_another_thread_comes_between_two_frames(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frames of a large batch need not be neighbours: its ids still name its own events."""
    others: list[threading.Thread] = []
    sync = disk.sync_file

    def sync_after_another_queued(fd: int) -> None:
        if len(others) < 2:
            waiting = lake.writer()._queue
            others.append(threading.Thread(target=lake.append, args=({"type": "other"},)))
            others[-1].start()
            while not waiting:
                time.sleep(0.001)
        sync(fd)

    lake.append({"type": "first"})
    monkeypatch.setattr(disk, "sync_file", sync_after_another_queued)
    receipt = lake.append([{"type": "A"} for _ in range(3 * 4096)])
    for other in others:
        other.join()
    query = f"SELECT {KEY} FROM events WHERE type = 'A' ORDER BY position"
    assert receipt.ids == [k for (k,) in lake.sql(query).fetchall()]
    assert lake.count() == 3 * 4096 + 3


# --- seen at once ---------------------------------------------------------------------------------


def test_an_append_is_visible_to_every_reader_at_once(make_lake: MakeLake) -> None:
    """What was acknowledged is in the next query of this handle, another one, and a process."""
    one, two = make_lake(), make_lake()
    script = "import lakelog, sys; print(lakelog.open(sys.argv[1], create=False).count())"
    for number in range(1, 4):
        one.append({"type": "A", "data": number})
        assert one.count() == two.count() == number
        assert two.sql("SELECT max(data::INT) FROM events").fetchall() == [(number,)]
    command = [sys.executable, "-c", script, one.path]
    assert subprocess.run(command, capture_output=True, check=True, timeout=240).stdout == b"3\n"


def test_arrival_is_stamped_and_the_order_kept(lake: lakelog.Lake) -> None:
    """Events get their arrival time, and time too where they have none; seq follows arrival."""
    before = disk.now_us()
    lake.append([{"type": "A", "time": "2000-01-01"}, {"type": "B"}])
    lake.append({"type": "C"})
    after = disk.now_us()
    lake.settle()
    query = "SELECT type, seq, epoch_us(time), epoch_us(ingested_at) FROM events ORDER BY seq"
    rows = lake.sql(query).fetchall()
    assert [(r[0], r[1]) for r in rows] == [("A", 0), ("B", 1), ("C", 2)]
    assert rows[0][2] == 946_684_800_000_000
    stamps = [rows[1][2], rows[2][2], *(r[3] for r in rows)]
    assert all(before <= t <= after for t in stamps)


def test_quarantined_lines_are_no_events(lake: lakelog.Lake) -> None:
    """Bad lines are kept apart with origin, position and reason, through every state."""
    bad = [("a.log", 10, "not JSON", "{\n\"'"), ("a.log", 12, "no type", '{"x":1}')]
    lake.append({"type": "A"})
    lake.quarantine(bad)
    for change in (lambda: None, lake.settle, lake.compact):
        change()
        query = "SELECT origin, position, reason, line FROM quarantine ORDER BY position"
        assert lake.sql(query).fetchall() == bad
        assert lake.count() == 1
        assert lake.sql("SELECT count(*), count(type) FROM events").fetchall() == [(1, 1)]
        assert lake.stats().quarantined == 2
    assert lake.sql("SELECT count(*) FROM quarantine, events").fetchall() == [(2,)]


# --- opening and closing --------------------------------------------------------------------------


def test_a_closed_lake_takes_no_events(make_lake: MakeLake) -> None:
    """Appending after close is refused, whether or not anything was appended before."""
    used, unused = make_lake(), make_lake()
    used.append({"type": "A"})
    for lake in (used, unused):
        lake.close()
        with pytest.raises(WriterClosed, match="open it again"):
            lake.append({"type": "B"})
        lake.close()
    assert make_lake().count() == 1


def test_a_lake_is_a_context(make_lake: MakeLake) -> None:
    """Leaving the with block closes the lake; a relation made before still gives its rows."""
    with make_lake() as lake:
        lake.append({"type": "A"})
        relation = lake.sql("SELECT type FROM events")
    assert relation.fetchall() == [("A",)]
    with pytest.raises(WriterClosed):
        lake.append({"type": "B"})


def test_a_branch_that_is_not_there_cannot_be_opened(make_lake: MakeLake) -> None:
    """Opening on an unknown or deleted branch is refused before anything can be lost there."""
    lake = make_lake()
    lake.branch("dev").close()
    with make_lake(branch="dev") as dev:
        history.delete_branch(lake.store, "dev", dev.settle)
    for name in ("dev", "nowhere"):
        with pytest.raises(UnknownRef, match=f"'{name}'"):
            make_lake(branch=name)
