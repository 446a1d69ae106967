"""Payloads of few layouts as structs, cut out of their lines: no payload is parsed.

A schema is inferred from a sample, and layouts (`payload_layout`) of the sample are used whose
structs the engine proved to give back the text of each payload in it. Then a payload of the layout
is one of the schema if its values are: a text without quotes, escapes and control characters always
is, a number if it is written as the engine writes it, which is compared. The others stay text.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lakelog import arrays, typed_columns
from lakelog.formats.uniform.line_layout import LineColumns, PayloadMatches, slices
from lakelog.formats.uniform.payload_layout import PayloadLayout, payload_layout
from lakelog.libraries import duckdb, np, pa, pc
from lakelog.typed_columns import FieldColumns, Member, Schema, infer

LAYOUTS_MAX = 16
"""So many layouts are looked for, the most frequent of a sample."""
_SHARE, _KNOWN = 0.5, 0.9
"""The part of a sample that has to become structs, and the part from which on a schema that is
there already is good enough."""
_INFERRED = 512
"""So many payloads of a sample are parsed to infer a schema."""
_EXACT = 1 << 53
_SMALL, _LARGE = 1e-4, 1e15
"""Between these sizes a double is written without an exponent."""
_SPACE, _DIGITS, _MINUS, _POINT, _ZERO = 0x20, (0x2D, 0x39), 0x2D, 0x2E, 0x30
_SURE = 16
"""Characters of a decimal number without its sign, of which at most 15 are digits."""
_WHOLE = r"^-?(0|[1-9][0-9]{0,17})$"
_DECIMAL = r"^-?(0|[1-9][0-9]{0,15})\.[0-9]{1,20}$"
_MemberPath = tuple[str, ...]


@dataclass(frozen=True)
class PayloadColumns:
    """How the payloads of a file become structs: the schema with the encodings of its leaves, and
    the layouts that are looked for."""

    fields: FieldColumns
    layouts: tuple[PayloadLayout, ...]

    def structs(self, lines: LineColumns) -> tuple[pa.StructArray, np.ndarray]:
        """Return the payloads of rows as structs, and a mask of those that are some."""
        return _structs(self.fields.schema, self.layouts, lines.data, lines.payloads)


def learn(
    engine: duckdb.DuckDBPyConnection,
    cut_lines: Callable[[Iterable[PayloadLayout]], LineColumns],
    known_schemas: Iterable[Schema] = (),
) -> PayloadColumns | None:
    """Return how payloads like those of a sample become structs, by a schema that is known if one
    fits most of them; None if too few would. `cut_lines` cuts the lines of the sample.

    Raises nothing for payloads that are no JSON: the caller proves what stays text.
    """
    payloads = cut_lines(()).texts().get("data")
    if payloads is None or not len(payloads):
        return None
    step = max(1, len(payloads) // _INFERRED)
    sampled = payloads.take(arrays.integers(np.arange(0, len(payloads), step))).to_pylist()
    layout_by_payload = [(payload, payload_layout(payload.encode())) for payload in sampled]
    counts = Counter(layout for _, layout in layout_by_payload if layout)
    layouts = [layout for layout, _ in counts.most_common(LAYOUTS_MAX)]
    sample = cut_lines(layouts)
    for schema in known_schemas:
        best = _tried(engine, schema, layouts, sample, payloads)
        if best and best[0] >= _KNOWN:
            return _encoded(schema, *best[1:])
    # What has no layout stays text, and may be no JSON.
    inferred = infer(payload for payload, layout in layout_by_payload if layout)
    best = _tried(engine, inferred, layouts, sample, payloads) if inferred else None
    return _encoded(inferred, *best[1:]) if inferred and best and best[0] >= _SHARE else None


def _tried(
    engine: duckdb.DuckDBPyConnection,
    schema: Schema,
    layouts: list[PayloadLayout],
    sample: LineColumns,
    payloads: pa.Array,
) -> tuple[float, list[PayloadLayout], pa.StructArray] | None:
    """Return the part of a sample whose payloads a schema gives back, the layouts that they have,
    and the structs of the sample."""
    fit = [_is_of(schema, layout) for layout in layouts]
    which = sample.payloads.which.copy()
    which[~np.isin(which, np.flatnonzero(fit))] = -1
    bounds = [
        spans if is_fit else spans[:0]
        for spans, is_fit in zip(sample.payloads.bounds, fit, strict=True)
    ]
    structs, is_struct = _structs(schema, layouts, sample.data, PayloadMatches(which, bounds))
    if not is_struct.any():
        return None
    none = pa.nulls(len(payloads), pa.string())
    rows = pa.table({"data": none, typed_columns.COLUMN: structs})
    # Proved, not believed: a layout is used only if the engine gives back each payload of the
    # sample byte for byte.
    rebuilt = typed_columns.restored(engine, schema, rows)["data"].combine_chunks()
    places = arrays.integers(np.flatnonzero(is_struct))
    same = arrays.truths(pc.equal(rebuilt.take(places), payloads.take(places)))
    proved = {*which[is_struct].tolist()} - {*which[is_struct][~same].tolist()}
    good = [layout for number, layout in enumerate(layouts) if number in proved]
    share = float(np.isin(which[is_struct], [*proved]).sum() / len(payloads))
    return share, good, structs


def _encoded(
    schema: Schema, layouts: list[PayloadLayout], structs: pa.StructArray
) -> PayloadColumns:
    return PayloadColumns(typed_columns.FieldColumns.of_sample(schema, structs, 1), tuple(layouts))


def _is_of(schema: Schema, layout: PayloadLayout) -> bool:
    """Whether the values of a layout have a place in a schema."""
    members = dict(_members(schema.members))
    lists = dict(layout.lists)
    for slot in layout.slots:
        member = members.get(slot.path)
        if member is None or (member.kind == "list") != slot.is_element:
            return False
        leaf = member.members[0] if slot.is_element else member
        if leaf.kind not in (("text",) if slot.is_text else ("int", "float", "number", "bool")):
            return False
    kinds = {path: member.kind for path, member in members.items()}
    return all(kinds.get(path) == "list" for path in lists) and all(
        not path or kinds.get(path) == "object" for path in layout.objects
    )


def _members(
    members: tuple[Member, ...], path: _MemberPath = ()
) -> Iterable[tuple[_MemberPath, Member]]:
    """Yield the members of an object, and those of the objects in it, by their paths."""
    for member in members:
        yield (*path, member.name), member
        if member.kind == "object":
            yield from _members(member.members, (*path, member.name))


def _structs(
    schema: Schema, layouts: Iterable[PayloadLayout], data: bytes, payloads: PayloadMatches
) -> tuple[pa.StructArray, np.ndarray]:
    """Return structs of payloads, null where a value is none of the schema, and a mask: whether
    each is one."""
    building = _Building(tuple(layouts), data, payloads)
    children = [building.column(member, (member.name,)) for member in schema.members]
    is_struct = (payloads.which >= 0) & ~building.bad
    kinds = list(schema.arrow_type())
    mask = arrays.mask(~is_struct)
    return pa.StructArray.from_arrays(children, fields=kinds, mask=mask), is_struct


class _Building:
    """The columns of the structs of some payloads; `bad` are the rows of which a value is none."""

    def __init__(
        self, layouts: tuple[PayloadLayout, ...], data: bytes, payloads: PayloadMatches
    ) -> None:
        self._layouts, self._text, self._bounds = layouts, data, payloads.bounds
        self._rows = [np.flatnonzero(payloads.which == n) for n in range(len(layouts))]
        self._count = len(payloads.which)
        self.bad = np.zeros(self._count, bool)

    def column(self, member: Member, path: _MemberPath) -> pa.Array:
        """Return the values of a member, null where a payload does not have it."""
        if member.kind == "object":
            mask = ~self._present(lambda layout: path in layout.objects)
            children = [self.column(child, (*path, child.name)) for child in member.members]
            kinds = list(member.arrow_type())
            return pa.StructArray.from_arrays(children, fields=kinds, mask=arrays.mask(mask))
        if member.kind == "list":
            return self._list(member, path)
        spans_by_layout = [
            (self._rows[number], self._bounds[number][:, 2 * slots[0] : 2 * slots[0] + 2])
            for number, slots in self._slots(path, is_element=False)
        ]
        if not spans_by_layout:
            return pa.nulls(self._count, member.arrow_type())
        rows, spans = spans_by_layout[0]
        if len(spans_by_layout) > 1:
            rows = np.concatenate([rows for rows, _ in spans_by_layout])
            order = np.argsort(rows, kind="stable")
            rows, spans = (
                rows[order],
                np.concatenate([spans for _, spans in spans_by_layout])[order],
            )
        values, is_good = _values(member.kind, slices(self._text, spans))
        if not is_good.all():
            self.bad[rows[~is_good]] = True
        return _spread(values, rows, self._count)

    def _list(self, member: Member, path: _MemberPath) -> pa.Array:
        lengths, present = np.zeros(self._count, np.int64), np.zeros(self._count, bool)
        for number, layout in enumerate(self._layouts):
            length = dict(layout.lists).get(path)
            if length is not None:
                lengths[self._rows[number]], present[self._rows[number]] = length, True
        ends = np.cumsum(lengths)
        spans = np.zeros((int(ends[-1]) if len(ends) else 0, 2), np.int32)
        for number, slots in self._slots(path, is_element=True):
            begins = (ends - lengths)[self._rows[number]]
            for nth, slot in enumerate(slots):
                spans[begins + nth] = self._bounds[number][:, 2 * slot : 2 * slot + 2]
        list_type = member.arrow_type()
        element = member.members[0]
        if len(spans):
            values, is_good = _values(element.kind, slices(self._text, spans))
            if not is_good.all():
                self.bad[np.repeat(np.arange(self._count), lengths)[~is_good]] = True
        else:
            values = pa.nulls(0, element.arrow_type())
        offsets = pa.py_buffer(np.concatenate([[0], ends]).astype(np.int32))
        valid = arrays.mask(present).buffers()[1]
        return pa.Array.from_buffers(list_type, self._count, [valid, offsets], children=[values])

    def _present(self, has: Callable[[PayloadLayout], bool]) -> np.ndarray:
        present = np.zeros(self._count, bool)
        for rows, layout in zip(self._rows, self._layouts, strict=True):
            present[rows] = has(layout)
        return present

    def _slots(self, path: _MemberPath, *, is_element: bool) -> Iterable[tuple[int, list[int]]]:
        """Yield the numbers of layouts with the values of a path, and of these."""
        for number, layout in enumerate(self._layouts):
            slots = [
                nth
                for nth, slot in enumerate(layout.slots)
                if slot.path == path and slot.is_element == is_element
            ]
            if slots and len(self._rows[number]):
                yield number, slots


def _spread(values: pa.Array, rows: np.ndarray, count: int) -> pa.Array:
    """Return a column of so many rows that has values in these, and is null elsewhere."""
    # Nothing to spread, as for most columns of logs whose lines are alike.
    if len(rows) == count:
        return values
    present, value_type = np.zeros(count, bool), values.type
    present[rows] = True
    valid = arrays.mask(present).buffers()[1]
    if pa.types.is_string(value_type):
        lengths = np.zeros(count + 1, np.int32)
        lengths[rows + 1] = np.diff(np.frombuffer(values.buffers()[1], np.int32, len(values) + 1))
        ends = pa.py_buffer(np.cumsum(lengths, dtype=np.int32))
        return pa.Array.from_buffers(value_type, count, [valid, ends, values.buffers()[2]])
    if pa.types.is_boolean(value_type):
        bits = np.zeros(count, bool)
        bits[rows] = arrays.truths(values)
        return pa.Array.from_buffers(value_type, count, [valid, arrays.mask(bits).buffers()[1]])
    numbers = np.zeros(count, np.int64)
    numbers[rows] = np.frombuffer(values.buffers()[1], np.int64, len(values))
    return pa.Array.from_buffers(value_type, count, [valid, pa.py_buffer(numbers)])


def _values(member_kind: str, literals: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Return the values of texts, and a mask of those that are written as the kind writes them."""
    if member_kind == "text":
        is_good = np.ones(len(literals), bool)
        if arrays.characters(literals).min(initial=_SPACE) < _SPACE:
            is_good &= ~arrays.truths(pc.match_substring_regex(literals, "[\\x00-\\x1f]"))
        return literals, is_good
    if member_kind == "bool":
        true, false = (
            arrays.truths(pc.equal(literals, _scalar(word))) for word in ("true", "false")
        )
        return arrays.mask(true), true | false
    number = pa.int64() if member_kind == "int" else pa.float64()
    values = pa.nulls(0, number)
    codes = arrays.characters(literals)
    # Other characters may make hexadecimal numbers or infinity, which only Arrow reads.
    if codes.min(initial=_DIGITS[0]) >= _DIGITS[0] and codes.max(initial=0) <= _DIGITS[1]:
        with contextlib.suppress(pa.ArrowInvalid):
            values = literals.cast(number)
    if not len(values):
        return _read(member_kind, literals)
    if member_kind == "int":
        return values, _are_whole(literals, values)
    is_good = (
        _are_decimals(literals, values) if member_kind == "float" else np.zeros(len(literals), bool)
    )
    # Those whose spelling says too little are written, and compared.
    undecided = np.flatnonzero(~is_good)
    if len(undecided):
        is_good[undecided] = _read(member_kind, literals.take(arrays.integers(undecided)))[1]
    return values, is_good


