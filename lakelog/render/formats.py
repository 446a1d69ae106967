"""Results as bytes: JSON, NDJSON, CSV, Markdown, Parquet, Arrow, and tables for people.

Text formats are made batch by batch, so that a result of any size streams; CSV and NDJSON on all
cores. CSV is RFC 4180 with
a header. Arrow is the file format in a file and the stream format on stdout.
"""

from __future__ import annotations

import enum
import functools
import io
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Generic, TypeVar

import zstandard

from lakelog.errors import QueryFailed
from lakelog.libraries import pa, pq
from lakelog.render.display import TABLE_END, escaped, row_html, table_start
from lakelog.render.values import ValueRow, dumps, records, text
from lakelog.render.vectors import ColumnBatch, csv_lines, json_lines
from lakelog.runtime import forks
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    from concurrent import futures
else:
    futures = Lazy("concurrent.futures")

WORKERS_MAX = 4
Input = TypeVar("Input")
Output = TypeVar("Output")


class OrderedCalls(Generic[Input, Output]):
    """Calls of one function; each method yields the results that are due, in order.

    Arrow's kernels release the interpreter, so text is made on as many threads as there are cores,
    up to `WORKERS_MAX`. At most twice as many calls wait as there are threads: what they hold is
    the memory that this takes. An exception of a call is raised where its result would be.
    """

    def __init__(self, make: Callable[[Input], Output]) -> None:
        self._make = make
        self._pending: deque[futures.Future[Output]] = deque()

    def add(self, item: Input, *, is_large: bool) -> Iterator[Output]:
        """Call the function; for a small item at once, unless others are waiting."""
        workers = _workers()
        # A thread would cost more than a few rows do, and a live stream is not to wait for more.
        if workers == 1 or not (is_large or self._pending):
            yield self._make(item)
            return
        self._pending.append(_pool().submit(self._make, item))
        while self._pending and (self._pending[0].done() or len(self._pending) > 2 * workers):
            yield self._pending.popleft().result()

    def rest(self) -> Iterator[Output]:
        """Yield what is still to come."""
        while self._pending:
            yield self._pending.popleft().result()

    def cancel(self) -> None:
        """Forget the calls that have not begun."""
        while self._pending:
            self._pending.pop().cancel()


@functools.cache
def _workers() -> int:
    return min(len(os.sched_getaffinity(0)), WORKERS_MAX)


@functools.cache
def _pool() -> futures.ThreadPoolExecutor:
    """One pool for the process: an export by partitions has many files open."""
    return futures.ThreadPoolExecutor(_workers(), "lakelog-export")


# A forked process has the pool's object and none of its threads.
forks.after_in_child(_pool.cache_clear)


PACKED = (".gz", ".zst")
"""Endings behind another one, which say how a text is compressed."""
LINES = ("csv", "ndjson")
"""Formats with a line for each row."""
RowBatches = Iterable[Sequence[ValueRow]]
EncodedPiece = bytes | memoryview
_LARGE = 4_096
"""Rows from which a batch is worth a thread."""


class OutputFormat(enum.StrEnum):
    """A format of results, by the name that a user writes."""

    TABLE = "table"
    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"
    MD = "md"
    HTML = "html"

    @classmethod
    def binary(cls) -> tuple[OutputFormat, ...]:
        """Return the formats that are no text."""
        return cls.PARQUET, cls.ARROW

    @classmethod
    def synonyms(cls) -> dict[str, OutputFormat]:
        """Return other names of formats."""
        return {"jsonl": cls.NDJSON}

    def on_terminal(self, encoded: EncodedPiece) -> bytes:
        """Return a piece of a text format without what would control a terminal."""
        spelling = "\\u{:04x}" if self in (self.JSON, self.NDJSON) else "\\x{:02x}"
        lines = str(encoded, "utf-8", "replace").replace("\r\n", "\n")
        return escaped(lines, spelling).encode()


_BY_EXTENSION = {f".{form}": form for form in OutputFormat if form != "table"} | {
    ".jsonl": OutputFormat.NDJSON,
    ".arrows": OutputFormat.ARROW,
    ".feather": OutputFormat.ARROW,
    ".txt": OutputFormat.TABLE,
}


