"""The last section: an answer from a merged state, remembered as far as time does not matter.

Without `$now` the whole answer stays with the layer. With it, the leading WITH queries of finish
that do not name `$now` do: they are run once for a state and then stand as tables, so what is
asked again and again is only what depends on the time.

Totals are added, not computed anew: to those of the layer before, those of the rows that came are
added, and those of the rows that gave way taken away.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakelog.engine.syntax import SyntaxFault, parse, sql_of
from lakelog.runtime.lazy import Lazy
from lakelog.segments.sql import identifier
from lakelog.views import params as parameters
from lakelog.views.definition import TOTALS, Definition
from lakelog.views.layers import Change, Layer, LayerBuilder, Table, given, named, view

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
else:
    duckdb = Lazy("duckdb")

_KEPT_BYTES = 32 << 20
_KEPT = 16
_STATE = re.compile(r"\bstate\b", re.IGNORECASE)
_PLAIN = re.compile(r"\s*(select|from)\b", re.IGNORECASE)


@dataclass(frozen=True)
class FinalQuery:
    """The last sections of a view, their own parameters put in; `totals` may be empty."""

    finish: str
    totals: str = ""
    by: tuple[str, ...] = ()


def asked(definition: Definition, values: parameters.Values) -> FinalQuery:
    """Return what a view asks of its state."""
    totals = definition.filled(TOTALS, values) if TOTALS in definition.sections else ""
    return FinalQuery(definition.filled("finish", values), totals, definition.by)


def finish(builder: LayerBuilder, layer: Layer, asked: FinalQuery, now: int) -> pa.Table:
    """Answer from a layer."""
    if parameters.NOW not in parameters.used(asked.finish):
        return _kept(layer, asked, lambda: _over(builder, layer, asked))
    cursor = builder.cursor()
    try:
        relations, tables = _given(builder, cursor, layer, asked)
        for name, query in relations.items():
            view(cursor, name, query)
        stored = layer.kept.get(asked)
        if stored is None:
            stored = _with_kept(builder, cursor, asked.finish)
            _remember(layer.kept, asked, stored)
        sql, kept = stored
        made = cursor.sql(parameters.filled(sql, (), {}, now)).to_arrow_table()
        del tables, kept
        return made
    finally:
        cursor.close()


def _over(builder: LayerBuilder, layer: Layer, asked: FinalQuery) -> pa.Table:
    cursor = builder.cursor()
    try:
        relations, tables = _given(builder, cursor, layer, asked)
        made = cursor.sql(_reading(cursor, asked.finish, relations)).to_arrow_table()
        del tables
        return made
    finally:
        cursor.close()


def _given(
    builder: LayerBuilder, cursor: duckdb.DuckDBPyConnection, layer: Layer, asked: FinalQuery
) -> tuple[dict[str, str], object]:
    """Return the relations that finish may read, and what to keep meanwhile."""
    relations: dict[str, str] = {}
    kept: list[object] = []
    if not asked.totals or _STATE.search(asked.finish):
        relations["state"], tables = builder.pinned(cursor, layer)
        kept.append(tables)
    if asked.totals:
        sums, _ = _sums(builder, cursor, layer, asked)
        relations[TOTALS] = f"FROM {sums.name}"
        kept.append(sums)
    return relations, kept


def _reading(cursor: duckdb.DuckDBPyConnection, query: str, relations: dict[str, str]) -> str:
    """Return a query that reads relations by their names: those of a WITH before it, or if it may
    have one itself, views, each of which takes as long as a short statement."""
    if _PLAIN.match(query):
        return f"WITH {named(relations)} {query}"
    for name, text in relations.items():
        view(cursor, name, text)
    return query


def _sums(
    builder: LayerBuilder, cursor: duckdb.DuckDBPyConnection, layer: Layer, asked: FinalQuery
) -> tuple[Table, dict[str, str]]:
    """The totals of a layer, computed once: from those of the layer before it if there is one."""
    known = layer.sums.get(asked.totals)
    if known is not None:
        return known
    change = layer.change
    if change is None:
        held, tables = builder.pinned(cursor, layer)
        table = builder.table(cursor, given(asked.totals, state=held))
        del tables
        empty = cursor.sql(f"FROM {table.name} LIMIT 0")
        columns = dict(zip(empty.columns, map(str, empty.types), strict=True))
    else:
        before, columns = _sums(builder, cursor, change.layer, asked)
        table = builder.table(cursor, _changed(layer, asked, change, before, columns))
        change.layer.change = None  # it has its totals, so what was before it need not stay
    _remember(layer.sums, asked.totals, (table, columns))
    return table, columns


def _changed(
    layer: Layer, asked: FinalQuery, change: Change, before: Table, columns: dict[str, str]
) -> str:
    """SQL for the totals after a change."""
    by = "".join(f"{identifier(name)}, " for name in asked.by)
    amounts = [identifier(name) for name in columns if name not in asked.by]
    plus, minus = ", ".join(amounts), ", ".join(f"-{name} AS {name}" for name in amounts)
    parts = [
        f"SELECT {by}{plus} FROM {before.name}",
        f"SELECT {by}{plus} FROM {_totals(layer, asked, change.come)}",
    ]
    if change.gone is not None:
        parts.append(f"SELECT {by}{minus} FROM {_totals(layer, asked, change.gone)}")
    added = ", ".join(
        f"coalesce(sum({identifier(n)}), 0)::{kind} AS {identifier(n)}"
        for n, kind in columns.items()
        if n not in asked.by
    )
    # A group whose rows are all gone sums up to zero, and has to vanish.
    some = f" HAVING {' OR '.join(f'sum({name}) <> 0' for name in amounts)}" if by else ""
    return f"SELECT {by}{added} FROM ({' UNION ALL '.join(parts)}) GROUP BY ALL{some}"


def _totals(layer: Layer, asked: FinalQuery, table: Table) -> str:
    """SQL for the totals of the rows of one table."""
    return given(asked.totals, state=f"SELECT {layer.shape.listed} FROM {table.name}")


def _kept(layer: Layer, asked: FinalQuery, make: Callable[[], pa.Table]) -> pa.Table:
    result = layer.results.get(asked)
    if result is None:
        result = make()
        if result.nbytes <= _KEPT_BYTES:
            _remember(layer.results, asked, result)
    return result


def _remember(cache: dict[Any, Any], key: Any, value: Any) -> None:
    for old in list(cache)[: 1 - _KEPT]:
        cache.pop(old, None)
    cache[key] = value


def _with_kept(
    builder: LayerBuilder, cursor: duckdb.DuckDBPyConnection, sql: str
) -> tuple[str, list[Table]]:
    """Run the WITH queries free of `$now`; return SQL that reads their tables, and these."""
    tree = _tree(cursor, sql)
    statement = tree["statements"][0] if tree else {"node": {}}
    queries = (statement["node"].get("cte_map") or {}).get("map", [])
    tables: list[Table] = []
    before: set[str] = set()
    for cte in queries:
        query = cte["value"]["query_node"]
        text = _text(cursor, {**tree, "statements": [{**statement, "node": query}]})
        if text and parameters.NOW not in parameters.used(text) and not before & _tables(query):
            table = builder.table(cursor, text)
            tables.append(table)
            read = _tree(cursor, f"SELECT * FROM {table.name}")
            cte["value"]["query_node"] = read["statements"][0]["node"]
        before.add(cte["key"].lower())
    return (_text(cursor, tree) or sql) if tables else sql, tables


def _tree(cursor: duckdb.DuckDBPyConnection, sql: str) -> Any:
    try:
        return parse(cursor, sql)
    except SyntaxFault:
        return {}


def _text(cursor: duckdb.DuckDBPyConnection, tree: Any) -> str | None:
    """Return a tree as SQL, or None where the engine cannot write it."""
    try:
        return sql_of(cursor, tree)
    except SyntaxFault:
        return None


def _tables(node: Any) -> set[str]:
    """The tables that a tree names."""
    if isinstance(node, list):
        return set().union(*map(_tables, node))
    if not isinstance(node, dict):
        return set()
    named = {node["table_name"].lower()} if node.get("type") == "BASE_TABLE" else set()
    return named.union(*map(_tables, node.values()))