def _are_whole(literals: pa.Array, values: pa.Array) -> np.ndarray:
    """Return a mask of the numbers that are written without zeros in front."""
    begin, end = arrays.ends(literals)
    is_negative = arrays.characters(literals)[begin - begin[0]] == _MINUS
    size = np.abs(arrays.numbers(values))
    # A number of so many digits is at least this large, unless the first one is zero.
    least_sizes = np.array([0, 0, *(10**n for n in range(1, 19)), 2**63 - 1])
    digits = np.minimum(end - begin - is_negative, len(least_sizes) - 1)
    is_canonical: np.ndarray = (size >= least_sizes[digits]) & ~(is_negative & (size == 0))
    return is_canonical


def _are_decimals(literals: pa.Array, values: pa.Array) -> np.ndarray:
    """Return a mask of some doubles that kind float writes as they are: of so few digits, each is
    nearest to one double, and has none to spare."""
    begin, end = arrays.ends(literals)
    codes, base = arrays.characters(literals), begin[0]
    points = np.flatnonzero(codes == _POINT) + base
    if len(points) < len(begin) or len(points) > len(begin):
        return np.zeros(len(begin), bool)
    digits_start = begin + (codes[begin - base] == _MINUS)
    # Up to 15 digits a decimal is nearest to one double, which is written with these digits again
    # (IEEE 754).
    size = np.abs(_doubles(values))
    is_canonical: np.ndarray = (
        (digits_start < points) & (points < end - 1) & (end - digits_start <= _SURE)
    )
    is_canonical &= (codes[digits_start - base] != _ZERO) | (points == digits_start + 1)
    is_canonical &= (codes[end - 1 - base] != _ZERO) | (points == end - 2)
    is_canonical &= (size >= _SMALL) | (size == 0)
    return is_canonical


