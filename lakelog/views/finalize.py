"""The last section: an answer from a merged state, remembered as far as time does not matter.

Without `$now` the whole answer stays with the layer. With it, the leading WITH queries of finish
that do not name `$now` do: they are run once for a state and then stand as tables, so what is
asked again and again is only what depends on the time.

Totals are added, not computed anew: to those of the layer before, those of the rows that came are
added, and those of the rows that gave way taken away.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar

from lakelog.engine.syntax import SyntaxFault, parse, sql_of
from lakelog.libraries import duckdb, pa
from lakelog.query import Relation
from lakelog.sql import identifier
from lakelog.views import params as parameters
from lakelog.views.definition import TOTALS, ViewDefinition
from lakelog.views.layers import Layer, LayerBuilder, LayerChange, LayerTable, given, named, view

# A larger answer is computed again: it would hold more memory than the state that it is of.
_KEPT_BYTES = 32 << 20
# Old entries are no loss: what they hold is computed again.
_KEPT = 16
_K = TypeVar("_K")
_V = TypeVar("_V")
_STATE = re.compile(r"\bstate\b", re.IGNORECASE)
_PLAIN = re.compile(r"\s*(?=(?:select|from)\b)", re.IGNORECASE)
_WITH = re.compile(r"\s*with\s+(?!recursive\b)", re.IGNORECASE)
_SPLIT_MAX = 256


@dataclass(frozen=True)
class FinalQuery:
    """The last sections of a view, their own parameters put in; `totals` may be empty."""

    finish: str
    totals: str = ""
    by: tuple[str, ...] = ()


@dataclass(frozen=True)
class _SplitQuery:
    """A query whose first parts do not depend on the time: it reads a table of each of them, in
    the place of which `sql` has a placeholder."""

    sql: str
    parts: tuple[str, ...] = ()


_SPLIT: dict[str, _SplitQuery] = {}


def asked(definition: ViewDefinition, values: parameters.Values) -> FinalQuery:
    """Return what a view asks of its state."""
    totals = definition.filled(TOTALS, values) if TOTALS in definition.sections else ""
    return FinalQuery(definition.filled("finish", values), totals, definition.by)


def finish(builder: LayerBuilder, layer: Layer, final: FinalQuery, moment: int) -> pa.Table:
    """Answer from a layer."""
    # Times in parameters are literals by now, so that only $now makes an answer age.
    has_time = parameters.NOW in parameters.used(final.finish)
    result = None if has_time else layer.results.get(final)
    if result is not None:
        return result
    with builder.cursor() as cursor:
        relations, tables = _given(builder, cursor, layer, final)
        query, part_tables = final.finish, list[LayerTable]()
        if has_time:
            query, part_tables = _over_tables(builder, cursor, layer, final, relations)
            query = parameters.filled(query, (), {}, moment)
        result = Relation.for_arrow(cursor.sql(_reading(cursor, query, relations))).to_arrow_table()
        del tables, part_tables
    # Answers that depend on the time are stale at once.
    if not has_time and result.nbytes <= _KEPT_BYTES:
        _remember(layer.results, final, result)
    return result


def _given(
    builder: LayerBuilder, cursor: duckdb.DuckDBPyConnection, layer: Layer, final: FinalQuery
) -> tuple[dict[str, str], object]:
    """Return the relations that finish may read, and what to keep meanwhile."""
    relations: dict[str, str] = {}
    tables_in_use: list[object] = []
    # A finish that reads its totals alone needs no view over the rows.
    if not final.totals or _STATE.search(final.finish):
        relations["state"], tables = builder.pinned(cursor, layer)
        tables_in_use.append(tables)
    if final.totals:
        sums, _ = _sums(builder, cursor, layer, final)
        relations[TOTALS] = f"FROM {sums.name}"
        tables_in_use.append(sums)
    return relations, tables_in_use


def _reading(cursor: duckdb.DuckDBPyConnection, query: str, relations: dict[str, str]) -> str:
    """Return a query that reads relations by their names: those of a WITH at its begin, or where
    it may give these names itself, views, each of which takes as long as a short statement."""
    if match := _PLAIN.match(query):
        return f"WITH {named(relations)} {query}"
    match = _WITH.match(query)
    # WITH x AS … in the query itself: a second x of ours would hide it.
    if match and not any(
        re.search(rf"\b{name}\b\W*(\(|\bas\b)", query, re.I) for name in relations
    ):
        return f"WITH {named(relations)}, {query[match.end() :]}"
    for name, sql in relations.items():
        view(cursor, name, sql)
    return query


def _sums(
    builder: LayerBuilder, cursor: duckdb.DuckDBPyConnection, layer: Layer, final: FinalQuery
) -> tuple[LayerTable, dict[str, str]]:
    """The totals of a layer, computed once: from those of the layer before it if there is one."""
    sums = layer.sums.get(final.totals)
    if sums is not None:
        return sums
    change = layer.change
    if change is None:
        state, tables = builder.pinned(cursor, layer)
        table = builder.table(cursor, given(final.totals, state=state))
        del tables
        # Types come from the engine, since later totals are added up from rows of these.
        empty = cursor.sql(f"FROM {table.name} LIMIT 0")
        columns = dict(zip(empty.columns, map(str, empty.types), strict=True))
    else:
        before, columns = _sums(builder, cursor, change.layer, final)
        table = builder.table(cursor, _changed(layer, final, change, before, columns))
        change.layer.change = None  # it has its totals, so what was before it need not stay
    _remember(layer.sums, final.totals, (table, columns))
    return table, columns


def _changed(
    layer: Layer,
    final: FinalQuery,
    change: LayerChange,
    before: LayerTable,
    columns: dict[str, str],
) -> str:
    """SQL for the totals after a change."""
    groups = "".join(f"{identifier(name)}, " for name in final.by)
    amounts = [identifier(name) for name in columns if name not in final.by]
    plus, minus = ", ".join(amounts), ", ".join(f"-{name} AS {name}" for name in amounts)
    changes = [
        f"SELECT {groups}{plus} FROM {before.name}",
        f"SELECT {groups}{plus} FROM {_totals(layer, final, change.come)}",
    ]
    if change.gone is not None:
        changes.append(f"SELECT {groups}{minus} FROM {_totals(layer, final, change.gone)}")
    added = ", ".join(
        f"coalesce(sum({identifier(n)}), 0)::{type_} AS {identifier(n)}"
        for n, type_ in columns.items()
        # Without groups the totals are one row, which is there even when it is zero.
        if n not in final.by
    )
    # A group whose rows are all gone sums up to zero, and has to vanish.
    some = f" HAVING {' OR '.join(f'sum({name}) <> 0' for name in amounts)}" if groups else ""
    return f"SELECT {groups}{added} FROM ({' UNION ALL '.join(changes)}) GROUP BY ALL{some}"


def _totals(layer: Layer, final: FinalQuery, table: LayerTable) -> str:
    """SQL for the totals of the rows of one table."""
    return given(final.totals, state=f"SELECT {layer.shape.listed} FROM {table.name}")


def _remember(cache: dict[_K, _V], key: _K, value: _V, count: int = _KEPT) -> None:
    for old in list(cache)[: 1 - count]:
        cache.pop(old, None)
    cache[key] = value


def _over_tables(
    builder: LayerBuilder,
    cursor: duckdb.DuckDBPyConnection,
    layer: Layer,
    final: FinalQuery,
    relations: dict[str, str],
) -> tuple[str, list[LayerTable]]:
    """Return the query with tables in the place of its parts without `$now`, which are run once
    for a layer; and these tables."""
    split = _SPLIT.get(final.finish)
    if split is None:
        split = _split(cursor, final.finish)
        _remember(_SPLIT, final.finish, split, _SPLIT_MAX)
    # By the whole of the query: a layer answers several views that share its state.
    tables = layer.tables.get(final)
    if tables is None:
        tables = [builder.table(cursor, _reading(cursor, q, relations)) for q in split.parts]
        _remember(layer.tables, final, tables)
    query = split.sql
    for nth, table in enumerate(tables):
        query = query.replace(_placeholder(nth), table.name)
    return query, tables


def _placeholder(nth: int) -> str:
    """The name that a query has for the table of one of its parts before there is one."""
    return f"lakelog_part_{nth}_"


def _split(cursor: duckdb.DuckDBPyConnection, query: str) -> _SplitQuery:
    """Take the WITH queries free of `$now` out of a query, where the engine can write it."""
    constant_queries: list[str] = []
    earlier: set[str] = set()
    try:
        tree = parse(cursor, query)
        (statement,) = tree["statements"]
        for cte in (statement["node"].get("cte_map") or {}).get("map", []):
            node = cte["value"]["query_node"]
            sql = sql_of(cursor, {**tree, "statements": [{**statement, "node": node}]})
            # A query that reads one that depends on the time does so, too; names are compared in
            # any case.
            if parameters.NOW not in parameters.used(sql) and not earlier & _tables(node):
                table = parse(cursor, f"SELECT * FROM {_placeholder(len(constant_queries))}")
                cte["value"]["query_node"] = table["statements"][0]["node"]
                constant_queries.append(sql)
            earlier.add(cte["key"].lower())
        return _SplitQuery(
            sql_of(cursor, tree) if constant_queries else query, tuple(constant_queries)
        )
    # The engine cannot write some trees as SQL: then all of it is run each time.
    except (SyntaxFault, ValueError):
        return _SplitQuery(query)


def _tables(node: object) -> set[str]:
    """The tables that a tree names."""
    if isinstance(node, list):
        return set().union(*map(_tables, node))
    if not isinstance(node, dict):
        return set()
    names = {node["table_name"].lower()} if node.get("type") == "BASE_TABLE" else set()
    return names.union(*map(_tables, node.values()))
