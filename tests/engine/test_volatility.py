"""Which functions depend on more than their arguments: every function of the engine is decided.

These hold at the lowest and the highest DuckDB that pyproject.toml allows.
"""

from __future__ import annotations

import duckdb
import pytest

from lakelog.engine import volatility
from lakelog.engine.syntax import nodes, parse
from lakelog.engine.volatility import AGGREGATES, FunctionCall, Volatility
from lakelog.errors import InvalidView
from lakelog.views import definition as definitions
from lakelog.views import guard

INCONSTANT = {
    Volatility.CLOCK: "now today ago current_date current_localtimestamp get_current_timestamp"
    " transaction_timestamp get_current_time pg_postmaster_start_time",
    Volatility.SESSION: "current_setting current_database current_query txid_current version"
    " nextval currval getvariable getenv current_schemas in_search_path user stats",
    Volatility.RANDOM: "random uuid gen_random_uuid uuidv4 uuidv7",
    Volatility.EFFECT: "setseed write_log sleep_ms pg_sleep setval",
}


def overloads() -> list[tuple[str, str, str | None, int]]:
    """Name, kind, flag and number of arguments of each function that gives a value."""
    with duckdb.connect() as own:
        return own.execute(
            "SELECT DISTINCT lower(function_name), function_type, stability, len(parameters)"
            " FROM duckdb_functions()"
            " WHERE function_type IN ('scalar', 'macro', 'aggregate', 'window') ORDER BY ALL"
        ).fetchall()


def fault_of(expression: str) -> str:
    """What the guard of views says of an expression over a table, "" if it lets it pass."""
    text = f"-- name: x\nSELECT {expression} AS value FROM events"
    with duckdb.connect() as own:
        try:
            guard.check(definitions.parse(text), own)
        except InvalidView as error:
            return str(error)
    return ""


def test_every_function_of_the_engine_is_listed() -> None:
    """None is decided by the engine's flag, which means another thing in each version."""
    assert sorted(volatility.unlisted()) == []


def test_what_is_constant_is_allowed_whatever_the_flag_says() -> None:
    """Functions that an engine calls inconstant for one overload, as 2.0.1 does `+`, pass."""
    inconstant = {name for names in INCONSTANT.values() for name in names.split()}
    for name, kind, _, count in overloads():
        of = volatility.volatility(name, count)
        assert (of is Volatility.IMMUTABLE) or of in INCONSTANT, (name, kind)
        assert name not in inconstant or of is not Volatility.IMMUTABLE, name


@pytest.mark.parametrize(
    "expression",
    [
        *("position + 1", "time - INTERVAL 1 DAY", "-position", "time::DATE - DATE '2020-01-01'"),
        *("date_trunc('day', time)", "year(time)", "time_bucket(INTERVAL 1 HOUR, time)"),
        *("strftime(time, '%Y')", "timezone('UTC', time)", "age(time, ingested_at)"),
        *(
            "range(position)",
            "unnest([1, 2])",
            "data->>'x'",
            "list_transform([1], lambda x: x + 1)",
        ),
        *("hash(id)", "error('no')", "sum(position) OVER (ORDER BY seq)", "json_group_array(id)"),
        "source.upper()",
    ],
)
def test_a_view_may_call_what_depends_on_its_arguments(expression: str) -> None:
    """Operators, times of day, windows, lambdas: all that gives the same for the same events."""
    assert fault_of(expression) == ""


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("age(time)", "age is another time"),
        ("pg_catalog.random()", "random() gives another answer"),
        ("current_catalog", "current_catalog() says something of this process"),
        ("LocalTime", "localtime is another time"),
        ("list_transform([1], lambda x: x + random())", "random() gives another answer"),
        ("version()", "version() says something of this process"),
        ("write_log('x')", "write_log() is called for what it does"),
        ("CASE WHEN position > 1 THEN uuidv7() END", "uuidv7() gives another answer"),
    ],
)
def test_a_view_may_not_call_what_depends_on_more(expression: str, words: str) -> None:
    """The clock, chance and the process, by any name, at any depth, and of `age` one overload."""
    assert words in fault_of(expression)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({("scalar", "CONSISTENT")}, Volatility.IMMUTABLE),
        ({("scalar", "VOLATILE")}, Volatility.UNKNOWN),
        ({("scalar", "CONSISTENT"), ("scalar", "CONSISTENT_WITHIN_QUERY")}, Volatility.UNKNOWN),
        ({("macro", None)}, Volatility.UNKNOWN),
        ({("aggregate", "CONSISTENT")}, Volatility.IMMUTABLE),
        ({("table", None)}, Volatility.IMMUTABLE),
        (None, Volatility.IMMUTABLE),
    ],
)
def test_a_function_of_a_later_engine_is_allowed_if_it_is_called_constant(
    monkeypatch: pytest.MonkeyPatch, flags: set[tuple[str, str | None]] | None, expected: Volatility
) -> None:
    """What the list does not name is refused unless each overload is; a name that is no function,
    or that of a table, is left to whoever runs the query."""
    flagged = {"novel": flags} if flags else {}
    monkeypatch.setattr(volatility, "_flags", lambda: flagged)
    assert volatility.volatility("Novel", 1) is expected
    assert FunctionCall("novel", Volatility.UNKNOWN).is_aggregate is (
        flags == {("aggregate", "CONSISTENT")}
    )
    refused = "novel() is new to lakelog, and the engine does not say that it gives the same"
    assert (refused in fault_of("novel(position)")) is (expected is Volatility.UNKNOWN)


def test_every_aggregate_of_the_engine_is_listed() -> None:
    """And each that is listed is one of the engine's: an aggregate, or a macro over some."""
    kinds: dict[str, set[str]] = {}
    for name, kind, _, _ in overloads():
        kinds.setdefault(name, set()).add(kind)
    assert {name for name, of in kinds.items() if "aggregate" in of} <= AGGREGATES
    assert {name for name in AGGREGATES if not kinds[name] & {"aggregate", "macro"}} == set()


def test_functions_are_where_the_tree_has_them() -> None:
    """A call, an operator, a window, a method and a bare name are found by their names."""
    query = "SELECT a + 1, sum(b) OVER (), c.upper(), current_date, random() FROM t"
    with duckdb.connect() as own:
        calls = [call.name for node in nodes(parse(own, query)) if (call := FunctionCall.of(node))]
    assert sorted(calls) == ["+", "current_date", "random", "sum", "upper"]


def test_constant_functions_give_the_same_in_another_session() -> None:
    """Those without an argument, of which nothing but the session could make the value another."""
    names = {n for n, kind, _, count in overloads() if not count and kind in ("scalar", "macro")}
    constant = {n for n in names if volatility.volatility(n, 0) is Volatility.IMMUTABLE}
    with duckdb.connect() as one, duckdb.connect() as other:
        other.execute("CREATE SCHEMA s; USE s; SET TimeZone = 'Asia/Tokyo'")
        for name in sorted(constant):
            assert _value(one, name) == _value(other, name), name


def _value(connection: duckdb.DuckDBPyConnection, name: str) -> object:
    try:
        return connection.execute(f'SELECT "{name}"()').fetchall()
    except duckdb.Error as error:
        return type(error)
