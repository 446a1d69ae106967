"""SQLite as a target: `sqlite:PATH`. Times are text that SQLite's own functions read.

With the ADBC driver (extra `sqlite`) rows go in as Arrow, four times as fast as by the module
`sqlite3`, which serves where the driver is not installed.

DuckDB as a target: `duckdb:PATH`, a database file that one process at a time can write to.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import sqlite3
from collections.abc import Iterator
from typing import Any, ClassVar

from lakelog import sql
from lakelog.clients import ConnectionLost
from lakelog.engine.catalog import EngineCatalog
from lakelog.engine.messages import EngineMessage
from lakelog.errors import LakelogError, SyncRefused
from lakelog.libraries import duckdb, pa
from lakelog.runtime.lazy import Lazy
from lakelog.sync.column_types import TypeNames
from lakelog.sync.databases.adbc import AdbcConnection
from lakelog.sync.databases.sql_target import SqlTarget
from lakelog.sync.target import KEY, RowRefused, TargetColumn, path_of

driver = Lazy("adbc_driver_sqlite")
_LOCKED = ("database is locked", "database table is locked", "database schema is locked")
_OF_ROW = "(?i)constraint failed|datatype mismatch|string or blob too big"
_OF_FILE = (
    "(?i)locked|disk is full|disk i/o|disk image|out of memory|interrupted|locking protocol"
    "|readonly|(unable|failed) to open|not a database"
)
_ROW_FAILED = "[Ff]ailed to (?:reset statement|execute query): "
"""What the driver puts before SQLite's words where it has run a statement with a row."""
_FAILED = rf"\b(?:INTEGRITY|INTERNAL|IO): |Failed to step query: |{_ROW_FAILED}"
_PAGE = 32_768
"""The page size of a new file: rows of events are longer than those it is usually made for."""
_MILLISECONDS = 5_000
"""How long a statement waits for a lock."""


