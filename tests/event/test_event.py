"""The event: every spelling, time and value a producer may send, and what comes back of it."""

from __future__ import annotations

import array
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import json
import shutil
import uuid
from collections import OrderedDict, UserDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import lakelog
from lakelog import database, frame_rows
from lakelog.errors import InvalidEvent
from lakelog.event import EncodedBatch
from lakelog.event.arrow_rows import events_of
from lakelog.loggers.values import plain
from lakelog.paths import Paths
from lakelog.settings import DEFAULTS
from lakelog.values import from_micros, parse_line, parse_time, to_micros
from lakelog.wal import frames as wal
from tests.support.effort import share
from tests.support.requirements import need_module

COLUMNS = "time type category source subject level message data id".split()
MakeLake = Callable[..., lakelog.Lake]


@functools.cache
def engine_for_rows() -> Any:
    """One database for all the tests that turn a frame into rows."""
    return database.connect(Paths("/nowhere"), DEFAULTS)


def row(event: Any) -> dict[str, Any]:
    """Return the columns that are not null of one event, taken through a WAL frame."""
    lines = EncodedBatch.of([event]).lines
    data = wal.encode_frame(b"\n".join(lines), len(lines), 0, 0, 0, 0, zstandard.ZstdCompressor())
    [made] = frame_rows.events(engine_for_rows, list(wal.scan(data, 0, "w").frames)).to_pylist()
    return {name: made[name] for name in COLUMNS if made[name] is not None}


def payload(event: Any) -> str | None:
    """Return the text of an event's data, taken through a WAL frame."""
    return row(event).get("data")


def parsed(event: Any) -> Any:
    """Return an event's data as a value."""
    return json.loads(payload(event) or "null")


def in_every_state(lake: lakelog.Lake, query: str) -> list[Any]:
    """Return a query's rows, which must be the same unsealed, sealed and compacted."""
    rows = lake.sql(query).fetchall()
    for change in (lake.settle, lake.compact):
        change()
        assert lake.sql(query).fetchall() == rows
    return rows


def exact(text: str | bytes) -> Any:
    """Parse JSON keeping number text's value, key order and repeated keys."""
    return json.loads(text, parse_float=decimal.Decimal, object_pairs_hook=lambda p: ("{}", p))


# --- columns --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelling", "column"),
    [
        ("timestamp", "time"),
        ("ts", "time"),
        ("@timestamp", "time"),
        ("event_type", "type"),
        ("content_type", "category"),
        ("item_id", "subject"),
    ],
)
def test_a_known_spelling_fills_its_column(spelling: str, column: str) -> None:
    """The spellings of older systems fill the column they mean and leave nothing in data."""
    time = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    value = "2024-01-01T00:00:00Z"
    for event in ({"type": "A", "x": 1}, {"type": "A", "time": value}):
        event.pop(column, None)
        made = row({**event, spelling: value})
        assert made[column] == (time if column == "time" else value)
        assert ("data" in made) == ("x" in event)


def test_the_column_s_own_name_wins_over_its_spellings() -> None:
    """Where both are given the column keeps its own, and the other stays readable in data."""
    event = {"type": "A", "event_type": "B", "subject": None, "item_id": "s"}
    assert (row(event)["type"], row(event)["subject"]) == ("A", "s")
    assert parsed(event) == {"event_type": "B"}


def test_the_first_of_two_spellings_fills_the_column() -> None:
    """Two spellings of one column: the first fills it, the second stays in data."""
    event = {"type": "A", "ts": 1, "timestamp": 2}
    assert row(event)["time"] == from_micros(1_000_000)
    assert parsed(event) == {"timestamp": 2}


@pytest.mark.parametrize("hint", ["event", "eventName", "event_name", "eventType", "EventType"])
def test_an_event_without_type_takes_it_from_a_hint(hint: str) -> None:
    """Keys that name the type elsewhere give the type, and stay in data too."""
    assert row({hint: "Login"})["type"] == "Login"
    assert parsed({hint: "Login"}) == {hint: "Login"}


@pytest.mark.parametrize("value", [None, "", [], {}, {"a": 1}, float("nan")])
def test_an_event_needs_a_type(value: object) -> None:
    """No type, or one that is no text, is refused with the event's place in the batch."""
    with pytest.raises(InvalidEvent, match=r"^event 1: .*type") as caught:
        EncodedBatch.of([{"type": "A"}, {"type": value}])
    assert caught.value.index == 1


