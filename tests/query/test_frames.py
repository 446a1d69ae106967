"""Data frames in SQL: the caller's own variables are tables, the lake's names come first."""

import datetime
import pathlib
from typing import Any

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


COLUMNS = {
    "numpy.array": [3, 1, 2],
    "pandas.Series": [3, 1, 2],
    "pandas.Index": ["b", "a"],
    "polars.Series": ["b", None],
    "pyarrow.array": [0.5, 1.5],
    "pyarrow.chunked_array": [[1], [2]],
    "builtins.set": [3, 1],
    "builtins.frozenset": ["a"],
}


@pytest.mark.parametrize("make", COLUMNS)
def test_a_column_is_a_list_as_a_parameter(lake: lakelog.Lake, make: str) -> None:
    """Arrays, series and sets are bound as lists, by place and by name, in every state; rows and
    segments are chosen by them as by a list."""
    module, _, name = make.partition(".")
    values = getattr(need_module(module), name)(COLUMNS[make])
    flat = [item for row in COLUMNS[make] for item in (row if isinstance(row, list) else [row])]
    for ask in (lake, lake.at("main")):
        ((by_name,),) = ask.sql("SELECT $values", {"values": values}).fetchall()
        ((by_place,),) = ask.sql("SELECT ?", [values]).fetchall()
        assert sorted(map(str, by_name)) == sorted(map(str, by_place)) == sorted(map(str, flat))
    query = "SELECT count(*) FROM events WHERE seq = any(?)"
    if isinstance(flat[0], int):
        assert lake.sql(query, [values]).fetchall() == lake.sql(query, [flat]).fetchall()
        assert lake.explain(query, [values]) == lake.explain(query, [flat])


def test_scalars_of_libraries_are_values_as_parameters(lake: lakelog.Lake) -> None:
    """Those of numpy, pandas and Arrow are what they stand for, nanoseconds included, and missing
    values are NULL; a whole array may be the list of parameters."""
    np, pd = need_module("numpy"), need_module("pandas")
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 678000)
    given: list[tuple[Any, Any]] = [
        (np.int64(3), 3),
        (np.uint8(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.datetime64(moment, "ns"), moment),
        (np.timedelta64(1_500_000_000, "ns"), datetime.timedelta(seconds=1.5)),
        (pd.Timestamp(moment), moment),
        (pd.NA, None),
        (pd.NaT, None),
        (pa.scalar(7), 7),
    ]
    for value, expected in given:
        assert lake.sql("SELECT $v", {"v": value}).fetchall() == [(expected,)]
    assert lake.sql("SELECT ?", [np.array([moment], "M8[ns]")]).fetchall() == [([moment],)]
    assert lake.sql("SELECT ?", [pd.Series([1, None], dtype="Int64")]).fetchall() == [([1, None],)]
    query = "SELECT count(*) FROM events WHERE seq = ? OR seq = ?"
    for pair in (np.array([0, 2]), pd.Series([0, 2]), (np.int64(0), 2)):
        assert lake.sql(query, pair).fetchall() == [(2,)]
    with lakelog.connect(lake.path) as connection:
        assert connection.cursor().execute(query, [np.int64(0), np.int64(1)]).fetchone() == (2,)


@pytest.mark.parametrize("dtype", ["str", "object", "category", "string"])
def test_a_missing_value_of_a_pandas_column_is_null(lake: lakelog.Lake, dtype: str) -> None:
    """What a column of pandas lacks is NULL as a parameter, as in a frame, and not the text nan."""
    pandas = need_module("pandas")
    kinds = pandas.Series(["a", None, float("nan")], dtype=dtype)
    lake.append([{"type": "nan"}])
    assert lake.sql("SELECT ?", [kinds]).fetchall() == [(["a", None, None],)]
    assert lake.sql("SELECT type FROM events WHERE type = any(?)", [kinds]).fetchall() == [
        ("a",),
        ("a",),
    ]
    plain = kinds.to_numpy(dtype=object)
    assert lake.sql("SELECT ?", [plain]).fetchall() == [(["a", None, None],)]
    numbers = pandas.Series([1.5, None])
    assert lake.sql("SELECT ?", [numbers]).fetchall() == [([1.5, None],)]
