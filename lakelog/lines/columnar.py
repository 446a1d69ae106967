"""Parquet and Arrow files as streams of JSON lines, one for each row.

To the rest of ingest, a columnar file is one more way to compress lines: cursors, audits, backups
and the quarantine count bytes of these lines, and the JSON lines format maps the columns. So the
text of a row depends on its values alone, never on row groups, batches or library versions.

A column that is null is left out. Integers, decimals and floats are numbers, NaN and the infinities
text; times are ISO 8601 (in UTC with Z where they have a zone), durations ISO 8601, bytes UTF-8 or
else with `\\xHH` escapes, lists arrays, structs and maps objects. JSON text in a column `data` is
JSON. Of rows that lakelog exported, columns that a lake assigns to each event are left out.

Memory holds a few thousand rows of a Parquet file, or one record batch of an Arrow file.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from lakelog.errors import InvalidEvent
from lakelog.event import assigned_columns
from lakelog.libraries import np, pa, pc, pq
from lakelog.lines.inflate import BrokenStream
from lakelog.runtime.lazy import Lazy
from lakelog.values import parse_value

if TYPE_CHECKING:
    import uuid
else:
    uuid = Lazy("uuid")

PARQUET, ARROW_FILE, ARROW_STREAM = b"PAR1", b"ARRO", b"\xff\xff\xff\xff"
# Rows and bytes of text that are made at a time.
_ROWS, _BYTES = 16_384, 8 << 20
_ESCAPED = '[\\x00-\\x1f"\\\\]'
_UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def container(start: bytes) -> str:
    """Return "parquet", "arrow" or "" by the first four bytes of a file."""
    if start == PARQUET:
        return "parquet"
    return "arrow" if start in (ARROW_FILE, ARROW_STREAM) else ""


class RowStream:
    """The rows of a Parquet or Arrow file as JSON lines."""

    def __init__(self, file: BinaryIO) -> None:
        self._fd = file.fileno()
        # Opened at the first read, whose caller reports a damaged file; a constructor would raise
        # it.
        self._lines: Iterator[bytes] | None = None
        self._buffer = b""

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes. Raises BrokenStream, OSError."""
        try:
            if self._lines is None:
                self._lines = _lines(self._fd)
            while not self._buffer:
                self._buffer = next(self._lines, b"")
                if not self._buffer:
                    return b""
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            if getattr(error, "errno", None):
                raise  # of the medium; pyarrow's own have no number
            reason = " ".join(str(error).split())[:200]
            raise BrokenStream(f"the file is damaged or not finished: {reason}") from None
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data