class _PlainConnection(sqlite3.Connection):
    """What AdbcConnection is where the driver is not installed."""

    def fetch(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement; return its rows."""
        return list(self.execute(statement).fetchall())


class FileTarget(SqlTarget):
    """A database file."""

    SCHEME: ClassVar[str]

    def __init__(self, url: str) -> None:
        super().__init__()
        self._path = path_of(url, self.SCHEME)
        # The same from whatever directory: quarantine and erasures know the table by it.
        self.address = f"{self.SCHEME}:{os.path.abspath(self._path)}"

    def exists(self) -> bool:
        """Whether the file is there."""
        return os.path.exists(self._path)


class SqliteTarget(FileTarget):
    """A database file of SQLite."""

    SCHEME = "sqlite"
    BEGIN = "BEGIN IMMEDIATE"
    type_names = TypeNames(
        dict.fromkeys(("text", "json", "numeric", "timestamptz", "timestamp", "date"), "TEXT")
        | dict.fromkeys(("smallint", "integer", "bigint", "boolean"), "INTEGER")
        | {"double": "REAL"},
        has_arguments=False,
    )
    BLOB = "BLOB"

    def __init__(self, url: str, use_adbc: bool | None = None) -> None:
        """Take the target of a URL; `use_adbc` is whether the driver is there, by default."""
        super().__init__(url)
        has_driver = importlib.util.find_spec("adbc_driver_sqlite") is not None
        self._adbc = has_driver if use_adbc is None else use_adbc

    def value_sql(self, column: TargetColumn) -> str:
        """Times and numbers that SQLite has no type for, as text."""
        name = sql.identifier(column.name)
        if column.kind in ("timestamptz", "timestamp"):
            return f"strftime({name}, '%Y-%m-%d %H:%M:%S.%f')"
        if column.kind in ("date", "numeric"):
            return f"{name}::VARCHAR"
        # It makes 0 of -0, and NULL of NaN, which a check would find to differ.
        if column.kind == "double":
            return f"CASE WHEN NOT isnan({name}) THEN {name}::DOUBLE + 0 END"
        return f"{name}::BIGINT" if column.kind == "boolean" else super().value_sql(column)

    def mismatch(self, column: TargetColumn, declared: str) -> str:
        """By SQLite's rules of affinity, from the declared type."""
        # SQLite stores any value in any column: only the affinity may change it.
        expected = self._type(column)
        return "" if _affinity(declared) in (_affinity(expected), "BLOB") else expected

    def _open(self) -> Any:
        if self._adbc:
            self._connection = AdbcConnection(driver.connect(self._path))
        else:
            self._connection = self._open_plain()
        self._fetch(f"PRAGMA busy_timeout = {_MILLISECONDS}")
        self._fetch(f"PRAGMA page_size = {_PAGE}")
        # Else the rows that were erased stay in its free pages when it is synced again.
        self._fetch("PRAGMA secure_delete = ON")
        return self._connection

    def _open_plain(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, isolation_level=None, factory=_PlainConnection)

    def _insert(self, table: str, rows: pa.Table, ending: str) -> None:
        names = ", ".join(map(sql.identifier, rows.column_names))
        marks = ", ".join("?" * rows.num_columns)
        # SQLite reads ON CONFLICT after VALUES as it is; after SELECT it would be ambiguous.
        self._many(f"INSERT INTO {self._name(table)} ({names}) VALUES ({marks}){ending}", rows)

    def _delete(self, table: str, keys: pa.Table) -> int:
        before = self._fetch(f"SELECT count(*) FROM {self._name(table)}")[0][0]
        self._many(f"DELETE FROM {self._name(table)} WHERE {KEY} = ?", keys)
        # The driver does not say how many rows a statement with many parameters has changed.
        return int(before - self._fetch(f"SELECT count(*) FROM {self._name(table)}")[0][0])

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Have one state of the file within, by one connection; see SqlTarget."""
        # By the module: the driver takes the types of all rows from the first ones.
        with contextlib.closing(self._open_plain()) as plain:
            connection, self._connection = self._connection, plain
            try:
                with super().snapshot():
                    yield
            finally:
                self._connection = connection

    def _rows(self, statement: str) -> Iterator[list[tuple[Any, ...]]]:
        cursor = self._connection.execute(statement)
        while rows := cursor.fetchmany(self.write_rows):
            yield rows

    def _many(self, statement: str, rows: pa.Table) -> None:
        if self._adbc:
            self._connection.execute_many(statement, rows)
        else:
            columns = (column.to_pylist() for column in rows.columns)
            self._connection.executemany(statement, zip(*columns, strict=True))

    def _columns(self, table: str) -> tuple[dict[str, str], bool]:
        # table_info has a declared key; a unique index of KEY alone serves ON CONFLICT as well.
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
        line = str(error).split("\n")[0]
        # What the driver puts before SQLite's own words says nothing to a user.
        reason = re.split(_FAILED, line)[-1]
        if any(phrase in reason for phrase in _LOCKED):
            return ConnectionLost(f"{self.address} is locked by another program")
        place = f"{self.address}, table {table}" if table else self.address
        # A trigger refuses in its own words: the module has a class for these, the driver none.
        is_of_row = (
            isinstance(error, sqlite3.IntegrityError)
            or bool(re.search(_OF_ROW, reason))
            or (bool(re.search(_ROW_FAILED, line)) and not re.search(_OF_FILE, reason))
        )
        error_class = RowRefused if is_of_row else SyncRefused
        return error_class(f"{place}: {reason.strip()}{_advice(reason, is_of_row)}")


def _advice(reason: str, is_of_row: bool) -> str:
    """What to do about an error, as the end of its line."""
    lowered = reason.lower()
    if "disk is full" in lowered:
        return ": free space and run it again; nothing of this batch was written"
    if is_of_row:
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


_OFFLINE: dict[str, str | bool | int | float | list[str]] = {
    # Extensions would be fetched from the network.
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
_LOADED = "lakelog_rows"
_ROW_GROUP = 122_880
"""The rows of a row group, which is compressed at once, and by one thread."""


class DuckdbTarget(FileTarget):
    """A database file of DuckDB."""

    SCHEME = "duckdb"
    write_rows = 2 * _ROW_GROUP
    can_set_aside = False  # it has no savepoints
    is_exclusive = True
    type_names = TypeNames(
        {
            **{name: name.upper() for name in ("json", "uuid", "boolean", "date", "timestamp")},
            **{name: name.upper() for name in ("smallint", "integer", "bigint", "double")},
            "text": "VARCHAR",
            "numeric": "DECIMAL",
            "timestamptz": "TIMESTAMP WITH TIME ZONE",
        },
        has_arrays=True,
    )
    BLOB = "BLOB"
    HAS_SCALE = True
    ACCEPTED: ClassVar[dict[str, tuple[str, ...]]] = {"bigint": ("bigint", "hugeint")}

    def value_sql(self, column: TargetColumn) -> str:
        """Arrays as such; all else as other databases take it."""
        if column.column_type and column.column_type.is_array:
            return f"{sql.identifier(column.name)}::JSON::{column.column_type.engine_type}"
        return super().value_sql(column)

    def _open(self) -> Any:
        is_new = not self.exists()
        try:
            connection = duckdb.connect(self._path, config=_OFFLINE)
        except duckdb.Error:
            # On a full disk half a header is left, which could never be opened again.
            if is_new:
                with contextlib.suppress(OSError):
                    os.remove(self._path)
            raise
        # Times without a zone in the mapping are UTC, whatever the machine is set to.
        connection.execute("SET TimeZone = 'UTC'")
        return connection

    def _definition(self, column: TargetColumn, keyed: bool) -> str:
        defined = super()._definition(column, keyed)
        # What the engine would choose for JSON is larger and takes twice as long to make.
        is_text = column.is_json and not (column.column_type and column.column_type.is_array)
        return f"{defined} USING COMPRESSION zstd" if is_text else defined

    def _readable(self, name: str, declared: str) -> str:
        column = sql.identifier(name)
        return f"{column}::VARCHAR" if declared in ("JSON", "UUID") else column

    def _fetch(self, statement: str) -> list[tuple[Any, ...]]:
        result = self._connection.execute(statement)
        return list(result.fetchall()) if result.description else []

    def _rows(self, statement: str) -> Iterator[pa.RecordBatch]:
        yield from self._connection.sql(statement).to_arrow_reader(self.write_rows)

    def _insert(self, table: str, rows: pa.Table, ending: str) -> None:
        names = ", ".join(map(sql.identifier, rows.column_names))
        into = f"INSERT INTO {self._name(table)} ({names})"
        # In batches of a row group each, which are inserted side by side: twice as fast.
        starts = range(0, rows.num_rows, _ROW_GROUP)
        groups = [rows.slice(n, _ROW_GROUP).combine_chunks() for n in starts]
        self._load(pa.concat_tables(groups), f"{into} SELECT {names} FROM {_LOADED}{ending}")

    def _delete(self, table: str, keys: pa.Table) -> int:
        condition = f"WHERE {KEY} IN (SELECT {KEY} FROM {_LOADED})"
        rows = self._load(keys, f"DELETE FROM {self._name(table)} {condition}")
        return int(rows[0][0])

    def _load(self, rows: pa.Table, statement: str) -> list[tuple[Any, ...]]:
        self._connection.register(_LOADED, rows)
        result = self._fetch(statement)
        # Not after an error: in the aborted transaction this would fail, too, and hide it.
        self._connection.unregister(_LOADED)
        return result

    def _columns(self, table: str) -> tuple[dict[str, str], bool]:
        name = sql.literal(table)
        rows = self._fetch(EngineCatalog.columns_of(name))
        keys = self._fetch(EngineCatalog.keys_of(name))
        return dict(rows), [KEY] in [list(row[0]) for row in keys]

    def _explained(self, error: Exception, table: str) -> LakelogError:
        reason = EngineMessage(error).gist()
        if EngineMessage(reason).is_locked():
            return ConnectionLost(f"{self.address} is in use by another sync or process")
        place = f"{self.address}, table {table}" if table else self.address
        advice = ": change the row or the constraint and run it again; this batch was not written"
        if EngineMessage(reason).is_full():
            advice = ": free space and run it again; nothing of this batch was written"
        elif not EngineMessage(reason).is_of_row():
            advice = ""
        return SyncRefused(f"{place}: {reason}{advice}")
