"""Casts of fields fail where those of the text do, and for no row that a condition leaves out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import lakelog
from lakelog.errors import QueryFailed

MakeLake = Callable[..., lakelog.Lake]
INT = "(data->>'n')::INT"
GUARDED = [
    (f"SELECT count(*) FROM events WHERE type='A' AND {INT} > 3", 50),
    (f"SELECT {INT} AS n FROM events WHERE type='A' ORDER BY n LIMIT 1", 5),
    (f"SELECT max(if(type='B', 0, {INT})) FROM events", 5),
    (f"SELECT sum(CASE WHEN type='A' THEN {INT} END) FROM events", 250),
    (f"SELECT count(*) FROM events WHERE data->>'n' ~ '^[0-9]+$' AND {INT} > 3", 50),
    (f"SELECT sum({INT}) FROM events WHERE data->>'n' ~ '^[0-9]+$'", 250),
    (f"SELECT sum({INT}) FROM events WHERE CASE WHEN type='A' THEN true ELSE false END", 250),
    ("SELECT sum(n::INT) FROM (SELECT data->>'n' AS n, type FROM events) WHERE type='A'", 250),
    (f"SELECT {INT} AS v FROM events WHERE data->>'k'='a' GROUP BY v ORDER BY v LIMIT 3", 5),
    ("WITH x AS (SELECT fields.n AS n, type FROM events) SELECT sum(n::INT) FROM x", None),
    ("SELECT sum(fields.n::INT) FROM events WHERE type='A'", 250),
    (f"SELECT sum({INT}) FROM events WHERE source='s'", 250),
    ("SELECT count((data->>'n')::DATE) FROM events WHERE type='C'", 0),
    ("SELECT sum(CAST(data->>'w' AS TINYINT)) FROM events WHERE type='A'", 50),
    ("SELECT sum(e.n::INT) FROM types.A e", 250),
    (f"SELECT sum({INT}) FROM events", None),
]
"""Queries with what they give; None where some row fails."""
FALLIBLE = [
    "json_value(data, '$.l[-1]') = '2'",
    "subject::INT > 3",
    "(data->>'g')::DECIMAL(4, 0) < 3",
    "(data->'g') < 3",
    "(data->'g') BETWEEN 0 AND 3",
    "fields.g::INT IN (1, 2)",
]
"""Conditions that keep the numbers, and that may fail for values of other kinds."""


@pytest.fixture(scope="module", params=["tail", "sealed", "compacted", "mixed"])
def lake(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[lakelog.Lake]:
    """Fifty events whose field is a number, and fifty where it is none."""
    a: dict[str, Any] = {"type": "A", "source": "s", "subject": "9"}
    a["data"] = {"n": "5", "k": "a", "w": 1, "g": 1, "l": [1, 2]}
    b: dict[str, Any] = {"type": "B", "source": "t", "subject": "1"}
    b["data"] = {"n": "none", "k": "b", "w": 4_000_000_000, "g": 4, "l": [1, 3]}
    path = tmp_path_factory.mktemp("casts") / "lake"
    with lakelog.open(str(path), settings={"seal": "never"}) as lake:
        lake.append([a, b] * 30)
        if request.param != "tail":
            lake.settle()
        if request.param in ("compacted", "mixed"):
            lake.compact()
        lake.append([a, b] * 20)
        if request.param not in ("tail", "mixed"):
            lake.settle()
        if request.param == "compacted":
            lake.compact()
        yield lake


@pytest.mark.parametrize(("query", "expected"), GUARDED)
def test_a_cast_fails_for_rows_that_are_asked_for(
    lake: lakelog.Lake, query: str, expected: Any
) -> None:
    """The engine reads a member as the type of a cast, of every row; a query means its own."""
    if expected is None:
        with pytest.raises(QueryFailed, match="'none'"):
            lake.sql(query).fetchall()
    else:
        assert lake.sql(query).fetchone() == (expected,)


@pytest.mark.parametrize("condition", FALLIBLE)
def test_a_condition_that_may_fail_comes_first(lake: lakelog.Lake, condition: str) -> None:
    """No cast is tried for what it leaves out, nor by a process that asks for the first time."""
    with lakelog.open(lake.path, create=False) as fresh:
        query = f"SELECT sum({INT}) FROM events WHERE {condition}"
        assert fresh.sql(query).fetchall() == [(250,)]


@pytest.mark.parametrize("number", [2**63, -1e19, 1e300])
def test_numbers_beyond_64_bits_are_no_error(make_lake: MakeLake, number: float) -> None:
    """Columns of whole and other numbers are read as text, whatever numbers there are."""
    lake = make_lake()
    lake.append([{"type": "A", "data": {"n": n, "o": {"n": n}}} for n in (1, 2.5, number) * 20])
    queries = [
        "SELECT data->>'n' AS n, count(*) FROM events GROUP BY ALL ORDER BY ALL",
        "SELECT data->>'$.o.n' AS n, data->'n' AS m FROM events ORDER BY ALL",
        "SELECT sum(TRY_CAST(data->>'n' AS BIGINT)) FROM events",
        "SELECT count(*) FROM events WHERE data->>'n' = '1'",
        "SELECT json_value(data, '$.n') AS n FROM events ORDER BY ALL",
        "SELECT data FROM events ORDER BY data",
    ]
    before = [lake.sql(query).fetchall() for query in queries]
    lake.compact()
    assert [lake.sql(query).fetchall() for query in queries] == before


def test_conditions_on_fields_reach_the_reader(make_lake: MakeLake) -> None:
    """What keeps a cast from the reader of segments keeps no condition from it."""
    lake = make_lake()
    lake.append([{"type": "A", "data": {"n": n, "s": f"{n}"}} for n in range(200)])
    lake.compact()
    for condition in ("data->>'s' = '7'", "(data->>'n')::BIGINT > 7", "fields.n > 7"):
        plan = lake.sql(f"EXPLAIN SELECT count(*) FROM events WHERE {condition}").fetchall()
        assert "Filters: fields." in str(plan), plan


def test_texts_stored_in_parts_are_cast_alike(make_lake: MakeLake) -> None:
    """A text that a segment stores as words or numbers is no member by itself."""
    lake = make_lake(seal="never")
    urls = [{"url": f"https://e.example/item/{n}/part/{n * 7}", "n": n} for n in range(3000)]
    lake.append([{"type": "A", "data": url} for url in urls])
    lake.append([{"type": "B", "data": {"url": "7", "n": 1}}] * 10)
    queries = [
        "SELECT sum((data->>'url')::INT) FROM events WHERE type = 'B'",
        "SELECT count(*) FROM events WHERE data->>'url' = 'https://e.example/item/7/part/49'",
        "SELECT count(*) FROM events WHERE type = 'B' AND (data->>'url')::INT > 3",
    ]
    expected = [[(70,)], [(1,)], [(10,)]]
    assert [lake.sql(query).fetchall() for query in queries] == expected
    lake.compact()
    assert [lake.sql(query).fetchall() for query in queries] == expected
