"""What a query says of the newest event: `time > (SELECT max(time) FROM events) - INTERVAL 1 hour`.

The statistics of segments say which of them have the first and last time, so that this reads them
alone, and of the others those that reach into that hour.
"""

from __future__ import annotations

from typing import Any

from lakelog.query.sql.tree import Node, column

FIRST, LAST = "min", "max"
REFERENCE = "SELECT TIMESTAMPTZ '2020-03-31 00:00:00+00'"
"""A time before which months are as long as they get."""
_DAY = 86_400_000_000
_MONTH, _SLACK = 27 * _DAY, 4 * _DAY
"""Months differ by less than the slack."""
_CHANGE = _DAY // 8
"""Clocks are put back by less, and the days in which that happens are longer."""
_NONE = ("where_clause", "having", "sample", "qualify")
_EMPTY = ("modifiers", "group_expressions", "group_sets")


def extremes(select: Node) -> frozenset[str]:
    """Return which of the first and last time a SELECT from a table asks for, if for nothing else;
    none for any other SELECT."""
    table: Node = select["from_table"]
    if any(select[key] is not None for key in _NONE) or any(select[key] for key in _EMPTY):
        return frozenset()
    if select["cte_map"]["map"] or table["sample"] or table.get("at_clause"):
        return frozenset()
    asked = [_extreme(item, table) for item in select["select_list"]]
    return frozenset(asked) if all(asked) else frozenset()


def before_newest(value: Any) -> Node | None:
    """Return the query for the newest time that an expression is, or from which it subtracts."""
    if not isinstance(value, dict):
        return None
    if value.get("class") == "FUNCTION" and value["function_name"] == "-":
        value = value["arguments"][0]["expression"]
    if value.get("class") != "SUBQUERY" or value["subquery_type"] != "SCALAR":
        return None
    node: Node = value["subquery"]["node"]
    return node if node.get("type") == "SELECT_NODE" else None


def before_reference(value: Node, reference: Node) -> Node:
    """Return the expression with a time in the place of the newest."""
    if value["class"] == "SUBQUERY":
        return reference
    first, *rest = value["arguments"]
    return {**value, "arguments": [{**first, "expression": reference}, *rest]}


def margin(micros: int) -> int:
    """Return by how much a time may be before another one, where it is so much before one (us)."""
    return micros + (_SLACK if micros > _MONTH else _CHANGE if micros >= _DAY else 0)


def _extreme(item: Node, table: Node) -> str:
    """Which time an item of a SELECT is, "" for anything else."""
    name = str(item.get("function_name"))
    if item.get("class") != "FUNCTION" or name not in (FIRST, LAST) or item["schema"]:
        return ""
    if item["filter"] is not None or len(item["arguments"]) != 1:
        return ""
    return name if column(item["arguments"][0]["expression"], table) == "time" else ""
