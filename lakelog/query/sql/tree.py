"""Parts of the trees that the engine's parser makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Node = dict[str, Any]

TYPES = "types"
"""The schema of tables that have the events of one type."""


def is_events(table: Any) -> bool:
    """Whether a part of a query is the table `events`, with its own names of columns."""
    return (
        isinstance(table, dict)
        and table.get("type") == "BASE_TABLE"
        and not table["schema_name"]
        and not table["catalog_name"]
        and table["table_name"].lower() == "events"
        and not table["column_name_alias"]
    )


def is_events_of_ref(table: Any) -> bool:
    """Whether a part of a query is the same of another schema: of a tag or branch."""
    return (
        isinstance(table, dict)
        and table.get("type") == "BASE_TABLE"
        and bool(table["schema_name"])
        and is_events({**table, "schema_name": ""})
    )


def is_type(table: Any) -> bool:
    """Whether a part of a query is a table `types.NAME` or `REF.types.NAME`."""
    return (
        isinstance(table, dict)
        and table.get("type") == "BASE_TABLE"
        and table["schema_name"].lower() == TYPES
    )


def column(value: Any, table: Node) -> str | None:
    """The column of a table that an expression is, or None."""
    if not isinstance(value, dict) or value.get("class") != "COLUMN_REF":
        return None
    *owner, name = value["column_names"]
    alias = table["alias"] or table["table_name"]
    return str(name).lower() if not owner or owner == [alias] else None


def with_events(tree: Any, tables: Mapping[str, str]) -> Any:
    """Return a tree that reads these tables in the place of the `events` of schemas."""
    if isinstance(tree, list):
        return [with_events(child, tables) for child in tree]
    if not isinstance(tree, dict):
        return tree
    if is_events_of_ref(tree) and (table := tables.get(tree["schema_name"])):
        named = {"table_name": table, "qualified_name": {"path": [table]}}
        return {**tree, "schema_name": "", "alias": tree["alias"] or tree["table_name"], **named}
    return {key: with_events(child, tables) for key, child in tree.items()}


def mentioned(value: Any, key: str) -> Iterator[str]:
    """Yield what stands under a key anywhere in an expression."""
    for child in value if isinstance(value, list) else ():
        yield from mentioned(child, key)
    for name, child in value.items() if isinstance(value, dict) else ():
        if name == key and isinstance(child, str):
            yield child
        yield from mentioned(child, key)


def nodes(tree: Any) -> Iterator[Node]:
    """Yield every node of a tree, those above before those below."""
    if isinstance(tree, dict):
        yield tree
    children = tree.values() if isinstance(tree, dict) else tree
    for child in children if isinstance(tree, (dict, list)) else ():
        if isinstance(child, (dict, list)):
            yield from nodes(child)


def select_one(item: Node, statement: Node) -> Node:
    """Return a statement that selects one expression, from the tree of any other statement."""
    empty = {"type": "EMPTY", "alias": "", "sample": None, "query_location": 0}
    node: Node = {
        "type": "SELECT_NODE",
        "modifiers": [],
        "cte_map": {"map": []},
        "select_list": [item],
        "from_table": empty,
        "where_clause": None,
        "group_expressions": [],
        "group_sets": [],
        "aggregate_handling": "STANDARD_HANDLING",
        "having": None,
        "sample": None,
        "qualify": None,
    }
    return {**statement, "node": node}
