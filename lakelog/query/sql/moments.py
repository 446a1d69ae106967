"""Times that a query compares with, as far as they can be told without the engine.

To have the engine say what a constant is takes two statements, a millisecond; a short query takes
not much longer itself. What is not told here may be a constant all the same.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from lakelog.query.sql.tree import Node, is_events, is_events_of_ref, mentioned, nodes

_ZONED = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d(?::\d\d)?)")
"""A time that is the same in every time zone of a session."""
_TYPES = frozenset(("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE"))
_NOW = frozenset(("now", "current_timestamp", "get_current_timestamp"))
_SPANS = {"to_seconds": 1_000_000, "to_minutes": 60_000_000, "to_hours": 3_600_000_000}
"""Intervals that are as long on every day (us): a day is not, where clocks are changed."""
_NUMBERS = frozenset(("INTEGER", "BIGINT", "DOUBLE"))
_COUNT = re.compile(r"\d{1,9}")
_NAMED = {
    "current_timestamp": "now",
    "current_date": "today",
    "localtimestamp": "current_localtimestamp",
}
"""Functions that are called by a name alone, and their like with an empty list of arguments."""
_TABLES = frozenset(("BASE_TABLE", "TABLE_FUNCTION", "EXPRESSION_LIST", "COLUMN_DATA", "PIVOT"))
_CALL: Node = {
    "class": "FUNCTION",
    "type": "FUNCTION",
    "alias": "",
    "schema": "",
    "catalog": "",
    "filter": None,
    "order_bys": {"type": "ORDER_MODIFIER", "orders": []},
    "distinct": False,
    "is_operator": False,
    "export_state": False,
    "arguments": [],
}
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


def called(query: str, tree: Node) -> Node:
    """Return the tree of a query with calls for the names of now, which it takes for columns; as
    it is where some table may have columns of such a name."""
    if not any(name in query.lower() for name in _NAMED):
        return tree
    names = {str(text).lower() for key in ("alias", "key") for text in mentioned(tree, key)}
    tables = [node for node in nodes(tree) if node.get("type") in _TABLES]
    are_own = all(is_events(table) or is_events_of_ref(table) for table in tables)
    with_names = [each for node in nodes(tree) for each in node.get("column_name_alias") or ()]
    return tree if with_names or names & _NAMED.keys() or not are_own else _called(tree)


def micros(value: Any) -> int | None:
    """Return the time that an expression is (us since 1970, UTC), None where that is not known."""
    if not isinstance(value, dict):
        return None
    if value.get("class") == "CONSTANT":
        return _literal(value)
    if value.get("class") == "CAST" and value["type_expr"]["type_name"].upper() in _TYPES:
        return _literal(value["child"])
    if value.get("class") != "FUNCTION":
        return None
    name, arguments = value["function_name"], [each["expression"] for each in value["arguments"]]
    if name in _NOW and not arguments:
        return time.time_ns() // 1000
    if name not in ("+", "-") or len(arguments) != 2 or _is_text(arguments[0]):
        return None
    start, length = micros(arguments[0]), span(arguments[1])
    if start is None or length is None:
        return None
    return start - length if name == "-" else start + length


def span(value: Any) -> int | None:
    """Return how long an interval is (us), None where that is not known or depends on the day."""
    if not isinstance(value, dict) or value.get("function_name") not in _SPANS:
        return None
    count = _count(value["arguments"][0]["expression"])
    return None if count is None else count * _SPANS[value["function_name"]]


def _called(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_called(child) for child in tree]
    if not isinstance(tree, dict):
        return tree
    if tree.get("class") == "COLUMN_REF" and len(tree["column_names"]) == 1:
        function = _NAMED.get(str(tree["column_names"][0]).lower())
        return tree if function is None else {**_CALL, **_name(function)}
    return {key: _called(child) for key, child in tree.items()}


def _name(function: str) -> Node:
    return {"function_name": function, "qualified_name": {"path": [function]}}


def _literal(value: Any) -> int | None:
    text = value["literal"]["text"] if _is_text(value) else ""
    if not _ZONED.fullmatch(text):
        return None
    try:
        return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):  # the engine says what is wrong with it
        return None


def _is_text(value: Any) -> bool:
    return bool(value.get("class") == "CONSTANT" and value["literal"]["kind"] == "STRING")


def _is_number(value: Any) -> bool:
    """Whether an expression is a cast that changes no whole number."""
    return bool(value.get("class") == "CAST" and value["type_expr"]["type_name"] in _NUMBERS)


def _count(value: Any) -> int | None:
    """Return a whole number that the parser has put into casts."""
    while (is_cast := _is_number(value)) or value.get("function_name") == "trunc":
        value = value["child"] if is_cast else value["arguments"][0]["expression"]
    text = str(value.get("literal", {}).get("text"))
    return int(text) if value.get("class") == "CONSTANT" and _COUNT.fullmatch(text) else None
