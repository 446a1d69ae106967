"""Statements that ask for the tables of a lake, which the engine does not know before they are
read: SHOW TABLES, SHOW NAME, and MySQL's SHOW COLUMNS FROM NAME, which it cannot parse. They are
told by their text.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from lakelog.sql import literal

_NAME = r'(?:\w+|"[^"]+")'
_NAMES = rf"(?P<name>{_NAME}(?:\.{_NAME})*)"
_COLUMNS = r"show\s+(?:full\s+)?(?:columns|fields)\s+(?:from|in)\s+"
SHOW = re.compile(
    r"(?:\s|--[^\n]*\n)*(?:(?P<all>show\s+tables(?:\s+from\s+main)?|pragma\s+show_tables)"
    rf"|(?:show\s+|{_COLUMNS}){_NAMES})\s*;?\s*",
    re.I,
)
"""One of these statements."""
_EXPLAIN = re.compile(
    r"\s*explain\s+(?:analyze\s+|\((?:analyze|format)[^)]*\)\s*)?(?=(?:from|select|with)\b)", re.I
)
_COLUMNS_OF = re.compile(
    rf"(?P<before>(?:^|;)(?:\s|--[^\n]*\n)*){_COLUMNS}{_NAMES}(?=\s*(?:;|$))", re.I
)
_MADE = """SELECT {0}_name AS name FROM duckdb_{0}s() WHERE NOT internal AND schema_name = 'main'
    AND database_name IN ('memory', 'temp') AND NOT starts_with({0}_name, 'lakelog_')"""


def parsable(script: str) -> str:
    """Return statements with DESCRIBE in the place of each SHOW COLUMNS FROM."""
    return _COLUMNS_OF.sub(lambda match: f"{match['before']}DESCRIBE {match['name']}", script)


def without_explain(query: str, names: Callable[[], list[str]]) -> tuple[str, str]:
    """Return the EXPLAIN before a query, "" where there is none, and the rest; in the place of SHOW
    something that gives the tables of the lake, by `names`, with those that the user made."""
    match = SHOW.fullmatch(query)
    if match and match["all"]:
        rows = ", ".join(f"({literal(name)})" for name in names())
        own_tables = " UNION ".join(_MADE.format(relation) for relation in ("table", "view"))
        return "", f"SELECT name FROM (VALUES {rows}) AS t(name) UNION {own_tables} ORDER BY name"
    if match and ("." in match["name"] or match["name"].strip('"').lower() in names()):
        return "", f"DESCRIBE {match['name']}"
    match = _EXPLAIN.match(query)
    return (match[0], query[match.end() :]) if match else ("", query)