@dataclass(frozen=True)
class FileEnding:
    """What the name of a file says: the extension of a format and its format, None where it means
    none, and the extension of a compression after it, or nothing: `events.csv.gz` is CSV."""

    extension: str
    format: OutputFormat | None
    compression: str

    @classmethod
    def of(cls, path: str) -> FileEnding:
        """Return the ending of a path."""
        stem, extension = os.path.splitext(path.lower())
        compression = extension if extension in PACKED else ""
        if compression:
            extension = os.path.splitext(stem)[1]
        return cls(extension, _BY_EXTENSION.get(extension), compression)

    def compressed(self, out: BinaryIO) -> Any:
        """Return a stream that compresses into `out`; `out` itself where the ending says nothing of
        that. To close it leaves `out` open."""
        if self.compression == ".gz":
            return GzipStream(out)
        if self.compression == ".zst":
            return zstandard.ZstdCompressor().stream_writer(out, closefd=False)
        return out


@dataclass(frozen=True)
class QueryResult:
    """Columns and batches of rows, read once. `nested` columns hold JSON text; `arrow` gives the
    same rows as a record batch reader where the engine can. `main` are the columns that a narrow
    table shows first."""

    columns: list[str]
    batches: RowBatches
    nested: tuple[int, ...] = ()
    arrow: Callable[[], Any] | None = None
    main: tuple[str, ...] = ()

    @classmethod
    def of_records(
        cls, rows: Sequence[Mapping[str, object]], columns: Sequence[str] = ()
    ) -> QueryResult:
        """Return dicts with equal keys as a result; `columns` names them where there may be
        none."""
        # Keys of the first: all have the same.
        names = list(rows[0]) if rows else list(columns)
        return cls(names, [[[record[n] for n in names] for record in rows]])

    def encode(self, format: str) -> Iterator[EncodedPiece]:
        """Return the pieces of a text format other than table."""
        if format in LINES:
            return _lines(self, format)
        makers = {"json": _json, "md": _markdown, "html": _html}
        return makers[format](self)

    def write_arrow(self, out: BinaryIO, format: str, stream: bool) -> None:
        """Write Parquet or Arrow. Raises QueryFailed for a type that Parquet cannot hold."""
        if self.arrow:
            reader = self.arrow()
        else:
            rows = [row for batch in self.batches for row in batch]
            # Nested values as JSON text.
            columns = [
                [dumps(v).decode() if isinstance(v, (dict, list, tuple)) else v for v in column]
                for column in ([row[place] for row in rows] for place in range(len(self.columns)))
            ]
            reader = pa.table(columns, names=self.columns).to_reader()
        names = zip(reader.schema, self.columns, strict=True)
        schema = pa.schema([field.with_name(name) for field, name in names])
        if format == "parquet":
            try:
                made: Any = pq.ParquetWriter(Sink(out), schema, compression="zstd")
            except pa.ArrowNotImplementedError as error:
                raise QueryFailed(
                    "a column is of a type that Parquet cannot hold: cast it, as in CAST(x AS"
                    f" VARCHAR) ({error})"
                ) from None
        else:
            made = (pa.ipc.new_stream if stream else pa.ipc.new_file)(Sink(out), schema)
        with made as writer:
            for batch in reader:
                writer.write_batch(batch.rename_columns(self.columns))


def _lines(result: QueryResult, format: str) -> Iterator[EncodedPiece]:
    lines = TextLineEncoder(format, result.columns, result.nested)
    yield lines.header()
    # A reader that stops early must not leave rows being encoded.
    try:
        for batch in result.batches:
            yield from lines.add(batch)
        yield from lines.rest()
    finally:
        lines.cancel()


class TextLineEncoder:
    """Encodes batches of rows as lines of CSV or NDJSON, several at a time. The methods yield the
    pieces that are due, in the order of the rows."""

    def __init__(
        self, format: str, columns: list[str], nested: tuple[int, ...] = (), is_json: bool = False
    ) -> None:
        """With `is_json`, all texts of `nested` columns are known to be JSON."""
        self._columns, self._nested, self._is_json = columns, nested, is_json
        self._record = records(columns, nested)
        self._is_csv = format == "csv"
        # Duplicate column names must be merged as a JSON object would, and a single empty cell be
        # written as "", since a blank line is no row: that only the row by row path does.
        names = len(columns) if self._is_csv else len(set(columns))
        self._by_column = len(columns) == names and (not self._is_csv or names > 1)
        self._calls = OrderedCalls(self._encode)

    def header(self) -> bytes:
        """Return what stands before the lines."""
        return _csv_line(self._columns) if self._is_csv and self._columns else b""

    def add(self, batch: Sequence[ValueRow]) -> Iterator[EncodedPiece]:
        """Encode a batch."""
        for rows in batch.parts() if isinstance(batch, ColumnBatch) else (batch,):
            yield from self._calls.add(rows, is_large=len(rows) >= _LARGE)

    def rest(self) -> Iterator[EncodedPiece]:
        """Yield what is still to come."""
        return self._calls.rest()

    def cancel(self) -> None:
        """Let go of rows that are not encoded yet."""
        self._calls.cancel()

    def _encode(self, batch: Sequence[ValueRow]) -> EncodedPiece:
        if isinstance(batch, ColumnBatch) and self._by_column:
            if self._is_csv:
                return csv_lines(batch)
            return json_lines(batch, self._columns, self._nested, is_json=self._is_json)
        if self._is_csv:
            return b"".join(map(_csv_line, batch))
        return b"".join(dumps(self._record(row)) + b"\n" for row in batch)


