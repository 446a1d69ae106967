"""Plots: what is chosen by the types of columns, and what of many rows is drawn."""

from __future__ import annotations

import json
from typing import Any

import pytest

import lakelog
from lakelog.errors import QueryFailed
from lakelog.render.plots import choose, label
from tests.conftest import MakeLake
from tests.support.requirements import need_module

need_module("altair")

TIME = "TIMESTAMP WITH TIME ZONE"
HOURS = "SELECT TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_hours(range) AS h, range AS n"


@pytest.fixture
def lake(make_lake: MakeLake) -> lakelog.Lake:
    return make_lake()


def drawn(lake: lakelog.Lake, query: str, **given: Any) -> tuple[dict[str, Any], list[Any]]:
    """A plot's specification and its points."""
    spec: dict[str, Any] = lake.sql(query).plot(**given).to_dict()
    data = spec["data"]
    return spec, data["values"] if "values" in data else spec["datasets"][data["name"]]


@pytest.mark.parametrize(
    ("types", "kind", "x", "y", "color"),
    [
        ({"t": TIME, "n": "BIGINT"}, "line", "t", "n", ""),
        ({"n": "DOUBLE", "t": "DATE", "who": "VARCHAR"}, "line", "t", "n", "who"),
        ({"who": "VARCHAR", "n": "HUGEINT"}, "bar", "who", "n", ""),
        ({"who": "VARCHAR"}, "bar", "who", "", ""),
        ({"ok": "BOOLEAN", "n": "DECIMAL(9,2)"}, "bar", "ok", "n", ""),
        ({"n": "INTEGER"}, "histogram", "n", "", ""),
        ({"t": "TIMESTAMP_NS"}, "histogram", "t", "", ""),
        ({"a": "FLOAT", "b": "UTINYINT"}, "point", "a", "b", ""),
    ],
)
def test_kind_is_chosen_by_types(
    types: dict[str, str], kind: str, x: str, y: str, color: str
) -> None:
    axes = choose(types)
    assert (axes.kind, axes.x, axes.y, axes.color) == (kind, x, y, color)


def test_arguments_override() -> None:
    types = {"t": TIME, "n": "BIGINT", "who": "VARCHAR", "m": "DOUBLE"}
    assert choose(types, x="who", y="m").kind == "bar"
    assert choose(types, kind="histogram", x="m").y == ""
    assert choose(types, y="m").y == "m"
    assert choose(types, kind="point", x="n").color == "who"
    axes = choose({"who": "VARCHAR", "n": "BIGINT", "m": "DOUBLE"}, kind="line")
    assert (axes.x, axes.y, axes.color) == ("n", "m", "who")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "pie"}, "'pie' is no kind of plot: choose line"),
        ({"x": "nope"}, "there is no column 'nope': there are t, n"),
        ({"x": "n", "kind": "line"}, "a line plot needs a column of numbers beside n"),
    ],
)
def test_mistakes_are_one_line(given: dict[str, str], words: str) -> None:
    with pytest.raises(QueryFailed, match=words):
        choose({"t": TIME, "n": "BIGINT"}, **given)


@pytest.mark.parametrize(
    ("name", "kind", "title"),
    [
        ("time", TIME, "time (UTC)"),
        ("duration_ms", "BIGINT", "duration (ms)"),
        ("cost_usd", "DOUBLE", "cost (USD)"),
        ("_ms", "BIGINT", "_ms"),
        ("n", "BIGINT", "n"),
    ],
)
def test_axes_have_units(name: str, kind: str, title: str) -> None:
    assert label(name, kind) == title


def test_line_of_few_points_is_exact(lake: lakelog.Lake) -> None:
    spec, points = drawn(lake, f"{HOURS} FROM range(48)")
    assert spec["mark"]["type"] == "line"
    assert [point["y"] for point in points] == [*range(48)]
    assert points[1]["x"] - points[0]["x"] == 3_600_000
    assert spec["encoding"]["x"]["scale"] == {"type": "utc"}


