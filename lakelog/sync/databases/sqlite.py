"""SQLite as a target: `sqlite:PATH`. Times are text that SQLite's own functions read.

With the ADBC driver (extra `sqlite`) rows go in as Arrow, four times as fast as by the module
`sqlite3`, which serves where the driver is not installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import sqlite3
from collections.abc import Iterator
from typing import Any, ClassVar

from lakelog.clients.connection import ConnectionLost
from lakelog.errors import LakelogError, SyncRefused
from lakelog.libraries import pa
from lakelog.runtime.lazy import Lazy
from lakelog.segments import sql
from lakelog.sync.column_types import TypeNames
from lakelog.sync.databases.adbc import AdbcConnection
from lakelog.sync.databases.sql_target import SqlTarget
from lakelog.sync.target import KEY, RowRefused, TargetColumn, path_of

driver = Lazy("adbc_driver_sqlite")
_LOCKED = ("database is locked", "database table is locked", "database schema is locked")
_OF_ROW = "(?i)constraint failed|datatype mismatch|string or blob too big"
_PAGE = 32_768
"""The page size of a new file: rows of events are longer than those it is usually made for."""
_MILLISECONDS = 5_000
"""How long a statement waits for a lock."""


class _PlainConnection(sqlite3.Connection):
    """What AdbcConnection is where the driver is not installed."""

    def fetch(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement; return its rows."""
        return list(self.execute(statement).fetchall())


class SqliteTarget(SqlTarget):
    """A database file of SQLite."""

    BEGIN = "BEGIN IMMEDIATE"
    type_names = TypeNames(
        dict.fromkeys(("text", "json", "numeric", "timestamptz", "timestamp", "date"), "TEXT")
        | dict.fromkeys(("smallint", "integer", "bigint", "boolean"), "INTEGER")
        | {"double": "REAL"},
        has_arguments=False,
    )
    TYPES: ClassVar[dict[str, str]] = dict.fromkeys(
        ("text", "timestamptz", "timestamp", "date", "numeric"), "TEXT"
    ) | {"bigint": "INTEGER", "boolean": "INTEGER", "double": "REAL", "blob": "BLOB"}
    ACCEPTED: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(
        ("text", "timestamptz", "timestamp", "date", "numeric"), ("",)
    ) | {"bigint": ("",), "boolean": ("",), "double": ("",), "blob": ("blob", "")}

    def __init__(self, url: str, use_adbc: bool | None = None) -> None:
        """Take the target of a URL; `use_adbc` is whether the driver is there, by default."""
        super().__init__()
        self._path = path_of(url, "sqlite")
        self.address = f"sqlite:{self._path}"
        has_driver = importlib.util.find_spec("adbc_driver_sqlite") is not None
        self._adbc = has_driver if use_adbc is None else use_adbc

    def value_sql(self, column: TargetColumn) -> str:
        """Times and numbers that SQLite has no type for, as text."""
        name = sql.identifier(column.name)
        if column.kind in ("timestamptz", "timestamp"):
            return f"strftime({name}, '%Y-%m-%d %H:%M:%S.%f')"
        if column.kind in ("date", "numeric"):
            return f"{name}::VARCHAR"
        return f"{name}::BIGINT" if column.kind == "boolean" else super().value_sql(column)

    def mismatch(self, column: TargetColumn, declared: str) -> str:
        """By SQLite's rules of affinity, from the declared type."""
        expected = self._type(column)
        return "" if _affinity(declared) in (_affinity(expected), "BLOB") else expected

    def exists(self) -> bool:
        """Whether the file is there."""
        return os.path.exists(self._path)

    def _open(self) -> Any:
        if self._adbc:
            self._connection = AdbcConnection(driver.connect(self._path))
        else:
            options: Any = {"isolation_level": None, "factory": _PlainConnection}
            self._connection = sqlite3.connect(self._path, **options)
        self._fetch(f"PRAGMA busy_timeout = {_MILLISECONDS}")
        self._fetch(f"PRAGMA page_size = {_PAGE}")
        return self._connection

    def _insert(self, table: str, rows: pa.Table, ending: str) -> None:
        names = ", ".join(map(sql.identifier, rows.column_names))
        marks = ", ".join("?" * rows.num_columns)
        # SQLite reads ON CONFLICT after VALUES as it is; after SELECT it would be ambiguous.
        self._many(f"INSERT INTO {self._name(table)} ({names}) VALUES ({marks}){ending}", rows)

    def _delete(self, table: str, keys: pa.Table) -> int:
        before = self._fetch(f"SELECT count(*) FROM {self._name(table)}")[0][0]
        self._many(f"DELETE FROM {self._name(table)} WHERE {KEY} = ?", keys)
        return int(before - self._fetch(f"SELECT count(*) FROM {self._name(table)}")[0][0])

    def _rows(self, statement: str) -> Iterator[list[tuple[Any, ...]]]:
        # By the module: the driver takes the types of all rows from the first ones.
        with contextlib.closing(sqlite3.connect(self._path)) as connection:
            cursor = connection.execute(statement)
            while rows := cursor.fetchmany(self.write_rows):
                yield rows

    def _many(self, statement: str, rows: pa.Table) -> None:
        if self._adbc:
            self._connection.execute_many(statement, rows)
        else:
            columns = (column.to_pylist() for column in rows.columns)
            self._connection.executemany(statement, zip(*columns, strict=True))

    def _columns(self, table: str) -> tuple[dict[str, str], bool]:
        rows = self._fetch(f"PRAGMA table_info({sql.identifier(table)})")
        keys = [row[1] for row in rows if row[5]]
        return {row[1]: row[2] for row in rows}, keys == [KEY] or self._is_indexed(table)

    def _is_indexed(self, table: str) -> bool:
        """Whether there is a unique index of KEY alone."""
        for row in self._fetch(f"PRAGMA index_list({sql.identifier(table)})"):
            if row[2]:
                indexed = self._fetch(f"PRAGMA index_info({sql.identifier(row[1])})")
                if [name for _, _, name in indexed] == [KEY]:
                    return True
        return False

    def _explained(self, error: Exception, table: str) -> LakelogError:
        reason = str(error).split("\n")[0]
        for mark in ("Failed to reset statement: ", "Failed to step query: ", "INTERNAL: ", "IO: "):
            reason = reason.split(mark)[-1]
        if any(phrase in reason for phrase in _LOCKED):
            return ConnectionLost(f"{self.address} is locked by another program")
        place = f"{self.address}, table {table}" if table else self.address
        error_class = RowRefused if re.search(_OF_ROW, reason) else SyncRefused
        return error_class(f"{place}: {reason.strip()}{_advice(reason)}")


def _advice(reason: str) -> str:
    """What to do about an error, as the end of its line."""
    lowered = reason.lower()
    if "disk is full" in lowered:
        return ": free space and run it again; nothing of this batch was written"
    if "constraint failed" in lowered:
        return ": change the row or the constraint and run it again; this batch was not written"
    if "readonly" in lowered:
        return ": make it writable"
    if "not a database" in lowered:
        return ": choose another file"
    if "unable to open" in lowered or "failed to open" in lowered:
        return ": the directory has to exist and be writable"
    return ""


def _affinity(declared: str) -> str:
    """SQLite's affinity of a declared type (https://sqlite.org/datatype3.html, section 3.1)."""
    name = declared.upper()
    if "INT" in name:
        return "INTEGER"
    if any(word in name for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if "BLOB" in name or not name:
        return "BLOB"
    return "REAL" if any(word in name for word in ("REAL", "FLOA", "DOUB")) else "NUMERIC"
