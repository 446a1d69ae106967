"""The newest or oldest rows of a query: `SELECT * FROM events ORDER BY time DESC LIMIT 100`.

Sorting by time needs the time alone, but the engine would decode all columns of all events for it.
So the time of the last row that is wanted is looked for first, by the times of segments and by
reading their column `time` (and what WHERE names); then the query reads only rows from that time
on. Rows of that very time are all read, so that whatever else the query sorts by decides among
them. It changes no answer, and is done only where it cannot: one SELECT from `events`, those of a
tag or branch, or a table of a type alone,
without aggregates, windows, subqueries and functions of the clock or of chance, whose first ORDER
BY is the column `time` (which is never null) and whose LIMIT and OFFSET are numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lakelog.engine.syntax import Node
from lakelog.engine.volatility import Volatility, called, is_aggregate
from lakelog.query.sql.tree import column, is_events, nodes
from lakelog.segments.sql import identifier
from lakelog.store.entry import SegmentEntry

MOST = 10_000
"""So many rows are few."""
_FALSE = ("having", "sample", "qualify")
_EMPTY = ("group_expressions", "group_sets")
_REFUSED = ("WINDOW", "SUBQUERY")
_ROWS = ("unnest", "unlist", "generate_subscripts")
"""Functions that make any number of rows of one."""
_LONG = frozenset(("data", "fields", "message"))
_ORDERS = {"ASCENDING": False, "DESCENDING": True}
_DEFAULT = "ORDER_DEFAULT"


@dataclass(frozen=True)
class TopRows:
    """What a query wants: `count` rows from the newest on if it is `descending`, else from the
    oldest; `statement` is the tree of the query for their times, `is_filtered` if it has a WHERE.
    Without `descending` the order is that of the session."""

    count: int
    descending: bool | None
    statement: Node
    is_filtered: bool
    reads_payloads: bool
    """Whether its WHERE reads more than the short columns of an event."""
    extracts: bool = True
    """Whether it may take something out of payloads."""

    def among(self, entries: list[SegmentEntry], descending: bool) -> list[SegmentEntry]:
        """Return the segments that can hold those rows by their times, of all that there are."""
        if self.is_filtered:
            return entries
        # Walking from the end, enough rows are certain once their segments lie beyond a time.
        place = 0 if descending else 1
        count = 0
        for entry in sorted(entries, key=lambda e: e.time[place], reverse=descending):
            count += entry.events
            if count >= self.count:
                edge = entry.time[place]
                return [
                    e for e in entries if (e.time[1] >= edge if descending else e.time[0] <= edge)
                ]
        return entries


def top_rows(tree: Node, name: str = "events") -> TopRows | None:
    """Return what a query wants, if it is one of these, of a table of this name in SQL."""
    statement = tree["statements"][0]
    node: Node = statement["node"]
    table: Node = node.get("from_table") or {}
    if node.get("type") != "SELECT_NODE" or not _is_of(table, name) or not _is_plain(node, table):
        return None
    if [m["type"] for m in node["modifiers"]] != ["ORDER_MODIFIER", "LIMIT_MODIFIER"]:
        return None
    order, limit = node["modifiers"]
    order_item = order["orders"][0]
    count, offset = _number(limit["limit"]), _number(limit["offset"], 0)
    if column(order_item["expression"], table) != "time" or count is None or offset is None:
        return None
    if limit.get("limit_type") not in (None, "ROW_COUNT") or not 0 < count + offset <= MOST:
        return None
    if order_item["type"] not in _ORDERS and order_item["type"] != _DEFAULT:
        return None
    whole = {**limit["limit"], "literal": {"kind": "INTEGER", "text": str(count + offset)}}
    modifiers = [{**order, "orders": [order_item]}, {**limit, "limit": whole, "offset": None}]
    times = {**node, "select_list": [order_item["expression"]], "modifiers": modifiers}
    return TopRows(
        count + offset,
        _ORDERS.get(order_item["type"]),
        {**tree, "statements": [{**statement, "node": times}]},
        node["where_clause"] is not None,
        not _LONG.isdisjoint(
            str(name).lower()
            for inner in nodes([node["where_clause"]])
            for name in inner.get("column_names") or ()
        ),
    )


def _is_of(table: Node, name: str) -> bool:
    """Whether a part of a query is the table `events`, or the view that is a table of a type."""
    if name == "events":
        return is_events(table)
    is_it = identifier(str(table.get("table_name") or "")) == name
    return is_it and is_events({**table, "table_name": "events"})


def _is_plain(node: Node, table: Node) -> bool:
    """Whether each row of the answer is one row of the table, found by nothing but that row."""
    if any(node[key] is not None for key in _FALSE) or any(node[key] for key in _EMPTY):
        return False
    if node["cte_map"]["map"] or table["sample"] or table.get("at_clause"):
        return False
    for item in node["select_list"]:
        # A column that is called so takes the place of `time` in ORDER BY.
        if str(item.get("alias")).lower() == "time" and column(item, table) != "time":
            return False
    # Parameters are given to the query for the times as well, which has no others than WHERE has.
    outer = (node["select_list"], node["modifiers"])
    if any(inner.get("class") == "PARAMETER" for clause in outer for inner in nodes(clause)):
        return False
    clauses = (*outer, node["where_clause"])
    return all(_is_of_row(inner) for clause in clauses for inner in nodes(clause))


def _is_of_row(node: Node) -> bool:
    node_class = node.get("class")
    if node_class in _REFUSED:
        return False
    if node_class == "STAR":
        names = ("replace_list", "rename_list", "expr")
        return not any(node.get(name) for name in names) and not node.get("columns")
    if node_class not in ("FUNCTION", "COLUMN_REF"):
        return True
    call = called(node)
    if call is None:
        return True
    name, volatility = call
    return volatility is Volatility.IMMUTABLE and not is_aggregate(name) and name not in _ROWS


def _number(value: Any, default: int | None = None) -> int | None:
    """A whole number that a query names; the default where it names none."""
    if value is None:
        return default
    literal = value.get("literal") or {}
    if value.get("class") != "CONSTANT" or literal.get("kind") != "INTEGER":
        return None
    return int(literal["text"])
