"""Batches of Arrow columns as lines of CSV or NDJSON, a column at a time.

The text is that of `values.py`, which makes it a value at a time: texts, times, integers and
booleans are written by Arrow's kernels, every other type by the rules there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import orjson

from lakelog.export.values import Row, dumps, payload, text
from lakelog.lazy import Lazy

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    pa = Lazy("pyarrow")
    np = Lazy("numpy")
    pc = Lazy("pyarrow.compute")

_CSV_QUOTED = '[,"\r\n]|^$'
"""What stands in quotes: an empty text does too, so that it is not null."""
_JSON_ESCAPED = '[\\x00-\\x1f"\\\\]'
_LENGTHS = {"s": 19, "ms": 23, "us": 26, "ns": 29}
"""Characters of a time of a year from 1000 to 9999."""


class Columns(Sequence[Row]):
    """The rows of a record batch."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.columns: list[Any] = batch.columns
        self._count: int = batch.num_rows

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Row]:
        return zip(*map(values, self.columns), strict=True)

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Row]: ...
    def __getitem__(self, at: int | slice) -> Row | Sequence[Row]:
        if isinstance(at, slice):
            return list(zip(*(values(c[at]) for c in self.columns), strict=True))
        return [values(c[at : at + 1 or None])[0] for c in self.columns]


def values(column: pa.Array) -> list[Any]:
    """Return a column's values; times as text at once, which is three times as fast."""
    python_values: list[Any] = (
        _times(column) if pa.types.is_timestamp(column.type) else column
    ).to_pylist()
    return python_values


def csv_lines(rows: Columns) -> bytes:
    """Return rows of two columns or more as CSV."""
    return _join([_csv_texts(column) for column in rows.columns], ",", "\r\n")


def json_lines(rows: Columns, names: list[str], nested: Sequence[int]) -> bytes:
    """Return rows as NDJSON; `nested` columns hold JSON text."""
    parts: list[Any] = []
    for place, (name, column) in enumerate(zip(names, rows.columns, strict=True)):
        parts.append(("{" if place == 0 else ",") + dumps(name).decode() + ":")
        parts.append(_nested_texts(column) if place in nested else _json_texts(column))
    return _join(parts, "", "}\n")


def _join(parts: list[Any], separator: str, end: str) -> bytes:
    """Join arrays and constants row by row into one text."""
    # A batch may exceed 2 GiB of text, the limit of 32-bit offsets.
    large = pa.large_string()
    cells = [pa.scalar(p, large) if isinstance(p, str) else p.cast(large) for p in parts]
    rows = pc.binary_join_element_wise(*cells, pa.scalar(separator, large))
    lines = pc.binary_join_element_wise(rows, pa.scalar(end, large), pa.scalar("", large))
    lines = lines if isinstance(lines, pa.Array) else lines.combine_chunks()
    if not len(lines):
        return b""
    # The bytes are taken from the Arrow buffer directly; a Python string per row would dominate the
    # time.
    ends = np.frombuffer(lines.buffers()[1], np.int64)
    start, stop = ends[lines.offset], ends[lines.offset + len(lines)]
    return bytes(memoryview(lines.buffers()[2])[int(start) : int(stop)])


def _csv_texts(column: pa.Array) -> pa.Array:
    plain = _texts(column)
    texts = (
        plain
        if plain is not None
        else pa.array([None if v is None else text(v) for v in values(column)], pa.string())
    )
    quoted = pc.fill_null(pc.match_substring_regex(texts, _CSV_QUOTED), False)
    texts = pc.fill_null(texts, "")
    if not pc.any(quoted).as_py():
        return texts
    doubled = pc.replace_substring(texts, '"', '""')
    return pc.if_else(quoted, pc.binary_join_element_wise('"', doubled, '"', ""), texts)


def _json_texts(column: pa.Array) -> pa.Array:
    plain = _texts(column)
    if plain is None:
        return pa.array([dumps(v).decode() for v in values(column)], pa.string())
    if pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        return pc.fill_null(plain, "null")
    needs_escape = pc.fill_null(pc.match_substring_regex(plain, _JSON_ESCAPED), False)
    texts = pc.fill_null(pc.binary_join_element_wise('"', plain, '"', ""), "null")
    return _replace_marked(texts, needs_escape, plain, lambda v: dumps(v).decode())


def _nested_texts(column: pa.Array) -> pa.Array:
    """Return JSON text as it is; any other text becomes a JSON string."""

    def written(value: Any) -> str:
        if isinstance(value, str):
            try:
                orjson.loads(value)
                return value
            except orjson.JSONDecodeError:
                pass
        return dumps(payload(value)).decode()

    return pa.array([written(v) for v in values(column)], pa.string())


def _replace_marked(
    texts: pa.Array, mask: pa.Array, raw: pa.Array, write: Callable[..., str]
) -> pa.Array:
    """Replace the marked values by those that `write` returns."""
    if not pc.any(mask).as_py():
        return texts
    # Few values need escaping, so they are written one by one and put back.
    singles = [write(value) for value in raw.filter(mask).to_pylist()]
    return pc.replace_with_mask(texts, mask, pa.array(singles, texts.type))


def _texts(column: pa.Array) -> pa.Array | None:
    """Return a column as text, null where it is, or None for types with special rules."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        return _times(column)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return column.cast(pa.string())
    return None


def _times(column: pa.Array) -> pa.Array:
    """Return times as ISO 8601, without a fraction of zeros."""
    unit, zone = column.type.unit, "Z" if column.type.tz else ""
    naive = column.cast(pa.timestamp(unit))
    texts = naive.cast(pa.string())
    lengths = pc.min_max(pc.binary_length(texts)).as_py()
    # Years outside 1000 to 9999 have another length; the fast path replaces a character at a fixed
    # position.
    if lengths["min"] == lengths["max"] == _LENGTHS[unit]:
        texts = pc.binary_replace_slice(texts, 10, 11, "T")
        texts = pc.binary_join_element_wise(texts, zone, "")
    else:  # some year has not four digits, or all are null
        texts = pc.strftime(naive, format=f"%Y-%m-%dT%H:%M:%S{zone}")
    return pc.replace_substring_regex(texts, r"\.0+(Z?)$", r"\1")