class _File(io.RawIOBase):
    """A file read by offset, so that the position of the shared descriptor stays as it is."""

    def __init__(self, fd: int) -> None:
        self._fd, self._at = fd, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = os.pread(self._fd, len(buffer), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        start = (0, self._at, os.fstat(self._fd).st_size)[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at


def _lines(fd: int) -> Iterator[bytes]:
    """Yield the lines of all rows, some thousands at a time."""
    start = os.pread(fd, 4, 0)
    for batch in _parquet(fd) if start == PARQUET else _arrow(fd, start):
        # a slice of a batch is free, so that the text of wide rows is not all made at once
        step = max(1, min(_ROWS, _BYTES * batch.num_rows // max(batch.nbytes, 1)))
        for row in range(0, batch.num_rows, step):
            yield json_lines(batch.slice(row, step))


def _parquet(fd: int) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(pa.PythonFile(_File(fd), "r"), buffer_size=1 << 20) as file:
        for group in range(file.metadata.num_row_groups):
            meta = file.metadata.row_group(group)
            # A row group of a few wide rows may be gigabytes: its batches are bounded by bytes,
            # too.
            wide = _BYTES * meta.num_rows // max(meta.total_byte_size, 1)
            count = max(1, min(_ROWS, wide))
            yield from file.iter_batches(count, [group], use_threads=False)


def _arrow(fd: int, start: bytes) -> Iterator[pa.RecordBatch]:
    source = pa.PythonFile(_File(fd), "r")
    if start == ARROW_STREAM:
        with pa.ipc.open_stream(source) as stream:
            yield from stream
        return
    with pa.ipc.open_file(source) as file:
        for number in range(file.num_record_batches):
            yield file.get_batch(number)


def json_lines(batch: pa.RecordBatch) -> bytes:
    """Return the rows of a batch as JSON lines."""
    own_columns = assigned_columns(batch.schema.names)
    large = pa.large_string()
    # One string array of full length, so that a batch without columns still gives its rows.
    columns: list[pa.Array] = [pa.array(["{"] * batch.num_rows, large)]
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name not in own_columns:
            json_column = _payload(column) if name == "data" else _text(column)
            member = pa.scalar(f",{_string(name)}:", large)
            columns.append(pc.fill_null(_joined(member, json_column), ""))
    lines = _joined(*columns, pa.scalar("}\n", large))
    # the comma before the first member; a brace and a comma begin nothing else
    return b"".join(
        b"{" + line[2:] if line[1:2] == b"," else line
        for line in lines.cast(pa.large_binary()).to_pylist()
    )


def _text(column: pa.Array) -> pa.Array:
    """Return the JSON text of each value; null where it is null."""
    column_type, is_ = column.type, pa.types
    if isinstance(column_type, pa.ExtensionType) or isinstance(column, pa.ExtensionArray):
        return _uuids(column.storage) if "uuid" in str(column_type) else _text(column.storage)
    # Encodings are undone first: the text must not depend on how a writer encoded the values.
    if is_.is_dictionary(column_type):
        return _text(column.dictionary_decode())
    if is_.is_run_end_encoded(column_type):
        return _text(pc.run_end_decode(column))
    if (
        is_.is_string(column_type)
        or is_.is_large_string(column_type)
        or is_.is_string_view(column_type)
    ):
        return _strings(column.cast(pa.large_string()))
    if is_.is_integer(column_type) or is_.is_boolean(column_type):
        return column.cast(pa.string()).cast(pa.large_string())
    if is_.is_nested(column_type):
        return _nested(column)
    return _each(column)


def _strings(column: pa.Array) -> pa.Array:
    quote = pa.scalar('"', pa.large_string())
    quoted = _joined(quote, column, quote)
    # Python escapes only the texts that need it; most have no quote, backslash or control.
    odd = pc.fill_null(pc.match_substring_regex(column, _ESCAPED), False)
    if not pc.any(odd).as_py():
        return quoted
    escaped = [_string(value) for value in column.filter(odd).to_pylist()]
    return pc.replace_with_mask(quoted, odd, pa.array(escaped, quoted.type))


def _payload(column: pa.Array) -> pa.Array:
    """Return the JSON that a column `data` holds as text, or its values as they are."""
    column_type = column.type
    if pa.types.is_dictionary(column_type):
        return _payload(column.dictionary_decode())
    if isinstance(column, pa.ExtensionArray):
        return _payload(column.storage)
    if not (pa.types.is_string(column_type) or pa.types.is_large_string(column_type)):
        return _text(column)
    return pa.array([_json(value) for value in column.to_pylist()], pa.large_string())


def _json(payload: str | None) -> str | None:
    """Return JSON text in one line, other text as a JSON string."""
    if payload is None:
        return None
    try:
        orjson.loads(payload)
    except orjson.JSONDecodeError:
        # What it refuses may be JSON all the same: 1e400, half of a surrogate pair.
        try:
            parse_value(payload.encode())
        except InvalidEvent:
            return _string(payload)
    # a newline in JSON is white space: within a string it is escaped
    return payload.replace("\n", " ").replace("\r", " ")


def _nested(column: pa.Array) -> pa.Array:
    """Return the JSON text of lists, structs and maps, from the text of their elements."""
    column_type, large = column.type, pa.large_string()
    if pa.types.is_union(column_type):
        values = [_plain(value) for value in column.to_pylist()]
        return pa.array(values, large)
    if pa.types.is_struct(column_type):
        fragments: list[Any] = [pa.scalar("{", large)]
        for place, field in enumerate(column_type):
            comma = "," if place else ""
            fragments.append(pa.scalar(f"{comma}{_string(field.name)}:", large))
            fragments.append(pc.fill_null(_text(pc.struct_field(column, place)), "null"))
        objects = _joined(*fragments, pa.scalar("}", large))
        return pc.if_else(column.is_valid(), objects, pa.scalar(None, large))
    if pa.types.is_map(column_type):
        pairs = pa.concat_arrays(
            [column[i].values for i in _present(column)] or [_no_pairs(column_type)]
        )
        names, values = pc.struct_field(pairs, 0), pc.struct_field(pairs, 1)
        pair_texts = _joined(
            _keys(names), pa.scalar(":", large), pc.fill_null(_text(values), "null")
        )
        return _bracketed(column, pair_texts, "{", "}")
    return _bracketed(column, pc.fill_null(_text(pc.list_flatten(column)), "null"), "[", "]")


def _present(column: pa.Array) -> list[int]:
    indexes: list[int] = pc.indices_nonzero(column.is_valid()).to_pylist()
    return indexes


def _no_pairs(column_type: pa.DataType) -> pa.Array:
    return pa.array(
        [], pa.struct([("key", column_type.key_type), ("value", column_type.item_type)])
    )


def _keys(column: pa.Array) -> pa.Array:
    """Return the keys of a map, which JSON has as text only."""
    names = _text(column).to_pylist()
    return pa.array([t if t[:1] == '"' else _string(t) for t in names], pa.large_string())


def _bracketed(column: pa.Array, elements: pa.Array, open_: str, close: str) -> pa.Array:
    """Join the text of all elements of lists, each list within brackets."""
    # list_value_length takes no maps.
    is_map = pa.types.is_map(column.type)
    lengths = (
        [len(v) if v is not None else 0 for v in column.to_pylist()]
        if is_map
        else pc.fill_null(pc.list_value_length(column), 0)
    )
    ends = np.cumsum(np.concatenate([[0], np.asarray(lengths, np.int64)]))
    lists = pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), elements)
    large = pa.large_string()
    joined = pc.binary_join(lists, pa.scalar(",", large))
    bracketed = _joined(pa.scalar(open_, large), joined, pa.scalar(close, large))
    return pc.if_else(column.is_valid(), bracketed, pa.scalar(None, large))


def _each(column: pa.Array) -> pa.Array:
    """Return the JSON text of numbers, times and bytes, made one value at a time."""
    column_type, is_ = column.type, pa.types
    if is_.is_timestamp(column_type):
        literals = _moments(column)
    elif is_.is_duration(column_type):
        scale = _UNITS[column_type.unit]
        literals = [v if v is None else _duration(v * scale) for v in _integers(column)]
    elif is_.is_time(column_type):
        scale = _UNITS[column_type.unit]
        literals = [v if v is None else f'"{_clock(v * scale)}"' for v in _integers(column)]
    elif is_.is_float16(column_type):
        literals = list(map(_plain, column.cast(pa.float32()).to_pylist()))
    else:
        literals = list(map(_plain, column.to_pylist()))
    return pa.array(literals, pa.large_string())


def _moments(column: pa.Array) -> list[str | None]:
    """Times as ISO 8601, with as many digits of a second as they need."""
    unit, zone = column.type.unit, "Z" if column.type.tz else ""
    # Dropping the zone keeps the instant in UTC; with a zone the cast would print local time.
    moments = column.cast(pa.timestamp(unit)).cast(pa.string()).to_pylist()
    return [None if t is None else f'"{_shortened(t).replace(" ", "T")}{zone}"' for t in moments]


def _shortened(moment: str) -> str:
    return moment.rstrip("0").rstrip(".") if "." in moment else moment


def _integers(column: pa.Array) -> list[int | None]:
    # A view keeps the integers below times and durations, whose Python objects hold no nanoseconds.
    width = pa.int32() if column.type.bit_width == 32 else pa.int64()
    values: list[int | None] = column.view(width).to_pylist()
    return values


def _clock(nanos: int) -> str:
    seconds, fraction = divmod(nanos, 10**9)
    hours, remainder = divmod(seconds, 3600)
    return _shortened(f"{hours:02d}:{remainder // 60:02d}:{remainder % 60:02d}.{fraction:09d}")


def _duration(nanos: int) -> str:
    """A span of time as an ISO 8601 duration: PT90061.5S is a day, an hour and so on."""
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    seconds, fraction = divmod(nanos, 10**9)
    days, remainder = divmod(seconds, 86_400)
    hours, remainder = divmod(remainder, 3600)
    exact = _shortened(f"{remainder % 60}.{fraction:09d}")
    clock = "".join(f"{n}{unit}" for n, unit in ((hours, "H"), (remainder // 60, "M")) if n)
    clock += f"{exact}S" if exact != "0" else ""
    day = f"{days}D" if days else ""
    return f'"{sign}P{day}{"T" + clock if clock else ""}"' if day or clock else '"PT0S"'


def _plain(value: Any) -> str | None:
    """The JSON of one value."""
    if value is None:
        return None
    # True of NaN and the infinities alone, which JSON has no numbers for.
    if isinstance(value, float) and value - value != 0:
        return '"NaN"' if value != value else '"Infinity"' if value > 0 else '"-Infinity"'
    if hasattr(value, "as_tuple"):  # a decimal
        return format(value, "f")
    if isinstance(value, (bytes, bytearray)):
        return _string(bytes(value).decode("utf-8", "backslashreplace"))
    # A MonthDayNano interval of Arrow.
    if hasattr(value, "nanoseconds") and hasattr(value, "months"):
        return f'"P{value.months}M{value.days}DT{_shortened(f"{value.nanoseconds / 1e9:.9f}")}S"'
    return orjson.dumps(value, default=str).decode()


def _uuids(column: pa.Array) -> pa.Array:
    literals = [None if v is None else f'"{uuid.UUID(bytes=v)}"' for v in column.to_pylist()]
    return pa.array(literals, pa.large_string())


def _joined(*fragments: Any) -> pa.Array:
    """Join texts row by row; null where one is null."""
    return pc.binary_join_element_wise(*fragments, pa.scalar("", pa.large_string()))


def _string(name: str) -> str:
    return orjson.dumps(name).decode()
