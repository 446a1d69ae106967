"""Parquet and Arrow files as streams of JSON lines, one for each row.

To the rest of ingest, a columnar file is one more way to compress lines: cursors, audits, backups
and the quarantine count bytes of these lines, and the JSON lines format maps the columns. So the
text of a row depends on its values alone, never on row groups, batches or library versions.

A column that is null is left out. Integers, decimals and floats are numbers, NaN and the infinities
text; dates and times are ISO 8601 of any year (in UTC with Z where they have a zone), and the
largest and smallest, by which engines write infinity, are text, too; durations are ISO 8601, bytes
UTF-8 or else with `\\xHH` escapes, lists arrays, structs and maps objects. JSON text in a column
`data` is JSON. Of rows that lakelog exported, columns that a lake assigns to each event are left
out.

Memory holds a few thousand rows of a Parquet file, or one record batch of an Arrow file.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import uuid
from collections.abc import Iterator
from typing import Any, BinaryIO

import orjson

from lakelog.errors import InvalidEvent
from lakelog.event import assigned_columns
from lakelog.libraries import np, pa, pc, pq
from lakelog.lines.inflate import BrokenStream
from lakelog.values import parse_value

PARQUET, ARROW_FILE, ARROW_STREAM = b"PAR1", b"ARRO", b"\xff\xff\xff\xff"
# Rows and bytes of text that are made at a time.
_ROWS, _BYTES = 16_384, 8 << 20
_UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_ESCAPED = "surrogateescape"
_SHORT_YEAR = re.compile(r"^-(?=\d{3}-)")
_INFINITE_DAY, _INFINITE_MOMENT = 2**31 - 1, 2**63 - 1
Texts = list[str | None]


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
    members = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name not in own_columns:
            key, literals = f"{_string(name)}:", (_payloads if name == "data" else _texts)(column)
            members.append([None if literal is None else key + literal for literal in literals])
    # A batch without columns still gives its rows.
    rows = zip(*members, strict=True) if members else ((),) * batch.num_rows
    return "".join(f"{{{','.join(filter(None, row))}}}\n" for row in rows).encode("utf-8", _ESCAPED)


def _texts(column: pa.Array) -> Texts:
    """Return the JSON text of each value; None where it is null."""
    column_type, is_ = column.type, pa.types
    if isinstance(column_type, pa.ExtensionType) or isinstance(column, pa.ExtensionArray):
        if "uuid" in str(column_type):
            values = column.storage.to_pylist()
            return [None if v is None else f'"{uuid.UUID(bytes=v)}"' for v in values]
        return _texts(column.storage)
    # Encodings are undone first: the text must not depend on how a writer encoded the values.
    if is_.is_dictionary(column_type):
        return _texts(_decoded(column))
    if is_.is_run_end_encoded(column_type):
        return _texts(pc.run_end_decode(column))
    if _is_text(column_type):
        return _strings(column)
    if is_.is_nested(column_type) and not is_.is_union(column_type):
        return _nested(column)
    if is_.is_timestamp(column_type):
        return _moments(column)
    if is_.is_date(column_type):
        return _dates(column)
    if is_.is_duration(column_type):
        scale = _UNITS[column_type.unit]
        return [v if v is None else _duration(v * scale) for v in _integers(column)]
    if is_.is_time(column_type):
        scale = _UNITS[column_type.unit]
        return [v if v is None else f'"{_clock(v * scale)}"' for v in _integers(column)]
    if is_.is_float16(column_type):
        column = column.cast(pa.float32())
    return list(map(_plain, column.to_pylist()))


def _is_text(column_type: pa.DataType) -> bool:
    is_ = pa.types
    is_plain = is_.is_string(column_type) or is_.is_large_string(column_type)
    return bool(is_plain or is_.is_string_view(column_type))


def _decoded(column: pa.DictionaryArray) -> pa.Array:
    """The values of a dictionary, which may be views, as Polars writes them: of these Arrow (26)
    takes none."""
    values = column.dictionary
    if pa.types.is_string_view(values.type) or pa.types.is_binary_view(values.type):
        values = values.cast(pa.large_binary())
        if pa.types.is_string_view(column.type.value_type):
            values = values.view(pa.large_string())
    return pa.DictionaryArray.from_arrays(column.indices, values).dictionary_decode()


def _strings(column: pa.Array) -> Texts:
    try:
        return [None if value is None else _string(value) for value in column.to_pylist()]
    except UnicodeDecodeError:
        # Writers need not check what they call text: bytes that are no UTF-8 stay as they are.
        raw = column.cast(pa.large_binary()).to_pylist()
        literals = (None if value is None else value.decode("utf-8", _ESCAPED) for value in raw)
        return [
            None if literal is None else json.dumps(literal, ensure_ascii=False)
            for literal in literals
        ]


def _payloads(column: pa.Array) -> Texts:
    """Return the JSON that a column `data` holds as text, or its values as they are."""
    column_type = column.type
    if pa.types.is_dictionary(column_type):
        return _payloads(_decoded(column))
    if isinstance(column, pa.ExtensionArray):
        return _payloads(column.storage)
    if not _is_text(column_type):
        return _texts(column)
    return list(map(_json, column.to_pylist()))


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


def _nested(column: pa.Array) -> Texts:
    """Return the JSON text of lists, structs and maps, from the text of their elements."""
    column_type = column.type
    is_valid = column.is_valid().to_pylist()
    if pa.types.is_struct(column_type):
        fields = [
            [
                f"{_string(field.name)}:{literal}"
                for literal in _elements(pc.struct_field(column, place))
            ]
            for place, field in enumerate(column_type)
        ]
        rows = zip(*fields, strict=True) if fields else ((),) * len(column)
        return [
            f"{{{','.join(row)}}}" if valid else None
            for row, valid in zip(rows, is_valid, strict=True)
        ]
    if pa.types.is_map(column_type):
        # No function of Arrow takes maps apart, of which a slice has a part of the pairs.
        maps = [value.values for value in column if value.is_valid]
        none = pa.array([], pa.struct([("", column_type.key_type), ("", column_type.item_type)]))
        pairs = pa.concat_arrays(maps or [none])
        keys = (t if t[:1] == '"' else _string(t) for t in _elements(pc.struct_field(pairs, 0)))
        values = _elements(pc.struct_field(pairs, 1))
        literals = iter([f"{key}:{value}" for key, value in zip(keys, values, strict=True)])
        lengths, brackets = map(len, maps), "{}"
    else:
        literals = iter(_elements(pc.list_flatten(column)))
        lengths, brackets = iter(pc.drop_null(pc.list_value_length(column)).to_pylist()), "[]"
    return [
        f"{brackets[0]}{','.join(itertools.islice(literals, next(lengths)))}{brackets[1]}"
        if valid
        else None
        for valid in is_valid
    ]


def _elements(column: pa.Array) -> list[str]:
    """Return the JSON text of each value within another, where null is a value, too."""
    return [literal or "null" for literal in _texts(column)]


def _moments(column: pa.Array) -> Texts:
    """Times as ISO 8601, with as many digits of a second as they need."""
    unit, zone = column.type.unit, "Z" if column.type.tz else ""
    # Dropping the zone keeps the instant in UTC; with a zone the cast would print local time.
    moments = column.cast(pa.timestamp(unit)).cast(pa.string()).to_pylist()
    # Arrow writes years of five digits at most, and a remark in place of others.
    far = enumerate(_integers(column)) if any(t and t[0] == "<" for t in moments) else ()
    for place, count in far:
        if count is not None and moments[place][0] == "<":
            moments[place] = _stamp(count, unit)
    return [
        None
        if t is None
        else f'"{t}"'
        if t.endswith("Infinity")
        else f'"{_shortened(t).replace(" ", "T")}{zone}"'
        for t in moments
    ]


def _dates(column: pa.Array) -> Texts:
    """Dates as ISO 8601, also those of years that Python has none of."""
    days = _integers(column)
    if pa.types.is_date64(column.type):
        days = [None if millis is None else millis // 86_400_000 for millis in days]
    return [None if day is None else f'"{_stamp(day, "D")}"' for day in days]


def _stamp(count: int, unit: str) -> str:
    """Return days or moments since 1970 as ISO 8601, of whatever year, or an infinity."""
    if abs(count) >= _INFINITE_MOMENT or (abs(count) == _INFINITE_DAY and unit == "D"):
        return "Infinity" if count > 0 else "-Infinity"
    # NumPy (2) has three digits for years from -999 to -1.
    return _SHORT_YEAR.sub("-0", str(np.int64(count).view(f"M8[{unit}]")))


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
    # Most values are of these, and need none of the questions below.
    if value is None or isinstance(value, int):
        return None if value is None else orjson.dumps(value).decode()
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


def _string(name: str) -> str:
    return orjson.dumps(name).decode()
