"""The engine alone, which the package named duckdb wraps: the same classes, and a third of the time
to load, as what builds relations comes with the package."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lakelog.libraries import duckdb
from lakelog.runtime import forks
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


def _after_fork() -> None:
    """Open the locks of libstdc++ that guard atomic shared pointers, whichever they are: a thread
    that only the parent has may have been behind one, and the engine would wait for it. What it
    was about to change is the parent's, and not touched here.

    They are 16, and an object of `std::_Sp_locker`, two bytes, has the numbers of those that it
    holds; both are part of the library's ABI. Other libraries have no such locks.
    """
    if "_duckdb" not in sys.modules:
        return
    import ctypes  # here: only the child of a fork needs it

    with contextlib.suppress(OSError, AttributeError):
        end_of_locker = ctypes.CDLL("libstdc++.so.6")._ZNSt10_Sp_lockerD1Ev
        end_of_locker.restype = None
        for number in range(16):
            end_of_locker(ctypes.create_string_buffer(bytes((number, number)), 2))


forks.after_in_child(_after_fork)
