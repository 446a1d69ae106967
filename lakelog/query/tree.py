"""Parts of the trees that the engine's parser makes."""

from __future__ import annotations

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
