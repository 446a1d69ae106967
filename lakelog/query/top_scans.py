"""The newest or oldest rows of a query: `SELECT * FROM events ORDER BY time DESC LIMIT 100`.

Sorting by time needs the time alone, but the engine would decode all columns of all events for it.
So the time of the last row that is wanted is looked for first, by the times of segments and by
reading their column `time` (and what WHERE names); then the query reads only rows from that time
on. Rows of that very time are all read, so that whatever else the query sorts by decides among
them. It changes no answer, and is done only where it cannot: one SELECT from `events`, those of a
tag or branch, or a table of a type alone, without aggregates, windows, subqueries and functions of
the clock or of chance, whose first ORDER BY is the column `time` (which is never null) and whose
LIMIT and OFFSET are numbers.

Where it has a WHERE, blocks of the newest segment are looked through first, then all of it, and
then more: once there are as many rows as it wants, none of those that it wants is older than the
last of these. The times are looked for on a cursor that has the same tables, of the same state and
tail and with the same settings, so that both steps see one snapshot.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass, replace
from typing import Any

from lakelog.engine.syntax import Node, SyntaxFault, nodes, sql_of
from lakelog.engine.volatility import FunctionCall, Volatility
from lakelog.entries import SegmentEntry
from lakelog.libraries import duckdb
from lakelog.manifest import Manifest
from lakelog.query.lake_tables import LakeTables
from lakelog.query.providers import Pinned
from lakelog.query.schemas import RefSchemas
from lakelog.query.sql.analysis import Query, may_extract
from lakelog.query.sql.table_sql import View
from lakelog.query.sql.tree import WIDE, column, is_events, tree_of, with_events
from lakelog.query.stream import CursorPool
from lakelog.sql import identifier

LEAST = 100_000
"""Events of which all columns are read as fast as the time of each before."""
_SHARE = 20
"""The rows that are wanted are at most this part of all."""
_PAYLOADS, _TIMES = 2_000_000, 50_000_000
"""In more events that a WHERE leaves nothing is looked for beforehand: in payloads, and at all."""
_SAMPLES, _STEPS = (None, 2), (1, 1 << 17, 1 << 20)
"""For rows that pass a WHERE some blocks of the newest segment are looked through first, then one
in so many, then the newest segments of so many events, if they are less than a quarter of all."""
_CHANCE, _KEPT, _TOGETHER = 3, 128, 8


class TopScans:
    """Bounds the tables of queries for the newest or oldest rows; called under a lock."""

    def __init__(self, tables: LakeTables, refs: RefSchemas) -> None:
        self._tables, self._refs = tables, refs
        self._pool = CursorPool(tables)
        self._asked: dict[str, TopRows | None] = {}

    def are_many(self, query: Query, state: Manifest) -> bool:
        """Whether the blocks that have the words of a search have many rows; the newest segments
        are looked into first, and no more of them than it takes."""
        row_count, candidates = 0, self._tables.candidates(state, query)
        newest = sorted(candidates.entries, key=lambda entry: entry.time[1], reverse=True)
        for start in range(0, len(newest), _TOGETHER):
            view = candidates._replace(entries=newest[start : start + _TOGETHER])
            row_count += self._tables.with_words(view, query).row_count
            if row_count > LEAST:
                return True
        return False

    def bounded(
        self,
        query: Query,
        pinned: Pinned | None,
        views: list[View],
        cursor: duckdb.DuckDBPyConnection | None = None,
        params: object = None,
    ) -> list[View]:
        """Return the tables of a query without the rows that it sorts out by their time; as they
        are where nothing is gained. A query that is asked on a `cursor` has the settings of it."""
        # One table only: a join may repeat or drop rows, whatever their time.
        if len(views) != 1 or query.needles or query.of_refs or not query.parsed:
            return views
        is_of_type = views[0].of_type is not None
        if (len(query.needs), len(query.types)) != ((0, 1) if is_of_type else (1, 0)):
            return views
        if not (is_of_type or views[0].name == "events"):
            return views
        bounded = self._bounded(query, "", views[0], pinned, cursor, params)
        return [bounded] if bounded else views

    def of_ref(
        self,
        query: Query,
        views: dict[str, View],
        cursor: duckdb.DuckDBPyConnection | None,
        params: object,
    ) -> dict[str, View]:
        """The same for a query of the `events` of one tag or branch: what these are, by schema."""
        if len(views) != 1 or query.needs or query.needles:
            return views
        if [len(needs) for needs in query.of_refs.values()] != [1]:
            return views
        ((schema, view),) = views.items()
        events = view._replace(name="events")
        pinned = self._refs.states.get(schema)
        bounded = self._bounded(query, schema, events, pinned, cursor, params)
        # Under another name than the schema has for all of them.
        return {schema: bounded._replace(name=f"{WIDE}{schema}")} if bounded else views

    def _bounded(
        self,
        query: Query,
        schema: str,
        view: View,
        pinned: Pinned | None,
        cursor: duckdb.DuckDBPyConnection | None,
        params: object,
    ) -> View | None:
        total = view.row_count
        top = self._wanted(query.sql, schema, view.name) if total >= LEAST else None
        # Wanting a large part of all rows, the query reads them anyway.
        if top is None or top.count * _SHARE > total:
            return None
        # The query itself says what is wrong with it, in its own words.
        with contextlib.suppress(duckdb.Error, SyntaxFault):
            return self._with_bound(top, query, view, pinned, cursor, params)
        return None

    def _wanted(self, query: str, schema: str, table: str) -> TopRows | None:
        if query not in self._asked:
            if len(self._asked) >= _KEPT:
                self._asked.clear()
            tree = tree_of(self._tables.engine().cursor(), query)
            # Under a schema's name the tree is that of `events`.
            tree = with_events(tree, {schema: "events"}) if schema else tree
            is_one = len(tree.get("statements", ())) == 1
            top = top_rows(tree, table) if is_one else None
            self._asked[query] = top and replace(top, extracts=may_extract(query))
        return self._asked[query]

    def _with_bound(
        self,
        top: TopRows,
        query: Query,
        view: View,
        pinned: Pinned | None,
        cursor: duckdb.DuckDBPyConnection | None,
        params: object,
    ) -> View | None:
        """The table from the time of the last row that is wanted on; None if there are fewer, or
        to look for it takes too long."""
        descending = top.descending
        if descending is None:
            (order,) = self._first("SELECT current_setting('default_order')", [], cursor)
            descending = str(order).upper().startswith("DESC")
        total = sum(entry.events for entry in view.entries)
        if top.is_filtered:
            newest = self._nearest(query, view, 1, descending)
            samples = (newest.sample(descending, step) for step in _SAMPLES)
            sizes = (size for size in _STEPS if size < total // 4)
            nearest_views = (self._nearest(query, view, size, descending) for size in sizes)
            share = 1.0
            for nearest in itertools.chain(samples, nearest_views):
                # As many of its rows pass as of those before; of none nothing is known.
                if nearest.row_count * share < top.count:
                    continue
                bounded, count = self._edge(top, descending, nearest, view, pinned, cursor, params)
                if bounded:
                    return bounded
                share = max(count, _CHANCE) / max(nearest.row_count, 1)
        # To look for rare words takes most of the time, in either step.
        if self._tables.with_words(view, query).ranges:
            return None
        # The caller holds a lock, which other threads would wait for.
        if top.is_filtered and total > (_PAYLOADS if top.reads_payloads else _TIMES):
            return None
        some = view
        if not (top.is_filtered or self._tables.only or view.of_type):
            some = view._replace(entries=top.among(view.entries, descending))
            if some.row_count < LEAST:
                return some
        return self._edge(top, descending, some, view, pinned, cursor, params)[0]

    def _nearest(self, query: Query, view: View, count: int, descending: bool) -> View:
        """The table of the segments that are nearest, of those that have the words of a search."""

        def has_words(entry: SegmentEntry) -> bool:
            return bool(self._tables.with_words(view._replace(entries=[entry]), query).entries)

        return self._tables.with_words(view.nearest(count, descending, has_words), query)

    def _edge(
        self,
        top: TopRows,
        descending: bool,
        some: View,
        view: View,
        pinned: Pinned | None,
        cursor: duckdb.DuckDBPyConnection | None,
        params: object,
    ) -> tuple[View | None, int]:
        """The table from the time of the last row on of those that are wanted of some of it, None
        if these are fewer; and how many there are, up to so many."""
        aggregate = "min" if descending else "max"
        times = sql_of(self._tables.engine().cursor(), top.statement).rstrip(";")
        query = f"SELECT epoch_us({aggregate}(time)), count(*) FROM ({times})"
        views = [some]
        if top.extracts:
            query, views = self._tables.over_columns(query, pinned, views)
        micros, count = self._first(query, views, cursor, params)
        if count < top.count:
            return None, count
        # Rows of that very time are all read: the next sort keys decide among them.
        sign, entries = ">=", [entry for entry in view.entries if entry.time[1] >= micros]
        if not descending:
            sign, entries = "<=", [entry for entry in view.entries if entry.time[0] <= micros]
        bound = f"time {sign} make_timestamptz({micros})"
        return view._replace(entries=entries, bound=bound), count

    def _first(
        self,
        query: str,
        views: list[View],
        cursor: duckdb.DuckDBPyConnection | None,
        params: object = None,
    ) -> Any:
        """The first row of a query over some tables."""
        if cursor is not None:
            self._tables.make(cursor, views)
            # all of it: a cursor has one unfinished answer at most
            return cursor.execute(query, params or None).fetchall()[0]
        pooled = self._pool.with_views(views)
        row = pooled.execute(query, params or None).fetchall()[0]
        self._pool.give_back(views, pooled)
        return row


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
    call = FunctionCall.of(node)
    if call is None:
        return True
    is_stable = call.volatility is Volatility.IMMUTABLE
    return is_stable and not call.is_aggregate and call.name not in _ROWS


def _number(value: Any, default: int | None = None) -> int | None:
    """A whole number that a query names; the default where it names none."""
    if value is None:
        return default
    literal = value.get("literal") or {}
    if value.get("class") != "CONSTANT" or literal.get("kind") != "INTEGER":
        return None
    return int(literal["text"])
