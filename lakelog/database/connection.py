"""Opening the SQL engine as lakelog needs it: in memory, in UTC, offline, with bounded memory."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from lakelog import protect, sql
from lakelog.database import block_ranges
from lakelog.disk import File, disk
from lakelog.engine import core
from lakelog.keys import VAULT
from lakelog.libraries import duckdb
from lakelog.paths import Paths
from lakelog.runtime.lazy import Lazy
from lakelog.runtime.living import Living
from lakelog.settings import DEFAULTS, Settings

if TYPE_CHECKING:
    from lakelog.database import engine_files
else:
    engine_files = Lazy("lakelog.database.engine_files")

Connect = Callable[[], "duckdb.DuckDBPyConnection"]
"""Returns the database of a session, which is opened when it is first asked for."""
SPILL = "spill-"
"""Prefix of directories in cache/ in which the engine keeps what does not fit in memory; it removes
them when it ends, and gc removes those of processes that were killed."""
_SHARE, _LEAST = 4, 256_000_000
"""A query may take this part of the memory, and at least so many bytes."""
_GROUP_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
"""Where control groups, versions 2 and 1, say what a container may take, in _GROUPS."""
_GROUPS = "/sys/fs/cgroup"
# A query must not reach the network, and must see the tables of the caller that were passed to it,
# not whatever Python variable has the name of a table.
_OFFLINE: dict[str, str] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
}
_STORED: dict[str, str] = {
    # Else the engine (2.0) compresses all tables in memory after each 16 MB of changes, within the
    # statement that met the limit: a tenth of a second and more for a view of a million subjects.
    "checkpoint_threshold": "1TB",
    # Sealing relies on it: rows get their seq in the order in which the query returns them.
    "preserve_insertion_order": "true",
}
_CHANGEABLE = """
    Calendar TimeZone enable_progress_bar enable_progress_bar_print parquet_metadata_cache
    search_path
"""
"""Settings of sessions that lakelog itself changes, also on an isolated database."""
_OPEN: Living[duckdb.DuckDBPyConnection] = Living()
"""The databases of this process that something still refers to, garbage included: a child of a fork
frees none, not even as garbage, which would wait for threads that it does not have, or crash."""


def connect(paths: Paths, settings: Settings) -> duckdb.DuckDBPyConnection:
    """Return a fresh in-memory database; one cursor() of it serves one query."""
    load_relations()
    return connect_engine(paths, settings)


def load_relations() -> None:
    """Load what a connection needs for `sql`, Arrow, and all but `execute` and its rows."""
    duckdb.__version__  # noqa: B018 - the first use loads it


def connect_engine(
    paths: Paths, settings: Settings, sandbox: tuple[str, int] | None = None
) -> duckdb.DuckDBPyConnection:
    """Return the same before `load_relations`: it can `execute` and give rows. `sandbox` is for SQL
    of others: a directory to spill to, and how many bytes."""
    # A random name: in two containers on one lake every process may have the same number.
    spill = f"{paths.cache}/{SPILL}{disk.random_hex(8)}"
    limits = {"memory_limit": f"{settings.memory_bytes or _share_of_memory()}B"}
    if settings.threads:
        limits["threads"] = str(settings.threads)
    # A statement for each would take as long as a short query.
    # The engine cannot encrypt what it writes, so what is sealed on disk is spilled nowhere.
    config = {**_OFFLINE, **_STORED, **limits, "temp_directory": "" if paths.is_sealed else spill}
    connection = core.connect(config)
    _OPEN.add(connection)
    connection.execute("SET GLOBAL TimeZone = 'UTC'")  # else cursors take the machine's zone
    if VAULT.lakes or block_ranges.SHARED:
        connection.register_filesystem(engine_files.EngineFiles())
    if VAULT.lakes:
        # Else it reads whole columns ahead, as from a network, where a few pages are wanted.
        connection.execute("SET GLOBAL disable_parquet_prefetching = true")
    if paths.protection is not None:
        protect.sealed_blocks.install(paths, connection)
    if sandbox is not None:
        _isolate(connection, paths, *sandbox)
    return connection


def _isolate(
    database: duckdb.DuckDBPyConnection, paths: Paths, spill: str, spill_bytes: int
) -> None:
    """Let a database open no other file but segments and what is derived of them, and lock its
    settings. What it may read it may also write (DuckDB 2.0): statements that write are to be
    refused before."""
    folder_list = [f"{paths.root}/segments", paths.cache]
    if VAULT.lakes or block_ranges.SHARED:
        folder_list = [*engine_files.folder_names(), *folder_list]
    spill = "" if paths.keys else spill
    folders = ", ".join(map(sql.literal, folder_list))
    names = ", ".join(map(sql.literal, _CHANGEABLE.split()))
    # In this order: each closes what the next would need.
    for setting in (
        f"temp_directory = {sql.literal(spill)}",
        f"max_temp_directory_size = '{spill_bytes}B'",
        f"allowed_directories = [{folders}]",
        f"allowed_configs = [{names}]",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        database.execute(f"SET {setting}")


@contextlib.contextmanager
def shared_database(paths: Paths) -> Iterator[Connect]:
    """Give what opens a database when it is first called, and returns the same one from then on:
    to open one takes longer than most of what is read by it. It is closed at the end."""
    with contextlib.ExitStack() as stack:
        yield functools.cache(lambda: stack.enter_context(connect(paths, DEFAULTS)))


def segment_cursor(database: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Return a cursor for queries that read no files but segments, whose footers it caches.

    They count towards the memory limit and give way to queries. A file of a user's may be written
    again within the second by which the engine (2.0) tells that it is another.
    """
    cursor = database.cursor()
    cursor.execute("SET SESSION parquet_metadata_cache = true")
    return cursor


@functools.cache
def _share_of_memory() -> int:
    """Return the bytes that a query may take unless the settings say so."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in _GROUP_LIMITS:
        # Without a limit there is no file, or it says `max`; version 1 then says a huge number.
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(File(f"{_GROUPS}/{name}").read()))
    return max(min(limits) // _SHARE, _LEAST)
