"""The rows of a Delta table, by one engine or another, as values that can be compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from tests.support.iceberg_rows import COLUMNS, Rows, parsed, plain, plain_value


def of_table(table: Any, engine: str) -> Rows:
    """The rows of a table's newest version as an engine reads them."""
    schema = pa.schema(table.schema())
    place = schema.get_field_index("fields")
    rows = sorted(READERS[engine](table).to_pylist(), key=lambda row: row["seq"])
    return [
        {name: plain_value(row[name]) for name in COLUMNS}
        | {"payload": _payload(row, schema.field(place).type if place >= 0 else None)}
        for row in rows
    ]


def by_deltalake(table: Any) -> pa.Table:
    """Read with deltalake's own engine."""
    from deltalake import QueryBuilder

    return pa.table(QueryBuilder().register("t", table).execute("SELECT * FROM t"))


def by_pyarrow(table: Any) -> pa.Table:
    """Read as a dataset of pyarrow."""
    return table.to_pyarrow_dataset().to_table()


def by_polars(table: Any) -> pa.Table:
    """Read with Polars."""
    import polars

    return polars.scan_delta(table).collect().to_arrow()


def by_daft(table: Any) -> pa.Table:
    """Read with Daft."""
    import daft

    return daft.read_deltalake(table.table_uri).to_arrow()


READERS: dict[str, Callable[[Any], pa.Table]] = {
    "deltalake": by_deltalake,
    "pyarrow": by_pyarrow,
    "polars": by_polars,
    "daft": by_daft,
}


def _payload(row: dict[str, Any], column: Any) -> Any:
    if row["data"] is not None or column is None or row["fields"] is None:
        return plain(parsed(row["data"]))
    return plain(_member(row["fields"], column, "object"))


def _member(value: Any, type_: Any, spelling: str) -> Any:
    """A value of the table as the one that it has in the lake."""
    if value is None:
        return None
    if spelling == "object":
        return {
            f.metadata[b"lakelog.name"].decode(): _member(
                value[f.name], f.type, f.metadata[b"lakelog.kind"].decode()
            )
            for f in type_
            if value.get(f.name) is not None
        }
    if spelling.startswith("list "):
        return [_member(v, type_.value_type, spelling.removeprefix("list ")) for v in value]
    return json.loads(value) if spelling == "json" else value
