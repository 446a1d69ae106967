"""The first of two steps of a query for the newest or oldest rows: from which time on they are.

What such a query is says `sql/top_rows.py`. Where it has a WHERE, blocks of the newest segment are
looked through first, then all of it, and then more: once there are as many rows as it wants, none
of those that it wants is older than the last of these. The times are looked for on a cursor that
has the same tables, of the same state and tail and with the same settings, so that both steps see
one snapshot.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lakelog.engine.syntax import SyntaxFault, sql_of
from lakelog.libraries import duckdb
from lakelog.query.cursor_pool import CursorPool
from lakelog.query.lake_tables import LakeTables
from lakelog.query.ref_schemas import RefSchemas
from lakelog.query.sql.analysis import Query
from lakelog.query.sql.table_sql import View
from lakelog.query.sql.top_rows import TopRows, top_rows
from lakelog.query.sql.tree import tree_of, with_events
from lakelog.query.type_tables import TypeTables
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    from lakelog.query.providers import Pinned
    from lakelog.query.sql import payload
else:
    payload = Lazy("lakelog.query.sql.payload")

LEAST = 100_000
"""Events of which all columns are read as fast as the time of each before."""
_SHARE = 20
"""The rows that are wanted are at most this part of all."""
_PAYLOADS, _TIMES = 2_000_000, 50_000_000
"""In more events that a WHERE leaves nothing is looked for beforehand: in payloads, and at all."""
_STEPS = (0, 1, 1 << 17, 1 << 20)
"""The newest segments of so many events are looked through for rows that pass a WHERE, if they are
less than a quarter of all; at first a part of the newest one."""
_KEPT = 128


class TopScans:
    """Bounds the tables of queries for the newest or oldest rows; called under a lock."""

    def __init__(self, tables: LakeTables, types: TypeTables, refs: RefSchemas) -> None:
        self._tables, self._types, self._refs = tables, types, refs
        self._pool = CursorPool(tables)
        self._asked: dict[str, TopRows | None] = {}

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
        if len(views) != 1 or query.needles or query.of_refs or not query.parsed:
            return views
        is_of_type = views[0].of_type is not None
        if (len(query.needs), len(query.types)) != ((0, 1) if is_of_type else (1, 0)):
            return views
        if not (is_of_type or views[0].name == "events"):
            return views
        bounded = self._bounded(query.sql, "", views[0], pinned, cursor, params)
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
        bounded = self._bounded(query.sql, schema, events, pinned, cursor, params)
        # Under another name than the schema has for all of them.
        return {schema: bounded._replace(name=f"{payload.WIDE}{schema}")} if bounded else views

    def _bounded(
        self,
        query: str,
        schema: str,
        view: View,
        pinned: Pinned | None,
        cursor: duckdb.DuckDBPyConnection | None,
        params: object,
    ) -> View | None:
        total = view.row_count
        top = self._wanted(query, schema, view.name) if total >= LEAST else None
        if top is None or top.count * _SHARE > total:
            return None
        # The query itself says what is wrong with it, in its own words.
        with contextlib.suppress(duckdb.Error, SyntaxFault):
            return self._with_bound(top, view, pinned, cursor, params)
        return None

    def _wanted(self, query: str, schema: str, table: str) -> TopRows | None:
        if query not in self._asked:
            if len(self._asked) >= _KEPT:
                self._asked.clear()
            tree = tree_of(self._tables.engine().cursor(), query)
            tree = with_events(tree, {schema: "events"}) if schema else tree
            is_one = len(tree.get("statements", ())) == 1
            top = top_rows(tree, table) if is_one else None
            self._asked[query] = top and replace(top, extracts=payload.may_extract(query))
        return self._asked[query]

    def _with_bound(
        self,
        top: TopRows,
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
        for size in _STEPS if top.is_filtered else ():
            if size < total // 4:
                nearest = view.nearest(size, descending) if size else view.sample(descending)
                if bounded := self._edge(top, descending, nearest, view, pinned, cursor, params):
                    return bounded
        if view.ranges:  # to look for rare words takes most of the time, in either step
            return None
        # The caller holds a lock, which other threads would wait for.
        if top.is_filtered and total > (_PAYLOADS if top.reads_payloads else _TIMES):
            return None
        some = view
        if not (top.is_filtered or self._tables.only or view.of_type):
            some = view._replace(entries=top.among(view.entries, descending))
            if some.row_count < LEAST:
                return some
        return self._edge(top, descending, some, view, pinned, cursor, params)

    def _edge(
        self,
        top: TopRows,
        descending: bool,
        some: View,
        view: View,
        pinned: Pinned | None,
        cursor: duckdb.DuckDBPyConnection | None,
        params: object,
    ) -> View | None:
        """The table from the time of the last row on of those that are wanted of some of it; None
        if these are fewer."""
        aggregate = "min" if descending else "max"
        times = sql_of(self._tables.engine().cursor(), top.statement).rstrip(";")
        query = f"SELECT epoch_us({aggregate}(time)), count(*) FROM ({times})"
        views = [some]
        if top.extracts:
            query, views = self._types.over_columns(query, pinned, views, {})
        micros, count = self._first(query, views, cursor, params)
        if count < top.count:
            return None
        sign, entries = ">=", [entry for entry in view.entries if entry.time[1] >= micros]
        if not descending:
            sign, entries = "<=", [entry for entry in view.entries if entry.time[0] <= micros]
        return view._replace(entries=entries, bound=f"time {sign} make_timestamptz({micros})")

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
        row = pooled.execute(query).fetchall()[0]
        self._pool.give_back(views, pooled)
        return row
