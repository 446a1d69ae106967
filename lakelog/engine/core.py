"""The engine alone, which the package named duckdb wraps: the same classes, and a third of the time
to load, as what builds relations comes with the package."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lakelog.libraries import duckdb
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import _duckdb as core
else:
    core = Lazy("_duckdb")


def connect(config: Mapping[str, str]) -> duckdb.DuckDBPyConnection:
    """Return a fresh in-memory database that can `execute` and give rows, and prints nothing."""
    connection: duckdb.DuckDBPyConnection = core.connect(":memory:", config={**config})
    # Else it prints one to the output of `python -c`, which it takes for a person's. In a notebook
    # without what draws one, it prints none and refuses.
    with contextlib.suppress(core.InvalidInputException):
        connection.execute("SET enable_progress_bar = false")
    return connection


def version() -> str:
    """Return the version of the engine, as the package has it."""
    number: str = core.__version__
    return number
