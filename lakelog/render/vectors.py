"""Batches of Arrow columns as lines of CSV or NDJSON, a column at a time.

The text is that of `values.py`, which makes it a value at a time: texts, times, integers, booleans
and plain JSON are written by Arrow's kernels, every other value by the rules there. A line is
joined of columns and of what stands between them: commas, names, quotes where a whole column has
them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import orjson

from lakelog import arrays
from lakelog.libraries import np, pa, pc
from lakelog.render.values import ValueRow, dumps, one_line, payload, text
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    from pyarrow import csv
else:
    csv = Lazy("pyarrow.csv")

PART_BYTES = 8_000_000
"""Bytes of columns that become one piece of text, so that a piece and its copies stay small."""
_CSV_QUOTED = '[,"\r\n]|^$'
"""What stands in quotes: an empty text does too, so that it is not null."""
_JSON_ESCAPED = '[\\x00-\\x1f"\\\\]'
_LENGTHS = {"s": 19, "ms": 23, "us": 26, "ns": 29}
"""Characters of a time of a year from 1000 to 9999."""
_END = 2**31 - 1
"""The end of any text, for kernels that count characters from its start."""
_LARGE_BYTES = 2**30
_FRACTIONS = {"ms": 10**3, "us": 10**6, "ns": 10**9}
"""Units of a time in a second."""
_ZEROS = re.compile(r"\.0+$")
_SHORT_YEAR = re.compile(r"-\d{3}-")
_PLAIN_MAX = 1_000
"""Bytes of JSON up to which a regular expression is faster than a parser."""


class ColumnBatch(Sequence[ValueRow]):
    """The rows of a record batch."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        self.columns: list[pa.Array] = batch.columns
        self._count: int = batch.num_rows

    def __len__(self) -> int:
        return self._count

    def parts(self) -> Iterator[ColumnBatch]:
        """Yield the same rows, about PART_BYTES at a time."""
        rows = max(self._count * PART_BYTES // max(self._batch.nbytes, 1), 1)
        for start in range(0, self._count, rows):
            yield ColumnBatch(self._batch.slice(start, rows))

    def __iter__(self) -> Iterator[ValueRow]:
        return zip(*map(values, self.columns), strict=True)

    @overload
    def __getitem__(self, index: int) -> ValueRow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ValueRow]: ...
    def __getitem__(self, index: int | slice) -> ValueRow | Sequence[ValueRow]:
        if isinstance(index, slice):
            return list(zip(*(values(c[index]) for c in self.columns), strict=True))
        return [values(c[index : index + 1 or None])[0] for c in self.columns]


def values(column: pa.Array) -> list[Any]:
    """Return a column's values; times as text at once, which is three times as fast, and maps as
    pairs where a key is no scalar."""
    plain = _times(column) if pa.types.is_timestamp(column.type) else column
    if (python_type := _python_type(plain.type)) != plain.type:
        plain = plain.cast(python_type)
    if pa.types.is_date32(column.type) and (days := _far_times(column, "")) is not None:
        plain = days
    try:
        python_values: list[object] = plain.to_pylist(maps_as_pydicts="strict")
    except TypeError:  # a list is no key of a dictionary
        python_values = plain.to_pylist()
    return python_values


def _python_type(column_type: pa.DataType) -> pa.DataType:
    """A type whose values Python has: nanoseconds are text, also within others."""
    if getattr(column_type, "unit", None) == "ns" and not pa.types.is_duration(column_type):
        return pa.string()
    if pa.types.is_struct(column_type):
        return pa.struct([field.with_type(_python_type(field.type)) for field in column_type])
    if pa.types.is_map(column_type):
        return pa.map_(_python_type(column_type.key_type), _python_type(column_type.item_type))
    if pa.types.is_list(column_type):
        return pa.list_(_python_type(column_type.value_type))
    return column_type


LinePart = Any
"""A part of every line: an Arrow array of texts, or one `str` for all."""


def csv_lines(rows: ColumnBatch) -> bytes | memoryview:
    """Return rows of two columns or more as CSV."""
    cells = [_csv_cell(column) for column in rows.columns]
    cells[-1] = _ended(cells[-1])
    return _join(cells, len(rows), ",")


