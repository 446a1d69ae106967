"""The staged rows: an Arrow file (lz4) that is read again and again, some columns at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lakelog.lazy import Lazy
from lakelog.train.shapes.shape import Roles

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
else:
    pa = Lazy("pyarrow")
    np = Lazy("numpy")

_BATCH = 65_536


@dataclass(frozen=True)
class Stage:
    """The staged file, the columns a reader will see, and the finds that were replaced."""

    path: str
    columns: dict[str, str]
    rows: int
    redacted: dict[str, int]
    roles: Roles
    losses: dict[str, int] = field(default_factory=dict)
    """What could not be kept, by the reasons of `losses`."""

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows, in order; some columns, in the order of the file."""
        with pa.memory_map(self.path) as file:
            options = _options(file, columns)
            source = pa.ipc.open_file(file, options=options)
            for place in range(source.num_record_batches):
                yield source.get_batch(place)

    def schema(self) -> pa.Schema:
        """The columns of the file, hidden ones included."""
        with pa.memory_map(self.path) as file:
            return pa.ipc.open_file(file).schema

    def offered(self, con: duckdb.DuckDBPyConnection, columns: list[str] | None = None) -> str:
        """Offer the rows to an engine for one query; return the name they have there."""
        full = self.schema()
        schema = pa.schema([f for f in full if columns is None or f.name in columns])
        con.register("staged", pa.RecordBatchReader.from_batches(schema, self.batches(columns)))
        return "staged"


def _options(file: Any, columns: list[str] | None) -> Any:
    if columns is None:
        return pa.ipc.IpcReadOptions()
    names = pa.ipc.open_file(file).schema.names
    included = [place for place, name in enumerate(names) if name in columns]
    return pa.ipc.IpcReadOptions(included_fields=included)


def write(path: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write rows in batches of a fixed size, numbered in `__row`; return how many there are."""
    full = schema.append(pa.field("__row", pa.int64()))
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    done = 0
    with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, full, options=options) as writer:
        for batch in _even(batches):
            numbers = pa.array(np.arange(done, done + batch.num_rows))
            columns = [
                c.cast(f.type) if c.type != f.type else c
                for c, f in zip(batch.columns, schema, strict=True)
            ]
            writer.write_batch(pa.RecordBatch.from_arrays([*columns, numbers], schema=full))
            done += batch.num_rows
    return done


def _even(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Join small batches to larger ones, which compress and scan better."""
    held: list[pa.RecordBatch] = []
    waiting = 0
    for batch in batches:
        held.append(batch)
        waiting += batch.num_rows
        if waiting >= _BATCH:
            yield pa.concat_batches(held)
            held, waiting = [], 0
    if held:
        yield pa.concat_batches(held)
