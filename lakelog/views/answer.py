"""The last section: an answer from a merged state, remembered as far as time does not matter.

Without `$now` the whole answer stays with the layer. With it, the leading WITH queries of finish
that do not name `$now` do: they are run once for a state and then stand as tables, so what is
asked again and again is only what depends on the time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson

from lakelog.views import params as parameters
from lakelog.views.layers import Builder, Layer, Table, view

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_KEPT_BYTES = 32 << 20
_KEPT = 16


def finish(builder: Builder, layer: Layer, sql: str, now: int) -> pa.Table:
    """Run a finish section, its own parameters already put in, over a layer."""
    if parameters.NOW not in parameters.used(sql):
        return _kept(layer, sql, lambda: _over(builder, layer, sql))
    cursor = builder.cursor()
    try:
        held, tables = layer.pinned()
        view(cursor, "state", held)
        if sql not in layer.kept:
            _remember(layer.kept, sql, _with_kept(builder, cursor, sql))
        asked, kept = layer.kept[sql]
        made = cursor.sql(parameters.filled(asked, (), {}, now)).to_arrow_table()
        del tables, kept
        return made
    finally:
        cursor.close()


def _over(builder: Builder, layer: Layer, sql: str) -> pa.Table:
    cursor = builder.cursor()
    try:
        held, tables = layer.pinned()
        view(cursor, "state", held)
        made = cursor.sql(sql).to_arrow_table()
        del tables
        return made
    finally:
        cursor.close()


def _kept(layer: Layer, sql: str, make: Callable[[], pa.Table]) -> pa.Table:
    found = layer.results.get(sql)
    if found is None:
        found = make()
        if found.nbytes <= _KEPT_BYTES:
            _remember(layer.results, sql, found)
    return found


def _remember(held: dict[str, Any], key: str, value: Any) -> None:
    for old in list(held)[: 1 - _KEPT]:
        held.pop(old, None)
    held[key] = value


def _with_kept(
    builder: Builder, cursor: duckdb.DuckDBPyConnection, sql: str
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
    row = cursor.execute("SELECT json_serialize_sql($1)", [sql]).fetchall()
    found = json.loads(row[0][0]) if row else {}
    return found if not found.get("error") else {}


def _text(cursor: duckdb.DuckDBPyConnection, tree: Any) -> str | None:
    """Return a tree as SQL, or None where the engine cannot write it."""
    import duckdb

    try:
        row = cursor.execute(
            "SELECT json_deserialize_sql($1::JSON)", [orjson.dumps(tree).decode()]
        ).fetchall()
    except (duckdb.Error, orjson.JSONEncodeError):
        return None
    return str(row[0][0]) if row else None


def _tables(node: Any) -> set[str]:
    """The tables that a tree names."""
    if isinstance(node, list):
        return set().union(*map(_tables, node))
    if not isinstance(node, dict):
        return set()
    named = {node["table_name"].lower()} if node.get("type") == "BASE_TABLE" else set()
    return named.union(*map(_tables, node.values()))