@pytest.mark.parametrize(
    ("value", "text"), [(7, "7"), (1.5, "1.5"), (True, "true"), (0, "0"), (2**70, str(2**70))]
)
def test_a_type_may_be_a_number(value: object, text: str) -> None:
    """Numeric event codes become text."""
    assert row({"type": value})["type"] == text


@pytest.mark.parametrize(
    ("extra", "data", "expected"),
    [
        ({"k": 1}, None, {"k": 1}),
        ({"k": 1}, {}, {"k": 1}),
        ({"k": 1}, {"x": 2}, {"x": 2, "k": 1}),
        ({"k": 1}, {"k": 2}, {"data": {"k": 2}, "k": 1}),
        ({"k": 1}, [1, 2], {"data": [1, 2], "k": 1}),
        ({"k": 1}, "text", {"data": "text", "k": 1}),
        ({"k": 1}, 0, {"data": 0, "k": 1}),
        ({"k": 1}, False, {"data": False, "k": 1}),
        ({"seq": 1, "origin": "x", "position": 2}, None, {"seq": 1, "origin": "x", "position": 2}),
        ({"ingested_at": 1, "key": 2}, None, {"ingested_at": 1, "key": 2}),
        ({1: "a", None: "b"}, None, {"1": "a", "None": "b"}),
    ],
)
def test_unknown_keys_go_into_data(extra: dict[Any, Any], data: Any, expected: Any) -> None:
    """Unknown keys lie beside the payload's own, which is wrapped where they would collide."""
    assert parsed({"type": "A", "data": data, **extra}) == expected


@pytest.mark.parametrize("data", [[], [1], "", "text", 0, -1, 1.5, True, False, {}, {"a": None}])
def test_data_may_be_any_json(data: Any) -> None:
    """The payload need not be an object."""
    plain = {"type": "A", "time": "2024-01-01T00:00:00Z", "data": data}
    for event in (plain, {**plain, "level": "info"}):
        assert json.loads(payload(event) or "") == data


def test_null_data_is_no_data() -> None:
    """A null payload is the absence of one."""
    assert payload({"type": "A", "data": None}) is None
    assert payload({"type": "A", "time": "2024-01-01T00:00:00Z", "data": None}) is None
    assert payload({"type": "A", "data": "null"}) == '"null"'


@pytest.mark.parametrize(
    ("given", "level"),
    [
        ("info", "INFO"),
        (" Warning ", "WARN"),
        ("err", "ERROR"),
        ("critical", "FATAL"),
        ("panic", "FATAL"),
        ("notice", "INFO"),
        ("verbose", "TRACE"),
        ("fine", "DEBUG"),
        ("TRACE", "TRACE"),
        ("Severe", "ERROR"),
    ],
)
def test_a_level_is_one_of_six(given: str, level: str) -> None:
    """Severities of many systems become TRACE, DEBUG, INFO, WARN, ERROR or FATAL."""
    made = row({"type": "A", "level": given, "time": "2024-01-01T00:00:00Z"})
    assert made["level"] == level
    assert "data" not in made


@pytest.mark.parametrize("given", ["http", " Success ", "SILLY", "level-9"])
def test_a_level_of_a_program_of_its_own_is_kept(given: str) -> None:
    """A word that is no known severity is a level in capitals, so that a query finds it."""
    assert row({"type": "A", "level": given})["level"] == given.strip().upper()
    assert "data" not in row({"type": "A", "level": given})


@pytest.mark.parametrize("given", ["", "so loud", "!", "x" * 30, 30, 1.5, True, ["info"]])
def test_a_level_that_means_nothing_stays_in_data(given: object) -> None:
    """A severity nobody knows leaves the column null and is kept in data."""
    assert "level" not in row({"type": "A", "level": given})
    assert parsed({"type": "A", "level": given}) == {"level": given}


@pytest.mark.parametrize(
    ("value", "text"), [(7, "7"), (7.5, "7.5"), (True, "true"), (10**400, str(10**400)), ("7", "7")]
)
@pytest.mark.parametrize("column", ["id", "source", "subject", "category", "message"])
def test_a_number_in_a_text_column_becomes_text(column: str, value: object, text: str) -> None:
    """Numbers in text columns are written as JSON writes them."""
    assert row({"type": "A", column: value})[column] == text