def json_lines(
    rows: ColumnBatch, names: list[str], nested: Sequence[int], *, is_json: bool = False
) -> bytes | memoryview:
    """Return rows as NDJSON; `nested` columns hold JSON text, with `is_json` nothing else."""
    write_nested = _json_texts if is_json else _nested_parts
    fragments: list[LinePart] = []
    for place, (name, column) in enumerate(zip(names, rows.columns, strict=True)):
        fragments.append(("," if place else "{") + dumps(name).decode() + ":")
        fragments += _parts(column, write_nested if place in nested else _json_parts)
    return _join([*fragments, "}\n"], len(rows))


def _parts(column: pa.Array, write: Callable[[pa.Array], Sequence[LinePart]]) -> Sequence[LinePart]:
    """Return the parts that `write` makes of a column, of equal values only once."""
    column_type = column.type
    is_simple = (
        _is_string(column_type)
        or pa.types.is_timestamp(column_type)
        or pa.types.is_integer(column_type)
    )
    if len(column) < 2 or column.null_count or not is_simple:
        return write(column)
    if column[0] != column[-1] or not pc.all(pc.equal(column, column[0])).as_py():
        return write(column)
    return (str(_join(write(column[:1]), 1), "utf-8"),)


def _join(fragments: Sequence[LinePart], count: int, comma: str = "") -> bytes | memoryview:
    """Join the parts of `count` lines into one text, with `comma` between them; a null is empty."""
    # Each cell costs time per row, so neighbours that all lines share become one. A comma costs
    # none.
    cells: list[LinePart] = []
    for fragment in (p for p in fragments if not isinstance(p, str) or p or comma):
        if cells and isinstance(fragment, str) and isinstance(cells[-1], str):
            cells[-1] += comma + fragment
        else:
            cells.append(fragment)
    if not count or all(isinstance(cell, str) for cell in cells):
        return comma.join(cells).encode() * count
    # One row may exceed 2 GiB of text, the limit of 32-bit offsets.
    size = sum(len(c) * count if isinstance(c, str) else c.nbytes for c in cells)
    string_type = pa.large_string() if size > _LARGE_BYTES else pa.string()
    cells = [_scalar(c, string_type) if isinstance(c, str) else c.cast(string_type) for c in cells]
    lines = pc.binary_join_element_wise(
        *cells, _scalar(comma, string_type), null_handling="replace"
    )
    return _content(lines)


def _scalar(value: str, string_type: pa.DataType) -> pa.Scalar:
    # As all values here: those that Arrow makes of Python's would load pandas, if it is there.
    return arrays.texts((value,)).cast(string_type)[0]


def _filled(column: pa.Array, value: str) -> pa.Array:
    """Return texts with a value in the place of null."""
    return pc.fill_null(column, _scalar(value, column.type)) if column.null_count else column


def _sure(matches: pa.Array) -> pa.Array:
    """Return truth values with false in the place of null."""
    return pc.and_kleene(matches, matches.is_valid())


def _in_quotes(strings: pa.Array) -> pa.Array:
    quote = _scalar('"', strings.type)
    return pc.binary_join_element_wise(quote, strings, quote, _scalar("", strings.type))


def _content(strings: pa.Array) -> memoryview:
    """Return the bytes of all texts, from the Arrow buffer: a string per row would cost more than
    all else. Where a text is null there may be any bytes."""
    _, offsets, data = strings.buffers()
    if not len(strings) or data is None:
        return memoryview(b"")
    ends = np.frombuffer(offsets, np.int64 if pa.types.is_large_string(strings.type) else np.int32)
    start, stop = ends[strings.offset], ends[strings.offset + len(strings)]
    return memoryview(data)[int(start) : int(stop)]


def _csv_cell(column: pa.Array) -> LinePart:
    """Return the cells of a column, of equal values only one."""
    if column.null_count == len(column):
        return ""
    (cell,) = _parts(column, _csv_parts)
    return cell


def _csv_parts(column: pa.Array) -> Sequence[LinePart]:
    strings = _texts(column)
    if strings is None:
        strings = arrays.texts([None if v is None else text(v) for v in values(column)])
    elif not _is_text(column.type):
        return (strings,)
    content = bytes(_content(strings))
    # A search of all bytes at once takes a hundredth of the time of a pattern.
    has_mark = any(mark in content for mark in (b",", b'"', b"\r", b"\n"))
    if not has_mark and pc.min(pc.binary_length(strings)).as_py():
        return (strings,)
    has_quote = b'"' in content
    if has_quote and b"\n" not in content and pc.all(pc.match_substring(strings, '"')).as_py():
        return (_quoted(strings),)
    doubled = pc.replace_substring(strings, '"', '""') if has_quote else strings
    quoted = pc.match_substring_regex(strings, _CSV_QUOTED)
    return (pc.if_else(_sure(quoted), _in_quotes(doubled), strings),)


