"""Lines of JSON that spell their members alike: their values as columns, without parsing each.

A layout is the bytes between the values of a line: `{"time":"`, `","type":"` and so on. A line has
the layout if these bytes stand in it, the values between them are texts without quotes, escapes and
control characters, and the payload, whatever it is, goes from `,"data":` to the closing brace. Then
nothing else can be in its envelope. Where the quotes of thousands of lines stand is found at once,
and the bytes are compared in words of eight; what has another layout is left to the caller.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lakelog import arrays
from lakelog.formats.uniform.payload_layout import LONGEST, PayloadLayout
from lakelog.formats.uniform.quoted_text import QuotedText
from lakelog.libraries import np, pa

_MEMBER = re.compile(rb'[{,]"([A-Za-z0-9_@.-]+)":"([^"\\\x00-\x1f]*)"')
_PAYLOAD, _END = b',"data":', b"}\n"
_BLOCK = 8192
"""Lines that are looked at together, so that their positions stay in the processor's cache."""


@dataclass(frozen=True)
class PayloadMatches:
    """Which payloads have which of some layouts, and where the values of each stand.

    `which` is the number of the layout of each row, -1 for none; `bounds` has for each layout the
    places where the values of its rows begin and end, in their order, two columns for each slot.
    """

    which: np.ndarray
    bounds: list[np.ndarray]


@dataclass(frozen=True)
class LineColumns:
    """The values of those lines that have the layout: `rows` are their indexes, in order.

    `bounds` are where they begin and end in `data`, two columns for each of `members`.
    """

    rows: np.ndarray
    members: tuple[str, ...]
    data: bytes
    bounds: np.ndarray
    payloads: PayloadMatches

    def texts(self) -> dict[str, pa.Array]:
        """Return string columns by the member's name, `data` among them where the layout has it."""
        return {name: self.column(name) for name in self.members} if len(self.rows) else {}

    def column(self, name: str, absent: np.ndarray | None = None) -> pa.Array:
        """Return the values of a member as a string column, null where a mask says so."""
        number = self.members.index(name)
        return slices(self.data, self.bounds, number, absent)


def slices(
    data: bytes, bounds: np.ndarray, number: int = 0, absent: np.ndarray | None = None
) -> pa.Array:
    """Return the texts between the bounds of one column of pairs, null where a mask says so.

    The bounds ascend along rows and columns.
    """
    count, width = bounds.shape
    if not count:
        return arrays.texts([])
    # Every other text of one array over the same bytes.
    ends = pa.py_buffer(np.ascontiguousarray(bounds, np.int32).reshape(-1))
    whole = pa.Array.from_buffers(pa.string(), count * width - 1, [None, ends, pa.py_buffer(data)])
    index = arrays.integers(np.arange(2 * number, count * width, width))
    if absent is not None:
        valid = arrays.mask(~absent).buffers()[1]
        index = pa.Array.from_buffers(pa.int64(), count, [valid, index.buffers()[1]])
    return whole.take(index)


