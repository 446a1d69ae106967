"""Pruning: a query opens only the segments it can need, and never one too few."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lakelog
from lakelog.cli.shell.statements import StatementRunner
from lakelog.entries.entry import SegmentEntry
from lakelog.errors import QueryFailed
from tests.support.effort import share
from tests.support.scratch import memory

DAYS = 16
START = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)


def _day(number: int) -> list[dict[str, Any]]:
    """Return the events of one day: a time for each hour, types and sources of their own."""
    made = []
    for hour in range(0, 24, 3):
        made.append(
            {
                "type": f"t{number % 5}",
                "time": START + dt.timedelta(days=number, hours=hour, microseconds=number),
                "source": [f"s{number % 3}", "", None][hour % 3 if number % 4 else 0],
                "subject": [f"u{number % 7}", "", "f" * 90, None][hour % 4],
                "data": number * 100 + hour,
                **({"id": f"{number}-{hour}"} if number % 2 else {}),
            }
        )
    return made


@pytest.fixture(scope="module")
def days() -> Iterator[lakelog.Lake]:
    """A lake of sixteen segments, a day each; the first four sorted, the last day in the tail."""
    path = tempfile.mkdtemp(prefix="lakelog-", dir=memory())
    with lakelog.open(f"{path}/lake", settings={"seal": "never", "segment_rows": 8}) as lake:
        for number in range(DAYS):
            lake.append(_day(number))
            lake.settle()
            if number == 3:
                lake.compact()
        lake.append([{"type": f"many{i}", "time": START, "data": -i - 1} for i in range(40)])
        lake.settle()
        lake.quarantine([("a.log", 1, "not JSON", "{")])
        lake.settle()
        lake.append(_day(DAYS))
        assert lake.stats().segments == DAYS + 2
        yield lake
        assert lake.verify().intact
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def plain(days: lakelog.Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with one plain table of the same events, where nothing is pruned by us."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("arrow", days.sql("FROM events").to_arrow_table())
        connection.execute("CREATE TABLE events AS FROM arrow")
        yield connection


# --- equivalence ----------------------------------------------------------------------------------

MOMENTS = st.builds(
    lambda day, hour, micros: START + dt.timedelta(days=day, hours=hour, microseconds=micros),
    st.integers(-1, DAYS + 1),
    st.sampled_from([0, 3, 12, 21]),
    st.sampled_from([-1, 0, 1, 5]),
)


def _spell(moment: dt.datetime, form: str) -> str:
    iso = moment.replace(tzinfo=None).isoformat(" ", "microseconds")
    east = moment.astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30))).isoformat()
    micros = int(moment.timestamp()) * 1_000_000 + moment.microsecond
    return form.format(iso=iso, east=east, date=moment.date(), micros=micros, s=micros // 10**6)


FORMS = [
    "'{iso}'",
    "'{iso}+00'",
    "'{east}'",
    "TIMESTAMP '{iso}'",
    "TIMESTAMPTZ '{east}'",
    "'{date}'",
    "DATE '{date}'",
    "'{iso}'::TIMESTAMP",
    "CAST('{iso}' AS TIMESTAMPTZ)",
    "'{iso}'::TIMESTAMP_S",
    "'{iso}'::TIMESTAMP_MS",
    "make_timestamptz({micros})",
    "to_timestamp({s})",
    "TIMESTAMP '{iso}' + INTERVAL 1 DAY",
    "'{iso}'::TIMESTAMPTZ - to_hours(7)",
    "date_trunc('day', TIMESTAMP '{iso}')",
    "now() - INTERVAL 1000 DAY",
    "today()",
    "NULL",
    "'infinity'",
    "'-infinity'",
    "(SELECT max(time) FROM events WHERE type = 't1')",
    "'{iso}999'",
    "ingested_at",
]
CONSTANTS = st.builds(_spell, MOMENTS, st.sampled_from(FORMS))
TIME = st.sampled_from(["time", "e.time", '"time"', "TIME", "e.Time"])
COMPARE = st.sampled_from([">", ">=", "<", "<=", "=", "<>", "IS DISTINCT FROM"])
NAME = st.sampled_from(
    [
        "'t0'",
        "'t1'",
        "'t4'",
        "'many7'",
        "'none'",
        "''",
        "NULL",
        "'s0'",
        "'s2'",
        "'u1'",
        "'u6'",
        f"'{'f' * 90}'",
        "'3-6'",
        "'9-21'",
        "'5-0'",
        "'x' || '1'",
    ]
)
COLUMN = st.sampled_from(
    ["type", "source", "e.source", '"type"', "SOURCE", "subject", "e.id", "id", "e.Subject"]
)
ATOMS = st.one_of(
    st.builds("{} {} {}".format, TIME, COMPARE, CONSTANTS),
    st.builds("{} {} {}".format, CONSTANTS, COMPARE, TIME),
    st.builds("{} BETWEEN {} AND {}".format, TIME, CONSTANTS, CONSTANTS),
    st.builds("{} NOT BETWEEN {} AND {}".format, TIME, CONSTANTS, CONSTANTS),
    st.builds("{} IN ({}, {})".format, TIME, CONSTANTS, CONSTANTS),
    st.builds("{} = {}".format, COLUMN, NAME),
    st.builds("{1} = {0}".format, COLUMN, NAME),
    st.builds("{} IN ({}, {})".format, COLUMN, NAME, NAME),
    st.builds("{} NOT IN ({}, {})".format, COLUMN, NAME, NAME),
    st.builds("{} IS NOT DISTINCT FROM {}".format, COLUMN, NAME),
    st.builds("{} >= {}".format, COLUMN, NAME),
    st.sampled_from(
        [
            "time::DATE = '2024-03-04'",
            "date_trunc('day', time) > '2024-03-10'",
            "source IS NULL",
            "coalesce(source, '') = ''",
            "type LIKE 't%'",
            "data::INT > 700",
            "true",
            "false",
            "type || '' = 't1'",
            "time > (SELECT TIMESTAMPTZ '2024-03-09')",
            "type COLLATE NOCASE = 'T1'",
            "type = 't1' COLLATE NOCASE",
            "time > TIMESTAMPTZ '2024-03-05' AT TIME ZONE 'Asia/Tokyo'",
        ]
    ),
)
WHERE = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} AND {} AND {})".format, inner, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        st.builds("NOT ({})".format, inner),
        st.builds("CASE WHEN {} THEN {} ELSE true END".format, inner, inner),
    ),
    max_leaves=5,
)


def _outcome(run: Any, query: str) -> Any:
    try:
        return sorted(run(query).fetchall(), key=str)
    except (duckdb.Error, lakelog.LakelogError):
        return "an error"


@settings(max_examples=share(250))
@given(where=WHERE)
def test_pruned_rows_are_the_rows(
    days: lakelog.Lake, plain: duckdb.DuckDBPyConnection, where: str
) -> None:
    """Any WHERE clause gives the rows, and the seq, that a plain table gives."""
    query = f"SELECT data, coalesce(seq, -1) FROM events e WHERE {where}"
    assert _outcome(days.sql, query) == _outcome(plain.sql, query)


@settings(max_examples=share(60))
@given(first=WHERE, second=WHERE, third=WHERE)
def test_several_mentions_read_what_each_needs(
    days: lakelog.Lake, plain: duckdb.DuckDBPyConnection, first: str, second: str, third: str
) -> None:
    """In unions, joins, CTEs and subqueries every mention of events keeps all its rows."""
    for query in (
        f"SELECT data, 1 FROM events e WHERE {first} UNION ALL FROM events e SELECT data, 2"
        f" WHERE {second}",
        f"WITH a AS (SELECT * FROM events e WHERE {first}) SELECT e.data, 0 FROM a e"
        f" SEMI JOIN (SELECT * FROM events e WHERE {second}) b USING (type) WHERE {third}",
        f"SELECT data, (SELECT count(*) FROM events e WHERE {second}) FROM events e WHERE {first}",
        "SELECT data, 0 FROM events e SEMI JOIN events f ON e.data = f.data AND f.type = 't1'"
        f" WHERE {first}",
    ):
        assert _outcome(days.sql, query) == _outcome(plain.sql, query)


@settings(max_examples=share(60))
@given(
    moments=st.tuples(MOMENTS, MOMENTS),
    form=st.sampled_from(["aware", "naive", "text", "nanoseconds", "date", "east"]),
    name=st.sampled_from(["t1", "none", None]),
    named=st.booleans(),
)
def test_parameters_prune_like_constants(
    days: lakelog.Lake,
    plain: duckdb.DuckDBPyConnection,
    moments: Any,
    form: str,
    name: Any,
    named: bool,
) -> None:
    """Bound values of every kind give the rows that a plain table gives."""
    make = {
        "aware": lambda m: m,
        "naive": lambda m: m.replace(tzinfo=None),
        "text": lambda m: m.isoformat(),
        "nanoseconds": lambda m: m.strftime("%Y-%m-%d %H:%M:%S.%f") + "999",
        "date": lambda m: m.date(),
        "east": lambda m: m.astimezone(dt.timezone(dt.timedelta(hours=9))),
    }[form]
    low, high = map(make, moments)
    marks = ("$low", "$high", "$name") if named else ("?", "?", "?")
    query = "SELECT data, seq FROM events WHERE time >= {} AND time <= {} AND (type = {} OR true)"
    query = query.format(*marks)
    params: Any = {"low": low, "high": high, "name": name} if named else [low, high, name]
    found, expected = (
        _outcome(lambda q, run=run: run(q, params=params), query) for run in (days.sql, plain.sql)
    )
    assert found == expected
    later = query.replace("(type =", f"time < {marks[0]}::TIMESTAMPTZ + INTERVAL 2 DAY AND (type =")
    if named:
        found, expected = (
            _outcome(lambda q, run=run: run(q, params=params), later)
            for run in (days.sql, plain.sql)
        )
        assert found == expected
    by_name = query.replace("(type = ", "type = (").replace(" OR true)", ")")
    found, expected = (
        _outcome(lambda q, run=run: run(q, params=params), by_name) for run in (days.sql, plain.sql)
    )
    assert found == expected


# --- how many are opened --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "opened"),
    [
        ("true", DAYS + 1),
        ("time >= '2024-03-05' AND time < '2024-03-06'", 1),
        ("'2024-03-05' <= time AND '2024-03-06' > time", 1),
        ("time BETWEEN '2024-03-05' AND '2024-03-06 23:00'", 2),
        ("time = TIMESTAMPTZ '2024-03-07 03:00:00.000006'", 1),
        ("time > '2025-01-01'", 0),
        ("time > now() - INTERVAL 1 HOUR", 0),
        ("time < '2024-01-01'::DATE", 0),
        ("e.time > TIMESTAMP '2024-03-16' - INTERVAL 1 DAY", 2),
        ("type = 't3'", 4),
        ("type IN ('t3', 't4') AND time > '2024-03-08'", 4),
        ("type = 't3' AND type = 't4'", 1),
        ("type = 'none'", 1),
        ("source = 's1' AND type = 't1' AND time < '2024-03-08'", 1),
        ("type = 't3' OR time > '2025-01-01'", DAYS + 1),
        ("upper(type) = 'T3'", DAYS + 1),
        ("source IS NULL", DAYS + 1),
        ("NOT (time > '2024-03-05')", DAYS + 1),
    ],
)
def test_a_query_opens_only_what_it_can_need(days: lakelog.Lake, where: str, opened: int) -> None:
    """Comparisons of time, type and source with constants leave segments closed."""
    query = f"SELECT * FROM events e WHERE {where}"
    assert days.explain(query) == (opened, DAYS + 2)
    assert days.at("main").explain(query) == (opened, DAYS + 2)


def test_mentions_unite(days: lakelog.Lake) -> None:
    """Two mentions open what either needs, not what both share."""
    query = "FROM events WHERE type = 't3' AND time < '2024-03-05' UNION ALL FROM events WHERE"
    assert days.explain(f"{query} time = '2024-03-08'")[0] == 2
    assert days.explain(f"{query} time > '2024-03-16'")[0] == 3
    assert days.explain(f"{query} true")[0] == DAYS + 1


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM query_table('events') WHERE type = 't3'",
        "SELECT type, (SELECT count(*) FROM query_table('events')) FROM events WHERE type = 't3'",
        "SELECT type FROM events e(a, b) WHERE type = 't3'",
        "EXPLAIN SELECT * FROM events WHERE type = 't3'",
    ],
)
def test_what_is_not_understood_opens_everything(days: lakelog.Lake, query: str) -> None:
    """Whatever may read events behind the parser's back reads all of them."""
    assert days.explain(query)[0] == DAYS + 1


