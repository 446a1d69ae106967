"""Times that are told without the engine are the times that the engine says."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import duckdb
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lakelog
from lakelog.query.sql import times

ZONES = ("UTC", "America/New_York", "Asia/Kathmandu")
TOLD = [
    "'2026-03-08 07:30:00Z'",
    "'2026-03-08T07:30:00.5+05'",
    "TIMESTAMPTZ '2026-03-08 07:30:00.000001-03:30'",
    "'1969-12-31 23:59:59.999999Z'::timestamptz",
    "TRY_CAST('0001-01-01 00:00:00Z' AS TIMESTAMP WITH TIME ZONE)",
    "TIMESTAMPTZ '2026-03-08 07:30:00Z' - INTERVAL 3 hours",
    "TIMESTAMPTZ '2026-03-08 07:30:00Z' + INTERVAL '90' MINUTE - to_seconds(7)",
]
NOT_TOLD = [
    "'2026-03-08 07:30:00'",
    "DATE '2026-03-08'",
    "'2026-02-30 00:00:00Z'",
    "'2026-03-08 07:30:00.1234567Z'",
    "TIMESTAMP '2026-03-08 07:30:00Z'",
    "TIMESTAMPTZ '2026-03-08 07:30:00Z' - INTERVAL 1 day",
    "TIMESTAMPTZ '2026-03-08 07:30:00Z' - INTERVAL 1.5 hours",
    "TIMESTAMPTZ '2026-03-08 07:30:00Z' - INTERVAL '1 hour'",
    "TIMESTAMPTZ '2026-03-08 07:30:00Z' - to_hours(-1)",
    "to_hours(3) + TIMESTAMPTZ '2026-03-08 07:30:00Z'",
    "TIMESTAMPTZ '2026-03-08 07:30:00Z' - to_hours(true::INTEGER)",
]


def _told(engine: duckdb.DuckDBPyConnection, text: str) -> int | None:
    found = engine.execute("SELECT json_serialize_sql($1)", [f"SELECT {text}"]).fetchone()
    assert found
    return times.micros(orjson.loads(found[0])["statements"][0]["node"]["select_list"][0])


def _said(engine: duckdb.DuckDBPyConnection, text: str) -> int:
    found = engine.execute(f"SELECT epoch_us(({text})::TIMESTAMPTZ)").fetchone()
    assert found
    return int(found[0])


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("text", TOLD)
def test_told_times_are_those_of_the_engine(text: str, zone: str) -> None:
    """In any time zone of the session, as nobody asks for it."""
    with duckdb.connect() as engine:
        engine.execute(f"SET TimeZone = '{zone}'")
        assert _told(engine, text) == _said(engine, text)


@pytest.mark.parametrize("text", NOT_TOLD)
def test_what_depends_on_more_is_left_to_the_engine(text: str) -> None:
    """A zone, the length of a day, what the engine rounds or refuses."""
    with duckdb.connect() as engine:
        assert _told(engine, text) is None


@given(
    st.datetimes(min_value=dt.datetime(1000, 1, 1), timezones=st.just(dt.UTC)),
    st.sampled_from(["second", "minute", "hour"]),
    st.integers(0, 10**6),
    st.sampled_from("+-"),
)
def test_any_time_and_length(at: dt.datetime, unit: str, count: int, sign: str) -> None:
    """Told as the engine says it, wherever it says something at all."""
    with duckdb.connect() as engine:
        text = f"TIMESTAMPTZ '{at.isoformat(' ')}' {sign} INTERVAL {count} {unit}"
        assert _told(engine, text) == _said(engine, text)


Days = tuple[lakelog.Lake, int]


@pytest.fixture
def days(make_lake: Callable[..., lakelog.Lake]) -> Days:
    """A lake of a segment a day, up to a moment ago, and how many they are."""
    lake = make_lake(seal="never")
    now = dt.datetime.now(dt.UTC)
    for ago in range(6, -1, -1):
        lake.append({"type": "t", "time": now - dt.timedelta(days=ago), "data": ago})
        lake.settle()
    return lake, 7


@pytest.mark.parametrize(
    ("condition", "opened"),
    [
        ("time > current_timestamp - INTERVAL 1 hour", 1),
        ("time > CURRENT_TIMESTAMP - INTERVAL 50 HOURS", 3),
        ("time >= current_date - INTERVAL 400 hours", 7),
        ("time > current_date + INTERVAL 2 days", 0),
        ("time < current_timestamp - INTERVAL 100 hours", 2),
        ("time > localtimestamp - INTERVAL 1 hour", 1),
        ("time < LocalTimestamp - INTERVAL 100 hours", 2),
    ],
)
def test_the_names_of_now_are_no_columns(days: Days, condition: str, opened: int) -> None:
    """`current_timestamp` is written without parentheses, and opens no more than now() does."""
    lake, count = days
    query = f"SELECT data FROM events WHERE {condition}"
    read, there = lake.explain(query)
    assert there == count
    # Of times before a moment, those of the next day may be before it once the query runs.
    assert opened <= read <= opened + ("<" in condition)
    expected = [row for row in lake.sql("FROM events").fetchall() if _holds(lake, row, condition)]
    assert len(lake.sql(query).fetchall()) == len(expected)


def _holds(lake: lakelog.Lake, row: Any, condition: str) -> bool:
    time = f"TIMESTAMPTZ '{row[0].isoformat(' ')}'"
    return bool(lake.sql(f"SELECT {condition.replace('time ', f'{time} ', 1)}").fetchall()[0][0])


@pytest.mark.parametrize(
    "query",
    [
        "SELECT (SELECT count(*) FROM events WHERE time > current_timestamp) FROM"
        " (SELECT TIMESTAMPTZ '2000-01-01 00:00:00Z' AS current_timestamp)",
        "SELECT (SELECT count(*) FROM events WHERE time > current_timestamp) FROM frame",
        "WITH x(current_timestamp) AS (SELECT TIMESTAMPTZ '2000-01-01 00:00:00Z')"
        " SELECT (SELECT count(*) FROM events WHERE time > current_timestamp) FROM x",
    ],
)
def test_a_name_that_may_be_a_column_opens_everything(days: Days, query: str) -> None:
    """Another table of the query may have a column of that name."""
    lake, count = days
    assert lake.explain(query) == (count, count)
