"""Pieces: merged partials of sets of segments, kept in cache/views/<state>/<name>.piece.

    8 bytes    "LKV1", crc32 of the header
    4 bytes    u32, length of the header
    header     JSON: state, cover {segment: [rows, first seq, last seq, [segments it was made
               from]]}, columns [[name, type]], digest (SHA-256 of the body)
    body       Parquet

A piece is named by what it covers, so any snapshot that holds those segments can use it, on any
branch. It names its state too, for another one may have the same columns. The directory is
derived: a piece that is missing, damaged or not in its place is computed anew, and the oldest go
when the directory outgrows its limit. Types that Parquet would change are not kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from lakelog.disk import File, Folder, disk
from lakelog.errors import Damaged
from lakelog.keys import VAULT
from lakelog.libraries import duckdb, pa, pq
from lakelog.paths import Paths
from lakelog.views.layers import LayerBuilder, LayerTable, StateShape

_HEAD = struct.Struct("<4sII")
_MAGIC = b"LKV1"
_ENDING = ".piece"
_BATCH_ROWS = 1 << 15
Cover = dict[str, list[Any]]


@dataclass(frozen=True)
class PieceFile:
    """A file: how many rows its segments have, where its body begins, and the digest of that."""

    path: str
    digest: str
    start: int
    events: int


@dataclass(frozen=True)
class Partial:
    """What a file says of itself, which may be long: the segments it covers, and its columns."""

    file: PieceFile
    cover: Cover
    columns: tuple[tuple[str, str], ...]


class Partials:
    """The pieces of one lake. A reader of several processes needs no lock: files appear whole."""

    def __init__(self, paths: Paths, bytes_max: int) -> None:
        self._root, self._bytes_max = f"{paths.cache}/views", bytes_max
        self._known: dict[tuple[str, int], Partial | None] = {}

    def of(self, state: str, shape: StateShape) -> list[Partial]:
        """The intact pieces of a state, those of the most events first."""
        partials = []
        try:
            names = Folder(f"{self._root}/{state}").names()
        except OSError:  # something else is in the way: then nothing is kept
            names = []
        for name in names:
            # A temporary file may be half written.
            if name.endswith(_ENDING) and not name.startswith(disk.TEMPORARY):
                partial = self._piece(state, f"{self._root}/{state}/{name}")
                # The state's name has the SQL in it; the columns are compared since the file is not
                # trusted.
                if partial is not None and partial.columns == shape.columns:
                    partials.append(partial)
        return sorted(partials, key=lambda partial: partial.file.events, reverse=True)

    def load(
        self,
        builder: LayerBuilder,
        cursor: duckdb.DuckDBPyConnection,
        piece_file: PieceFile,
        shape: StateShape,
    ) -> LayerTable | None:
        """Bring a piece into the engine; None if the file is gone or not as written."""
        try:
            # From its body on: the cover before it has a hundred bytes for each segment.
            with VAULT.open_file(piece_file.path) as source:
                source.seek(piece_file.start)
                body = source.read()
            if hashlib.sha256(body).hexdigest() != piece_file.digest:
                return None
            # Not read_table: that loads Arrow's datasets, and with them pandas.
            file = pq.ParquetFile(pa.BufferReader(pa.py_buffer(body)))
            # Batch by batch: the table is there once, and not in Arrow's form beside it.
            batches = file.iter_batches(_BATCH_ROWS)
            rows = pa.RecordBatchReader.from_batches(file.schema_arrow, batches)
        except (OSError, ValueError, pa.ArrowException, Damaged):
            return None
        cursor.register("lakelog_piece", rows)
        try:
            return builder.table(cursor, shape.rows("FROM lakelog_piece"))
        finally:
            cursor.unregister("lakelog_piece")

    def save(
        self,
        state: str,
        cover: Cover,
        shape: StateShape,
        cursor: duckdb.DuckDBPyConnection,
        query: str,
    ) -> PieceFile | None:
        """Keep the rows of a query as the piece of the segments in `cover`, and return it.

        It is written whole under its name or not at all, and not synced: what a power failure
        leaves is known by its digest. A full or read-only disk only costs the next reader time.
        """
        if not shape.is_lossless:
            return None
        # A piece is known by what it covers, so that equal covers are one file.
        name = hashlib.sha256("".join(sorted(cover)).encode()).hexdigest()[:32]
        path = f"{self._root}/{state}/{name}{_ENDING}"
        # Of readers that saw the same segments appear one keeps what all of them computed.
        if File(path).exists():
            partial = self._piece(state, path)
            return (
                partial.file if partial is not None and partial.columns == shape.columns else None
            )
        # HUGEINT has no type in Parquet; DECIMAL(38, 0) holds all that sums of events reach.
        columns = ", ".join(
            f'"{n}"::DECIMAL(38,0) AS "{n}"' if type_ == "HUGEINT" else f'"{n}"'
            for n, type_ in shape.columns
        )
        body = _parquet(cursor.sql(f"SELECT {columns} FROM ({query}\n)"))
        digest = hashlib.sha256(body).hexdigest()
        header = orjson.dumps(
            {"state": state, "cover": cover, "columns": shape.columns, "digest": digest}
        )
        head = _HEAD.pack(_MAGIC, zlib.crc32(header), len(header))
        # Not synced: what a power failure leaves is recognized by its digest and computed again.
        with contextlib.suppress(OSError):
            Folder(os.path.dirname(path)).make_all()
            File(path).replace(b"".join((head, header, body)), sync=False)
            self._trim(path)
            return PieceFile(path, digest, len(head) + len(header), _events(cover))
        return None

    def partial(self, state: str, piece_file: PieceFile) -> Partial | None:
        """What the file of a piece says of itself; None if it is another one by now."""
        partial = self._piece(state, piece_file.path)
        return partial if partial is not None and partial.file == piece_file else None

    def replace(self, piece_files: Iterable[PieceFile], whole: PieceFile) -> None:
        """Remove those pieces that are but a small part of one that was made of them."""
        for piece_file in piece_files:
            # A quarter: pieces are replaced where they hardly matter, but never one that is as
            # good.
            if piece_file.events * 4 < whole.events:
                self.forget(piece_file)

    def forget(self, piece_file: PieceFile) -> None:
        """Remove a piece."""
        with contextlib.suppress(OSError):
            File(piece_file.path).remove()

    def _piece(self, state: str, path: str) -> Partial | None:
        try:
            status = os.stat(path)
        except OSError:
            return None
        key = path, status.st_mtime_ns ^ status.st_size
        if key not in self._known:
            if len(self._known) > 4096:
                self._known.clear()
            self._known[key] = self._header(state, path)
        return self._known[key]

    def _header(self, state: str, path: str) -> Partial | None:
        """Read what a file says of itself; one that is damaged or another state's is removed."""
        try:
            with VAULT.open_file(path) as file:
                magic, crc, size = _HEAD.unpack(file.read(_HEAD.size))
                header = file.read(size)
            if magic != _MAGIC or zlib.crc32(header) != crc:
                raise ValueError("damaged")
            header_fields = orjson.loads(header)
            if header_fields["state"] != state:
                raise ValueError("of another state")
            columns = tuple((str(n), str(type_)) for n, type_ in header_fields["columns"])
            cover = header_fields["cover"]
            piece_file = PieceFile(path, header_fields["digest"], _HEAD.size + size, _events(cover))
            return Partial(piece_file, cover, columns)
        # Damaged: an encrypted file that does not open with this lake's keys.
        except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error, Damaged):
            with contextlib.suppress(OSError):
                File(path).remove()
            return None

    def _trim(self, newest: str) -> None:
        """Let the oldest files go until the directory is within its limit."""
        files = []
        for state in Folder(self._root).names():
            names: list[str] = []
            with contextlib.suppress(NotADirectoryError):  # a stray file
                names = Folder(f"{self._root}/{state}").names()
            for name in names:
                path = f"{self._root}/{state}/{name}"
                with contextlib.suppress(OSError):
                    status = os.stat(path)
                    files.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in files)
        # By the time of writing: what is read is kept in memory, and not touched on disk.
        for _, size, path in sorted(files):
            if total <= self._bytes_max:
                break
            # The one that was just written may have the same time as others.
            if path != newest:
                File(path).remove()
                total -= size


def _events(cover: Cover) -> int:
    """Rows of the segments of a cover."""
    return sum(int(info[0]) for info in cover.values())


def _parquet(rows: duckdb.DuckDBPyRelation) -> memoryview:
    out = io.BytesIO()
    reader = rows.to_arrow_reader(_BATCH_ROWS)
    options = {"compression": "zstd", "compression_level": 1}
    with pq.ParquetWriter(out, reader.schema, **options) as writer:
        for batch in reader:
            writer.write_batch(batch)
    return out.getbuffer()
