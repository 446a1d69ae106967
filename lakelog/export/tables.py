"""A table as files: sharded by rows, or below Hive directories `date=2026-11-20/`.

Rows stream: at most `PENDING_BYTES` wait for a full row group, and at most `OPEN_MAX` files are
open; beyond that the largest partitions are flushed, so a partition may have several parts.
"""

from __future__ import annotations

import errno
import os
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from lakelog.errors import ExportRefused
from lakelog.export import folder
from lakelog.libraries import np, pa, pc, pq

GROUP_ROWS = 65_536
SHARD_ROWS = 1_000_000
COMPRESSION = {"compression": "zstd", "compression_level": 1}
PENDING_BYTES = 128_000_000
OPEN_MAX = 64
NULL_NAME = "__HIVE_DEFAULT_PARTITION__"
_PARTITIONS_MAX = 10_000
_SAMPLE_ROWS = 8_192
"""Rows by which columns of few values are told."""


class PartFile(Protocol):
    """One file being written."""

    def write(self, table: pa.Table) -> None:
        """Add rows."""

    def close(self) -> None:
        """Finish the file."""


Opener = Callable[[str, Any], PartFile]
"""Opens (path, or a file where it is no text, and schema) as a Part."""


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote at `path`. `files` gives the size in bytes of each file, by its path
    relative to the directory, or by its name where `path` is one file; a pipe or device is none."""

    path: str
    rows: int
    files: dict[str, int]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(self.files.values())


class _Output:
    """Where a file is written: Arrow itself takes no path that is not UTF-8."""

    def __init__(self, file: str | BinaryIO) -> None:
        self.file = folder.output_file(file) if isinstance(file, str) else file
        self._is_own = isinstance(file, str)

    def close(self) -> None:
        """Close the file, if it was opened here."""
        if self._is_own:
            self.file.close()


class ParquetPart:
    """A Parquet file, zstd, a row group for each table written."""

    def __init__(self, file: str | BinaryIO, schema: pa.Schema) -> None:
        self._out, self._schema = _Output(file), schema
        self._writer: Any = None

    def write(self, table: pa.Table) -> None:
        """Add a row group."""
        if self._writer is None:
            repeating = _repeating(table)
            self._writer = pq.ParquetWriter(
                self._out.file, self._schema, use_dictionary=repeating, **COMPRESSION
            )
        self._writer.write_table(table, row_group_size=max(table.num_rows, 1))

    def close(self) -> None:
        """Write the footer."""
        if self._writer is None:
            self.write(self._schema.empty_table())
        self._writer.close()
        self._out.close()


def _repeating(table: pa.Table) -> bool | list[str]:
    """Return the columns that are worth a dictionary. That of any other one grows to its limit and
    is in the file besides the values, which takes a third of the time and a fifth of the space."""
    sample = table.slice(0, _SAMPLE_ROWS)
    # Leaves of nested columns have names of their own.
    if any(pa.types.is_nested(field.type) for field in table.schema):
        return True
    return [
        n for n, column in zip(sample.column_names, sample.columns, strict=True) if _repeats(column)
    ]


def _repeats(values: pa.ChunkedArray) -> bool:
    try:
        distinct: int = pc.count_distinct(values).as_py()
    except pa.ArrowNotImplementedError:  # a column of nothing
        return True
    return distinct <= len(values) / 2


class ArrowPart:
    """An Arrow file (IPC file format), or a stream."""

    def __init__(self, file: str | BinaryIO, schema: pa.Schema, *, is_stream: bool = False) -> None:
        self._out = _Output(file)
        self._writer = (pa.ipc.new_stream if is_stream else pa.ipc.new_file)(self._out.file, schema)

    def write(self, table: pa.Table) -> None:
        """Add batches."""
        self._writer.write_table(table)

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()
        self._out.close()


OPENERS: dict[str, Opener] = {"parquet": ParquetPart, "arrow": ArrowPart}


def write(
    reader: pa.RecordBatchReader,
    out: str,
    opener: Opener,
    ending: str,
    *,
    shard_rows: int,
    partition_by: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
) -> ExportResult:
    """Write a stream of rows as a directory that appears complete or not at all.

    Raises ExportRefused for a directory in use, a partition column that is not there, or more than
    10,000 partitions.
    """
    folder.require_free(out)
    # Before the directory is created, so that a mistake leaves no trace.
    _check_columns(reader.schema.names, partition_by)
    with folder.atomic_directory(out) as directory:
        sink = _Sink(directory, reader.schema, opener, ending, shard_rows, partition_by)
        rows = 0
        for batch in reader:
            sink.write(batch)
            rows += batch.num_rows
            if progress:
                progress(rows)
        sink.close()
        # Sizes are taken before the rename; the lock file is hidden and not part of the export.
        files = {n: s for n, s in folder.sizes(directory).items() if not n.startswith(".")}
    return ExportResult(out, rows, files)


def _check_columns(names: list[str], partition_by: Sequence[str]) -> None:
    for name in partition_by:
        if name not in names:
            raise ExportRefused(f"no column {name!r} to partition by: there are {', '.join(names)}")
        # A path would leave the directory; readers skip what is hidden, and split at the first `=`.
        if name.startswith(".") or {*"/=\0"} & {*name}:
            raise ExportRefused(f"{name!r} is no name for directories: rename the column with AS")
    if partition_by and len(set(partition_by)) == len(names):
        raise ExportRefused("nothing would be left in the files: partition by fewer columns")


class _Sink:
    """Sends rows to the partition they belong to."""

    def __init__(
        self,
        root: str,
        schema: pa.Schema,
        opener: Opener,
        ending: str,
        shard_rows: int,
        columns: Sequence[str],
    ) -> None:
        self._root, self._opener, self._ending = root, opener, ending
        self._by, self._shard_rows = list(columns), shard_rows
        self._schema = pa.schema([f for f in schema if f.name not in self._by])
        self._partitions: dict[str, _Partition] = {}

    def write(self, batch: pa.RecordBatch) -> None:
        """Take a batch of rows."""
        table = pa.Table.from_batches([batch])
        for name, rows in self._by_partition(table):
            self._partition(name).add(rows.select(self._schema.names))
        self._enforce_bounds()

    def _by_partition(self, table: pa.Table) -> Iterable[tuple[str, pa.Table]]:
        """Yield each partition's directory and rows, in the order of their first row."""
        if not self._by:
            yield "", table
            return
        codes, names = np.zeros(table.num_rows, dtype=np.int64), [""]
        for column in self._by:
            strings = _texts(table.column(column), column)
            coded = strings.dictionary_encode(null_encoding="encode")
            values = [f"{column}={_encode(v)}" for v in coded.dictionary.to_pylist()]
            # A mixed-radix code per row: one filter per partition instead of one per column and
            # value. Only what rows have gets a name: all pairs of two columns take gigabytes.
            codes = codes * len(values) + coded.indices.to_numpy()
            present, codes = np.unique(codes, return_inverse=True)
            pairs = [divmod(code, len(values)) for code in present.tolist()]
            names = [os.path.join(names[n], values[v]) for n, v in pairs]
        # dict.fromkeys keeps the order of first rows; numpy.unique would sort.
        for code in dict.fromkeys(codes.tolist()):
            yield names[code], table.filter(pa.array(codes == code))

    def _partition(self, name: str) -> _Partition:
        if name not in self._partitions:
            if len(self._partitions) >= _PARTITIONS_MAX:
                raise ExportRefused(
                    f"more than {_PARTITIONS_MAX:,} partitions by {', '.join(self._by)}:"
                    " partition by something coarser, such as a day"
                )
            directory = os.path.join(self._root, name)
            try:
                os.makedirs(directory, exist_ok=True)
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                raise ExportRefused(
                    f"a value is too long for the name of a directory, {name[:60]}...: partition by"
                    f" something shorter than {', '.join(self._by)}, such as md5(x)"
                ) from None
            self._partitions[name] = _Partition(
                directory, self._schema, self._opener, self._ending, self._shard_rows
            )
        return self._partitions[name]

    def _enforce_bounds(self) -> None:
        """Flush the largest partitions and close files until the bounds hold."""
        pending_bytes = sum(p.bytes for p in self._partitions.values())
        # The largest first: flushing many small partitions would give many small row groups.
        while pending_bytes > PENDING_BYTES:
            fullest = max(self._partitions.values(), key=lambda p: p.bytes)
            pending_bytes -= fullest.bytes
            fullest.flush()
        with_file = [p for p in self._partitions.values() if p.is_open]
        for partition in with_file[:-OPEN_MAX]:
            partition.close_file()

    def close(self) -> None:
        """Write the pending rows and give the files their names."""
        if not self._by:
            self._partition("")
        for partition in self._partitions.values():
            partition.close()