def test_a_uuid_is_an_id() -> None:
    """An id or subject given as a UUID object is its text, so that it counts for dedupe."""
    key = uuid.uuid5(uuid.NAMESPACE_DNS, "lakelog")
    encoded = EncodedBatch.of([{"type": "A", "id": key, "subject": key}])
    assert encoded.ids == [str(key)]
    assert encoded.keyed
    assert row({"type": "A", "subject": key})["subject"] == str(key)


def test_a_number_that_is_none_leaves_a_text_column_null() -> None:
    """NaN, which pandas gives for an empty cell, is no id and no source."""
    event = {"type": "A", "id": float("nan"), "source": np.nan}
    assert row(event).keys() == {"time", "type"}
    assert EncodedBatch.of([event]).ids == [None]


def test_a_list_in_a_text_column_stays_in_data() -> None:
    """What is no text leaves the column null and is kept in data."""
    event = {"type": "A", "source": ["a", "b"], "data": {"x": 1}}
    assert "source" not in row(event)
    assert parsed(event) == {"x": 1, "source": ["a", "b"]}


@pytest.mark.parametrize("at", [{}, {"time": "2024-01-01T00:00:00Z"}])
def test_ready_json_with_a_newline_is_refused(at: dict[str, str]) -> None:
    """A Fragment is taken as it is, except where its newline would break the log into pieces."""
    with pytest.raises(InvalidEvent, match="newline"):
        EncodedBatch.of([{"type": "A", **at, "data": {"x": orjson.Fragment(b'{"a":\n1}')}}])
    assert payload({"type": "A", **at, "data": orjson.Fragment(b'{"a":1.10}')}) == '{"a":1.10}'


def test_empty_text_is_kept_but_an_empty_id_is_none() -> None:
    """Empty columns stay empty and not null; an empty id identifies nothing."""
    empty = dict.fromkeys(("category", "source", "subject", "message", "id"), "")
    event = {"type": "A", **empty}
    for each in (event, {**event, "time": "2024-01-01T00:00:00Z"}):
        assert all(row(each)[c] == "" for c in empty if c != "id")
        assert EncodedBatch.of([each]).ids == [None]
        assert not EncodedBatch.of([each]).keyed


# --- times ----------------------------------------------------------------------------------------

JANUARY = "2024-01-02T03:04:05+00:00"


