"""Data frames and Arrow tables of the caller as tables of a query.

The engine's own search for variables is off: it would look through all frames up the stack, and
take a variable called `events` for the lake's. Here a name is looked up only once the lake has no
table of it, and only among the variables that the caller itself can see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from lakelog.engine import messages
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import duckdb
else:
    duckdb = Lazy("duckdb")


Scope = Callable[[str], Any]
"""Returns the caller's variable of a name, or None."""
_LIBRARIES = ("pandas", "polars", "pyarrow", "lakelog")


def scope_of(frame: FrameType) -> Scope:
    """Return a lookup among the local and global variables of a frame."""

    def look(name: str) -> Any:
        found = frame.f_locals.get(name)
        return frame.f_globals.get(name) if found is None else found

    return look


def among(variables: Mapping[str, Any] | None, frame: FrameType) -> Scope:
    """Return a lookup among given variables, or without them among those of a frame."""
    return scope_of(frame) if variables is None else variables.get


def run(cursor: Any, query: str, params: Any, scope: Scope | None) -> Any:
    """Run a query with a cursor of its own; names that are no tables are taken from `scope`.

    Raises the engine's errors.
    """
    tried: set[str] = set()
    while True:
        try:
            return cursor.sql(query, params=params) if params else cursor.sql(query)
        except duckdb.CatalogException as error:
            name = messages.missing_table(str(error))
            table = None if scope is None or name in ("", *tried) else _as_table(scope(name))
            if table is None:
                raise
            tried.add(name)
            cursor.register(name, table)


def _as_table(value: Any) -> Any:
    """What the engine can read of a frame, an answer or a stream, or None for anything else."""
    if type(value).__module__.partition(".")[0] not in _LIBRARIES:
        return None
    if type(value).__name__ == "LazyFrame":
        value = value.collect()
    if type(value).__name__ == "Relation":
        # Whole: its stream could be read once, and by a cursor that the query does not know of.
        value = value.to_arrow_table()
    readable = hasattr(value, "__arrow_c_stream__") or type(value).__name__ == "DataFrame"
    return value if readable or type(value).__name__.endswith("Dataset") else None
