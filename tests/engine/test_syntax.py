"""SQL as a tree and back: what lakelog expects of the engine's parser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from lakelog.engine.syntax import ParsedStatement, SyntaxFault, parse, sql_of
from lakelog.errors import QueryFailed


@pytest.fixture
def own() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def node_of(own: duckdb.DuckDBPyConnection, query: str) -> dict[str, Any]:
    """The tree of one query."""
    (statement,) = parse(own, query)["statements"]
    node: dict[str, Any] = statement["node"]
    return node


def test_a_query_and_its_tables(own: duckdb.DuckDBPyConnection) -> None:
    """Names, aliases, clauses and the place of a table are under the keys that lakelog reads."""
    query = """WITH w AS (SELECT 1) SELECT a.b AS x, * FROM s.events AS a WHERE a.time > '2020'
        GROUP BY 1 HAVING true QUALIFY true ORDER BY 1 LIMIT 2"""
    node = node_of(own, query)
    assert node["type"] == "SELECT_NODE"
    assert [cte["key"] for cte in node["cte_map"]["map"]] == ["w"]
    assert node["cte_map"]["map"][0]["value"]["query_node"]["type"] == "SELECT_NODE"
    column, star = node["select_list"]
    assert (column["class"], column["column_names"], column["alias"]) == (
        *("COLUMN_REF", ["a", "b"]),
        "x",
    )
    assert (star["class"], star["relation_name"]) == ("STAR", "")
    table = node["from_table"]
    assert (table["type"], table["schema_name"], table["table_name"], table["alias"]) == (
        *("BASE_TABLE", "s", "events"),
        "a",
    )
    assert (table["catalog_name"], table["column_name_alias"]) == ("", [])
    assert query[table["query_location"] :].startswith("s.events")
    where = node["where_clause"]
    assert (where["class"], where["type"]) == ("COMPARISON", "COMPARE_GREATERTHAN")
    assert where["right"]["class"] == "CONSTANT"
    assert node["group_expressions"]
    assert node["having"]
    assert node["qualify"]
    kinds = {modifier["type"] for modifier in node["modifiers"]}
    assert kinds == {"ORDER_MODIFIER", "LIMIT_MODIFIER"}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("sum(a)", {"class": "FUNCTION", "function_name": "sum", "is_operator": False}),
        ("a + 1", {"class": "FUNCTION", "function_name": "+", "is_operator": True}),
        ("count(*)", {"class": "FUNCTION", "function_name": "count_star", "arguments": []}),
        ("rank() OVER ()", {"class": "WINDOW", "function_name": "rank"}),
        ("(SELECT 1)", {"class": "SUBQUERY"}),
        ("a::INT", {"class": "CAST"}),
        ("$x", {"class": "PARAMETER", "identifier": "x"}),
        ("a AND b", {"class": "CONJUNCTION", "type": "CONJUNCTION_AND"}),
        ("a BETWEEN 1 AND 2", {"type": "COMPARE_BETWEEN"}),
        ("a IN (1, 2)", {"type": "COMPARE_IN"}),
        ("current_date", {"class": "COLUMN_REF", "column_names": ["current_date"]}),
    ],
)
def test_expressions(
    own: duckdb.DuckDBPyConnection, expression: str, expected: dict[str, Any]
) -> None:
    """The class of an expression and the keys that lakelog reads of it."""
    (item,) = node_of(own, f"SELECT {expression} FROM t")["select_list"]
    assert {key: item[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("read_csv('x')", "TABLE_FUNCTION"),
        ("a JOIN b USING (x)", "JOIN"),
        ("(SELECT 1)", "SUBQUERY"),
        ("(DESCRIBE t)", "SUBQUERY"),
    ],
)
def test_kinds_of_tables(own: duckdb.DuckDBPyConnection, table: str, expected: str) -> None:
    """What stands in FROM is told apart by its type."""
    assert node_of(own, f"SELECT * FROM {table}")["from_table"]["type"] == expected


@pytest.mark.parametrize(
    "query",
    [
        "SELECT a, count(*) FROM events WHERE b = $x AND c IN (1, 2) GROUP BY ALL ORDER BY 2 DESC",
        "WITH w AS (SELECT 1 AS n) SELECT * EXCLUDE (n) FROM w JOIN t USING (n)",
        "SELECT list_transform(l, lambda x: x + 1), data->>'$.a' FROM events",
        "FROM a UNION ALL FROM b",
    ],
)
def test_a_tree_gives_sql_that_parses_to_it_again(
    own: duckdb.DuckDBPyConnection, query: str
) -> None:
    """So that what is changed in the tree is all that is changed in the query."""
    text = sql_of(own, parse(own, query))
    assert sql_of(own, parse(own, text)) == text


@pytest.mark.parametrize(
    ("query", "words", "has_place"),
    [
        ("SELECT (", "syntax error", True),
        ("DELETE FROM t", "only SELECT can stand here", False),
        ("SELECT " + "(" * 3000 + "1" + ")" * 3000, "depth", False),
    ],
)
def test_what_is_no_query_is_a_fault(
    own: duckdb.DuckDBPyConnection, query: str, words: str, has_place: bool
) -> None:
    """With the words, and the byte at which the parser stopped where it says so."""
    with pytest.raises(SyntaxFault, match=words) as caught:
        parse(own, query)
    assert (caught.value.position is not None) is has_place


def test_no_memory_is_no_fault_of_the_query(own: duckdb.DuckDBPyConnection) -> None:
    """Who takes the tree apart does not go on without one."""
    own.execute("SET memory_limit = '1B'")
    with pytest.raises(QueryFailed, match="ask of fewer events"):
        parse(own, "SELECT 1")


def test_a_tree_that_is_none_is_a_fault(own: duckdb.DuckDBPyConnection) -> None:
    """Who changes a tree is told where the engine cannot write it."""
    with pytest.raises(SyntaxFault):
        sql_of(own, {"statements": [{"node": {"type": "NOSUCH_NODE"}}]})


def test_statements_of_a_text(own: duckdb.DuckDBPyConnection) -> None:
    """Each with its SQL, kind and parameters, and whether it is a query."""
    text = "SELECT $a, $b; CREATE TABLE t (a INT);\nFROM t; PIVOT t ON a; INSERT INTO t VALUES (?)"
    parsed = ParsedStatement.list_of(own, text)
    assert [s.kind for s in parsed] == ["SELECT", "CREATE", "SELECT", "MULTI", "INSERT"]
    assert [s.is_query for s in parsed] == [True, False, True, True, False]
    assert parsed[0].parameters == {"a", "b"}
    assert parsed[4].parameters == {"1"}
    assert parsed[2].sql.rstrip(";") == "FROM t"
    assert ParsedStatement.list_of(own, " -- nothing") == []
    with pytest.raises(duckdb.ParserException):
        ParsedStatement.list_of(own, "SELECT (")