@pytest.mark.parametrize(
    ("given", "iso"),
    [
        ("2024-01-02T03:04:05Z", JANUARY),
        ("2024-01-02T03:04:05", JANUARY),
        ("2024-01-02 03:04:05", JANUARY),
        (" 2024-01-02T03:04:05Z ", JANUARY),
        ("2024-01-02T05:04:05+02:00", JANUARY),
        ("2024-01-02T03:04:05 UTC", JANUARY),
        ("2024-01-02T03:04:05GMT", JANUARY),
        ("20240102T030405Z", JANUARY),
        ("2024-01-02", "2024-01-02T00:00:00+00:00"),
        ("20240102", "2024-01-02T00:00:00+00:00"),
        ("2024-01-02T03:04:05,678", "2024-01-02T03:04:05.678000+00:00"),
        ("2024-01-02T03:04:05.123456789Z", "2024-01-02T03:04:05.123456+00:00"),
        ("0001-01-01", "0001-01-01T00:00:00+00:00"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999+00:00"),
        (20240102030405, JANUARY),
        ("20240102030405Z", JANUARY),
        ("20240102050405.000+0200", JANUARY),
        (1704164645, JANUARY),
        (1704164645000, JANUARY),
        (1704164645000000, JANUARY),
        (1704164645000000789, JANUARY),
        (1704164645.5, "2024-01-02T03:04:05.500000+00:00"),
        (1588205198.89971, "2020-04-30T00:06:38.899710+00:00"),
        ("1704164645", JANUARY),
        ("1704164645000", JANUARY),
        ("1704164645000000", JANUARY),
        ("1612121212345", "2021-01-31T19:26:52.345000+00:00"),
        ("1701011200000", "2023-11-26T15:06:40+00:00"),
        ("1704164645.25", "2024-01-02T03:04:05.250000+00:00"),
        (0, "1970-01-01T00:00:00+00:00"),
        (-1, "1969-12-31T23:59:59+00:00"),
        ("-1", "1969-12-31T23:59:59+00:00"),
        (-0.000001, "1969-12-31T23:59:59.999999+00:00"),
        (dt.datetime(2024, 1, 2, 3, 4, 5), JANUARY),
        (dt.date(2024, 1, 2), "2024-01-02T00:00:00+00:00"),
        (np.datetime64("2024-01-02").item(), "2024-01-02T00:00:00+00:00"),
        (dt.datetime(2024, 1, 2, 5, 4, 5, tzinfo=dt.timezone(dt.timedelta(hours=2))), JANUARY),
    ],
)
def test_a_time_may_be_written_in_many_ways(given: object, iso: str) -> None:
    """ISO text, epoch s, ms, us and ns told by magnitude, and datetimes; no zone means UTC."""
    assert parse_time(given).isoformat() == iso
    assert row({"type": "A", "time": given})["time"].isoformat() == iso


@pytest.mark.parametrize(
    "given",
    [
        "0000-01-01",
        "99999-01-01",
        "10000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+05:00",
        "9999-12-31T23:59:59-05:00",
        "",
        " ",
        "yesterday",
        "2024-13-01",
        "2024-01-01T24:00:00",
        True,
        [],
        {},
        float("nan"),
        float("inf"),
        10**30,
        -(10**20),
        "²",
        orjson.Fragment("1e400"),
    ],
)
def test_a_time_outside_years_1_to_9999_is_refused(given: object) -> None:
    """What is no date from year 1 to 9999 is refused in one short line."""
    with pytest.raises(InvalidEvent, match=r"^event 0: time .* year 1 to 9999$") as caught:
        EncodedBatch.of([{"type": "A", "time": given}])
    assert len(str(caught.value)) < 120


@given(st.datetimes(timezones=st.just(dt.UTC)))
def test_microseconds_and_datetimes_are_two_ways_to_say_one_thing(moment: dt.datetime) -> None:
    """Every microsecond of the years 1 to 9999 survives both conversions and its own text."""
    assert from_micros(to_micros(moment)) == moment
    assert parse_time(moment.isoformat()) == moment


@settings(max_examples=200)
@given(st.integers(946_684_800_000, 4_102_444_800_000))
def test_epoch_text_is_never_taken_for_a_calendar_date(millis: int) -> None:
    """Milliseconds of this century mean the same as number and as text."""
    assert parse_time(str(millis)) == parse_time(millis)


@pytest.mark.parametrize(
    "given", ["0001-01-01", "1677-09-21T00:12:43Z", -1e9, -0.5, "9999-12-31T23:59:59.999999Z"]
)
def test_the_ends_of_time_survive_every_state(lake: lakelog.Lake, given: object) -> None:
    """The first and last dates come back exactly, sealed, compacted or not."""
    lake.append({"type": "A", "time": given})
    rows = in_every_state(lake, "SELECT epoch_us(time) FROM events")
    assert rows == [(to_micros(parse_time(given)),)]


# --- values ---------------------------------------------------------------------------------------


class Colour(enum.Enum):
    """An enumeration, for JSON its value."""

    RED = "red"


@dataclasses.dataclass
class Point:
    """A dataclass, for JSON an object."""

    x: int
    y: object = None


class Celsius(float):
    """A subclass of a number."""


class Stamp(dt.datetime):
    """A subclass of a datetime, as pandas has one."""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2**63, "9223372036854775808"),
        (2**64, "18446744073709551616"),
        (-(2**63) - 1, "-9223372036854775809"),
        (10**400, "1" + "0" * 400),
        (decimal.Decimal("1.10"), "1.10"),
        (
            decimal.Decimal("0.1000000000000000055511151231257827"),
            "0.1000000000000000055511151231257827",
        ),
        (decimal.Decimal("NaN"), '"NaN"'),
        (float("nan"), '"NaN"'),
        (float("-inf"), '"-Infinity"'),
        ([1, {"a": float("inf")}], '[1,{"a":"Infinity"}]'),
        (1e300, "1e+300"),
        ((1, 2), "[1,2]"),
        ({3}, "[3]"),
        (frozenset(["x"]), '["x"]'),
        (b"caf\xc3\xa9", '"café"'),
        (b"\xff\x00", '"\\\\xff\\u0000"'),
        (bytearray(b"x"), '"x"'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (dt.datetime(2024, 1, 2, tzinfo=dt.UTC), '"2024-01-02T00:00:00Z"'),
        (dt.datetime(2024, 1, 2, 3, 4, 5, 6), '"2024-01-02T03:04:05.000006"'),
        (dt.date(2024, 1, 2), '"2024-01-02"'),
        (dt.time(1, 2, 3), '"01:02:03"'),
        (Colour.RED, '"red"'),
        (Point(1), '{"x":1,"y":null}'),
        (Point(1, decimal.Decimal("2.50")), '{"x":1,"y":2.50}'),
        (Celsius(21.5), "21.5"),
        (Stamp(2024, 1, 2), '"2024-01-02T00:00:00"'),
        (np.float64(1.5), "1.5"),
        (np.int64(-3), "-3"),
        (np.bool_(True), "true"),
        (np.array([1, 2]), "[1,2]"),
        (array.array("i", [1, 2]), "[1,2]"),
        (SimpleNamespace(tolist=lambda: [1, 2], dtype=object()), "[1,2]"),
        ({1: "a", None: "b", (1, 2): "d"}, '{"1":"a","None":"b","(1, 2)":"d"}'),
        ({1: "a", "1": "b"}, '{"1":"a","1":"b"}'),
        ('\x00\x1f\u2028\\"', '"\\u0000\\u001f\u2028\\\\\\""'),
        (OrderedDict(b=1, a=2), '{"b":1,"a":2}'),
        (UserDict(a=decimal.Decimal(1)), '{"a":1}'),
    ],
)
def test_a_python_value_becomes_json_without_loss(value: object, text: str) -> None:
    """Numbers keep their digits, and what JSON lacks becomes its nearest kin."""
    assert payload({"type": "A", "data": {"v": value}}) == f'{{"v":{text}}}'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.datetime64(1_700_000_000_123_456_789, "ns"), '"2023-11-14T22:13:20.123456789"'),
        (np.datetime64("2023-11-14T22:13", "ns"), '"2023-11-14T22:13:00"'),
        (np.datetime64("2023-11-14"), '"2023-11-14"'),
        (np.datetime64("20230-01-01"), '"20230-01-01"'),
        (np.array(["2023-11-14", "NaT"], "M8[ns]"), '["2023-11-14T00:00:00",null]'),
    ],
)
def test_times_of_numpy_keep_what_they_say(value: object, text: str) -> None:
    """Whatever their unit: none becomes an integer of it."""
    assert payload({"type": "A", "data": {"v": value}}) == f'{{"v":{text}}}'
    assert orjson.dumps(plain(value)).decode() == text


