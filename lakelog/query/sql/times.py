"""Times that a query compares with, as far as they can be told without the engine.

To have the engine say what a constant is takes two statements, a millisecond; a short query takes
not much longer itself. What is not told here may be a constant all the same.

A time may also be that of the newest event: `time > (SELECT max(time) FROM events) - INTERVAL 1
hour`. The statistics of segments say which of them have the first and last time, so that this reads
them alone, and of the others those that reach into that hour.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from lakelog.engine.syntax import Node, nodes
from lakelog.query.sql.tree import CLOCK_NAMES, column, is_events, is_events_of_ref, mentioned

FIRST, LAST = "min", "max"
REFERENCE = "SELECT TIMESTAMPTZ '2020-03-31 00:00:00+00'"
"""A time before which months are as long as they get."""
_DAY = 86_400_000_000
_MONTH, _MONTH_SLACK = 27 * _DAY, 4 * _DAY
"""Months differ by less than the slack."""
_CHANGE = _DAY // 8
"""Clocks are put back by less, and the days in which that happens are longer."""
_ABSENT = ("where_clause", "having", "sample", "qualify")
_EMPTY = ("modifiers", "group_expressions", "group_sets")
_ZONED = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d(?::\d\d)?)")
"""A time that is the same in every time zone of a session."""
_TYPES = frozenset(("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE"))
_NOW = frozenset(("now", "current_timestamp", "get_current_timestamp"))
_SPANS = {"to_seconds": 1_000_000, "to_minutes": 60_000_000, "to_hours": 3_600_000_000}
"""Intervals that are as long on every day (us): a day is not, where clocks are changed."""
_NUMBERS = frozenset(("INTEGER", "BIGINT", "DOUBLE"))
_COUNT = re.compile(r"\d{1,9}")
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


def with_clock_calls(tree: Node) -> Node:
    """Return the tree of a query with calls for the names of now, which it takes for columns; as
    it is where some table may have columns of such a name."""
    names = {str(alias).lower() for key in ("alias", "key") for alias in mentioned(tree, key)}
    tables = [node for node in nodes(tree) if node.get("type") in _TABLES]
    are_own = all(is_events(table) or is_events_of_ref(table) for table in tables)
    with_names = [name for node in nodes(tree) for name in node.get("column_name_alias") or ()]
    return tree if with_names or names & CLOCK_NAMES.keys() or not are_own else _with_calls(tree)


def micros(value: Node | None) -> int | None:
    """Return the time that an expression is (us since 1970, UTC), None where that is not known."""
    if not isinstance(value, dict):
        return None
    if value.get("class") == "CONSTANT":
        return _literal(value)
    if value.get("class") == "CAST" and value["type_expr"]["type_name"].upper() in _TYPES:
        return _literal(value["child"])
    if value.get("class") != "FUNCTION":
        return None
    name, arguments = (
        value["function_name"],
        [argument["expression"] for argument in value["arguments"]],
    )
    if name in _NOW and not arguments:
        return time.time_ns() // 1000
    if name not in ("+", "-") or len(arguments) != 2 or _is_text(arguments[0]):
        return None
    start, length = micros(arguments[0]), span(arguments[1])
    if start is None or length is None:
        return None
    return start - length if name == "-" else start + length


def span(value: object) -> int | None:
    """Return how long an interval is (us), None where that is not known or depends on the day."""
    if not isinstance(value, dict) or value.get("function_name") not in _SPANS:
        return None
    count = _count(value["arguments"][0]["expression"])
    return None if count is None else count * _SPANS[value["function_name"]]


def extremes(select: Node) -> frozenset[str]:
    """Return which of the first and last time a SELECT from a table asks for, if for nothing else;
    none for any other SELECT."""
    table: Node = select["from_table"]
    if any(select[key] is not None for key in _ABSENT) or any(select[key] for key in _EMPTY):
        return frozenset()
    if select["cte_map"]["map"] or table["sample"] or table.get("at_clause"):
        return frozenset()
    times = [_extreme(item, table) for item in select["select_list"]]
    return frozenset(times) if all(times) else frozenset()


def before_newest(value: Node | None) -> Node | None:
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
    base, *operands = value["arguments"]
    return {**value, "arguments": [{**base, "expression": reference}, *operands]}


def margin(micros: int) -> int:
    """Return by how much a time may be before another one, where it is so much before one (us)."""
    return micros + (_MONTH_SLACK if micros > _MONTH else _CHANGE if micros >= _DAY else 0)


def _with_calls(tree: object) -> Any:
    if isinstance(tree, list):
        return [_with_calls(child) for child in tree]
    if not isinstance(tree, dict):
        return tree
    if tree.get("class") == "COLUMN_REF" and len(tree["column_names"]) == 1:
        function = CLOCK_NAMES.get(str(tree["column_names"][0]).lower())
        call = {"function_name": function, "qualified_name": {"path": [function]}}
        return tree if function is None else {**_CALL, **call}
    return {key: _with_calls(child) for key, child in tree.items()}


def _literal(value: Node) -> int | None:
    literal = value["literal"]["text"] if _is_text(value) else ""
    if not _ZONED.fullmatch(literal):
        return None
    try:
        return (datetime.fromisoformat(literal) - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):  # the engine says what is wrong with it
        return None


def _is_text(value: Node) -> bool:
    return bool(value.get("class") == "CONSTANT" and value["literal"]["kind"] == "STRING")


def _is_number(value: Node) -> bool:
    """Whether an expression is a cast that changes no whole number."""
    return bool(value.get("class") == "CAST" and value["type_expr"]["type_name"] in _NUMBERS)


def _count(value: Node) -> int | None:
    """Return a whole number that the parser has put into casts."""
    while (is_cast := _is_number(value)) or value.get("function_name") == "trunc":
        value = value["child"] if is_cast else value["arguments"][0]["expression"]
    digits = str(value.get("literal", {}).get("text"))
    return int(digits) if value.get("class") == "CONSTANT" and _COUNT.fullmatch(digits) else None


def _extreme(item: Node, table: Node) -> str:
    """Which time an item of a SELECT is, "" for anything else."""
    name = str(item.get("function_name"))
    if item.get("class") != "FUNCTION" or name not in (FIRST, LAST) or item["schema"]:
        return ""
    if item["filter"] is not None or len(item["arguments"]) != 1:
        return ""
    return name if column(item["arguments"][0]["expression"], table) == "time" else ""