@dataclass(frozen=True)
class LineLayout:
    """The layout of lines with these members, the first of one width, perhaps with a payload."""

    names: tuple[str, ...]
    width: int
    has_payload: bool

    @property
    def members(self) -> tuple[str, ...]:
        """The names of all members."""
        return (*self.names, "data") if self.has_payload else self.names

    @property
    def _literals(self) -> list[bytes]:
        """The bytes in front of each value but the payload's, and those behind the last."""
        heads = [f'","{name}":"'.encode() for name in self.names]
        return [b"{" + heads[0][2:], *heads[1:], b'"' + (_PAYLOAD if self.has_payload else _END)]

    def cut(
        self,
        data: bytes,
        starts: np.ndarray,
        stops: np.ndarray,
        payloads: Sequence[PayloadLayout] = (),
    ) -> LineColumns:
        """Return the columns of lines that begin and end where these ascending numbers say, and the
        values of payloads that have one of these layouts.

        `data` are less than 2 GiB, and a newline stands only at the end of a line. Values may hold
        control characters: the caller refuses them.
        """
        literals, count = self._literals, len(starts)
        # So far behind a line bytes may be compared: the last ones are copied, with room after
        # them.
        reach = (
            16
            + sum(map(len, literals))
            + max((sum(map(len, p.literals)) for p in payloads), default=0)
        )
        near = int(np.searchsorted(stops, max(len(data) - reach, 0), "right"))
        end = int(starts[near]) if near < count else len(data)
        spans = [(data, 0, 0, near), (data[end:] + bytes(reach), end, near, count)]
        rows, tables, matched = [np.empty(0, np.int64)], list[np.ndarray](), list[PayloadMatches]()
        has_slash = b"\\" in data
        for buffer, base, low, high in spans:
            for block_start in range(low, high, _BLOCK):
                some = slice(block_start, min(block_start + _BLOCK, high))
                offset = int(starts[block_start]) - base
                block = QuotedText(buffer, offset, int(stops[some.stop - 1]) - base, reach)
                begins, ends = starts[some] - (offset + base), stops[some] - (offset + base)
                index, bounds = self._bounds(block, literals, begins, ends, has_slash)
                rows.append(index + block_start)
                tables.append(bounds)
                matched.append(_matched(block, bounds, payloads, has_slash))
                for places in (bounds, *matched[-1].bounds):
                    places += np.int32(offset + base)
        width = 2 * len(self.members)
        table = np.concatenate(tables) if tables else np.empty((0, width), np.int32)
        return LineColumns(
            np.concatenate(rows), self.members, data, table, _joined(matched, payloads)
        )

    def _bounds(
        self,
        block: QuotedText,
        literals: list[bytes],
        starts: np.ndarray,
        stops: np.ndarray,
        has_slash: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The indexes of the lines that have the layout, and where their values begin and end."""
        places, fits = starts, np.ones(len(starts), bool)
        table = np.empty((len(starts), 2 * len(self.members)), np.int32)
        for number, literal in enumerate(literals):
            fits &= block.stands(literal, places)
            begin = places + len(literal)
            if number == len(self.names):
                break
            # In a line that does not fit it may be the quote of a later one, or none.
            places = block.next_quotes(begin)
            if not number:
                fits &= places - begin == self.width
            table[:, 2 * number], table[:, 2 * number + 1] = begin, places
        if has_slash:
            fits &= ~block.has_backslash(starts, places)
        # Places ascend: when the last one is in its line, so are all.
        if self.has_payload:
            end = stops - len(_END)
            fits &= (begin < end) & block.stands(_END, end)
            table[:, -2], table[:, -1] = begin, end
        else:
            fits &= begin == stops
        if fits.all():
            return np.arange(len(starts)), table
        good = np.flatnonzero(fits)
        return good, table[good]


def _matched(
    block: QuotedText, bounds: np.ndarray, layouts: Sequence[PayloadLayout], has_slash: bool
) -> PayloadMatches:
    """Which payloads have which layout."""
    which, bounds_by_layout = np.full(len(bounds), -1, np.int16), list[np.ndarray]()
    if not layouts:
        return PayloadMatches(which, bounds_by_layout)
    begin, end = (bounds[:, column].astype(np.int64) for column in (-2, -1))
    # Behind a backslash a quote may be a part of its text.
    free = end - begin <= LONGEST
    if has_slash:
        free &= ~block.has_backslash(begin, end)
    starts = block.words(begin, 1)[:, 0]
    for number, layout in enumerate(layouts):
        opening = layout.literals[0][:8]
        mask, opening_word = (1 << 8 * len(opening)) - 1, int.from_bytes(opening, "little")
        has_opening = (starts & np.uint64(mask)) == np.uint64(opening_word)
        rows = np.flatnonzero(has_opening & free & (which < 0))
        fits, places = layout.match(block, begin[rows], end[rows])
        if not fits.all():
            rows, places = rows[fits], places[fits]
        which[rows] = number
        bounds_by_layout.append(places)
    return PayloadMatches(which, bounds_by_layout)


def _joined(matched: list[PayloadMatches], layouts: Sequence[PayloadLayout]) -> PayloadMatches:
    """The payloads of all blocks."""
    which = np.concatenate([np.empty(0, np.int16), *(block.which for block in matched)])
    return PayloadMatches(
        which,
        [
            np.concatenate(
                [
                    np.empty((0, 2 * len(layout.slots)), np.int32),
                    *(block.bounds[number] for block in matched),
                ]
            )
            for number, layout in enumerate(layouts)
        ],
    )


def layout_of(line: bytes) -> LineLayout | None:
    """Return the layout of a line, or None if it is none that is looked for."""
    names, width, position = list[str](), -1, 0
    while member := _MEMBER.match(line, position):
        names.append(member[1].decode())
        width = len(member[2]) if width < 0 else width
        position = member.end()
    has_payload = line.startswith(_PAYLOAD, position) and line.endswith(_END)
    is_whole = names and len({*names, "data"}) == len(names) + 1
    if not is_whole or not (has_payload or line[position:] == _END):
        return None
    return LineLayout(tuple(names), width, has_payload)