def test_times_of_pandas_keep_their_nanoseconds() -> None:
    """In a dictionary and in a frame; what is no time is null."""
    pd = need_module("pandas")
    moment = pd.Timestamp(1_700_000_000_123_456_789)
    assert payload({"type": "A", "v": moment}) == '{"v":"2023-11-14T22:13:20.123456789"}'
    berlin = moment.tz_localize("UTC").tz_convert("Europe/Berlin")
    assert payload({"type": "A", "v": berlin}) == '{"v":"2023-11-14T23:13:20.123456789+01:00"}'
    assert payload({"type": "A", "v": pd.NaT}) == '{"v":null}'
    times = pd.to_datetime([1_700_000_000_123_456_789, -1, 1_000, None], utc=True)
    clock = pa.array([1, 1_000, None, 3_600_000_000_001], pa.time64("ns"))
    table = pa.table({"v": pa.array(times), "clock": clock})
    assert [orjson.loads(payload({"type": "A"} | row)) for row in events_of(table)] == [
        {"v": "2023-11-14T22:13:20.123456789Z", "clock": "00:00:00.000000001"},
        {"v": "1969-12-31T23:59:59.999999999Z", "clock": "00:00:00.000001"},
        {"v": "1970-01-01T00:00:00.000001Z"},
        {"clock": "01:00:00.000000001"},
    ]


@pytest.mark.parametrize(
    "value", [1_700_000_000_000_000, np.int64(1_700_000_000), np.datetime64(1_700_000_000, "s")]
)
def test_a_time_may_be_of_numpy(value: object) -> None:
    """As the columns and the index of frames have them."""
    assert parse_time(value) == dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        dt.timedelta(1),
        np.timedelta64(1, "ns"),
        1j,
        lambda: 1,
        pytest.param(10**5000, id="more than 4300 digits"),
    ],
)
def test_a_value_json_cannot_hold_is_refused(value: object) -> None:
    """What has no JSON is refused, naming the event, never stored as something else."""
    with pytest.raises(InvalidEvent, match=r"^event 0: "):
        EncodedBatch.of([{"type": "A", "data": {"v": value}}])


