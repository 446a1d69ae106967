"""Settings of the engine: which are of the process, and which belong to one session alone.

Most settings say how the engine works. Others change what a query means: the zone of times, whether
'a' equals 'A', where NULLs come. Set for all sessions, as the engine (2.0) takes even a plain
`SET default_collation`, these would change the views that are stored, the order in which rows are
sealed, and what other threads are answered. So they are set for the session that asks, or refused;
and whoever chooses segments for a query asks its session which of them it has changed.
"""

from __future__ import annotations

import re

from lakelog.engine.syntax import ParsedStatement
from lakelog.errors import QueryFailed
from lakelog.libraries import duckdb
from lakelog.runtime.tables import ModuleFiles

OF_PROCESS = frozenset(ModuleFiles(__file__).text("process_settings.txt").split())
"""What may be set for all sessions: no answer depends on it."""
_DECIDING = ("TimeZone", "Calendar", "default_collation")
"""Settings of a session that decide which rows a comparison holds for: the first two say which time
a text or a day is."""
_USUAL = ("UTC", "gregorian", "")
OF_SESSION = frozenset(ModuleFiles(__file__).text("session_settings.txt").split())
"""What is set for one session, as is any setting that is not of the process."""
_GAP = r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)"
_SET = re.compile(
    rf"{_GAP}*(?P<verb>set|reset|pragma){_GAP}+(?:(?P<scope>session|local|global){_GAP}+)?"
    rf'(?P<name>"[^"]+"|\w+)',
    re.I | re.S,
)
_OWN = frozenset(("variable", "time", "schema"))
"""What stands behind SET where no scope can, or need not: SET VARIABLE x, SET TIME ZONE."""
_USE = re.compile(rf"{_GAP}*use\b", re.I | re.S)
_CURRENT = "SELECT " + ", ".join(f"current_setting('{name}')" for name in _DECIDING)


def for_session(connection: duckdb.DuckDBPyConnection, query: str) -> str:
    """Return the SQL of statements that set for their own session what may change an answer.

    Raises QueryFailed for SET GLOBAL of such a setting, and the engine's error for a syntax error.
    """
    parsed = ParsedStatement.list_of(connection, query)
    if not any(statement.kind == "SET" for statement in parsed):
        return query
    queries = [
        _for_session(statement) if statement.kind == "SET" else statement.sql
        for statement in parsed
    ]
    if queries == [statement.sql for statement in parsed]:
        return query
    return ";\n".join(query_sql.rstrip(" ;") for query_sql in queries)


def require_effect(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Raise QueryFailed for a text without rows that does nothing: it is empty, or ends by setting
    something of its session, which ends with it."""
    parsed = ParsedStatement.list_of(connection, query)
    if not parsed:
        raise QueryFailed('the query is empty: ask something such as "FROM events"')
    match = _SET.match(parsed[-1].sql) if parsed[-1].kind == "SET" else None
    if match and _name(match) not in OF_PROCESS:
        raise QueryFailed(
            "each query has a session of its own, and a setting ends with it: write the query in"
            f" the same text, {parsed[-1].sql.rstrip(' ;')}; SELECT ..."
        )


def adopt_zone(fresh: duckdb.DuckDBPyConnection, session: duckdb.DuckDBPyConnection) -> bool:
    """Give a fresh cursor the time zone and calendar of a session; return whether a comparison then
    holds for the same rows on both."""
    try:
        current = session.execute(_CURRENT).fetchall()[0]
    except duckdb.Error:  # in a transaction that an error has ended
        return False
    for name, value, usual in zip(_DECIDING[:2], current, _USUAL, strict=False):
        if value != usual:
            fresh.execute(f"SET SESSION {name} = $${value}$$")
    return bool(current[2:] == _USUAL[2:])


def _for_session(parsed: ParsedStatement) -> str:
    """Return the SQL of a statement that sets something, for its session if it is of one."""
    sql, match = parsed.sql, _SET.match(parsed.sql)
    if match is None and _USE.match(sql):
        return sql
    if match is None:
        raise QueryFailed("write a setting without comments: `SET SESSION name = value`")
    name, scope = _name(match), (match["scope"] or "").lower()
    if name in OF_PROCESS:
        return sql
    if scope == "global":
        raise QueryFailed(
            f"{match['name']} would change what others ask and the views that are stored: set it"
            f" for one session, `SET SESSION {match['name']} = ...`, in the shell or before a query"
        )
    if scope or name in _OWN:
        return sql
    start, stop = match.span("verb")
    verb = "SET" if match["verb"].lower() == "pragma" else match["verb"]
    return f"{sql[:start]}{verb} SESSION{sql[stop:]}"


def _name(match: re.Match[str]) -> str:
    return match["name"].strip('"').lower()