def _json(result: QueryResult) -> Iterator[bytes]:
    # A comma before each but the first: nobody knows which row is the last.
    mark = b"[\n"
    for lines in filter(None, _lines(result, "ndjson")):
        yield mark + bytes(lines)[:-1].replace(b"\n", b",\n")
        mark = b",\n"
    yield b"[]\n" if mark == b"[\n" else b"\n]\n"


def _csv_line(row: ValueRow) -> bytes:
    """A line of cells: null is empty, an empty text is quoted."""
    # Written by the rules of RFC 4180, with CRLF.
    cells = ["" if v is None else text(v) for v in row]
    # An empty text is quoted, to tell it from null.
    for place, cell in enumerate(cells):
        if any(mark in cell for mark in ',"\r\n') or (not cell and row[place] is not None):
            cells[place] = '"' + cell.replace('"', '""') + '"'
    line = ",".join(cells) or '""'  # a blank line would be no row
    return f"{line}\r\n".encode("utf-8", "backslashreplace")


def _markdown(result: QueryResult) -> Iterator[bytes]:
    """Columns that are numeric in the first row are aligned right."""
    head: list[str] | None = None
    # Known from the first row on; without rows the names alone make a table.
    for batch in result.batches:
        if batch and head is None:
            head = _markdown_head(result.columns, batch[0])
            yield "".join(head).encode("utf-8", "backslashreplace")
        lines = (_markdown_line([text(v) for v in row]) for row in batch)
        yield "".join(lines).encode("utf-8", "backslashreplace")
    if head is None:
        yield "".join(_markdown_head(result.columns, result.columns)).encode()


def _markdown_head(columns: list[str], row: ValueRow) -> list[str]:
    numeric = [hasattr(v, "real") and not isinstance(v, bool) for v in row]
    return [_markdown_line(columns), _markdown_line(["--:" if n else "---" for n in numeric])]


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_markdown_cell, cells))} |\n"


def _markdown_cell(cell: str) -> str:
    # A line break would end the row of a table.
    return "<br>".join(cell.replace("\\", "\\\\").replace("|", "\\|").splitlines())


def _html(result: QueryResult) -> Iterator[bytes]:
    """A table without a page around it, for notebooks and mails."""
    right: list[bool] | None = None
    for batch in result.batches:
        if batch and right is None:
            right = [hasattr(v, "real") and not isinstance(v, bool) for v in batch[0]]
            yield table_start(result.columns, right).encode("utf-8", "backslashreplace")
        rows = (
            row_html([None if v is None else text(v) for v in row], right or ()) for row in batch
        )
        yield "".join(rows).encode("utf-8", "backslashreplace")
    if right is None:
        yield table_start(result.columns, [False] * len(result.columns)).encode()
    yield TABLE_END.encode()


class GzipStream(io.RawIOBase):
    """Compresses into a file, without name and time, so that equal rows give equal files. Where
    nobody closes it no end is written: whoever reads a pipe sees that it is not whole."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._compressor = out, zlib.compressobj(zlib.Z_BEST_COMPRESSION, wbits=31)

    def __del__(self) -> None:
        """Do not close it, as other streams do."""

    def writable(self) -> bool:
        """Always true."""
        return True

    def write(self, data: Any) -> int:
        """Compress bytes."""
        self._out.write(self._compressor.compress(data))
        return len(data)

    def close(self) -> None:
        """Write the end; once more does nothing."""
        if not self.closed:
            self._out.write(self._compressor.flush())
        super().close()


class Sink(io.RawIOBase):
    """A stream that knows its position, for writers that need it; a pipe does not."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._at = out, 0

    def writable(self) -> bool:
        """Always true."""
        return True

    def write(self, data: Any) -> int:
        """Write bytes."""
        self._out.write(data)
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        """Bytes written so far."""
        return self._at