@pytest.mark.parametrize("depth", [300, 2_000, 100_000])
def test_nesting_without_end_is_refused(depth: int) -> None:
    """Payloads nested beyond reason are refused and do not crash."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    with pytest.raises(InvalidEvent):
        EncodedBatch.of([{"type": "A", "data": value}])


def test_a_mapping_is_an_event() -> None:
    """Anything with keys and items is taken for a dict."""
    assert parsed(UserDict(type="A", x=1)) == {"x": 1}


def test_the_original_of_ill_formed_column_text_stays_in_data() -> None:
    """A lone surrogate cannot be a column; the column gets a question mark, data the original."""
    event = {"type": "A\ud800", "message": "fine", "data": {"x": 1}}
    assert (row(event)["type"], row(event)["message"]) == ("A?", "fine")
    assert json.loads(parsed(event)["lakelog_exact"]) == {"x": 1, "type": "A\ud800"}


@pytest.mark.parametrize(
    ("text", "readable"),
    [
        (r'{"text":"hi \ud83d"}', {"text": "hi \ufffd"}),
        (r'{"a":"\uDE00\ud83d\ud83d\ude00"}', {"a": "\ufffd\ufffd\U0001f600"}),
        (r'{"a":"\\ud83d\\\ud83d\\ude00"}', {"a": "\\ud83d\\\ufffd\\ude00"}),
        (r'{"\ud83d":1,"\ud83e":2}', {"\ufffd": 2}),
        (r'"\ud83d"', {"data": "\ufffd"}),
        (r'[["\udfff"]]', {"data": [["\ufffd"]]}),
    ],
)
def test_half_of_a_surrogate_pair_does_not_break_sql(
    lake: lakelog.Lake, text: str, readable: Any
) -> None:
    """SQL over the payloads of a lake goes on working, and the exact text is still there."""
    lake.append([parse_line(f'{{"type":"A","data":{text}}}'.encode()), {"type": "B", "text": "x"}])
    query = "SELECT type, data, data->>'text', data->>'lakelog_exact' FROM events ORDER BY type"
    [(_, data, _, exact_text), (_, _, other, none)] = in_every_state(lake, query)
    assert {k: v for k, v in json.loads(data).items() if k != "lakelog_exact"} == readable
    assert (json.loads(exact_text), other, none) == (json.loads(text), "x", None)


# --- text in, value out ---------------------------------------------------------------------------

TRICKY = [
    'x,"data":{"y":1}',
    '","data":',
    "\\",
    '\\","data":1',
    "two\nlines\r\n",
    "\t\x00\x7f",
    "é\u0301 👩\u200d👩\u200d👧 \U0001f1e9\U0001f1ea \uffff",
    "'; DROP TABLE events; --",
    "{",
    '"',
]


@pytest.mark.parametrize("column", ["type", "message", "source", "subject", "category", "id"])
def test_tricky_text_survives_every_state(lake: lakelog.Lake, column: str) -> None:
    """Quotes, newlines, NULs and text that looks like the payload's start come back unchanged."""
    texts = [text.replace("\0", "") if column == "id" else text for text in TRICKY]
    lake.append([{"type": "A", column: text, "data": {"t": text}} for text in texts])
    rows = in_every_state(lake, f"SELECT {column}, data FROM events ORDER BY position")
    assert [(text, json.loads(data)) for text, data in rows] == [(t, {"t": t}) for t in texts]


def test_very_long_text_survives_every_state(lake: lakelog.Lake) -> None:
    """A message and a payload of some megabytes come back whole."""
    text = 'x\n"é' * 500_000
    lake.append({"type": "A", "message": text, "data": [text]})
    [(message, data)] = in_every_state(lake, "SELECT message, data FROM events")
    assert message == text
    assert json.loads(data) == [text]


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS
SCALARS = SCALARS.filter(lambda v: v not in (float("inf"), float("-inf")))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=20)
@given(values=st.lists(VALUES, min_size=1, max_size=30))
def test_any_data_comes_back_from_every_state(home: Path, values: list[Any]) -> None:
    """Arbitrary JSON values come back equal from WAL, segment and compacted segment."""
    shutil.rmtree(home / "lake", ignore_errors=True)
    with lakelog.open(str(home / "lake"), settings={"seal": "never"}) as lake:
        lake.append([{"type": "A", "data": value} for value in values])
        rows = in_every_state(lake, "SELECT data FROM events ORDER BY position")
        assert [None if d is None else json.loads(d) for (d,) in rows] == values
        assert lake.verify().intact


