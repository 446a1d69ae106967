"""What a client may ask of each event: a condition of SQL, or a search, over its columns alone.

It is somebody's text: what a query may say, a condition may, but for a query inside it.
"""

from __future__ import annotations

from typing import Any

from lakelog.engine.syntax import parse
from lakelog.errors import QueryFailed
from lakelog.query.sql.tree import nodes
from lakelog.search import expanded
from lakelog.segments.sql import literal
from lakelog.server.sql.query_limits import QueryRefused
from lakelog.server.sql.statement_guard import require_readable

LENGTH_MAX = 8_192
_TABLES = frozenset(("events",))
_CLAUSES = ("modifiers", "group_expressions", "having", "qualify", "sample")


def condition_of(where: str, query: str) -> str | None:
    """Return SQL for `where`, a condition, and `query`, a search; None where both are empty.

    Raises QueryFailed for a search that cannot be read.
    """
    if len(where) + len(query) > LENGTH_MAX:
        raise QueryFailed(f"the condition has more than {LENGTH_MAX:,} characters")
    conditions = [where] if where.strip() else []
    if query.strip():
        conditions.append(f"search({literal(query)})")
    return expanded(" AND ".join(f"(\n{each}\n)" for each in conditions)) or None


def check_condition(cursor: Any, condition: str) -> None:
    """Refuse a condition that looks at more than one event. Raises QueryFailed."""
    query = f"SELECT * FROM events WHERE (\n{condition}\n)"
    try:
        require_readable(cursor, query, _TABLES, frozenset())
    except QueryRefused as refusal:
        raise QueryFailed(str(refusal)) from None
    node = parse(cursor, query)["statements"][0]["node"]
    if node.get("type") != "SELECT_NODE" or any(node.get(clause) for clause in _CLAUSES):
        raise QueryFailed("a condition is one expression over the columns of an event")
    if any(child.get("class") in ("SUBQUERY", "WINDOW") for child in nodes(node["where_clause"])):
        raise QueryFailed("a condition looks at one event: it has no query inside")
