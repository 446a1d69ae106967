"""What SQL of others may say: one SELECT over the tables of the lake, and functions of values.

The engine's own parser takes the text apart; what it says is compared with lists of what is
allowed, so that what is new in a later engine is refused until somebody has looked at it. The
process that runs the SELECT could not do harm either: see `worker`.
"""

from __future__ import annotations

import re
from collections.abc import Container

from lakelog.engine.syntax import Node, SyntaxFault, nodes, parse
from lakelog.engine.volatility import FunctionCall, Volatility
from lakelog.libraries import duckdb
from lakelog.query import TypeTable
from lakelog.server.sql.query_limits import SQL_MAX, QueryRefused

_OF_SESSION = frozenset("version typeof pg_typeof stats vector_type".split())
"""Functions that say something of the process which anybody may know."""
_FILE_NAME = re.compile(r"[./\\:*?~%\[\]]|^$")
_CATALOG_NAME = re.compile(r"(?:duckdb_|sqlite_|pragma_|pg_|lakelog_|information_schema)", re.I)
_ONE = "send one SELECT; params give it values"


def require_readable(
    cursor: duckdb.DuckDBPyConnection, sql: str, tables: Container[str], schemas: Container[str]
) -> None:
    """Refuse SQL that is no SELECT over `tables`, those of `schemas` and those that it makes
    itself; names are in small letters. Raises QueryRefused."""
    # Before parsing, whose time grows with the text.
    if len(sql.encode("utf-8", "replace")) > SQL_MAX:
        raise QueryRefused("too_long", f"the query has more than {SQL_MAX:,} bytes", _ONE)
    try:
        tree = parse(cursor, sql)
    except SyntaxFault as fault:
        # Its own words for what is wrong; a statement of another sort has no tree either.
        raise QueryRefused(
            "not_a_select" if "only SELECT" in str(fault) else "syntax", str(fault), _ONE
        ) from None
    if len(tree["statements"]) != 1:
        raise QueryRefused("not_a_select", f"there are {len(tree['statements'])} statements", _ONE)
    # Every node, wherever it stands: a subquery or a macro's argument is no hiding place.
    for node in nodes(tree):
        fault_text = _table(node, tables, schemas) or _function(node)
        # None of the names that WITH gives may hide what another one means.
        for entry in (node.get("cte_map") or {}).get("map", ()):
            if _is_foreign(str(entry["key"])):
                fault_text = fault_text or f"{entry['key']!r} is no name for a table"
        if fault_text:
            raise QueryRefused(
                "not_allowed", fault_text, "a query reads tables of the lake: events, its views"
            )


def _table(node: Node, tables: Container[str], schemas: Container[str]) -> str:
    """What is wrong with a table that a node names, if it names one."""
    node_type = node.get("type")
    if node_type == "SHOW_REF":
        return "only SELECT can stand here"
    if table_function := FunctionCall.foreign_table(node):
        return f"{table_function}() is not allowed as a table"
    if node_type != "BASE_TABLE":
        return ""
    name, schema = str(node["table_name"]), str(node["schema_name"])
    owner = str(node["catalog_name"]) or schema
    if owner:
        # "v1".types.COMPLETE has the ref where a catalog would stand.
        is_known = owner.lower() in schemas or (
            owner.lower() == TypeTable.SCHEMA and owner == schema
        )
        if not is_known or (node["catalog_name"] and schema.lower() != TypeTable.SCHEMA):
            return f'there is no tag or branch "{owner}"'
        if schema.lower() == TypeTable.SCHEMA:  # types have any name, and are looked up by lakelog
            return ""
    if name.lower() in tables:
        return ""
    # An unknown plain name may be a CTE or an alias; the engine complains about others itself.
    return f"{name!r} is no table of the lake" if _is_foreign(name) else ""


def _is_foreign(name: str) -> bool:
    return bool(_FILE_NAME.search(name) or _CATALOG_NAME.match(name))


def _function(node: Node) -> str:
    """What is wrong with the function that a node calls, if it calls one."""
    name, volatility = FunctionCall.of(node) or ("", Volatility.IMMUTABLE)
    if volatility in (Volatility.EFFECT, Volatility.UNKNOWN):
        return f"{name}() is not allowed"
    if volatility is Volatility.SESSION and name not in _OF_SESSION:
        return f"{name}() says something of the server, not of the events"
    return ""
