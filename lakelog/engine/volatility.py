"""Which functions depend on more than their arguments, and which aggregate: a list of our own.

What is stored must be the same at each computation, so it may call only functions of their
arguments. The engine has a flag for that, `stability`, but says with it what its optimizer may do:
DuckDB 2.0.1 calls `+` inconstant, as one of its overloads knows the session's time zone, and 2.0.0
calls the hour of the clock constant. So every function is named in functions.txt, and the flag is
read only of those that a later engine has and this list does not.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from lakelog.engine import core
from lakelog.engine.syntax import Node, nodes
from lakelog.runtime.tables import ModuleFiles


class Volatility(Enum):
    """What the value of a function depends on."""

    IMMUTABLE = "its arguments alone"
    CLOCK = "the time at which it is called"
    SESSION = "the process, its settings and its tables"
    RANDOM = "chance"
    EFFECT = "nothing: it is called for what it does"
    UNKNOWN = "what neither this list nor the engine says"


_COLLATION = re.compile(r"(?:icu_)?collate_\w+")
_WORD = re.compile(r"[a-z]\w*")
_BARE = frozenset(
    "current_catalog current_date current_role current_schema current_time current_timestamp"
    " current_user localtime localtimestamp session_user user".split()
)
"""Functions that SQL calls by their names alone, which the parser takes for columns."""
_VALUES = frozenset(("scalar", "macro", "aggregate", "window"))
"""What gives a value; tables are the affair of who says what a query may read."""

_TABLE_FUNCTIONS = frozenset("unnest range generate_series json_each json_tree".split())
"""Functions that give rows of their arguments alone."""
_FILE_NAME = re.compile(r"[./\\:*]")


def _named() -> Iterator[tuple[str, str]]:
    """Yield each function with the paragraph of functions.txt that it stands in."""
    # No TOML, whose parser nothing else of a first query needs.
    for name in ModuleFiles(__file__).text("functions.txt").split():
        if name.endswith(":"):
            paragraph = name[:-1]
        else:
            yield name, paragraph


_PARAGRAPHS = dict(_named())
AGGREGATES = frozenset(name for name, paragraph in _PARAGRAPHS.items() if paragraph == "aggregate")
_NAMED = {
    name: Volatility.IMMUTABLE if paragraph == "aggregate" else Volatility[paragraph.upper()]
    for name, paragraph in _PARAGRAPHS.items()
}
"""Aggregates are of their arguments alone."""


def volatility(name: str, arguments: int) -> Volatility:
    """Return what a function depends on that is called with so many arguments."""
    name = name.lower()
    if name == "age" and arguments > 1:  # of two times; of one, it is counted from today
        return Volatility.IMMUTABLE
    return _listed(name) or _by_flags(name)


class FunctionCall(NamedTuple):
    """A call of a function: its name in small letters, and what its value depends on."""

    name: str
    volatility: Volatility

    @classmethod
    def of(cls, node: Node) -> FunctionCall | None:
        """Return the call that a node of a tree is, if it is one."""
        if node.get("class") in ("FUNCTION", "WINDOW"):
            name = str(node.get("function_name", "")).lower()
            return cls(name, volatility(name, len(node.get("arguments") or ())))
        if node.get("class") == "COLUMN_REF" and len(node.get("column_names", ())) == 1:
            name = str(node["column_names"][0]).lower()
            return cls(name, _NAMED[name]) if name in _BARE else None
        return None

    @property
    def is_aggregate(self) -> bool:
        """Whether it makes one value of several rows."""
        if _listed(self.name):
            return self.name in AGGREGATES
        return any(function_type == "aggregate" for function_type, _ in _flags().get(self.name, ()))

    @staticmethod
    def foreign_table(node: Node) -> str:
        """Return the function by which a node reads rows that are not of its arguments, or
        nothing."""
        if node.get("type") != "TABLE_FUNCTION":
            return ""
        name = str((node.get("function") or {}).get("function_name", "")).lower()
        return "" if name in _TABLE_FUNCTIONS else name

    @classmethod
    def first_foreign(cls, tree: Node) -> str:
        """Say what a query reads besides a lake, or does; nothing if it does neither."""
        return next(filter(None, map(cls._foreign, nodes(tree))), "")

    @classmethod
    def _foreign(cls, node: Node) -> str:
        if table_function := cls.foreign_table(node):
            return f"{table_function}() reads something else than the lake"
        if node.get("type") == "BASE_TABLE" and _FILE_NAME.search(str(node["table_name"])):
            return f"{node['table_name']!r} is a file, and not of the lake"
        name, volatility_of_call = cls.of(node) or ("", Volatility.IMMUTABLE)
        if volatility_of_call in (Volatility.EFFECT, Volatility.SESSION):
            return f"{name}() says nothing of events: a query here only reads"
        return ""


def unlisted() -> Iterator[str]:
    """Yield the functions of this engine that the list does not name."""
    flags = _flags().items()
    values = (
        name
        for name, flags_of_name in flags
        if any(function_type in _VALUES for function_type, _ in flags_of_name)
    )
    return (name for name in values if not _listed(name))


def _listed(name: str) -> Volatility | None:
    # Operators, and what the engine itself puts into its plans, have names that are no words.
    if not _WORD.fullmatch(name) or _COLLATION.fullmatch(name):
        return Volatility.IMMUTABLE
    return _NAMED.get(name)


def _by_flags(name: str) -> Volatility:
    """What the engine says of a function that is not listed; what it does not know, it refuses."""
    flags = {flag for function_type, flag in _flags().get(name, ()) if function_type in _VALUES}
    return Volatility.IMMUTABLE if flags <= {"CONSISTENT"} else Volatility.UNKNOWN


@functools.cache
def _flags() -> dict[str, set[tuple[str, str | None]]]:
    """What the engine says of each function's overloads: their kind, and their stability.

    It takes longer to list them than to open, so this is asked only for names not listed.
    """
    flags: dict[str, set[tuple[str, str | None]]] = {}
    with core.connect({}) as connection:
        rows = connection.execute(
            "SELECT DISTINCT lower(function_name), function_type, stability FROM duckdb_functions()"
        ).fetchall()
    for name, function_type, stability in rows:
        flags.setdefault(name, set()).add((function_type, stability))
    return flags