def test_a_missing_segment_that_is_not_needed_is_not_missed(
    days: lakelog.Lake, plain: duckdb.DuckDBPyConnection
) -> None:
    """Closed segments are not even looked at: their files are not opened or hashed."""
    query = "SELECT data FROM events WHERE time >= '2024-03-05' AND time < '2024-03-06'"
    fresh = lakelog.open(days.path)
    rows = sorted(fresh.sql(query).fetchall())
    assert rows == sorted(plain.sql(query).fetchall())
    assert len(rows) == 8


def test_a_minute_after_a_parameter_is_a_minute(days: lakelog.Lake) -> None:
    """Arithmetic with parameters and constants prunes as the plain bounds do."""
    low, high = START + dt.timedelta(days=5), START + dt.timedelta(days=5, minutes=1)
    plain = days.explain("FROM events WHERE time >= $a AND time < $b", {"a": low, "b": high})
    assert plain[0] == 1
    for query, params in (
        ("FROM events WHERE time >= $a AND time < $a + INTERVAL 1 MINUTE", {"a": low}),
        ("FROM events WHERE time BETWEEN $1 AND $1 + to_minutes(1)", [low]),
        ("FROM events WHERE time >= ? AND time < ?::TIMESTAMPTZ + INTERVAL 1 MINUTE", [low, low]),
        (
            f"FROM events WHERE time >= '{low}' AND time < '{low}'::TIMESTAMPTZ + to_minutes(1)",
            None,
        ),
    ):
        assert days.explain(query, params) == plain


