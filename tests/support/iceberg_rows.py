"""The rows of an Iceberg table, by one engine or another, as values that can be compared.

A row is its columns, with the payload as a value in the place of `data` and `fields`: members have
the names that they have in the lake, and those that are null are left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import lakelog

COLUMNS = (
    "time type category source subject level message id ingested_at origin position seq".split()
)
Rows = list[dict[str, Any]]


def of_lake(lake: lakelog.Lake, ref: str) -> Rows:
    """The rows of a state by SQL."""
    rows = lake.at(ref).sql("FROM events ORDER BY seq").to_arrow_table().to_pylist()
    return [
        {name: plain_value(row[name]) for name in COLUMNS} | {"payload": plain(parsed(row["data"]))}
        for row in rows
    ]


def of_table(table: Any, engine: str) -> Rows:
    """The rows of a table's newest snapshot as an engine reads them."""
    column = next((f for f in table.schema().fields if f.name == "fields"), None)
    rows = READERS[engine](table).sort_by("seq").to_pylist()
    return [
        {name: plain_value(row[name]) for name in COLUMNS} | {"payload": _payload(row, column)}
        for row in rows
    ]


def by_pyiceberg(table: Any) -> pa.Table:
    """Read with pyiceberg itself."""
    return table.scan().to_arrow()


def by_duckdb(table: Any) -> pa.Table:
    """Read each of the table's files with DuckDB."""
    import duckdb

    def read(path: str) -> Rows:
        return duckdb.sql("FROM read_parquet(?)", params=[path]).to_arrow_table().to_pylist()

    return by_files(table, read)


def by_files(table: Any, read: Callable[[str], Rows]) -> pa.Table:
    """Read each of the table's files with what knows columns by their names in the file, and give
    members the names that the table has for their numbers."""
    schema = table.schema().as_arrow()
    names = {f.field_id: f.name for f in _all_fields(table.schema().as_struct())}
    parts = [schema.empty_table()]
    for task in table.scan().plan_files():
        path = task.file.file_path.removeprefix("file://")
        rows = read(path)
        column = next((f for f in pq.read_schema(path) if f.name == "fields"), None)
        if column:
            rows = [r | {"fields": _renamed(r["fields"], column.type, names)} for r in rows]
        parts.append(pa.Table.from_pylist(rows, schema=schema))
    return pa.concat_tables(parts)


def _all_fields(type_: Any) -> Iterator[Any]:
    if hasattr(type_, "element_type"):
        yield from _all_fields(type_.element_type)
    for field in getattr(type_, "fields", ()):
        yield field
        yield from _all_fields(field.field_type)


def _renamed(value: Any, type_: pa.DataType, names: dict[int, str]) -> Any:
    if value is None:
        return None
    if pa.types.is_struct(type_):
        ids = {field.name: int(field.metadata[b"PARQUET:field_id"]) for field in type_}
        return {
            names[ids[field.name]]: _renamed(value[field.name], field.type, names)
            for field in type_
        }
    if pa.types.is_list(type_):
        return [_renamed(element, type_.value_type, names) for element in value]
    return value


def by_polars(table: Any) -> pa.Table:
    """Read with Polars."""
    import polars

    return polars.scan_iceberg(table).collect().to_arrow()


def by_daft(table: Any) -> pa.Table:
    """Read with Daft."""
    import daft

    return daft.read_iceberg(table).to_arrow()


def by_chdb(table: Any) -> pa.Table:
    """Read with chDB."""
    import chdb

    path = table.location().removeprefix("file://")
    os.chdir("/")  # it reads nothing outside its own directory
    return chdb.query(f"SELECT * FROM icebergLocal('{path}')", "ArrowTable")


def without_empty(rows: Rows) -> Rows:
    """Rows without objects that have no members: chDB has no struct that is null."""
    return [row | {"payload": _without_empty(row["payload"])} for row in rows]


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        members = {name: _without_empty(member) for name, member in value.items()}
        return {n: member for n, member in members.items() if member is not None} or None
    return [_without_empty(element) for element in value] if isinstance(value, list) else value


READERS: dict[str, Callable[[Any], pa.Table]] = {
    "pyiceberg": by_pyiceberg,
    "duckdb": by_duckdb,
    "polars": by_polars,
    "daft": by_daft,
    "chdb": by_chdb,
}


def plain_value(value: Any) -> Any:
    """A time as a number."""
    return value.timestamp() if hasattr(value, "timestamp") else value


def parsed(text: str | None) -> Any:
    """The value of JSON text."""
    return None if text is None else json.loads(text)


def _payload(row: dict[str, Any], column: Any) -> Any:
    if row["data"] is not None or column is None or row["fields"] is None:
        return plain(parsed(row["data"]))
    return plain(_members(row["fields"], column.field_type, "object"))


def _members(value: Any, type_: Any, kind: str) -> Any:
    """A value of the table as the one that it has in the lake."""
    if value is None:
        return None
    if kind == "object":
        members = [
            (json.loads(field.doc).split("\0"), value.get(field.name), field.field_type)
            for field in type_.fields
        ]
        return {key[-2]: _members(v, t, key[-1]) for key, v, t in members if v is not None}
    if kind.startswith("list "):
        return [_members(v, type_.element_type, kind.removeprefix("list ")) for v in value]
    return json.loads(value) if kind == "json" else value


def plain(value: Any) -> Any:
    """A payload without members that are null, and without lists that are empty: readers take a
    list of structs that is null for one (apache/arrow#38809)."""
    if isinstance(value, dict):
        members = {name: plain(member) for name, member in value.items()}
        return {name: member for name, member in members.items() if member not in (None, [])}
    return [plain(element) for element in value] if isinstance(value, list) else value
