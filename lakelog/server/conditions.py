"""What a client may ask of each event: a condition of SQL, or a search, over its columns alone.

It is somebody's text, and is tried by the server itself, for each event: it may read what an event
has and compare it, and nothing of it may take much more memory or time than the event is long.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lakelog.engine.syntax import Node, nodes, parse
from lakelog.errors import QueryFailed
from lakelog.search import expanded
from lakelog.server.sql.query_limits import QueryRefused
from lakelog.server.sql.statement_guard import require_readable
from lakelog.sql import literal

LENGTH_MAX = 8_192
_TABLES = frozenset(("events",))
_CLAUSES = ("modifiers", "group_expressions", "having", "qualify", "sample")


_SMALL = frozenset(
    """
    ~~ !~~ ~~* !~~* ~~~ like_escape not_like_escape ilike_escape not_ilike_escape search
    regexp_matches regexp_full_match contains starts_with ends_with prefix suffix
    lower upper lcase ucase trim ltrim rtrim left right substr substring length len strlen
    char_length character_length position instr strpos ascii unicode regexp_extract hash md5
    -> ->> json_extract json_extract_string json_extract_path json_extract_path_text json_exists
    json_type json_valid json_array_length json_contains json_value
    + - * / // % ** ^ & | abs ceil ceiling floor round trunc sqrt ln log log2 log10 exp pow power
    sign mod greatest least isnan isinf isfinite
    now current_timestamp get_current_timestamp today current_date age date_part datepart date_trunc
    datetrunc date_diff datediff year month day hour minute second dayofweek isodow dayofyear week
    quarter epoch epoch_ms epoch_us timezone strftime strptime try_strptime time_bucket
    to_years to_months to_weeks to_days to_hours to_minutes to_seconds to_milliseconds
    to_microseconds coalesce ifnull nullif typeof
    """.split()
)
"""Functions whose value is about as large as what they are given, in as much time."""
# `data->'$.n'` reads as a lambda, which no function of `_SMALL` takes.
_CLASSES = frozenset(
    "BETWEEN CASE CAST COLUMN_REF COMPARISON CONJUNCTION CONSTANT FUNCTION LAMBDA OPERATOR"
    " TYPE".split()
)


@dataclass(frozen=True)
class TailCondition:
    """A condition as SQL, None for all events; `user_sql` is what somebody wrote of it."""

    sql: str | None = None
    user_sql: str = ""


def condition_of(where: str, query: str) -> TailCondition:
    """Return that for `where`, a condition, and `query`, a search; either may be empty.

    Raises QueryFailed for a search that cannot be read.
    """
    if len(where) + len(query) > LENGTH_MAX:
        raise QueryFailed(f"the condition has more than {LENGTH_MAX:,} characters")
    conditions = [where] if where.strip() else []
    if query.strip():
        conditions.append(f"search({literal(query)})")
    sql = expanded(" AND ".join(f"(\n{each}\n)" for each in conditions))
    return TailCondition(sql or None, where.strip())


def check_condition(cursor: Any, condition: TailCondition) -> None:
    """Refuse a condition that looks at more than one event, or may take too much of the server.
    Raises QueryFailed."""
    if condition.sql is None:
        return
    query = _selection(condition.sql)
    try:
        require_readable(cursor, query, _TABLES, frozenset())
    except QueryRefused as refusal:
        raise QueryFailed(str(refusal)) from None
    node = parse(cursor, query)["statements"][0]["node"]
    if node.get("type") != "SELECT_NODE" or any(node.get(clause) for clause in _CLAUSES):
        raise QueryFailed("a condition is one expression over the columns of an event")
    if any(child.get("class") in ("SUBQUERY", "WINDOW") for child in nodes(node["where_clause"])):
        raise QueryFailed("a condition looks at one event: it has no query inside")
    if condition.user_sql:
        # As it was written: what a search becomes is ours, and calls more.
        for fault in _faults(parse(cursor, _selection(condition.user_sql))):
            raise QueryFailed(f"a condition of a live tail {fault}")


def _selection(condition: str) -> str:
    # On lines of their own: a comment that a condition ends with must not hide the parenthesis.
    return f"SELECT * FROM events WHERE (\n{condition}\n)"


def _faults(tree: Node) -> Iterator[str]:
    """Yield what may take too much."""
    for node in nodes(tree["statements"][0]["node"]["where_clause"]):
        node_class = node.get("class")
        if node_class == "FUNCTION" and (name := str(node["function_name"]).lower()) not in _SMALL:
            yield f"cannot call {name}(): compare, cut and convert what an event has"
        elif node_class == "TYPE" and any(e.get("class") == "TYPE" for e in node["children"]):
            yield "has no types of many values"
        elif node.get("type") == "ARRAY_CONSTRUCTOR" or node_class not in (None, *_CLASSES):
            yield "has no lists, parameters and columns by pattern"
