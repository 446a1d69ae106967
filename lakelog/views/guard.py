"""What SQL of a view may say: it is somebody's text, and hostile until checked.

Each section is one SELECT over its one table, with no file, no other table or lake, and nothing
that gives another answer each time; only finish knows the time, as `$now`. The engine's own parser
takes the SQL apart; nothing of it is run here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lakelog.engine.messages import EngineMessage
from lakelog.engine.syntax import Node, SyntaxFault, parse
from lakelog.engine.volatility import FunctionCall, Volatility
from lakelog.errors import InvalidView
from lakelog.libraries import duckdb
from lakelog.views import params as parameters
from lakelog.views.definition import TOTALS, Section, ViewDefinition

_REASONS = {
    Volatility.CLOCK: "{} is another time at each reading: finish knows $now",
    Volatility.SESSION: "{}() says something of this process, not of the events",
    Volatility.RANDOM: "{}() gives another answer each time",
    Volatility.EFFECT: "{}() is called for what it does: a view only reads",
    Volatility.UNKNOWN: "{}() is new to lakelog, and the engine does not say that it gives the"
    " same answer each time",
}


def check(definition: ViewDefinition, cursor: duckdb.DuckDBPyConnection) -> None:
    """Refuse a definition that says what it may not. Raises InvalidView: section, line, what."""
    param_names = {p.name for p in definition.params}
    for section in definition.sections.values():
        tree = _parsed(section, cursor)
        # Sorted, so that the same definition has the same fault each time.
        for name in sorted(parameters.used(section.sql) - param_names):
            _check_name(section, name, definition)
        totals = section.name == "finish" and TOTALS in definition.sections
        for node, relations in _nodes(tree, frozenset({TOTALS}) if totals else frozenset()):
            fault = _table(node, section, relations) or _function(node)
            if fault:
                raise wrong(section, fault, _line(section, node.get("query_location")))


def wrong(section: Section, fault: str, line: int | None = None) -> InvalidView:
    """An error that says where in the file it is; `line` counts in the section from 1."""
    file_line = section.line if line is None else section.line + line - 1
    return InvalidView(f"section {section.name}, line {file_line}: {fault}")


def engine_error(section: Section, message: str) -> InvalidView:
    """The engine's words for a fault that it found in a section's SQL, with the hint that fits a
    lake where that reads events."""
    words = EngineMessage(message)
    reads_events = section.relation in ("events", "segment")
    fault = words.explained() if reads_events else words.gist()
    return wrong(section, fault, words.line_of())


def _check_name(section: Section, name: str, definition: ViewDefinition) -> None:
    place = section.sql.lower().find(f"${name}")
    line = section.sql.count("\n", 0, max(place, 0)) + 1
    if name == parameters.NOW and section.name in ("finish", "query"):
        return
    if name == parameters.NOW:
        raise wrong(section, "$now is known in finish only, so that states stay true", line)
    declared = ", ".join(str(p) for p in definition.params) or "none"
    raise wrong(section, f"${name} is no parameter: declared are {declared}", line)


def _parsed(section: Section, cursor: duckdb.DuckDBPyConnection) -> Node:
    try:
        tree = parse(cursor, section.sql)
    except SyntaxFault as fault:
        raise wrong(section, str(fault), _line(section, fault.position)) from None
    if len(tree["statements"]) != 1:
        raise wrong(section, f"one SELECT stands here, not {len(tree['statements'])}")
    return tree


def _table(node: Node, section: Section, relations: frozenset[str]) -> str:
    """What is wrong with a node that names a table, if it is one."""
    node_type = node.get("type")
    if node_type == "SHOW_REF":
        return "only SELECT can stand here"
    if table_function := FunctionCall.foreign_table(node):
        return f"{table_function}() reads something else: a view reads only {section.relation}"
    if node_type != "BASE_TABLE":
        return ""
    name, owner = node["table_name"], node["schema_name"] or node["catalog_name"]
    if owner:
        return f"{owner}.{name} is not of this state: a view reads only {section.relation}"
    # The engine would read it as one, `'x.csv'` as well as `"x.csv"`.
    if re.search(r"[./\\:*]", name):
        return f"{name!r} is a file: a view reads only {section.relation}"
    if name.lower() == section.relation or name.lower() in relations:
        return ""
    return f"{name!r} cannot be read here: section {section.name} reads only {section.relation}"


def _function(node: Node) -> str:
    """What is wrong with a node that calls a function, if it is one."""
    name, volatility = FunctionCall.of(node) or ("", Volatility.IMMUTABLE)
    return _REASONS.get(volatility, "").format(name)


def _nodes(tree: object, names: frozenset[str]) -> Iterator[tuple[Node, frozenset[str]]]:
    """Every node with the names that WITH has given where it stands: those of the queries around
    it and of earlier ones beside it, and its own if it is recursive."""
    for child in tree if isinstance(tree, list) else ():
        yield from _nodes(child, names)
    if isinstance(tree, dict):
        for cte in (tree.get("cte_map") or {}).get("map", ()):
            # A query of WITH sees those before it; only a recursive one sees itself.
            itself = frozenset({cte["key"].lower()})
            node_type = (cte["value"].get("query_node") or {}).get("type")
            recursive = node_type == "RECURSIVE_CTE_NODE"
            yield from _nodes(cte["value"], names | itself if recursive else names)
            names |= itself
        yield tree, names
        for name, child in tree.items():
            if name != "cte_map":
                yield from _nodes(child, names)


def _line(section: Section, location: object) -> int | None:
    """The line of a byte in a section's SQL, from 1."""
    # The engine counts bytes of UTF-8.
    data = section.sql.encode()
    if not isinstance(location, int) or location > len(data):
        return None
    return data.count(b"\n", 0, location) + 1
