"""The files and rows that make up a state, for engines of other makers.

An `EventScan` is a value: the segments of one state, verified, and the rows of its tail. It can be
pickled and divided, so that tasks of a cluster read shares of it, where the lake's directory is
mounted and lakelog is installed.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from lakelog import arrays, typed_columns
from lakelog.database import connect
from lakelog.errors import ExportRefused, QueryFailed
from lakelog.event import EVENT_COLUMNS
from lakelog.keys import VAULT
from lakelog.libraries import duckdb, np, pa, pq
from lakelog.paths import Paths
from lakelog.runtime.lazy import Lazy
from lakelog.segments import segment_schema
from lakelog.settings import DEFAULTS
from lakelog.store import Store

if TYPE_CHECKING:
    from pyarrow import dataset as ds

    from lakelog.query import Session
else:
    ds = Lazy("pyarrow.dataset")

COLUMNS = (*EVENT_COLUMNS, "seq")
SHARE_ROWS = 262_144
"""Rows of one share: what a task reads at once, unless a single segment has more."""


@dataclass(frozen=True)
class SegmentFile:
    """A segment: its path, the number of its rows, and the seq of the first, None where `seq` is a
    column of the file. `schema_json` is that of its typed payloads, "" where all are text."""

    path: str
    rows: int
    first_seq: int | None
    schema_json: str = ""

    @property
    def is_typed(self) -> bool:
        """Whether the payloads are in a column `fields`."""
        return bool(self.schema_json)


@dataclass(frozen=True)
class EventScan:
    """The events of one state, or a share of them: segments, and an Arrow table of the rows of the
    tail, None where there are none. `root` is the lake's directory.

    Files of an encrypted lake are opened in memory, by processes that find its key themselves.
    Where `opens_fields`, the tail is all rows, with protected fields in plain text.
    """

    root: str
    files: tuple[SegmentFile, ...]
    tail: pa.Table | None = None
    is_encrypted: bool = False
    opens_fields: bool = False

    @property
    def rows(self) -> int:
        """Number of events."""
        return sum(f.rows for f in self.files) + (0 if self.tail is None else self.tail.num_rows)

    def shares(self) -> list[EventScan]:
        """Divide the rows into shares of about SHARE_ROWS; there is one at least."""
        shares: list[EventScan] = []
        pending: list[SegmentFile] = []
        rows = 0
        for file in self.files:
            if pending and rows + file.rows > SHARE_ROWS:
                shares.append(dataclasses.replace(self, files=tuple(pending), tail=None))
                pending, rows = [], 0
            pending.append(file)
            rows += file.rows
        shares.append(dataclasses.replace(self, files=tuple(pending)))
        return shares


@functools.cache
def schema() -> pa.Schema:
    """Return the Arrow schema of the columns of `events`, without numbers of fields."""
    return pa.schema([pa.field(f.name, f.type) for f in segment_schema("events", "sorted")])


def require(package: str, method: str, install: str) -> None:
    """Raise QueryFailed with one sentence if the package of an engine is not installed."""
    if find_spec(package) is None:
        raise QueryFailed(f"{method} needs {package}: {install}")


def require_plain(scan: EventScan, method: str, reason: str) -> None:
    """Raise ExportRefused with one sentence if an engine would have rows of an encrypted lake, or
    protected fields, as plain text on disk, where nobody asked for them."""
    if scan.is_encrypted:
        raise ExportRefused(
            f"{method}: the lake at {scan.root} is encrypted, and {reason}: write files in plain"
            " text with `lakelog export`, to a place of your choice"
        )
    if scan.opens_fields:
        raise ExportRefused(
            f"{method}: the lake at {scan.root} has protected fields, and {reason}: leave them out"
            f" with .without_protected_fields(){method} of a state, lake.at(...), or write files"
            " with `lakelog export`"
        )


def scan_of(session: Session, digest: str | None = None) -> EventScan:
    """Return the events of a state by its digest, or without one of the branch as it is now, with
    its tail; all in memory where protected fields are opened. Raises DamagedSegment, SnapshotGone,
    LakeClosed, InvalidKey."""
    tables = session.tables
    is_encrypted = tables.store.paths.keys is not None
    # An engine that reads the files itself has no keys, and no function that opens blocks.
    if tables.opens_fields:
        names = ", ".join(COLUMNS)
        relation = session.sql(f"SELECT {names} FROM events ORDER BY seq", None, digest)
        table = relation.to_arrow_table().cast(schema()).combine_chunks()
        return EventScan(tables.store.paths.root, (), table, is_encrypted, opens_fields=True)
    manifest, pending = session.state(digest)
    tail = tables.numbered_tail(pending, manifest)
    entries = tables.store.manifests.segments(manifest, "events")
    tables.choice.verify(entries)
    paths = tables.store.paths
    files = tuple(
        SegmentFile(
            paths.object("segments", entry.key),
            entry.events,
            entry.seq[0] if entry.layout == "arrival" else None,
            typed_columns.Schema.of_entry(paths, entry).to_json() if entry.fields else "",
        )
        for entry in entries
    )
    rows = None if tail is None else tail.select(COLUMNS).cast(schema()).combine_chunks()
    return EventScan(paths.root, files, rows, is_encrypted)


def read_rows(
    scan: EventScan, columns: Sequence[str] | None = None, condition: ds.Expression | None = None
) -> pa.Table:
    """Return the rows of a scan for which an Arrow expression holds, with these columns; where
    none is wanted, with one, as a table without columns would have lost how many rows it has."""
    names = list(COLUMNS if columns is None else columns) or ["seq"]
    if scan.is_encrypted and Paths(scan.root).keys is None:
        Store.load(scan.root)  # in a process that has opened no lake, which so finds the key
    tables = [_read_file(scan.root, file, names, condition) for file in scan.files]
    if scan.tail is not None:
        tail = scan.tail if condition is None else scan.tail.filter(condition)
        tables.append(tail.select(names))
    empty = schema().empty_table().select(names)
    return pa.concat_tables([empty, *tables])


def _read_file(
    root: str, file: SegmentFile, names: list[str], condition: ds.Expression | None
) -> pa.Table:
    """Read a segment; a condition on columns that its file has skips row groups."""
    # The text of an expression has the names of all columns that it may mention.
    spelling = "" if condition is None else str(condition)
    mentioned = {name for name in COLUMNS if name in spelling}
    source = VAULT.file(file.path)
    is_whole_row = mentioned & {"data"} or file.first_seq is not None or source != file.path
    if condition is not None and not is_whole_row:
        file_columns = _stored_columns(file, names)
        table = ds.dataset(file.path, format="parquet").to_table(file_columns, filter=condition)
        return _as_events(root, file, table, names)
    needed = [*names, *(name for name in COLUMNS if name in mentioned and name not in names)]
    with pq.ParquetFile(source, page_checksum_verification=True) as parquet:
        table = parquet.read(_stored_columns(file, needed))
    if file.first_seq is not None and "seq" in needed:
        numbers = arrays.integers(np.arange(file.rows, dtype=np.int64) + file.first_seq)
        table = table.append_column("seq", numbers)
    table = _as_events(root, file, table, needed)
    return (table if condition is None else table.filter(condition)).select(names)


def _stored_columns(file: SegmentFile, names: Iterable[str]) -> list[str]:
    columns = [name for name in names if name != "seq" or file.first_seq is None]
    if file.is_typed and "data" in columns:
        columns.append(typed_columns.COLUMN)
    return columns or ["type"]  # which says how many rows there are


def _as_events(root: str, file: SegmentFile, table: pa.Table, names: list[str]) -> pa.Table:
    if file.is_typed and "data" in names:
        payloads = payload_texts(root, file.schema_json, table[typed_columns.COLUMN], table["data"])
        table = table.set_column(table.column_names.index("data"), "data", payloads)
    target = pa.schema([schema().field(name) for name in names])
    return table.select(names).cast(target)


def payload_texts(
    root: str, schema_json: str, structs: pa.ChunkedArray, strings: pa.ChunkedArray
) -> pa.ChunkedArray:
    """Return payloads as text: what `strings` has, otherwise what the structs stand for."""
    payloads = typed_columns.Schema.from_json(schema_json)
    target = payloads.arrow_type()
    structs = structs if structs.type == target else structs.cast(target)
    rows = pa.table({"data": strings.cast(pa.string()), typed_columns.COLUMN: structs})
    if not rows.num_rows:
        return rows["data"]
    # A cursor of its own for each call: engines call from many threads.
    cursor = _database(root, os.getpid()).cursor()
    return typed_columns.restored(cursor, payloads, rows)["data"]


def payload_array(root: str, schema_json: str, structs: pa.Array, strings: pa.Array) -> pa.Array:
    """Return the same of arrays."""
    both = pa.chunked_array([structs]), pa.chunked_array([strings])
    return payload_texts(root, schema_json, *both).combine_chunks()


@functools.cache
def _database(root: str, process: int) -> duckdb.DuckDBPyConnection:
    """The database of one process: a child of fork must not use its parent's."""
    return connect(Paths(root), DEFAULTS)


def runs_alike(scan: EventScan) -> list[tuple[list[SegmentFile], int | None]]:
    """Divide files into runs that are read alike, each with its first seq, None where that is a
    column: in one run rows that have arrived are numbered one after another."""
    runs: list[tuple[list[SegmentFile], int | None]] = []
    sorted_files: dict[str, list[SegmentFile]] = {}
    following = ("", -1)
    for file in sorted(scan.files, key=lambda f: (f.first_seq is None, f.first_seq or 0)):
        if file.first_seq is None:
            sorted_files.setdefault(file.schema_json, []).append(file)
        elif following == (file.schema_json, file.first_seq):
            runs[-1][0].append(file)
        else:
            runs.append(([file], file.first_seq))
        following = (file.schema_json, (file.first_seq or 0) + file.rows)
    return [*runs, *((files, None) for files in sorted_files.values())]
