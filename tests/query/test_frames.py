"""Data frames in SQL: the caller's own variables are tables, the lake's names come first."""

import pathlib

import polars as pl
import pyarrow as pa
import pytest

import lakelog
from lakelog.errors import QueryFailed
from tests.support.requirements import need_module

PRICES = pl.DataFrame({"kind": ["a", "b"], "price": [2, 3]})
"""A variable of the module, which its functions see."""


@pytest.fixture
def lake(tmp_path: pathlib.Path) -> lakelog.Lake:
    """A lake with three events."""
    lake = lakelog.open(tmp_path / "lake")
    lake.append([{"type": "a"}, {"type": "a"}, {"type": "b"}])
    lake.settle()
    return lake


FRAMES = ["pyarrow.table", "pandas.DataFrame", "polars.DataFrame", "polars.LazyFrame"]


@pytest.mark.parametrize("make", FRAMES)
def test_local_frame_joins_events(lake: lakelog.Lake, make: str) -> None:
    """Frames of pandas, Polars and Arrow in a variable are joined with events by its name."""
    module, _, name = make.partition(".")
    library = need_module(module)
    weights = getattr(library, name)({"kind": ["a", "b"], "weight": [10, 100]})
    query = """SELECT sum(weight * price)::INT FROM events JOIN weights w ON type = w.kind
        JOIN PRICES p ON type = p.kind WHERE weight > ?"""
    assert lake.sql(query, [1]).fetchall() == [(340,)]
    assert lake.at("main").sql(query, [1]).fetchall() == [(340,)]
    assert weights is not None


def test_names_of_the_lake_win(lake: lakelog.Lake) -> None:
    """A variable called as a table or a view of the lake is never meant."""
    events = status = pa.table({"x": [1]})
    assert "type" in lake.sql("FROM events").columns
    assert "x" not in lake.sql("FROM status").columns
    assert events is status


def test_only_variables_of_the_caller_are_seen(lake: lakelog.Lake) -> None:
    """Variables further up the stack, and those that are no tables, are not."""
    hidden, text = pa.table({"x": [1]}), "no table"

    def ask(name: str) -> None:
        lake.sql(f"FROM {name}")

    for name in ("hidden", "text"):
        with pytest.raises(QueryFailed, match=f"{name} does not exist"):
            ask(name)
    assert lake.sql("FROM hidden").fetchall() == [(1,)]
    with pytest.raises(QueryFailed, match="text does not exist"):
        lake.sql("FROM text")
    assert hidden
    assert text


def test_an_empty_query_is_refused(lake: lakelog.Lake) -> None:
    """Where nothing is asked, that is said."""
    for query in ("", "  ", "-- what?", ";"):
        with pytest.raises(QueryFailed, match="the query is empty"):
            lake.sql(query)


def test_rows_come_one_by_one_in_pieces_and_all(lake: lakelog.Lake) -> None:
    """fetchone and fetchmany go on where they stopped; iteration and fetchall start anew."""
    rows = lake.sql("SELECT range AS n FROM range(50000)")
    assert rows.fetchone() == (0,)
    assert rows.fetchmany(3) == [(1,), (2,), (3,)]
    assert len(rows.fetchmany(100_000)) == 49_996
    assert (rows.fetchone(), rows.fetchmany()) == (None, [])
    assert [n for (n,) in rows] == list(range(50_000))
    assert rows.shape == (50_000, 1)
    assert pa.table(rows).num_rows == pl.DataFrame(rows).height == 50_000