def test_queries_of_the_newest_events_read_the_newest_segments(
    make_lake: Callable[..., lakelog.Lake],
) -> None:
    """The first and last time come from the segments that have them, and a bound before the newest
    event is one on time; answers are those of all segments, and of the tail."""
    lake = make_lake()
    for day in range(1, 29):
        lake.append({"type": "A", "time": f"2026-02-{day:02}T{hour:02}:00:00Z"} for hour in (1, 20))
        lake.settle()
    newest = "(SELECT max(time) FROM events)"
    for query, opened, expected in (
        ("SELECT max(time) FROM events", 1, None),
        ("SELECT max(time)::VARCHAR FROM events", 28, "2026-02-28 20:00:00+00"),
        ("SELECT min(time)::VARCHAR FROM events", 28, "2026-02-01 01:00:00+00"),
        ("SELECT min(time) FROM events", 1, None),
        ("SELECT max(events.time), min(time) FROM events", 2, None),
        (f"SELECT count(*) FROM events WHERE time > {newest} - INTERVAL 1 day", 2, 2),
        (f"SELECT count(*) FROM events WHERE {newest} - INTERVAL 3 hours <= time", 1, 1),
        (f"SELECT count(*) FROM events WHERE time = {newest}", 1, 1),
        (f"SELECT count(*) FROM events WHERE time >= {newest}", 1, 1),
        (f"SELECT count(*) FROM events WHERE time < {newest}", 28, 55),
        (f"SELECT count(*) FROM events WHERE time > {newest} - INTERVAL 1 month", 28, 56),
        (f"SELECT count(*) FROM events WHERE time > {newest} + INTERVAL 1 hour", 28, 0),
        ("SELECT max(time) FILTER (time < '2026-02-03') FROM events", 28, None),
        ("SELECT max(time) FROM events TABLESAMPLE 50 PERCENT", 28, None),
        ("SELECT max(time), count(*) FROM events", 28, None),
    ):
        assert lake._session.plan(query)[0] == opened, query
        rows = lake.sql(query).fetchall()
        assert expected is None or rows == [(expected,)], query
    lake.append({"type": "A", "time": "2026-03-02T01:00:00Z"})
    recent = f"SELECT count(*) FROM events WHERE time > {newest} - INTERVAL 2 days"
    assert lake.sql(recent).fetchall() == [(2,)]
    lake.settle()
    assert lake.sql(recent).fetchall() == [(2,)]


