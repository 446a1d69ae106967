"""WAL lines as rows: a few are read one by one, many by a query, with the same result."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import duckdb
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import lakelog
from lakelog import frame_rows
from lakelog.errors import DamagedWal, InvalidEvent
from lakelog.event import EncodedBatch
from lakelog.frame_rows import rows
from lakelog.wal import frames as wal
from tests.support.effort import share
from tests.support.lakes import EXOTIC, events

MakeLake = Callable[..., lakelog.Lake]
TEXT = st.text(max_size=8) | st.sampled_from([',"data":', "\0", "\\", '"', "null", "\u2028", ""])
DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
)
EVENT = st.fixed_dictionaries(
    {"type": st.text(min_size=1, max_size=5)},
    optional={
        **dict.fromkeys("category source subject level message id item_id".split(), TEXT),
        "time": st.datetimes().map(lambda t: f"{t.isoformat()}Z") | st.integers(1, 2 * 10**9),
        "data": DATA,
        "more": DATA,
    },
)


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    with duckdb.connect() as connection:
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
        yield connection


def frame(lines: list[bytes], flags: int, nth: int = 0) -> wal.Frame:
    text = b"".join(line + b"\n" for line in lines)
    payload = zstandard.ZstdCompressor().compress(text)
    return wal.Frame(
        f"w{nth}", nth, len(lines), flags, 7 * nth, 1_777_630_000_123_456 + nth, len(text), payload
    )


def both(engine: Any, frames: list[wal.Frame]) -> tuple[Any, Any]:
    """The rows of a few lines, read one by one, and as the query for many parses them."""
    few = frame_rows.events(lambda: engine, frames)
    with mock.patch.object(rows, "_FEW", -1):
        return few, frame_rows.events(lambda: engine, frames)


@settings(max_examples=share(150), deadline=None)
@given(events=st.lists(EVENT, max_size=5), keyed=st.booleans(), content=st.booleans())
def test_a_few_lines_are_what_the_query_makes_of_them(
    engine: Any, events: list[Any], keyed: bool, content: bool
) -> None:
    """Every column is the same, for any text, payload and key."""
    try:
        lines = EncodedBatch.of(events, "content" if content else None).lines
    except InvalidEvent:
        return
    few, many = both(engine, [frame(lines, wal.Frame.KEYED if keyed else 0)])
    assert few.schema == many.schema
    assert few.to_pylist() == many.to_pylist()


def test_frames_keep_their_order_and_places(engine: Any) -> None:
    """Rows say which frame of which writer they are from, and where in it they stand."""
    dice = random.Random(2)
    lines = EncodedBatch.of(EXOTIC).lines
    frames = [frame(dice.sample(lines, 5), wal.Frame.KEYED * (n % 2), n) for n in range(4)]
    few, many = both(engine, [*frames, frame([], 0, 9)])
    assert few.equals(many)
    assert few["position"].to_pylist()[5:10] == [7, 8, 9, 10, 11]


@pytest.mark.parametrize(
    "line",
    [
        b'{"time":"2026-05-01T12:00:00+00:00","type":"OTHER ZONE"}',
        b'{"time":"2026-05-01 12:00:00","type":"NO ZONE","data":1}',
        b'{"time":"2026-05-01T12:00:00.1234","type":"NO ZONE, AS LONG","data":1}',
        b'{"time":"2026-05-01T12:00:00+0200","type":"OTHER ZONE, AS LONG"}',
        b'{"time":"2026-05-02T12:00:00Z","timestamp":"2026-05-01T12:00:00Z","type":"TWO TIMES"}',
        b'{"time":null,"timestamp":"2026-05-01T12:00:00Z","type":"NO TIME"}',
        b'{"time":"2026-05-01T12:00:00Z","type":"A","event_type":"NULL BESIDE","source":null}',
        b'{"time":"2026-05-01T12:00:00Z","type":"NUMBER","source":5}',
        b'{"time":"2026-05-01T12:00:00Z","type":"TRUTH","subject":true}',
        b'{"time":"2026-05-01T12:00:00Z","type":"FIRST","type":"SECOND"}',
        b'{"time":"2026-05-01T12:00:00Z","type":"NULL","data":null}',
        b'{"time":"2026-05-01T12:00:00Z","type":"SPACE","data":{"a": 1} }',
    ],
)
def test_lines_that_another_version_wrote_are_read_too(engine: Any, line: bytes) -> None:
    """Other spellings of the same events are rows like others, however few lines there are."""
    few, many = both(engine, [frame([line], 0)])
    assert few.equals(many)
    assert few["type"].to_pylist()[0].isupper()


@pytest.mark.parametrize("rows", [4, 100_000])
def test_seq_of_the_tail_is_what_sealing_gives(make_lake: MakeLake, rows: int) -> None:
    """Events that are not published have a seq: that of several writers and of repeated ids is the
    one they have afterwards, also where one segment cannot take them all."""
    first, second = (make_lake(segment_rows=rows) for _ in range(2))
    first.append({"type": "A", "id": "sealed"})
    first.settle()
    for n in range(5):
        for lake in (second, first):
            lake.append([{"type": "A", "data": n}, {"type": "A", "id": f"{n // 2}"}])
    first.quarantine([("f", 0, "bad", "{")])
    second.append({"type": "A", "id": "sealed"})
    query = "SELECT origin, position, seq FROM events ORDER BY seq"
    before = second.sql(query).fetchall()
    assert [seq for *_, seq in before] == list(range(len(before)))
    followed = [(e["origin"], e["position"], e["seq"]) for e in second.tail(100)]
    assert sorted(followed) == sorted(before)
    first.settle()
    assert second.sql(query).fetchall() == before


def test_the_latest_event_is_the_newest(lake: lakelog.Lake) -> None:
    """Of events of one time, the one with the highest seq came last, published or not."""
    times = {"type": "A", "time": "2026-01-01T00:00:00Z"}
    for step in range(3):
        lake.append([{**times, "data": step}])
        if step == 1:
            lake.settle()
    query = "SELECT data FROM events ORDER BY time DESC, seq DESC LIMIT 1"
    assert lake.sql(query).fetchall() == [("2",)]


@pytest.mark.parametrize("way", ["two that make up for each other", "no newline at the end"])
@pytest.mark.parametrize("count", [3, 700])
def test_a_frame_with_other_lines_than_it_says_is_damage(
    way: str, count: int, engine: duckdb.DuckDBPyConnection
) -> None:
    """Frames whose lines are not as many as their headers say are damage, also if the sum is right
    or only the last newline is missing."""
    line, compressor = b'{"time":"2026-01-01T00:00:00Z","type":"A"}', zstandard.ZstdCompressor()
    text = b"\n".join([line] * count)
    said = [count - 1, count + 1] if way.startswith("two") else [count, count]
    data = b"".join(wal.encode_frame(text, n, i, 0, 0, 0, compressor) for i, n in enumerate(said))
    frames = list(wal.scan(data, 0, "w").frames)
    if way.startswith("no"):
        frames[1] = replace(frames[1], payload=compressor.compress(text + b"x"))
    with pytest.raises(DamagedWal, match="does not hold what its header says"):
        frame_rows.events(lambda: engine, frames)
    assert frame_rows.events(lambda: engine, frames[:0]).num_rows == 0


def test_lines_that_are_whole_only_together_are_refused(engine: duckdb.DuckDBPyConnection) -> None:
    """Lines of another program that are no objects, but would be as many if they were read as one
    text, give no rows."""
    time = b'"2026-05-01T12:00:00Z"'
    lines = [
        b'{"time":%b,"type":"A","x":[{}' % time,
        b'{"p":1,"q":2,"r":3}]}',
        b'{"time" :%b,"type" :"B","x":1},{"time" :%b,"type":"C","x":2}' % (time, time),
    ]
    with pytest.raises(duckdb.Error, match="Malformed JSON"):
        frame_rows.events(lambda: engine, [frame(lines, 0)])


def test_lines_of_several_layouts_keep_their_order(engine: duckdb.DuckDBPyConnection) -> None:
    """Lines that are spelled in different ways, most of them alike, keep their order."""
    kinds: list[dict[str, Any]] = [
        {"type": "A", "source": "s", "data": {"n": 1}},
        {"type": "B", "message": 'a "quoted" one'},
        {"type": "C", "time": "2026-01-01T00:00:00Z", "level": "INFO", "data": None},
        {"type": "D", "subject": "é" * 99, "x": ',"data":'},
        {"type": "E"},
    ]
    given = [kinds[n % 7 % 5] | {"category": str(n)} for n in range(300)]
    frames = [
        frame(EncodedBatch.of(given[at : at + 50]).lines, 0, at // 50) for at in range(0, 300, 50)
    ]
    _, table = both(engine, frames)
    assert table["category"].to_pylist() == [str(n) for n in range(300)]
    assert table["type"].to_pylist() == [event["type"] for event in given]


def test_many_frames_are_parsed_some_at_a_time(
    engine: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many frames the engine is given at a time, the rows and their order are the same."""
    frames = [
        replace(frame(EncodedBatch.of(events(f"T{n}", 20)).lines, 0, n), writer=f"w{n % 3}")
        for n in range(40)
    ]
    whole = frame_rows.events(lambda: engine, frames)
    for size in (1, 3000, 1 << 30):
        monkeypatch.setattr(rows, "_DECOMPRESSED", size)
        assert frame_rows.events(lambda: engine, frames).equals(whole)
    assert whole["writer"].to_pylist()[::20] == [f"w{n % 3}" for n in range(40)]