def test_line_of_many_points_is_of_means(lake: lakelog.Lake) -> None:
    spec, points = drawn(lake, f"{HOURS} FROM range(20_000)")
    assert 100 < len(points) <= 500
    assert spec["title"]["text"] == "mean of each 2 days"
    assert sum(point["y"] for point in points) / len(points) == pytest.approx(9_999.5, rel=0.01)


def test_lines_with_most_rows(lake: lakelog.Lake) -> None:
    query = f"{HOURS}, 'c' || (range % 40) AS who FROM range(400)"
    spec, points = drawn(lake, query)
    assert len({point["c"] for point in points}) == 10
    assert "10 lines with most rows of 40" in spec["title"]["text"]


def test_bars_keep_the_order_of_the_query(lake: lakelog.Lake) -> None:
    query = "SELECT * FROM (VALUES ('b', 1), ('a', 3), ('c', 2)) t(who, n)"
    _, points = drawn(lake, query)
    assert [point["x"] for point in points] == ["b", "a", "c"]
    _, points = drawn(lake, "SELECT unnest(['x', 'y', 'y', NULL]) AS who")
    assert points == [{"x": "y", "y": 2}, {"x": "NULL", "y": 1}, {"x": "x", "y": 1}]


def test_thirty_largest_bars(lake: lakelog.Lake) -> None:
    query = "SELECT 'c' || range AS who, range AS n FROM range(1000)"
    spec, points = drawn(lake, query)
    assert [point["y"] for point in points] == [*range(999, 969, -1)]
    assert spec["title"]["text"] == "the 30 largest of 1,000"


def test_histogram_counts_every_row(lake: lakelog.Lake) -> None:
    query = "SELECT CASE WHEN range < 5 THEN NULL ELSE range END AS n FROM range(10_000)"
    spec, points = drawn(lake, query)
    assert sum(point["y"] for point in points) == 9_995
    assert 10 <= len(points) <= 31
    assert spec["title"]["text"] == "5 rows without a value are left out"
    _, points = drawn(lake, "SELECT 7 AS n FROM range(3)")
    assert [point["y"] for point in points] == [3]


def test_points_are_the_same_each_time(lake: lakelog.Lake) -> None:
    query = "SELECT range AS a, range * 2 AS b FROM range(9_000)"
    first, second = drawn(lake, query)[1], drawn(lake, query)[1]
    assert len(first) == 5_000
    assert first == second


def test_nothing_to_plot(lake: lakelog.Lake) -> None:
    with pytest.raises(QueryFailed, match="no value of n to plot"):
        lake.sql("SELECT NULL::INT AS n").plot()


def test_hostile_labels(lake: lakelog.Lake) -> None:
    query = "SELECT 'a' || chr(8238) || chr(27) AS \"b.[c]:d\", 1 AS n"
    spec, points = drawn(lake, query, title="t\x1b")
    assert points == [{"x": "a\\x202e\\x1b", "y": 1}]
    assert spec["encoding"]["y"]["title"] == "b.[c]:d"
    assert spec["title"]["text"] == "t\\x1b"


@pytest.mark.parametrize("column", ["n", "v"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_values_that_are_no_numbers_are_gaps(lake: lakelog.Lake, column: str, value: str) -> None:
    """JSON has none of them, so a notebook would show nothing at all."""
    replaced = f"REPLACE (CASE n WHEN 1 THEN '{value}'::DOUBLE ELSE {column} END AS {column})"
    table = "SELECT * FROM (VALUES (1, 2.0, 'a'), (2, 3.0, 'b')) t(n, v, name)"
    for given in ({"kind": "line"}, {"kind": "point"}, {"x": "name", "y": column}):
        spec, points = drawn(lake, f"SELECT * {replaced} FROM ({table})", **given)
        json.dumps([spec, points], allow_nan=False)
        assert {"x": 2, "y": 3, "c": "b"} in points or {"x": "b", "y": points[-1]["y"]} in points
