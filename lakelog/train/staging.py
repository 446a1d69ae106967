"""Staging: the redacted rows of a shape in one Arrow file.

The file (IPC, lz4) is scanned several times, a few columns at a time. It lies in the directory
that is being built and is deleted before that directory gets its name. Text that is not redacted
yet only passes through memory.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lakelog.errors import ExportRefused
from lakelog.libraries import duckdb, np, pa
from lakelog.train import filters, redact
from lakelog.train.losses import FILTERS, LOST, REASON, ROWS, Losses
from lakelog.train.recipe import Recipe
from lakelog.train.selection import HIDDEN, RowQuery, column_of, text_of
from lakelog.train.shapes import shape
from lakelog.train.shapes.shape import Roles, structure_of
from lakelog.workers import WorkerPool

_ROWS, _BATCH_ROWS = 65_536, 65_536
_ALTERED = ("UHUGEINT", "BIT", "BIGNUM", "TIME WITH TIME ZONE")
"""Types of which the engine gives Arrow other values."""


@dataclass(frozen=True)
class Stage:
    """The staged file, the columns a reader will see, and counts of redacted values by kind."""

    path: str
    columns: dict[str, str]
    rows: int
    redacted: dict[str, int]
    roles: Roles
    losses: dict[str, int] = field(default_factory=dict)
    """Counts of what the shape could not represent, by the reasons of `losses`."""

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order; `columns` selects some, which keep the order of the file."""
        with pa.memory_map(self.path) as file:
            options = pa.ipc.IpcReadOptions()
            if columns is not None:
                # By position. Columns that are not included are not decompressed, which is why the
                # file is read some columns at a time.
                names = pa.ipc.open_file(file).schema.names
                options.included_fields = [n for n, name in enumerate(names) if name in columns]
            source = pa.ipc.open_file(file, options=options)
            for place in range(source.num_record_batches):
                yield source.get_batch(place)

    def schema(self) -> pa.Schema:
        """The columns of the file, hidden ones included."""
        with pa.memory_map(self.path) as file:
            return pa.ipc.open_file(file).schema

    def register(self, con: duckdb.DuckDBPyConnection, columns: list[str] | None = None) -> str:
        """Register the rows with an engine for one query; return the name of the relation."""
        full = self.schema()
        schema = pa.schema([f for f in full if columns is None or f.name in columns])
        con.register("staged", pa.RecordBatchReader.from_batches(schema, self.batches(columns)))
        return "staged"


