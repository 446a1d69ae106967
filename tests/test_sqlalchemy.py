"""SQLAlchemy over a lake by URL: queries, members of payloads, reflection, errors."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import pytest

import lakelog
from lakelog import dbapi
from tests.support.requirements import need_module

sa = need_module("sqlalchemy")
exc = need_module("sqlalchemy.exc")
WHEN = datetime.datetime(2026, 11, 25, 8, tzinfo=datetime.UTC)


@pytest.fixture
def engine(lake: lakelog.Lake) -> Iterator[Any]:
    """An engine over a lake of three published events, tagged v1, and one in the tail."""
    calls = [{"model": "m1", "ms": ms, "usage": {"in~put": [ms, 7]}} for ms in (5, 50, 500)]
    lake.append([{"type": "CALL", "time": WHEN, "data": call} for call in calls])
    lake.tag("v1")
    lake.append({"type": "DONE", "data": {"$ok": True}})
    made = sa.create_engine(f"lakelog:///{lake.path}")
    yield made
    made.dispose()


@pytest.fixture
def events(engine: Any) -> Any:
    """The table, as the engine describes it."""
    return sa.Table("events", sa.MetaData(), autoload_with=engine)


def rows(engine: Any, query: Any, **values: Any) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query, values)]


def test_a_url_names_lake_branch_and_state(engine: Any, lake: lakelog.Lake) -> None:
    """Queries see what is appended meanwhile; one state asked for by `at` stays as it is."""
    count = sa.text("SELECT count(*) FROM events WHERE type <> :t")
    pinned = sa.create_engine(f"lakelog:///{lake.path}?at=v1")
    lake.branch("try", "v1").append({"type": "X"})
    branch = sa.create_engine(f"lakelog:///{lake.path}?branch=try")
    assert rows(engine, count, t="NONE") == [(4,)]
    lake.append({"type": "LATE"})
    assert [rows(each, count, t="NONE")[0][0] for each in (engine, pinned, branch)] == [5, 3, 4]


def test_columns_are_reflected_with_their_types(events: Any) -> None:
    """Times are aware datetimes, payloads JSON, and nothing is a key."""
    kinds = {column.name: type(column.type).__name__ for column in events.columns}
    assert kinds["time"] == "DateTime"
    assert kinds["data"] == "JSON"
    assert kinds["type"] == "Text"
    assert events.c.time.type.timezone
    assert not events.primary_key.columns


def test_members_of_payloads_are_columns(engine: Any, events: Any) -> None:
    """By name and by path, as JSON or as a type, in every part of a statement."""
    ms, tokens = events.c.data["ms"].as_integer(), events.c.data["usage", "in~put", 0]
    query = sa.select(ms, tokens.as_integer(), events.c.data["model"]).where(ms > 5).order_by(-ms)
    assert rows(engine, query.limit(1).offset(1)) == [(50, 50, "m1")]
    assert rows(engine, sa.select(events.c.data).where(events.c.data["$ok"].as_boolean())) == [
        ({"$ok": True},)
    ]
    mean = sa.select(sa.func.avg(ms)).where(events.c.data["model"].as_string() == "m1")
    assert rows(engine, mean) == [(185.0,)]


def test_values_come_back_as_python_has_them(engine: Any, events: Any) -> None:
    """A time is bound and compared as one; floats keep their digits; patterns match."""
    query = sa.select(events.c.time).where(events.c.time == WHEN).distinct()
    assert rows(engine, query) == [(WHEN,)]
    third = sa.select(sa.cast(sa.literal(1 / 3), sa.Float))
    assert rows(engine, third) == [(1 / 3,)]
    kinds = sa.select(sa.func.count()).where(~events.c.type.regexp_match("^C"))
    assert rows(engine, kinds) == [(1,)]


def test_inspect_lists_tables_views_and_types(engine: Any) -> None:
    """Views are views, tables of types and of states are found by their schema."""
    inspector = sa.inspect(engine)
    assert inspector.get_table_names() == ["events", "quarantine"]
    assert "throughput" in inspector.get_view_names()
    assert {c["name"] for c in inspector.get_columns("CALL", schema="types")} > {"model", "ms"}
    assert [c["name"] for c in inspector.get_columns("events", schema="v1")]
    assert inspector.has_table("sessions")
    assert not inspector.has_table("nothing")
    assert inspector.get_pk_constraint("events")["constrained_columns"] == []
    metadata = sa.MetaData()
    metadata.reflect(engine)
    assert sorted(metadata.tables) == ["events", "quarantine"]
    with pytest.raises(exc.NoSuchTableError, match="nothing"):
        inspector.get_columns("nothing")


def test_all_that_can_be_reflected_is(engine: Any) -> None:
    """A view that these events cannot give is left out with a warning that says why, and tables of
    types and states are listed, as `pandas.read_sql_table` asks."""
    inspector, metadata = sa.inspect(engine), sa.MetaData()
    assert inspector.has_table("percentiles")
    with pytest.warns(exc.SAWarning, match="view ") as warned:
        metadata.reflect(engine, views=True)
    reasons = [str(warning.message) for warning in warned]
    assert any("view percentiles: no event has the field 'duration_ms'" in r for r in reasons)
    assert {"events", "throughput"} <= set(metadata.tables)
    listed = {*inspector.get_table_names(), *inspector.get_view_names()}
    assert len(metadata.tables) + len(reasons) == len(listed)
    assert inspector.get_table_names(schema="types") == ["CALL", "DONE"]
    assert inspector.get_table_names(schema="v1") == ["events", "quarantine"]
    assert inspector.get_table_names(schema="v2") == []
    pandas = need_module("pandas")
    assert list(pandas.read_sql_table("CALL", engine, schema="types")["ms"]) == [5, 50, 500]
    assert len(pandas.read_sql_table("events", engine, schema="v1")) == 3


def test_mistakes_are_one_line(engine: Any, lake: lakelog.Lake) -> None:
    """Of a URL, of SQL, and writing."""
    for url, told in (
        ("lakelog://host/lake", "a lake is a directory"),
        ("lakelog://", "which lake"),
        (f"lakelog:///{lake.path}?state=v1", "no option state"),
    ):
        with pytest.raises(exc.ArgumentError, match=told):
            sa.create_engine(url).connect()
    with pytest.raises(exc.OperationalError, match="no lake"):
        sa.create_engine(f"lakelog:///{lake.path}/none").connect()
    with engine.connect() as connection:
        with pytest.raises(exc.ProgrammingError, match="nothing"):
            connection.execute(sa.text("SELECT nothing FROM events"))
        with pytest.raises(exc.NotSupportedError, match="append"):
            connection.execute(sa.text("DELETE FROM events"))


def test_pandas_reads_by_url(lake: lakelog.Lake, engine: Any) -> None:
    """Without the warning that it has for connections."""
    pandas = need_module("pandas")
    frame = pandas.read_sql("SELECT type, time FROM events ORDER BY seq", engine)
    assert list(frame["type"]) == ["CALL"] * 3 + ["DONE"]
    assert pandas.read_sql_table("events", engine)["data"][0]["ms"] == 5


def test_the_driver_is_its_module(engine: Any) -> None:
    """Errors of a lake have their classes below SQLAlchemy's."""
    assert engine.dialect.dbapi is dbapi
