"""Arrow arrays from numpy and back, by their buffers.

Where pandas is installed, pyarrow (26) imports it to make its first array or scalar of a Python
value, or numpy array of its own: 0.3 s and 45 MB in each process. Buffers need none of that.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from lakelog.libraries import np, pa
from lakelog.values import JsonObject

_TEXTS_MAX = (1 << 31) - 1
"""Bytes of all texts of an array, whose offsets have 32 bits."""
_SEARCHED = 1 << 18
"""Bytes that are searched at a time, so that they stay in the processor's cache."""


def integers(values: np.ndarray) -> pa.Array:
    """Integers as an Arrow array, without a copy."""
    data = np.ascontiguousarray(values, np.int64)
    return pa.Array.from_buffers(pa.int64(), len(data), [None, pa.py_buffer(data)])


def numbers(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A column of int64 or of times, without nulls, as integers."""
    if isinstance(column, pa.ChunkedArray):
        chunks = [numbers(chunk) for chunk in column.chunks]
        return chunks[0] if len(chunks) == 1 else np.concatenate([np.empty(0, np.int64), *chunks])
    if not len(column):
        return np.empty(0, np.int64)
    return np.frombuffer(column.buffers()[1], np.int64, len(column), column.offset * 8)


def arrived(rows: pa.Table) -> np.ndarray:
    """Which events have the time of their ingest, as they had none of their own."""
    is_arrival: np.ndarray = numbers(rows["time"]) == numbers(rows["ingested_at"])
    return is_arrival


def truths(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A column of truth values, without nulls, as they are in numpy."""
    if isinstance(column, pa.ChunkedArray):
        return np.concatenate([np.empty(0, bool), *map(truths, column.chunks)])
    if not len(column):
        return np.empty(0, bool)
    bits = np.frombuffer(column.buffers()[1], np.uint8)
    ends = column.offset, column.offset + len(column)
    return np.unpackbits(bits, count=ends[1], bitorder="little")[ends[0] :].astype(bool)


def mask(values: np.ndarray) -> pa.Array:
    """Truth values as an Arrow array."""
    bits = np.packbits(np.ascontiguousarray(values, bool), bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(bits)])


def texts(values: Sequence[str | None]) -> pa.Array:
    """Texts, null for None, as an Arrow array. Raises UnicodeEncodeError, TypeError, and
    OverflowError where they are too long for one."""
    plain: Any = () if None in values else values
    # Of texts in ASCII, as most are, the lengths are those of their bytes.
    if plain and len(data := (joined := "".join(plain)).encode()) == len(joined):
        _require_short(data)
        ends = np.zeros(len(plain) + 1, np.int32)
        np.cumsum(np.fromiter(map(len, plain), np.int32, len(plain)), out=ends[1:])
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(data)]
        return pa.Array.from_buffers(pa.string(), len(plain), buffers)
    raw = [b"" if value is None else value.encode() for value in values]
    _require_short(data := b"".join(raw))
    ends = np.zeros(len(raw) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, raw), np.int32, len(raw)), out=ends[1:])
    valid = None
    if None in values:
        present = bytes([value is not None for value in values])
        valid = mask(np.frombuffer(present, bool)).buffers()[1]
    buffers = [valid, pa.py_buffer(ends), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string(), len(raw), buffers)


def _require_short(data: bytes) -> None:
    if len(data) > _TEXTS_MAX:
        raise OverflowError(f"an array has at most {_TEXTS_MAX:,} bytes of text, not {len(data):,}")


def ends(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Where each text of a column begins and ends in its buffer."""
    offsets = np.frombuffer(column.buffers()[1], np.int32, len(column) + 1, column.offset * 4)
    return offsets[:-1], offsets[1:]


def characters(column: pa.Array) -> np.ndarray:
    """The bytes of all texts of a column."""
    if not len(column):
        return np.empty(0, np.uint8)
    begin, end = ends(column)
    return np.frombuffer(column.buffers()[2] or b"", np.uint8)[begin[0] : end[-1]]


def spread(values: Sequence[str], counts: Sequence[int]) -> pa.Array:
    """Texts, each so many times."""
    raw = [value.encode() for value in values]
    lengths = np.repeat(np.fromiter(map(len, raw), np.int32, len(raw)), counts)
    ends = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
    data = b"".join(item * count for item, count in zip(raw, counts, strict=True))
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string(), len(lengths), buffers)


def times(micros: np.ndarray) -> pa.Array:
    """Microseconds since 1970 as times in UTC."""
    data = pa.py_buffer(np.ascontiguousarray(micros, np.int64))
    return pa.Array.from_buffers(pa.timestamp("us", "UTC"), len(micros), [None, data])


def records(table: pa.Table) -> list[JsonObject]:
    """Rows as dicts, as Arrow's `to_pylist` makes them in three times the time."""
    names, columns = table.column_names, map(_values, table.columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(column: pa.ChunkedArray) -> list[object]:
    if column.type != pa.timestamp("us", "UTC"):
        values: list[object] = column.to_pylist()
        return values
    epoch, microseconds = _epoch(), column.cast(pa.int64()).to_pylist()
    return [None if n is None else epoch + timedelta(0, 0, n) for n in microseconds]


@functools.cache
def _epoch() -> datetime:
    from zoneinfo import ZoneInfo  # here: a program that only appends needs none

    # The zone that rows of the engine have.
    return datetime(1970, 1, 1, tzinfo=ZoneInfo("UTC"))


def split_lines(data: bytes) -> tuple[pa.Array, np.ndarray]:
    """Return the lines of `data`, newlines kept, as an Arrow array over its bytes, and where each
    starts (one more than lines: the end)."""
    codes = np.frombuffer(data, np.uint8)
    blocks = range(0, len(codes), _SEARCHED)
    newlines = [
        np.flatnonzero(codes[block : block + _SEARCHED] == 10) + (block + 1) for block in blocks
    ]
    ends = np.concatenate(newlines) if newlines else np.empty(0, np.int64)
    # A last line without newline is a line too: chunks of files come here as well.
    if len(data) and (not len(ends) or ends[-1] != len(data)):
        ends = np.append(ends, len(data))
    starts = np.concatenate([[0], ends]).astype(np.int64)
    # Offsets into the very bytes that were read: no line is copied.
    buffers = [None, pa.py_buffer(starts), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_string(), len(ends), buffers), starts
