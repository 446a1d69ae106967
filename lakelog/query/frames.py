"""What a query takes from its caller: values as parameters, data frames as tables.

The engine's own search for variables is off: it would look through all frames up the stack, and
take a variable called `events` for the lake's. Here a name is looked up only once the lake has no
table of it, and only among the variables that the caller itself can see. Parameters are plain
Python for the engine and for the analysis that prunes: scalars, arrays and columns of numpy,
pandas, Polars and Arrow become the values and lists that they stand for, and so do sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import FrameType
from typing import Any

from lakelog.engine.messages import EngineMessage
from lakelog.libraries import duckdb

Scope = Mapping[str, object] | FrameType
"""The caller's variables: those that it gives, or all that its frame can see."""
_PLAIN_METHODS = {
    "numpy": ("item",),
    "pandas": ("tolist",),
    "polars": ("to_list",),
    "pyarrow": ("as_py", "to_pylist"),
}
"""By package, what makes Python's own value of one of its objects."""
_LIBRARIES = ("pandas", "polars", "pyarrow", "lakelog")


def parameters(params: object) -> Any:
    """Return the parameters of a query as a dict or list of plain values."""
    if isinstance(params, Mapping):
        return {name: _plain(value) for name, value in params.items()}
    values = _plain(params)
    return [_plain(value) for value in values] if isinstance(values, (list, tuple)) else values


def _plain(value: Any) -> Any:
    """Return what a value stands for, if the engine would not know its type."""
    type_ = type(value)
    if isinstance(value, (set, frozenset)):
        return [_plain(item) for item in value]
    if type_ in (list, tuple):
        return [_plain(item) for item in value]
    if type_ is dict:
        return {name: _plain(item) for name, item in value.items()}
    library = type_.__module__.partition(".")[0]
    # ndarray and its scalars know better than the engine what they hold.
    if library == "numpy" and type_.__name__ in ("datetime64", "timedelta64", "ndarray"):
        # Of nanoseconds, numpy makes integers.
        if value.dtype.kind in "mM" and value.dtype.name.endswith("[ns]"):
            value = value.astype(value.dtype.str.replace("[ns]", "[us]"))
        if type_.__name__ != "ndarray":
            return value.item()
        return _plain(_with_nulls(value.tolist()) if value.dtype.kind == "O" else value.tolist())
    for method in _PLAIN_METHODS.get(library, ()):
        if hasattr(type_, method):
            plain = getattr(value, method)()
            return _plain(_with_nulls(plain) if library == "pandas" else plain)
    return None if type_.__name__ in ("NAType", "NaTType") else value


def _with_nulls(column: object) -> object:
    """Return what a column of pandas holds with None for NaN, which it has where a value is missing
    and which would be a word in a list of texts."""
    if not isinstance(column, list):
        return column
    return [None if isinstance(v, float) and v != v else v for v in column]


def run(
    cursor: duckdb.DuckDBPyConnection, query: str, params: object, scope: Scope | None
) -> duckdb.DuckDBPyRelation:
    """Run a query with a cursor of its own; names that are no tables are taken from `scope`.

    Raises the engine's errors.
    """
    tried: set[str] = set()
    while True:
        try:
            return cursor.sql(query, params=params) if params else cursor.sql(query)
        except duckdb.CatalogException as error:
            name = EngineMessage(error).missing_table()
            if scope is None or name in ("", *tried):
                raise
            table = _as_table(_variable(scope, name))
            if table is None:
                raise
            tried.add(name)
            cursor.register(name, table)


def _variable(scope: Scope, name: str) -> object:
    """Return the caller's variable of a name, or None."""
    if not isinstance(scope, FrameType):
        return scope.get(name)
    # Locals first, as Python itself looks a name up.
    value = scope.f_locals.get(name)
    return scope.f_globals.get(name) if value is None else value


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
