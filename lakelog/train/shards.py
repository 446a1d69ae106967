"""Sharded Parquet files: `NAME-00000.EXT`, `NAME-00001.EXT`, ..., each of bounded size.

Files are renamed to `NAME-00000-of-00002.EXT` when their number is known. Row groups are cut by
rows alone, so equal rows give equal bytes with the same version of pyarrow.
"""

from __future__ import annotations

import os
from typing import Any

from lakelog.export import COMPRESSION, GROUP_ROWS
from lakelog.libraries import pa, pq

SHARD_ROWS = 2_000_000
_BYTES_MAX = 500_000_000
_LONG = ("data", "message", "text", "prompt", "chosen", "rejected", "conversation")
"""Texts that seldom repeat: dictionary encoding would only cost time and space."""


class Shards:
    """Parquet files of one split. Use as a context manager, then ask for `names` and `rows`."""

    def __init__(self, folder: str, name: str, schema: pa.Schema) -> None:
        self._folder, self._name, self._schema = folder, name, schema
        self._writer: Any = None
        self._pending: list[pa.Table] = []
        self._pending_rows = self._in_shard = self._size = 0
        self.rows = 0
        self.rows_by_shard: list[int] = []
        self.names: list[str] = []

    def write(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Add rows; complete row groups are written at once."""
        table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
        if not table.num_rows:
            return
        self._pending.append(table)
        self._pending_rows += table.num_rows
        if self._pending_rows < GROUP_ROWS:
            return
        pending = pa.concat_tables(self._pending)
        start = 0
        # Row groups are cut by rows alone, wherever batches end, so equal rows give equal files.
        while pending.num_rows - start >= (free_rows := self._free_rows()):
            self._write_group(pending.slice(start, free_rows))
            start += free_rows
        self._pending, self._pending_rows = [pending.slice(start)], pending.num_rows - start

    def _free_rows(self) -> int:
        return min(GROUP_ROWS, SHARD_ROWS - self._in_shard)

    def _write_group(self, table: pa.Table) -> None:
        if self._writer is None:
            path = f"{self._folder}/{self._name}-{len(self.rows_by_shard):05d}.parquet"
            self._writer = pq.ParquetWriter(
                path, self._schema, use_dictionary=dictionary_columns(self._schema), **COMPRESSION
            )
            self.rows_by_shard.append(0)
        # Chunks are combined first, so that the bytes do not depend on how the rows arrived.
        self._writer.write_table(table.combine_chunks(), row_group_size=table.num_rows or 1)
        self._in_shard += table.num_rows
        self._size += table.nbytes
        self.rows += table.num_rows
        self.rows_by_shard[-1] += table.num_rows
        if self._in_shard >= SHARD_ROWS or self._size >= _BYTES_MAX:
            self._end_shard()

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._in_shard, self._size = None, 0, 0

    def close(self) -> None:
        """Write the pending rows and give the files their final names."""
        pending = pa.concat_tables(self._pending) if self._pending else self._schema.empty_table()
        while pending.num_rows:
            group = pending.slice(0, self._free_rows())
            pending = pending.slice(group.num_rows)
            self._write_group(group)
        # A split without rows is a valid empty file with the schema.
        if not self.rows_by_shard:
            self._write_group(self._schema.empty_table())
        self._end_shard()
        self._pending = []
        self.names = _number_files(self._folder, self._name, len(self.rows_by_shard))

    def __enter__(self) -> Shards:
        return self

    def __exit__(self, error_type: object, *_: object) -> None:
        if error_type is None:
            self.close()
        elif self._writer is not None:
            # After an error the files are abandoned with their directory; the handle is closed all
            # the same.
            self._writer.close()


def dictionary_columns(schema: pa.Schema) -> list[str] | bool:
    """The columns that are worth dictionary encoding."""
    candidates = [f for f in schema if pa.types.is_string(f.type) or pa.types.is_boolean(f.type)]
    return [f.name for f in candidates if f.name not in _LONG] or False


def _number_files(folder: str, name: str, count: int) -> list[str]:
    """Rename `NAME-00000.parquet` and its followers to names with their number; return these."""
    names = []
    for number in range(count):
        final = f"{name}-{number:05d}-of-{count:05d}.parquet"
        os.replace(f"{folder}/{name}-{number:05d}.parquet", f"{folder}/{final}")
        names.append(final)
    return names
