"""Whether the map of a view reads some members of payloads. Where that is unclear, it does."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from lakelog.engine.syntax import Node
from lakelog.libraries import duckdb
from lakelog.query.sql import payload, table_sql
from lakelog.query.sql.tree import FIELDS, nodes, tree_of

_TABLE = "segment"
_PAYLOAD = ("data", FIELDS)


def reads_members(cursor: duckdb.DuckDBPyConnection, query: str, members: Collection[str]) -> bool:
    """Whether a map may read any of these members of payloads."""
    rewriting = table_sql.rewrite(cursor, query, True, {("", _TABLE): payload.WIDE})
    if rewriting is not None:
        if any(column.path[0] in members for column in rewriting.columns):
            return True
        query = rewriting.sql
    tree = tree_of(cursor, query)
    tables = {_TABLE, payload.WIDE, *_aliases(tree)}
    return not tree or any(_shows_payload(node, tables) for node in nodes(tree))


def _aliases(tree: Node) -> Iterator[str]:
    """Yield the names that a query has for the rows of segments."""
    for node in nodes(tree):
        if _is_rows(node) and node["alias"]:
            yield node["alias"].lower()


def _is_rows(node: Node) -> bool:
    is_table = node.get("type") == "BASE_TABLE"
    return is_table and node["table_name"].lower() in (_TABLE, payload.WIDE)


def _shows_payload(node: Node, tables: Collection[str]) -> bool:
    """Whether a part of a query is the payload, or a row that has it."""
    if node.get("type") == "SELECT_NODE":
        stars = any(n.get("class") == "STAR" for n in nodes(node["select_list"]))
        return stars and any(map(_is_rows, nodes(node["from_table"])))
    if node.get("class") == "COLUMN_REF":
        first, last = (node["column_names"][n].lower() for n in (0, -1))
        return last in _PAYLOAD or first in _PAYLOAD or (first == last and first in tables)
    return node.get("class") == "POSITIONAL_REFERENCE"
