"""Batches of Arrow columns as lines of CSV or NDJSON, a column at a time.

The text is that of `values.py`, which makes it a value at a time: texts, times, integers, booleans
and plain JSON are written by Arrow's kernels, every other value by the rules there. A line is
joined of columns and of what stands between them: commas, names, quotes where a whole column has
them.
"""

from __future__ import annotations

import functools
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

PART_BYTES = 8_000_000
"""Bytes of columns that become one piece of text, so that a piece and its copies stay small."""
_CSV_QUOTED = '[,"\r\n]|^$'
"""What stands in quotes: an empty text does too, so that it is not null."""
_JSON_ESCAPED = '[\\x00-\\x1f"\\\\]'
_LENGTHS = {"s": 19, "ms": 23, "us": 26, "ns": 29}
"""Characters of a time of a year from 1000 to 9999."""
_FRACTIONS = {"ms": 10**3, "us": 10**6, "ns": 10**9}
"""Units of a time in a second."""
_PLAIN_MAX = 1_000
"""Bytes of JSON up to which a regular expression is faster than a parser."""


class Columns(Sequence[Row]):
    """The rows of a record batch."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        self.columns: list[Any] = batch.columns
        self._count: int = batch.num_rows

    def __len__(self) -> int:
        return self._count

    def parts(self) -> Iterator[Columns]:
        """Yield the same rows, about PART_BYTES at a time."""
        rows = max(self._count * PART_BYTES // max(self._batch.nbytes, 1), 1)
        for at in range(0, self._count, rows):
            yield Columns(self._batch.slice(at, rows))

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


Part = Any
"""A part of every line: an Arrow array of texts, or one `str` for all."""


def csv_lines(rows: Columns) -> bytes | memoryview:
    """Return rows of two columns or more as CSV."""
    parts: list[Part] = []
    for place, column in enumerate(rows.columns):
        parts += ["," if place else "", *_parts(column, _csv_parts)]
    return _join([*parts, "\r\n"], len(rows))


def json_lines(rows: Columns, names: list[str], nested: Sequence[int]) -> bytes | memoryview:
    """Return rows as NDJSON; `nested` columns hold JSON text."""
    parts: list[Part] = []
    for place, (name, column) in enumerate(zip(names, rows.columns, strict=True)):
        parts.append(("," if place else "{") + dumps(name).decode() + ":")
        parts += _parts(column, _nested_parts if place in nested else _json_parts)
    return _join([*parts, "}\n"], len(rows))


def _parts(column: pa.Array, write: Callable[[pa.Array], Sequence[Part]]) -> Sequence[Part]:
    """Return the parts that `write` makes of a column, of equal values only once."""
    kind = column.type
    is_simple = _is_string(kind) or pa.types.is_timestamp(kind) or pa.types.is_integer(kind)
    if len(column) < 2 or column.null_count or not is_simple:
        return write(column)
    if column[0] != column[-1] or not pc.all(pc.equal(column, column[0])).as_py():
        return write(column)
    return (str(_join(write(column[:1]), 1), "utf-8"),)


def _join(parts: Sequence[Part], count: int) -> bytes | memoryview:
    """Join the parts of `count` lines into one text; a null is empty."""
    # Each cell costs time per row, so neighbours that all lines share become one.
    cells: list[Part] = []
    for part in (p for p in parts if not isinstance(p, str) or p):
        if cells and isinstance(part, str) and isinstance(cells[-1], str):
            cells[-1] += part
        else:
            cells.append(part)
    if not count or all(isinstance(cell, str) for cell in cells):
        return "".join(cells).encode() * count
    # A batch may exceed 2 GiB of text, the limit of 32-bit offsets.
    large = pa.large_string()
    cells = [pa.scalar(c, large) if isinstance(c, str) else c.cast(large) for c in cells]
    lines = pc.binary_join_element_wise(*cells, pa.scalar("", large), null_handling="replace")
    return _content(lines)


def _content(texts: pa.Array) -> memoryview:
    """Return the bytes of all texts, from the Arrow buffer: a string per row would cost more than
    all else. Where a text is null there may be any bytes."""
    _, offsets, data = texts.buffers()
    if not len(texts) or data is None:
        return memoryview(b"")
    ends = np.frombuffer(offsets, np.int64 if pa.types.is_large_string(texts.type) else np.int32)
    start, stop = ends[texts.offset], ends[texts.offset + len(texts)]
    return memoryview(data)[int(start) : int(stop)]


def _csv_parts(column: pa.Array) -> Sequence[Part]:
    if column.null_count == len(column):
        return ()
    if pa.types.is_timestamp(column.type):
        return _time_parts(column)
    texts = _texts(column)
    if texts is None:
        cells = [None if v is None else text(v) for v in values(column)]
        texts = pa.array(cells, pa.string())
    elif not _is_text(column.type):
        return (texts,)
    content = bytes(_content(texts))
    # A search of all bytes at once takes a hundredth of the time of a pattern.
    has_mark = any(mark in content for mark in (b",", b'"', b"\r", b"\n"))
    if not has_mark and pc.min(pc.binary_length(texts)).as_py():
        return (texts,)
    doubled = pc.replace_substring(texts, '"', '""') if b'"' in content else texts
    if not texts.null_count and pc.all(pc.match_substring(texts, '"')).as_py():
        return '"', doubled, '"'
    quoted = pc.match_substring_regex(texts, _CSV_QUOTED)
    in_quotes = pc.binary_join_element_wise('"', doubled, '"', "")
    return (pc.if_else(pc.fill_null(quoted, False), in_quotes, texts),)


def _json_parts(column: pa.Array) -> Sequence[Part]:
    if column.null_count == len(column):
        return ("null",)
    texts, after = _time_parts(column) if pa.types.is_timestamp(column.type) else (None, "")
    texts = _texts(column) if texts is None else texts
    if texts is None:
        return (pa.array([dumps(v).decode() for v in values(column)], pa.string()),)
    if pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        return (pc.fill_null(texts, "null"),)
    content = _content(texts)
    has_mark = bool((np.frombuffer(content, np.uint8) < ord(" ")).any())
    if has_mark or any(mark in bytes(content) for mark in (b'"', b"\\")):
        return (_json_strings(texts),)
    if not texts.null_count:
        return '"', texts, after + '"'
    return (pc.fill_null(pc.binary_join_element_wise('"', texts, '"', ""), "null"),)


def _json_strings(texts: pa.Array) -> pa.Array:
    """Return texts as JSON strings, escaped where they need it."""
    escaped = pc.fill_null(pc.match_substring_regex(texts, _JSON_ESCAPED), False)
    plain = pc.fill_null(pc.binary_join_element_wise('"', texts, '"', ""), "null")
    singles = texts.filter(escaped).to_pylist()
    if not singles:
        return plain
    # All at once, each on a line of its own: in JSON strings there are no line ends.
    lines = orjson.dumps(singles, option=orjson.OPT_INDENT_2).decode()[4:-2].split(",\n  ")
    return pc.replace_with_mask(plain, escaped, pa.array(lines, plain.type))


def _nested_parts(column: pa.Array) -> Sequence[Part]:
    """Return JSON text as it is; any other text becomes a JSON string."""
    if column.null_count == len(column):
        return ("null",)
    texts = _texts(column) if _is_text(column.type) else None
    if texts is None or len(_content(texts)) > _PLAIN_MAX * len(texts):
        return (pa.array([_nested_text(v) for v in values(column)], pa.string()),)
    is_plain = pc.match_substring_regex(texts, _plain_json())
    is_plain = pc.and_(is_plain, pc.less_equal(pc.binary_length(texts), _PLAIN_MAX))
    parsed = pc.invert(pc.fill_null(is_plain, False))
    if not pc.any(parsed).as_py():
        return (texts,)
    singles = [_nested_text(v) for v in texts.filter(parsed).to_pylist()]
    return (pc.replace_with_mask(texts, parsed, pa.array(singles, texts.type)),)


def _nested_text(value: Any) -> str:
    if isinstance(value, str):
        try:
            orjson.loads(value)
            return value
        except orjson.JSONDecodeError:
            pass
    return dumps(payload(value)).decode()


@functools.cache
def _plain_json() -> str:
    """Return a pattern of JSON as programs write it: at most one space after a comma or a colon,
    three levels, no halves of surrogate pairs. What does not match may be JSON all the same."""
    four = "[0-9a-cA-CefEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}"
    string = rf'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u(?:{four}))*"'
    number = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
    scalar = value = f"{string}|{number}|true|false|null"
    for _ in range(2):
        item, member = f"(?:{value})", f"{string}: ?(?:{value})"
        array, record = rf"\[(?:{item}(?:, ?{item})*)?\]", rf"\{{(?:{member}(?:, ?{member})*)?\}}"
        value = f"{scalar}|{array}|{record}"
    return rf"\A(?:{value})\z"


def _is_text(kind: pa.DataType) -> bool:
    return _is_string(kind) or bool(pa.types.is_string_view(kind))


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _texts(column: pa.Array) -> pa.Array | None:
    """Return a column as text, null where it is, or None for types with special rules."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        return _times(column)
    if _is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return column.cast(pa.string())
    return None


