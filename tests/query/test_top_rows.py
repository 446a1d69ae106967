"""Queries for the newest or oldest rows: the same rows as plain DuckDB gives, whatever is read."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

import lakelog
from lakelog.query import session, top_scans
from lakelog.query.sql import table_sql
from tests.support.effort import share

COLUMNS = "time, type, source, subject, level, message, data, id, seq"
WHERE = (
    "",
    "",
    "type = 'a'",
    "level = 'WARN' AND type IN ('a', 'b')",
    "data->>'n' LIKE '%7'",
    "(data->>'n')::INT % 3 = 0",
    "time > TIMESTAMPTZ '2026-11-01 00:00:20+00'",
    "type = 'a' OR source = 's1'",
    "type = 'none'",
    "subject IS NULL",
    "message ILIKE '%1%'",
)
SELECT = (
    "*",
    COLUMNS,
    "* EXCLUDE (data)",
    "seq, upper(type) AS kind, data->>'n' AS n",
    "e.*",
    "seq, 1 + 1",
    "DISTINCT type, time, seq",
    "count(*) OVER () AS c, seq",
    "seq, unnest([1, 2]) AS u",
    "time::DATE::TIMESTAMPTZ AS time, seq",
    "seq, (SELECT max(seq) FROM events) AS last",
    "* REPLACE (time::DATE::TIMESTAMPTZ AS time)",
)
ORDER = (
    "time DESC, seq",
    "time DESC, seq DESC",
    "time, seq",
    "time ASC NULLS FIRST, seq DESC",
    "time DESC NULLS LAST, type, seq",
    "e.time DESC, e.seq",
    "level, time DESC, seq",
    "1, 2, 3",
    "time",
)
LIMIT = (
    "LIMIT 1",
    "LIMIT 7",
    "LIMIT 7 OFFSET 3",
    "LIMIT 20 OFFSET 40",
    "LIMIT 0",
    "LIMIT 3 + 4",
    "OFFSET 5",
    "LIMIT 10%",
    "LIMIT 5000",
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps are made even for few events."""
    monkeypatch.setattr(top_scans, "LEAST", 30)
    monkeypatch.setattr(top_scans, "_SHARE", 1)
    monkeypatch.setattr(top_scans, "_STEPS", (0, 1, 20, 60))
    monkeypatch.setattr(table_sql, "_VECTOR", 2)


def batch(rng: random.Random, count: int, minute: int = 0) -> list[dict[str, Any]]:
    """Events of some minutes, many of equal times, in any order."""
    return [
        {
            "time": f"2026-11-01T00:{minute + rng.randint(0, 2):02}:{rng.randint(0, 9):02}Z",
            "type": rng.choice("abc"),
            "source": rng.choice(["s1", "s2", None]),
            "subject": rng.choice(["x", None]),
            "level": rng.choice(["INFO", "WARN", None]),
            "message": f"m{rng.randint(0, 99)}",
            "data": {"n": str(rng.randint(0, 99)), "text": "y" * rng.randint(0, 9)},
        }
        for _ in range(count)
    ]


def states(lake: lakelog.Lake, rng: random.Random) -> Iterator[str]:
    """A lake as a tail, as segments of other times, with a tail again, compacted, rolled back."""
    lake.append(batch(rng, 60))
    yield "a tail"
    for minute in (20, 1, 10):
        lake.snapshot("sealed")
        lake.append(batch(rng, 50, minute))
    lake.snapshot("sealed")
    yield "segments"
    lake.tag("sealed")
    lake.append(batch(rng, 20, 5))
    yield "segments and a tail"
    lake.compact()
    yield "compacted"
    lake.append(batch(rng, 5, 30))
    yield "compacted, and a tail"
    lake.rollback("sealed")
    yield "rolled back"


def plain(lake: lakelog.Lake, table: str = "events") -> duckdb.DuckDBPyConnection:
    """All events as a table of the engine alone."""
    rows = lake.sql(f"SELECT * FROM {table}").to_arrow_table()
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("rows", rows)
    connection.execute("CREATE TABLE events AS FROM rows")
    return connection


def queries(rng: random.Random, count: int) -> Iterator[str]:
    """Queries of which many are for the newest rows, and the others nearly."""
    for _ in range(count):
        select = rng.choice(SELECT[:6] if rng.random() < 0.7 else SELECT)
        where = rng.choice(WHERE)
        limit = rng.choice(LIMIT[:4] if rng.random() < 0.7 else LIMIT)
        parts = (f"SELECT {select} FROM events e", where and f"WHERE {where}")
        yield " ".join((*filter(None, parts), f"ORDER BY {rng.choice(ORDER)}", limit))


def answer(ask: Any, query: str, *, is_sorted: bool) -> Any:
    """The rows of a query, in order where it says one for all of them, or that it fails."""
    try:
        rows = ask(query).fetchall()
    except (duckdb.Error, lakelog.LakelogError):
        return "an error"
    return rows if is_sorted else len(rows)