class _Partition:
    """The files of one partition."""

    def __init__(
        self, directory: str, schema: pa.Schema, opener: Opener, ending: str, shard_rows: int
    ) -> None:
        self._directory, self._schema, self._opener = directory, schema, opener
        self._ending, self._shard_rows = ending, shard_rows
        self._pending: list[pa.Table] = []
        self._pending_rows = self._in_file = self._files = 0
        self._part: PartFile | None = None
        self.bytes = 0

    @property
    def is_open(self) -> bool:
        """Whether a file is open."""
        return self._part is not None

    def add(self, table: pa.Table) -> None:
        """Buffer rows until they fill a row group."""
        self._pending.append(table)
        self._pending_rows += table.num_rows
        self.bytes += table.nbytes
        if self._pending_rows >= min(GROUP_ROWS, self._shard_rows):
            self.flush()

    def flush(self) -> None:
        """Write the pending rows; begin a new file where one is full."""
        if not self._pending:
            return
        table = pa.concat_tables(self._pending).combine_chunks()
        self._pending, self._pending_rows, self.bytes = [], 0, 0
        while table.num_rows:
            free_rows = min(GROUP_ROWS, self._shard_rows - self._in_file)
            self._open().write(table.slice(0, free_rows))
            self._in_file += min(free_rows, table.num_rows)
            table = table.slice(free_rows)
            if self._in_file >= self._shard_rows:
                self.close_file()

    def _open(self) -> PartFile:
        if self._part is None:
            path = f"{self._directory}/part-{self._files:05d}.{self._ending}"
            self._part = self._opener(path, self._schema)
            self._files, self._in_file = self._files + 1, 0
        return self._part

    def close_file(self) -> None:
        """Finish the open file."""
        if self._part is not None:
            self._part.close()
            self._part, self._in_file = None, 0

    def close(self) -> None:
        """Finish; a partition without rows gets one empty file."""
        self.flush()
        if not self._files:
            self._open().write(self._schema.empty_table())
        self.close_file()
        # The number of parts is part of each name, and is known only now.
        for number in range(self._files):
            stem = f"{self._directory}/part-{number:05d}"
            os.replace(f"{stem}.{self._ending}", f"{stem}-of-{self._files:05d}.{self._ending}")


def _texts(values: pa.ChunkedArray, column: str) -> pa.Array:
    """Return the values of a partition column as texts. Raises ExportRefused for bytes."""
    try:
        return pc.cast(values, pa.string()).combine_chunks()
    except pa.ArrowInvalid:
        raise ExportRefused(
            f"{column} has bytes that are no text, and no name of a directory: cast them, as in"
            " hex(x)"
        ) from None


def _encode(value: str | None) -> str:
    """Return a value as a Hive directory name writes it."""
    return NULL_NAME if value is None else urllib.parse.quote(value, safe=" ,;()!@'~")