NUMBERS = st.from_regex(
    r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,4})?", fullmatch=True
)
NAMES = st.sampled_from(["a", "b", "data", 'q":', "\u00e9", "a b", ""])
SPACE = st.sampled_from(["", " ", "\t", " \r\n ".replace("\n", "")])
STRINGS = st.builds(json.dumps, NAMES | WORDS) | st.sampled_from(
    ['"\\u0022:"', '"\\ud800"', '"\\/\\u003a"', '"\\u0000"', '"\\ud83d\\ude00"', '"😀"']
)


def _object(members: list[tuple[str, str, str, str]]) -> str:
    return "{" + ",".join(f"{n}{s}:{t}{v}" for n, s, t, v in members) + "}"


TEXTS = st.recursive(
    NUMBERS | STRINGS | st.sampled_from(["true", "false", "null"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda v: "[" + ", ".join(v) + "]")
        | st.lists(st.tuples(STRINGS, SPACE, SPACE, inner), max_size=4).map(_object)
    ),
    max_leaves=8,
)


@settings(max_examples=share(400))
@given(text=TEXTS, space=SPACE)
def test_json_text_is_taken_in_without_loss(text: str, space: str) -> None:
    """Every number keeps its value, every repeated key stays, whatever the spacing and escapes."""
    if text == "null":
        return
    event = parse_line(f'{{"type":"A",{space}"data"{space}:{space}{text}}}'.encode())
    made = json.loads(payload(event) or "")
    if isinstance(made, dict) and "lakelog_exact" in made:
        assert exact(made["lakelog_exact"]) == exact(text)
        assert "\\ud" in text
    else:
        assert exact(payload(event) or "") == exact(text)
    engine_for_rows().execute("SELECT json_extract(?, '$.x')", [payload(event)])


@pytest.mark.parametrize(
    "text",
    [
        '{"a" :1,"b":{"x":1,"x":2}}',
        '{"a":1,"a":2,"b":"\\u0022:"}',
        '{"a":{"a":1,"a" :2}}',
        '{"m":1e400,"k":-0.1000000000000000055511151231257827}',
        '{"z":1E-400}',
        '{"z":1e-99999999999999999999}',
        '{"n":123456789012345678901234567890}',
        '{"n":12345678901234567.0}',
        '[{"a":1,"a":[]}]',
        "9" * 5000,
    ],
)
def test_numbers_and_repeated_keys_keep_their_text(lake: lakelog.Lake, text: str) -> None:
    """What Python's numbers and dicts cannot hold is in the payload's text, in every state."""
    lake.append(parse_line(f'{{"type":"A","data":{text}}}'.encode()))
    [(data,)] = in_every_state(lake, "SELECT data FROM events")
    with_digits = {"parse_float": str, "parse_int": str, "object_pairs_hook": list}
    assert json.loads(data, **with_digits) == json.loads(text, **with_digits)


def test_a_repeated_column_keeps_its_last_value_and_other_keys_all() -> None:
    """At the top of a line, repeated unknown keys become a list of their values."""
    event = parse_line(b'{"type":"A","type":"B","x":1,"x":2}')
    assert row(event)["type"] == "B"
    assert parsed(event) == {"x": [1, 2]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1]", "expected a JSON object, not a list"),
        (b'"x"', "expected a JSON object, not text"),
        (b"null", "expected a JSON object, not null"),
        (b'{"a":NaN}', "NaN is not a JSON number"),
        (b'{"a":"\xff"}', "not UTF-8 at byte 6"),
        (b'{"a":' + b"[" * 100_000, "nested too deeply"),
        (b'{"a":1} x', "not JSON"),
    ],
)
def test_a_line_that_is_no_object_is_refused_with_the_reason(text: bytes, reason: str) -> None:
    """A bad line says in one line what is wrong with it."""
    with pytest.raises(InvalidEvent, match=reason) as caught:
        parse_line(text)
    assert "\n" not in str(caught.value)