def _times(column: pa.Array) -> pa.Array:
    """Return times as ISO 8601, without a fraction of zeros."""
    zone = "Z" if column.type.tz else ""
    naive = column.cast(pa.timestamp(column.type.unit))
    texts = _regular_times(naive)
    if texts is not None:
        texts = pc.binary_join_element_wise(texts, zone, "")
    else:  # some year has not four digits, or all are null
        texts = pc.strftime(naive, format=f"%Y-%m-%dT%H:%M:%S{zone}")
    return pc.replace_substring_regex(texts, r"\.0+(Z?)$", r"\1")


def _time_parts(column: pa.Array) -> tuple[pa.Array, str]:
    """Return times as text, and what follows each of them."""
    unit, zone = column.type.unit, "Z" if column.type.tz else ""
    naive = column.cast(pa.timestamp(unit))
    if not column.null_count:
        counts = np.asarray(naive.cast(pa.int64()))
        is_cut = unit in _FRACTIONS and bool((counts % _FRACTIONS[unit] == 0).any())
        texts = None if is_cut else _times_of_runs(naive, counts)
        if texts is not None:
            return texts, zone
    return _times(column), ""


def _times_of_runs(naive: pa.Array, counts: Any) -> pa.Array | None:
    """Return what `_regular_times` does, of equal neighbours once: rows of one batch have one
    `ingested_at`."""
    starts = np.append(True, counts[1:] != counts[:-1])
    if np.count_nonzero(starts) * 8 > len(counts):
        return _regular_times(naive)
    texts = _regular_times(naive.take(pa.array(np.flatnonzero(starts))))
    return None if texts is None else texts.take(pa.array(np.cumsum(starts) - 1))


def _regular_times(naive: pa.Array) -> pa.Array | None:
    """Return times with their whole fraction, or None if their texts differ in length."""
    texts = naive.cast(pa.string())
    lengths = pc.min_max(pc.binary_length(texts)).as_py()
    # Years outside 1000 to 9999 have another length; a character is replaced at a fixed position.
    if not lengths["min"] == lengths["max"] == _LENGTHS[naive.type.unit]:
        return None
    return pc.binary_replace_slice(texts, 10, 11, "T")
