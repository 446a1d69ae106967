"""DuckDB as a target: `duckdb:PATH`, a database file that one process at a time can write to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, ClassVar

from lakelog.clients.connection import ConnectionLost
from lakelog.engine import catalog, messages
from lakelog.errors import LakelogError, SyncRefused
from lakelog.libraries import duckdb, pa
from lakelog.segments import sql
from lakelog.sync.column_types import TypeNames
from lakelog.sync.databases.sql_target import SqlTarget
from lakelog.sync.target import KEY, TargetColumn, path_of

_OFFLINE: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
_LOADED = "lakelog_rows"
_ROW_GROUP = 122_880
"""The rows of a row group, which is compressed at once, and by one thread."""


class DuckdbTarget(SqlTarget):
    """A database file of DuckDB."""

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
    TYPES: ClassVar[dict[str, str]] = {
        "text": "VARCHAR",
        "bigint": "BIGINT",
        "double": "DOUBLE",
        "boolean": "BOOLEAN",
        "timestamptz": "TIMESTAMP WITH TIME ZONE",
        "timestamp": "TIMESTAMP",
        "date": "DATE",
        "blob": "BLOB",
        "numeric": "DECIMAL",
    }
    ACCEPTED: ClassVar[dict[str, tuple[str, ...]]] = {
        kind: (name.lower(),) for kind, name in TYPES.items()
    } | {"bigint": ("bigint", "hugeint")}

    def __init__(self, url: str) -> None:
        super().__init__()
        self._path = path_of(url, "duckdb")
        self.address = f"duckdb:{self._path}"

    def value_sql(self, column: TargetColumn) -> str:
        """Arrays as such; all else as other databases take it."""
        if column.column_type and column.column_type.is_array:
            return f"{sql.identifier(column.name)}::JSON::{column.column_type.engine_type}"
        return super().value_sql(column)

    def exists(self) -> bool:
        """Whether the file is there."""
        return os.path.exists(self._path)

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
        connection.execute("SET TimeZone = 'UTC'")
        return connection

    def _definition(self, column: TargetColumn, keyed: bool) -> str:
        defined = super()._definition(column, keyed)
        # What the engine would choose for JSON is larger and takes twice as long to make.
        is_text = column.is_json and not (column.column_type and column.column_type.is_array)
        return f"{defined} USING COMPRESSION zstd" if is_text else defined

    def _type_of_kind(self, column: TargetColumn) -> str:
        sql_type = self.TYPES[column.kind]
        return f"{sql_type}(38, {column.scale})" if column.kind == "numeric" else sql_type

    def _readable(self, name: str, declared: str) -> str:
        column = sql.identifier(name)
        return f"{column}::VARCHAR" if declared in ("JSON", "UUID") else column

    def _fetch(self, statement: str) -> list[tuple[Any, ...]]:
        result = self._connection.execute(statement)
        return list(result.fetchall()) if result.description else []

    def _rows(self, statement: str) -> Iterator[list[tuple[Any, ...]]]:
        result = self._connection.execute(statement)
        while rows := result.fetchmany(self.write_rows):
            yield rows

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
        rows = self._fetch(catalog.columns_of(name))
        keys = self._fetch(catalog.keys_of(name))
        return dict(rows), [KEY] in [list(row[0]) for row in keys]

    def _explained(self, error: Exception, table: str) -> LakelogError:
        reason = messages.gist(str(error))
        if messages.is_locked(reason):
            return ConnectionLost(f"{self.address} is open in another process: close it there")
        place = f"{self.address}, table {table}" if table else self.address
        advice = ": change the row or the constraint and run it again; this batch was not written"
        if messages.is_full(reason):
            advice = ": free space and run it again; nothing of this batch was written"
        elif not messages.is_of_row(reason):
            advice = ""
        return SyncRefused(f"{place}: {reason}{advice}")
