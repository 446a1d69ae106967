"""An engine of its own for one export or check: in memory, offline, bounded, able to spill."""

from __future__ import annotations

import os

from lakelog import database, sql
from lakelog.libraries import duckdb
from lakelog.paths import Paths
from lakelog.settings import Settings

MEMORY_BYTES = 500_000_000
"""Most that each of an export's two engines may take; rows beyond it spill."""

CHECK_BYTES, CHECK_THREADS = 300_000_000, 4
"""What the engine of a check may take."""


def connect(
    spill: str = "", memory_bytes: int = MEMORY_BYTES, threads: int = 0
) -> duckdb.DuckDBPyConnection:
    """Return a database that spills below `spill`, nowhere without one, with so many threads, 0 for
    one on each processor."""
    con = database.connect(Paths(spill), Settings(memory_bytes=memory_bytes, threads=threads))
    con.execute(f"SET temp_directory = {sql.literal(spill and spill + '/spill')}")
    return con


def connect_isolated(paths: list[str], spill: str, spill_bytes: int) -> duckdb.DuckDBPyConnection:
    """Return a database that reads those files, spills below `spill`, and can reach nothing else.

    Neither files nor settings can be opened up again by any SQL, nor are extensions loaded.
    """
    con = connect(spill, CHECK_BYTES)
    con.execute(f"SET max_temp_directory_size = '{spill_bytes}B'")
    con.execute(f"SET threads = {min(os.cpu_count() or 1, CHECK_THREADS)}")
    # The exact files, not their directory: the set itself cannot be written to either. The engine
    # asks for the pattern of a path first and then for what it matches.
    allowed = dict.fromkeys([*paths, *map(database.file_pattern, paths)])
    con.execute(f"SET allowed_paths = [{', '.join(map(sql.literal, allowed))}]")
    # Order matters: paths can only be allowed before external access is disabled, and nothing can
    # be changed after the configuration is locked.
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")
    return con


def parquet(paths: list[str], numbered: bool = False) -> str:
    """Return SQL that reads Parquet files in order."""
    return database.parquet_sql(paths, *(("file_row_number = true",) if numbered else ()))
