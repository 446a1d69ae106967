"""SQL as a tree of the engine's own parser, which is JSON, and back; the statements of a text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from lakelog.engine.messages import EngineMessage
from lakelog.errors import QueryFailed
from lakelog.libraries import duckdb

Node = dict[str, Any]
"""A node of a tree: a query, a table, an expression; or the whole, with its `statements`."""


class SyntaxFault(Exception):
    """Raised for SQL without a tree, or a tree without SQL. `position` is a byte of the SQL."""

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


@dataclass(frozen=True)
class ParsedStatement:
    """One statement of a text: its SQL, its kind (SELECT, CREATE), and the parameters it names."""

    sql: str
    kind: str
    parameters: frozenset[str]
    is_query: bool
    """Whether it gives rows and changes nothing."""

    @classmethod
    def list_of(cls, connection: duckdb.DuckDBPyConnection, script: str) -> list[ParsedStatement]:
        """Return the statements of a text. Raises the engine's error if one is wrong."""
        try:
            parsed = connection.extract_statements(script)
        except TypeError:  # DuckDB 2.0 does not say that the text has no UTF-8
            raise duckdb.ParserException("Parser Error: the SQL is not valid Unicode") from None
        return [
            cls(
                statement.query.strip(),
                statement.type.name,
                frozenset(map(str, statement.named_parameters)),
                # DuckDB 2.0 says of a PIVOT only that it is several statements.
                [r.name for r in statement.expected_result_type] == ["QUERY_RESULT"]
                or statement.type.name == "MULTI",
            )
            for statement in parsed
        ]


def parse(connection: duckdb.DuckDBPyConnection, query: str) -> Node:
    """Return the tree of SELECT statements: {"statements": [{"node": ...}]}. Raises SyntaxFault,
    and QueryFailed where there is no memory for it."""
    try:
        rows = connection.execute("SELECT json_serialize_sql($1)", [query]).fetchall()
        tree: Node = orjson.loads(rows[0][0])
    except duckdb.OutOfMemoryException as error:  # which says nothing of the query
        raise QueryFailed(EngineMessage(error).explained()) from None
    # A tree deeper than orjson reads is no use either.
    except (duckdb.Error, orjson.JSONDecodeError) as error:
        raise SyntaxFault(str(error)) from None
    if not tree.get("error"):
        return tree
    message, position = str(tree.get("error_message", "")), str(tree.get("position", ""))
    if "Only SELECT" in message:
        message = "only SELECT can stand here"
    raise SyntaxFault(message, int(position) if position.isdigit() else None)


def sql_of(connection: duckdb.DuckDBPyConnection, tree: Node) -> str:
    """Return the SQL of a tree. Raises SyntaxFault where the engine cannot write it."""
    try:
        serialized = orjson.dumps(tree).decode()
        rows = connection.execute("SELECT json_deserialize_sql($1::JSON)", [serialized]).fetchall()
    except (duckdb.Error, orjson.JSONEncodeError) as error:
        raise SyntaxFault(str(error)) from None
    return str(rows[0][0])


def nodes(tree: object) -> Iterator[Node]:
    """Yield every node of a tree, those above before those below."""
    if isinstance(tree, dict):
        yield tree
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for child in children:
        if isinstance(child, (dict, list)):
            yield from nodes(child)