def _write_batches(path: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write rows in batches of a fixed size, numbered in `__row`; return how many there are."""
    # Row numbers are stored, because joins in DuckDB return rows in any order.
    full = schema.append(pa.field("__row", pa.int64()))
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    row_count = 0
    with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, full, options=options) as writer:
        for batch in _coalesce(batches):
            numbers = pa.array(np.arange(row_count, row_count + batch.num_rows))
            columns = [
                # An IPC file has one schema for all its batches.
                c.cast(f.type) if c.type != f.type else c
                for c, f in zip(batch.columns, schema, strict=True)
            ]
            writer.write_batch(pa.RecordBatch.from_arrays([*columns, numbers], schema=full))
            row_count += batch.num_rows
    return row_count


def _coalesce(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Join small batches to larger ones, which compress and scan better."""
    pending: list[pa.RecordBatch] = []
    pending_rows = 0
    for batch in batches:
        pending.append(batch)
        pending_rows += batch.num_rows
        if pending_rows >= _BATCH_ROWS:
            yield pa.concat_batches(pending)
            pending, pending_rows = [], 0
    if pending:
        yield pa.concat_batches(pending)


def write(
    con: duckdb.DuckDBPyConnection,
    selection: RowQuery,
    recipe: Recipe,
    folder: str,
    key: bytes,
    pool: WorkerPool | None = None,
) -> Stage:
    """Evaluate the shape over the lake and write its redacted rows, which workers may redact.

    Raises ExportRefused where whole rows would be lost without the consent of the recipe.
    """
    kinds, losses = recipe.redact["kinds"], Losses()
    # Shapes that DuckDB can express stream from the lake with the redaction hints computed in the
    # same scan. Conversations take a detour through `con`: their last step (`trim`) also needs SQL,
    # but over rows that Python assembled.
    sql, prepared = shape.query(selection, recipe, losses)
    is_chat = recipe.kind == "messages"
    if sql is not None and not is_chat:
        types = _types(
            selection.session.sql(f"SELECT * FROM ({sql}) LIMIT 0", digest=selection.digest)
        )
        text_columns = redact.text_columns(types) if kinds else []
        reader = shape.reader(selection, redact.with_hints(sql, text_columns, kinds))
    else:
        con.register("shaped", shape.reader(selection, sql) if sql is not None else prepared)
        source = shape.finish("SELECT * FROM shaped", recipe)
        relation = con.sql(source)
        # REASON and LOST are consumed by `losses.drop_incomplete` and must not be redacted or
        # written.
        types = {n: t for n, t in _types(relation).items() if n not in (REASON, LOST)}
        text_columns = redact.text_columns(types, ("data", "tools")) if kinds else []
        relation = con.sql(redact.with_hints(source, text_columns, kinds))
        reader = relation.to_arrow_reader(_ROWS)
    # A cursor of its own: the cleaner runs a query per batch while `relation` is still being read.
    cleaner = redact.Cleaner(con.cursor(), types, text_columns, recipe, key, pool)
    path = f"{folder}/rows.arrow"
    schema = cleaner.schema(reader.schema)
    _require_storable(schema, types)
    schema = pa.schema([pa.field(f.name, _plain_type(f.type)) for f in schema])
    visible = {n: _plain_name(t) for n, t in types.items() if n not in HIDDEN}
    # Rows that the shape rejects are dropped before redaction, so that its counts cover only rows
    # that are written.
    batches = cleaner.batches(losses.drop_incomplete(reader) if is_chat else reader)
    # Filters come after redaction: they judge the text that ends up in the set, and the first
    # characters of a rejected text appear in the error, which must not reveal a secret.
    if recipe.filter["quality"] or recipe.filter["languages"]:
        column = {"messages": "messages", "preference": "chosen"}.get(recipe.kind, "text")
        if recipe.kind == "events":
            column = column_of(recipe.shape["text"])
        batches = filters.passing_rows(batches, column, recipe.filter, losses)
    # The whole pipeline is lazy up to here; the losses are complete only after this call.
    count = _write_batches(path, schema, batches)
    # Refused at the end of the scan and not at the first loss, so that the error lists every reason
    # with its count and the user fixes the recipe once.
    losses.require_consent(recipe.shape["drop"], "shape", ROWS)
    losses.require_consent(recipe.filter["drop"], "filter", FILTERS)
    is_typed = recipe.shape["data"] == "typed" and "data" in visible
    stage = Stage(
        path,
        visible,
        count,
        cleaner.counts,
        shape.roles(recipe, list(visible)),
        dict(losses.counts),
    )
    return _with_struct(con, stage, folder) if is_typed else stage


def _require_storable(schema: pa.Schema, types: dict[str, str]) -> None:
    """Raise ExportRefused for a column of a type that Parquet lacks, or that no card describes in a
    way which loaders read."""
    for column in schema:
        is_altered = types[column.name] in _ALTERED
        if is_altered or any(_is_unfit(leaf) for leaf in _nested(column.type)):
            column_type = types[column.name] if is_altered else column.type
            raise ExportRefused(
                f"[select] sql: a set cannot hold the column {column.name!r} of type {column_type};"
                " convert it, for example an array by x::FLOAT[], a map by map_entries(x), or"
                " anything else by x::VARCHAR"
            )


def _plain_type(arrow_type: Any) -> Any:
    """Return the type that a column has in the files and is hashed by: loaders know no ENUM, and
    engines read any time of Parquet that is not of nanoseconds as one of microseconds."""
    kinds = pa.types
    if kinds.is_dictionary(arrow_type):
        return arrow_type.value_type
    if kinds.is_timestamp(arrow_type) and arrow_type.unit in ("s", "ms"):
        return pa.timestamp("us", arrow_type.tz)
    if kinds.is_list(arrow_type):
        return pa.list_(arrow_type.value_field.with_type(_plain_type(arrow_type.value_type)))
    if kinds.is_struct(arrow_type):
        return pa.struct([f.with_type(_plain_type(f.type)) for f in arrow_type])
    return arrow_type


def _plain_name(engine_type: str) -> str:
    """The engine's name of the type that a column of one of its types has in the files."""
    return "VARCHAR" if engine_type.startswith("ENUM(") and engine_type[-1] == ")" else engine_type


def _is_unfit(arrow_type: Any) -> bool:
    kinds = pa.types
    return bool(
        kinds.is_map(arrow_type)
        or kinds.is_fixed_size_list(arrow_type)
        or kinds.is_interval(arrow_type)
        or kinds.is_union(arrow_type)
    )


def _nested(arrow_type: Any) -> Iterator[Any]:
    """Yield a type and all that it consists of."""
    yield arrow_type
    for number in range(arrow_type.num_fields):
        yield from _nested(arrow_type.field(number).type)


def _types(relation: Any) -> dict[str, str]:
    return dict(zip(relation.columns, map(str, relation.types), strict=True))


def _with_struct(con: duckdb.DuckDBPyConnection, stage: Stage, folder: str) -> Stage:
    """Rewrite the staged rows with a struct in place of the JSON of `data`."""
    name = stage.register(con, ["data"])
    # The struct has to fit every payload of the set, so all distinct structures are merged before
    # any row is converted. Redaction came first: a struct of raw values could not be masked as
    # text.
    structures = con.sql(f"SELECT DISTINCT json_structure(data::JSON)::VARCHAR FROM {name}")
    structure = structure_of([described for (described,) in structures.fetchall() if described])
    if structure is None:
        return stage
    name = stage.register(con)
    relation = con.sql(
        f"SELECT * EXCLUDE __row REPLACE (from_json(data, {text_of(structure)}) AS data)"
        f" FROM {name}"
    )
    struct_type = _types(relation)["data"]
    reader = relation.to_arrow_reader(_ROWS)
    path = f"{folder}/typed.arrow"
    _write_batches(path, reader.schema, reader)
    # Two copies of the rows are on disk only until here.
    os.unlink(stage.path)
    return dataclasses.replace(stage, path=path, columns={**stage.columns, "data": struct_type})