def _quoted(strings: pa.Array) -> pa.Array:
    """Return texts of single lines in quotes, those in them doubled, and nulls as empty texts.

    Arrow's writer of CSV takes half the time of its kernel that replaces a part of a text.
    """
    sink = pa.BufferOutputStream()
    options = csv.WriteOptions(
        include_header=False, quoting_style="needed", batch_size=len(strings)
    )
    csv.write_csv(pa.table({"": strings}), sink, options)
    lines = sink.getvalue()
    ends = np.flatnonzero(np.frombuffer(lines, np.uint8) == ord("\n")) + 1
    offsets = np.append(0, ends).astype(np.int64)
    array = pa.LargeStringArray.from_buffers(len(strings), pa.py_buffer(offsets), lines)
    return pc.binary_replace_slice(array, -1, _END, "")


def _ended(cell: LinePart) -> LinePart:
    """Return the last cell of lines, and their end."""
    if isinstance(cell, str):
        return cell + "\r\n"
    return pc.binary_replace_slice(_filled(cell, ""), _END, _END, "\r\n")


def _json_parts(column: pa.Array) -> Sequence[LinePart]:
    if column.null_count == len(column):
        return ("null",)
    strings = _texts(column)
    if strings is None:
        return (arrays.texts([dumps(v).decode() for v in values(column)]),)
    if pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        return (_filled(strings, "null"),)
    content = bytes(_content(strings))
    has_control = bool((np.frombuffer(content, np.uint8) < ord(" ")).any())
    if has_control or b'"' in content or b"\\" in content:
        return (_json_strings(strings),)
    if not strings.null_count:
        return '"', strings, '"'
    return (_filled(_in_quotes(strings), "null"),)


def _json_strings(strings: pa.Array) -> pa.Array:
    """Return texts as JSON strings, escaped where they need it."""
    escaped = _sure(pc.match_substring_regex(strings, _JSON_ESCAPED))
    plain = _filled(_in_quotes(strings), "null")
    singles = strings.filter(escaped).to_pylist()
    if not singles:
        return plain
    # All at once, each on a line of its own: in JSON strings there are no line ends.
    lines = orjson.dumps(singles, option=orjson.OPT_INDENT_2).decode()[4:-2].split(",\n  ")
    return pc.replace_with_mask(plain, escaped, arrays.texts(lines).cast(plain.type))


def _json_texts(column: pa.Array) -> Sequence[LinePart]:
    return ("null",) if column.null_count == len(column) else (_filled(column, "null"),)


def _nested_parts(column: pa.Array) -> Sequence[LinePart]:
    """Return JSON text as it is; any other text becomes a JSON string."""
    if column.null_count == len(column):
        return ("null",)
    strings = _texts(column) if _is_text(column.type) else None
    if strings is None or len(_content(strings)) > _PLAIN_MAX * len(strings):
        return (arrays.texts([_nested_text(v) for v in values(column)]),)
    is_short = pc.less_equal(pc.binary_length(strings), arrays.integers(np.array([_PLAIN_MAX]))[0])
    parsed = pc.invert(_sure(pc.and_(pc.match_substring_regex(strings, _plain_json()), is_short)))
    if not pc.any(parsed).as_py():
        return (strings,)
    singles = [_nested_text(v) for v in strings.filter(parsed).to_pylist()]
    return (pc.replace_with_mask(strings, parsed, arrays.texts(singles).cast(strings.type)),)


def _nested_text(value: object) -> str:
    if isinstance(value, str):
        try:
            orjson.loads(value)
            return one_line(value)
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


def _is_text(column_type: pa.DataType) -> bool:
    return _is_string(column_type) or bool(pa.types.is_string_view(column_type))


def _is_string(column_type: pa.DataType) -> bool:
    return bool(pa.types.is_string(column_type) or pa.types.is_large_string(column_type))


