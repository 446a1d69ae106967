"""What SQL of a view may say: it is somebody's text, and hostile until checked.

Each section is one SELECT over its one table, with no file, no other table or lake, and nothing
that gives another answer each time; only finish knows the time, as `$now`. The engine's own parser
takes the SQL apart; nothing of it is run here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import orjson

from lakelog.errors import InvalidView
from lakelog.runtime.lazy import Lazy
from lakelog.views import params as parameters
from lakelog.views.definition import TOTALS, Definition, Section

if TYPE_CHECKING:
    import duckdb
else:
    duckdb = Lazy("duckdb")

_TABLE_FUNCTIONS = frozenset("unnest range generate_series json_each json_tree".split())
_TIMES = frozenset(
    "current_timestamp current_date current_time localtime localtimestamp transaction_timestamp"
    " get_current_timestamp now today ago".split()
)
_SESSION = frozenset("current_user session_user user current_role current_schema".split())
_REFUSED = frozenset(
    "getenv getvariable current_setting nextval currval current_query current_database"
    " current_schema current_schemas query query_table read_text read_blob".split()
)


def check(definition: Definition, cursor: duckdb.DuckDBPyConnection) -> None:
    """Refuse a definition that says what it may not. Raises InvalidView: section, line, what."""
    known = {p.name for p in definition.params}
    for section in definition.sections.values():
        tree = _parsed(section, cursor)
        for name in sorted(parameters.used(section.sql) - known):
            _check_name(section, name, definition)
        refused, odd = _functions()
        totals = section.name == "finish" and TOTALS in definition.sections
        for node, others in _nodes(tree, frozenset({TOTALS}) if totals else frozenset()):
            fault = _table(node, section, others) or _function(node, refused, odd)
            if fault:
                raise wrong(section, fault, _line(section, node.get("query_location")))


def wrong(section: Section, fault: str, line: int | None = None) -> InvalidView:
    """An error that says where in the file it is; `line` counts in the section from 1."""
    where = section.line if line is None else section.line + line - 1
    return InvalidView(f"section {section.name}, line {where}: {fault}")


def engine_error(section: Section, words: str) -> InvalidView:
    """The engine's words for a fault that it found in a section's SQL."""
    match = re.search(r"\n\s*LINE (\d+):", words)
    text = " ".join(words.split("\n\nLINE ")[0].split())
    return wrong(section, text, int(match[1]) if match else None)


def _check_name(section: Section, name: str, definition: Definition) -> None:
    at = section.sql.lower().find(f"${name}")
    line = section.sql.count("\n", 0, max(at, 0)) + 1
    if name == parameters.NOW and section.name in ("finish", "query"):
        return
    if name == parameters.NOW:
        raise wrong(section, "$now is known in finish only, so that states stay true", line)
    declared = ", ".join(str(p) for p in definition.params) or "none"
    raise wrong(section, f"${name} is no parameter: declared are {declared}", line)


def _parsed(section: Section, cursor: duckdb.DuckDBPyConnection) -> Any:
    row = cursor.execute("SELECT json_serialize_sql($1)", [section.sql]).fetchall()
    tree = orjson.loads(row[0][0]) if row else {}
    if tree.get("error"):
        position = tree.get("position")
        line = _line(section, int(position)) if position and str(position).isdigit() else None
        words = tree.get("error_message", "the SQL does not parse")
        if "Only SELECT" in words:
            words = "only SELECT can stand here"
        raise wrong(section, words, line)
    if len(tree["statements"]) != 1:
        raise wrong(section, f"one SELECT stands here, not {len(tree['statements'])}")
    return tree


def _table(node: dict[str, Any], section: Section, others: frozenset[str]) -> str:
    """What is wrong with a node that names a table, if it is one."""
    kind = node.get("type")
    if kind == "SHOW_REF":
        return "only SELECT can stand here"
    if kind == "TABLE_FUNCTION":
        name = str((node.get("function") or {}).get("function_name", "")).lower()
        if name not in _TABLE_FUNCTIONS:
            return f"{name}() reads something else: a view reads only {section.relation}"
    if kind != "BASE_TABLE":
        return ""
    name, owner = node["table_name"], node["schema_name"] or node["catalog_name"]
    if owner:
        return f"{owner}.{name} is not of this state: a view reads only {section.relation}"
    if re.search(r"[./\\:*]", name):
        return f"{name!r} is a file: a view reads only {section.relation}"
    if name.lower() == section.relation or name.lower() in others:
        return ""
    return f"{name!r} cannot be read here: section {section.name} reads only {section.relation}"


def _function(node: dict[str, Any], refused: frozenset[str], odd: frozenset[str]) -> str:
    """What is wrong with a node that calls a function, if it is one."""
    name = ""
    if node.get("class") == "FUNCTION" or node.get("class") == "WINDOW":
        name = str(node.get("function_name", "")).lower()
    elif node.get("class") == "COLUMN_REF" and len(node.get("column_names", ())) == 1:
        bare = str(node["column_names"][0]).lower()
        name = bare if bare in _TIMES - {"now", "today", "ago"} or bare in _SESSION else ""
    if name in _TIMES:
        return f"{name} is another time at each reading: finish knows $now"
    if name in refused or name in _SESSION:
        return f"{name}() says something of this process, not of the events"
    return f"{name}() gives another answer each time" if name in odd else ""


@functools.cache
def _functions() -> tuple[frozenset[str], frozenset[str]]:
    """Functions that are refused, and those that the engine says are not constant."""
    with duckdb.connect(":memory:") as own:
        rows = own.execute(
            "SELECT DISTINCT lower(function_name) FROM duckdb_functions()"
            " WHERE stability IN ('VOLATILE', 'CONSISTENT_WITHIN_QUERY')"
        ).fetchall()
    return _REFUSED, frozenset(name for (name,) in rows)


def _nodes(tree: Any, known: frozenset[str]) -> Iterator[tuple[dict[str, Any], frozenset[str]]]:
    """Every node with the names that WITH has given where it stands: those of the queries around
    it and of earlier ones beside it, and its own if it is recursive."""
    for child in tree if isinstance(tree, list) else ():
        yield from _nodes(child, known)
    if isinstance(tree, dict):
        for cte in (tree.get("cte_map") or {}).get("map", ()):
            itself = frozenset({cte["key"].lower()})
            kind = (cte["value"].get("query_node") or {}).get("type")
            recursive = kind == "RECURSIVE_CTE_NODE"
            yield from _nodes(cte["value"], known | itself if recursive else known)
            known |= itself
        yield tree, known
        for name, child in tree.items():
            if name != "cte_map":
                yield from _nodes(child, known)


def _line(section: Section, location: Any) -> int | None:
    """The line of a byte in a section's SQL, from 1."""
    data = section.sql.encode()
    if not isinstance(location, int) or location > len(data):
        return None
    return data.count(b"\n", 0, location) + 1