def _read(member_kind: str, literals: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Return numbers, and a mask of those that are written as the kind writes them."""
    number, form = (pa.int64(), _WHOLE) if member_kind == "int" else (pa.float64(), _DECIMAL)
    form = f"{_WHOLE}|{_DECIMAL}" if member_kind == "number" else form
    is_number = pc.match_substring_regex(literals, form)
    values = pc.if_else(is_number, literals, _scalar("0")).cast(number)
    format_values = {"int": lambda v: v.cast(pa.string()), "float": _shown, "number": _shown_short}[
        member_kind
    ]
    return values, arrays.truths(pc.and_(is_number, pc.equal(format_values(values), literals)))


def _shown(values: pa.Array) -> pa.Array:
    """Return doubles as kind float writes them, empty where that may have an exponent.

    Arrow writes as few digits as give the same double, and whole numbers without a point.
    """
    numbers, literals = _doubles(values), values.cast(pa.string())
    size = np.abs(numbers)
    is_whole = numbers == np.trunc(numbers)
    if is_whole.any():
        pointed = pc.binary_join_element_wise(literals, _scalar(".0"), _scalar(""))
        literals = pc.if_else(arrays.mask(is_whole), pointed, literals)
    is_short = (size < _LARGE) & ((size >= _SMALL) | (size == 0))
    return literals if is_short.all() else pc.if_else(arrays.mask(is_short), literals, _scalar(""))


def _shown_short(values: pa.Array) -> pa.Array:
    """Return doubles as kind number writes them, empty where that may have an exponent."""
    numbers = _doubles(values)
    is_whole = (numbers == np.trunc(numbers)) & (np.abs(numbers) < _EXACT)
    whole = arrays.integers(np.where(is_whole, numbers, 0).astype(np.int64)).cast(pa.string())
    return pc.if_else(arrays.mask(is_whole), whole, _shown(values))


def _doubles(values: pa.Array) -> np.ndarray:
    return np.frombuffer(values.buffers()[1], np.float64, len(values), values.offset * 8)


def _scalar(string: str) -> pa.Scalar:
    return arrays.texts([string])[0]
