"""The SQL engine, opened the way lakelog wants it: in memory, UTC, offline, bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakelog.lazy import Lazy
from lakelog.settings import Settings
from lakelog.store import disk, sql
from lakelog.store.paths import Paths

if TYPE_CHECKING:
    import duckdb
else:
    duckdb = Lazy("duckdb")

SPILL = "spill-"
"""How directories in cache/ begin in which the engine keeps what does not fit in memory; it removes
them when it ends, and gc those of processes that were killed."""
_OFFLINE: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
}


def connect(paths: Paths, settings: Settings) -> duckdb.DuckDBPyConnection:
    """Return a fresh in-memory database; one cursor() of it serves one query."""
    connection = duckdb.connect(":memory:", config=_OFFLINE)
    connection.execute("SET GLOBAL TimeZone = 'UTC'")  # else cursors take the machine's zone
    connection.execute(f"SET memory_limit = '{settings.memory_bytes}B'")
    connection.execute("SET preserve_insertion_order = true")
    # A random name: in two containers on one lake every process may have the same number.
    spill = sql.literal(f"{paths.cache}/{SPILL}{disk.random_hex(8)}")
    connection.execute(f"SET temp_directory = {spill}")
    if settings.threads:
        connection.execute(f"SET threads = {settings.threads}")
    return connection