def _texts(column: pa.Array) -> pa.Array | None:
    """Return a column as text, null where it is, or None for types with special rules."""
    column_type = column.type
    if pa.types.is_timestamp(column_type):
        return _times(column)
    if (
        _is_text(column_type)
        or pa.types.is_integer(column_type)
        or pa.types.is_boolean(column_type)
    ):
        return column.cast(pa.string())
    return None


def _times(column: pa.Array) -> pa.Array:
    """Return times as ISO 8601, without a fraction of zeros."""
    unit, zone = column.type.unit, "Z" if column.type.tz else ""
    naive = column.cast(pa.timestamp(unit))
    if (far := _far_times(naive, zone)) is not None:
        return far
    stamps = _times_of_runs(naive, zone) if column.null_count < len(column) else None
    if stamps is not None:
        return stamps
    # Some year has not four digits, or all are null.
    stamps = pc.strftime(naive, format=f"%Y-%m-%dT%H:%M:%S{zone}")
    return pc.replace_substring_regex(stamps, r"\.0+(Z?)$", r"\1")


def _far_times(naive: pa.Array, zone: str) -> pa.Array | None:
    """Return times or days as ISO 8601 if some year is not one from 1 to 9999: Arrow (26) has
    years of 16 bits. An infinite time is the nearest that Python has, as in rows of the engine."""
    is_day = pa.types.is_date32(naive.type)
    unit, width = ("D", np.int32) if is_day else (naive.type.unit, np.int64)
    if not len(naive) or unit == "ns":  # of which all are within
        return None
    counts = arrays.numbers((naive.cast(pa.int32()) if is_day else naive).cast(pa.int64()))
    earliest, latest = np.array(["0001-01-01", "9999-12-31T23:59:59.999999"], f"M8[{unit}]").view(
        "i8"
    )
    if earliest <= counts.min() and counts.max() <= latest:
        return None
    is_infinite = np.abs(counts) == np.iinfo(width).max
    counts = np.where(is_infinite, np.clip(counts, earliest, latest), counts)
    stamps = np.datetime_as_string(counts.view(f"M8[{unit}]")).tolist()
    pairs = zip(stamps, arrays.truths(naive.is_valid()), strict=True)
    return arrays.texts([_plain_stamp(s) + zone if is_valid else None for s, is_valid in pairs])


def _plain_stamp(stamp: str) -> str:
    """Return a time of numpy with no fraction of zeros, and with four digits of a year before 0."""
    return _ZEROS.sub("", f"-0{stamp[1:]}" if _SHORT_YEAR.match(stamp) else stamp)


def _times_of_runs(naive: pa.Array, zone: str) -> pa.Array | None:
    """Return what `_regular_times` does, of equal neighbours once: rows of one batch have one
    `ingested_at`."""
    if naive.null_count:
        return _regular_times(naive, zone)
    counts = arrays.numbers(naive)
    starts = np.append(True, counts[1:] != counts[:-1])
    if np.count_nonzero(starts) * 8 > len(counts):
        return _regular_times(naive, zone)
    stamps = _regular_times(naive.take(arrays.integers(np.flatnonzero(starts))), zone)
    return None if stamps is None else stamps.take(arrays.integers(np.cumsum(starts) - 1))


def _regular_times(naive: pa.Array, zone: str) -> pa.Array | None:
    """Return times as ISO 8601, or None if some year has not four digits."""
    stamps, fraction = _fixed_times(naive, zone), _FRACTIONS.get(naive.type.unit)
    if stamps is None or fraction is None:
        return stamps
    is_whole = arrays.numbers(naive) % fraction == 0  # where null is, either will do
    if not is_whole.any():
        return stamps
    short = _fixed_times(naive.cast(pa.timestamp("s"), safe=False), zone)
    return pc.if_else(arrays.mask(is_whole), short, stamps)


def _fixed_times(naive: pa.Array, zone: str) -> pa.Array | None:
    """Return times with their whole fraction, or None if their texts differ in length."""
    stamps = naive.cast(pa.string())
    lengths, length = pc.min_max(pc.binary_length(stamps)).as_py(), _LENGTHS[naive.type.unit]
    # Years outside 1000 to 9999 have another length; a character is replaced at a fixed position.
    if not lengths["min"] == lengths["max"] == length:
        return None
    stamps = pc.binary_replace_slice(stamps, 10, 11, "T")
    return pc.binary_replace_slice(stamps, length, length, zone) if zone else stamps