def test_days_before_the_newest_event_may_be_longer(make_lake: Callable[..., lakelog.Lake]) -> None:
    """Where clocks go back a day has 25 hours, and a segment an hour longer can match."""
    lake = make_lake(seal="never")
    for hour in (0, 1, 2, 48, 74):  # 2026-11-01 is the day
        time = dt.datetime(2026, 10, 30, tzinfo=dt.UTC) + dt.timedelta(hours=hour)
        lake.append({"type": "A", "time": time})
        lake.settle()
    recent = "time >= (SELECT max(time) FROM events) - INTERVAL 3 days"
    every = f"SELECT count(*) FROM (SELECT * FROM events OFFSET 0) WHERE {recent}"
    with StatementRunner(lake.store, "main") as shell:
        shell.sql("SET TimeZone = 'America/New_York'")
        assert shell.sql(f"SELECT count(*) FROM events WHERE {recent}").fetchall() == [(4,)]
        assert shell.sql(every).fetchall() == [(4,)]


@pytest.mark.damaged
def test_events_of_tags_and_branches_are_pruned(make_lake: Callable[..., lakelog.Lake]) -> None:
    """`"v1".events` opens the segments that a query can need, as `events` does, and gives the same:
    the files of all others may be gone by then."""
    lake = make_lake()
    for day in range(1, 9):
        rows = {"type": f"T{day}", "time": f"2026-02-0{day}T01:00:00Z", "subject": f"s{day}"}
        lake.append({**rows, "data": day} for _ in range(3))
        lake.settle()
    lake.tag("v1")
    lake.append({"type": "T9", "time": "2026-03-01T01:00:00Z", "subject": "s1", "data": 9})
    lake.settle()
    first = [entry for entry in _entries(lake) if entry.types == {"T1": 3}]
    of_first = {
        """SELECT count(*) FROM "v1".events WHERE subject = 's1'""": 3,
        """SELECT sum(data::INT) FROM "v1".events e WHERE e.type = 'T1'""": 3,
        """SELECT count(*) FROM v1.events WHERE time < '2026-02-02'""": 3,
        """SELECT DISTINCT events.subject FROM "v1".events WHERE type = 'T1'""": "s1",
        """WITH a AS (FROM "v1".events WHERE type = 'T1') SELECT max(seq) FROM a""": 2,
    }
    newest = "(SELECT max(time) FROM events) - INTERVAL 1 day"
    of_more = {
        """SELECT count(*) FROM "v1".events""": 24,
        """SELECT count(*) FROM "v1".events WHERE subject = 'none'""": 0,
        f"""SELECT count(*) FROM "v1".events WHERE time > {newest}""": 0,
        f"""SELECT count(*) FROM "v1".events WHERE time < {newest}""": 24,
        """SELECT count(*) FROM "v1".events a JOIN events b USING (seq) WHERE a.type > 'T2'""": 18,
        """SELECT count(*) FROM "v1".events, events e WHERE e.type = 'T9'""": 24,
        """SELECT DISTINCT "v1".events.type FROM "v1".events WHERE subject = 's1'""": "T1",
    }
    for query, expected in {**of_more, **of_first}.items():
        assert lake.sql(query).fetchall() == [(expected,)], query
    with pytest.raises(QueryFailed, match='"nope" not found'):
        lake.sql("""SELECT nope FROM "v1".events WHERE subject = 's1'""")
    for entry in _entries(lake):
        if entry not in first:
            os.unlink(lake.store.paths.object("segments", entry.key))
    for query, expected in of_first.items():
        assert lake.sql(query).fetchall() == [(expected,)], query


def _entries(lake: lakelog.Lake) -> list[SegmentEntry]:
    return lake.store.manifests.segments(lake.store.state("main"), "events")