def counted_steps(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each query that might be made in two steps was."""
    steps: list[bool] = []
    with_bound = top_scans.TopScans._with_bound

    def counted(*args: Any) -> Any:
        found = with_bound(*args)
        steps.append(found is not None)
        return found

    monkeypatch.setattr(top_scans.TopScans, "_with_bound", counted)
    monkeypatch.setattr(session, "KEPT_EVENTS", 0)  # of few rows none is looked for beforehand
    return steps


def assert_answered(
    lake: lakelog.Lake, model: duckdb.DuckDBPyConnection, query: str, table: str, state: str
) -> None:
    """A query of `events` gives what plain DuckDB gives, asked of a table of the lake."""
    is_sorted = "seq" in query.partition("ORDER BY")[2] and "unnest" not in query
    expected = answer(model.sql, query, is_sorted=is_sorted)
    asked = query.replace("FROM events", f"FROM {table}")
    assert answer(lake.sql, asked, is_sorted=is_sorted) == expected, (state, asked)
    # with a parameter it is asked in another way
    given = asked.replace("type = 'a'", "type = $kind")
    params = {"kind": "a"} if given != asked else None
    ours = answer(lambda q: lake.sql(q, params), given, is_sorted=is_sorted)
    assert ours == expected, (state, given)


def test_the_answer_is_that_of_plain_duckdb(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ties, NULLS, OFFSET, filters, both directions; a tail, segments, typed ones, a rollback; with
    and without parameters. Many of the queries are made in two steps."""
    steps, rng = counted_steps(monkeypatch), random.Random(19)
    for state in states(lake, rng):
        model = plain(lake)
        for query in queries(rng, share(160)):
            assert_answered(lake, model, query, "events", state)
        model.close()
    assert sum(steps) > len(steps) / 2 > 20


def test_events_of_tags_and_branches(lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of a tag and of a branch with its tail, while the lake goes on."""
    steps, rng = counted_steps(monkeypatch), random.Random(20)
    for number, state in enumerate(states(lake, rng)):
        lake.tag(f"then {number}")
        lake.append([{"type": "a", "time": "2026-11-02T00:00:00Z", "source": state}])
        for ref in (f"then {number}", "main"):
            events = f'"{ref}".events'
            model = plain(lake, events)
            for query in queries(rng, share(80)):
                assert_answered(lake, model, query, events, state)
            model.close()
    assert sum(steps) > len(steps) / 2 > 20


def test_tables_of_types(lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of the events of one type, whose payloads have a time of their own."""
    steps, rng = counted_steps(monkeypatch), random.Random(21)
    for state in states(lake, rng):
        lake.append([{"type": "a", "source": state, "data": {"n": "7", "time": "never"}}])
        model = plain(lake, "types.a")
        for query in queries(rng, share(160)):
            query = query.replace("data->>'n'", "n").replace("EXCLUDE (data)", "EXCLUDE (text)")
            assert_answered(lake, model, query, "types.a", state)
        model.close()
    assert sum(steps) > len(steps) / 2 > 20


def test_a_filter_with_a_parameter(lake: lakelog.Lake) -> None:
    """A query with parameters, and one at a tag, has the newest rows of what it reads."""
    for minute in (0, 10):
        lake.append(batch(random.Random(minute), 50, minute))
        lake.snapshot("sealed")
    lake.tag("then")
    lake.append([{"type": "late", "time": "2026-11-02T00:00:00Z"}])
    query = "SELECT type FROM events WHERE type <> $1 ORDER BY time DESC, seq LIMIT 3"
    assert lake.sql(query, ["a"]).fetchall()[0] == ("late",)
    assert lake.at("then").sql(query, ["a"]).fetchall()[0] != ("late",)
    by_name = "SELECT type FROM events ORDER BY time DESC LIMIT 1"
    assert lake.sql(by_name).fetchall() == [("late",)]
    lake.append([{"type": "later", "time": "2026-11-03T00:00:00Z"}])
    assert lake.sql(by_name).fetchall() == [("later",)]


def test_the_order_of_the_session_counts(lake: lakelog.Lake) -> None:
    """Without a direction it is that which a setting says."""
    lake.append(batch(random.Random(3), 60))
    lake.snapshot("sealed")
    session = lake.engine()
    newest = lake.sql("SELECT max(time) FROM events").fetchall()
    session.execute("SET GLOBAL default_order = 'DESC'")
    try:
        assert lake.sql("SELECT time FROM events ORDER BY time LIMIT 1").fetchall() == newest
        assert lake.sql("SELECT time FROM events ORDER BY time LIMIT 1", []).fetchall() == newest
    finally:
        session.execute("RESET GLOBAL default_order")
