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
from typing import TYPE_CHECKING

from lakelog.lazy import Lazy
from lakelog.store import arrays
from lakelog.store.payload_layout import LONGEST, PayloadLayout, checks

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
else:
    np = Lazy("numpy")
    pa = Lazy("pyarrow")

_MEMBER = re.compile(rb'[{,]"([A-Za-z0-9_@.-]+)":"([^"\\\x00-\x1f]*)"')
_PAYLOAD, _END = b',"data":', b"}\n"
_BLOCK = 8192
"""Lines that are looked at together, so that their positions stay in the processor's cache."""
_QUOTE, _BACKSLASH = 0x22, 0x5C


@dataclass(frozen=True)
class Payloads:
    """Which payloads have which of some layouts, and where the values of each stand.

    `which` is the number of the layout of each row, -1 for none; `bounds` has for each layout the
    places where the values of its rows begin and end, in their order, two columns for each slot.
    """

    which: np.ndarray
    bounds: list[np.ndarray]


@dataclass(frozen=True)
class LineColumns:
    """The values of those lines that have the layout: `rows` are their indexes, in order.

    `bounds` are where they begin and end in `text`, two columns for each of `members`.
    """

    rows: np.ndarray
    members: tuple[str, ...]
    text: bytes
    bounds: np.ndarray
    payloads: Payloads

    def texts(self) -> dict[str, pa.Array]:
        """Return string columns by the member's name, `data` among them where the layout has it."""
        return {name: self.column(name) for name in self.members} if len(self.rows) else {}

    def column(self, name: str, absent: np.ndarray | None = None) -> pa.Array:
        """Return the values of a member as a string column, null where a mask says so."""
        number = self.members.index(name)
        return slices(self.text, self.bounds, number, absent)


def slices(
    text: bytes, bounds: np.ndarray, number: int = 0, absent: np.ndarray | None = None
) -> pa.Array:
    """Return the texts between the bounds of one column of pairs, null where a mask says so.

    The bounds ascend along rows and columns.
    """
    count, width = bounds.shape
    if not count:
        return arrays.texts([])
    # Every other text of one array over the same bytes.
    ends = pa.py_buffer(np.ascontiguousarray(bounds, np.int32).reshape(-1))
    whole = pa.Array.from_buffers(pa.string(), count * width - 1, [None, ends, pa.py_buffer(text)])
    index = arrays.integers(np.arange(2 * number, count * width, width))
    if absent is not None:
        valid = arrays.mask(~absent).buffers()[1]
        index = pa.Array.from_buffers(pa.int64(), count, [valid, index.buffers()[1]])
    return whole.take(index)


@dataclass(frozen=True)
class _Lines:
    """Lines of a block: where they begin and end, the index of the first quote of each among
    `quotes`, and how many they have. `words` are the eight bytes at each place of the text."""

    words: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    quotes: np.ndarray
    slashes: np.ndarray
    first: np.ndarray
    count: np.ndarray

    def has_slash(self, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Return a mask of the spans in which a backslash stands."""
        found: np.ndarray = np.searchsorted(self.slashes, begins) != np.searchsorted(
            self.slashes, ends
        )
        return found


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
    def _pieces(self) -> list[bytes]:
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
        pieces, count = self._pieces, len(starts)
        # So far behind a line bytes may be compared: the last ones are copied, with room after
        # them.
        reach = 16 + max(len(p) for p in (*pieces, *(p for each in payloads for p in each.pieces)))
        near = int(np.searchsorted(stops, max(len(data) - reach, 0), "right"))
        end = int(starts[near]) if near < count else len(data)
        parts = [(data, 0, 0, near), (data[end:] + bytes(reach), end, near, count)]
        rows, tables, matched = [np.empty(0, np.int64)], list[np.ndarray](), list[Payloads]()
        has_slash = b"\\" in data
        for text, base, low, high in parts:
            for at in range(low, high, _BLOCK):
                some = slice(at, min(at + _BLOCK, high))
                block = _lines(text, starts[some] - base, stops[some] - base, has_slash)
                index, bounds, lines = self._bounds(block, pieces)
                rows.append(index + at)
                tables.append(bounds + np.int32(base) if base else bounds)
                matched.append(_matched(lines, bounds, payloads, base))
        width = 2 * len(self.members)
        table = np.concatenate(tables) if tables else np.empty((0, width), np.int32)
        return LineColumns(
            np.concatenate(rows), self.members, data, table, _joined(matched, payloads)
        )

    def _bounds(self, block: _Lines, pieces: list[bytes]) -> tuple[np.ndarray, np.ndarray, _Lines]:
        """The indexes of the lines that have the layout, where their values begin and end, and
        these lines: the first quote of each is then the first one of its payload."""
        # A name has two quotes, and so has its value.
        least = 4 * len(self.names) + 2 * self.has_payload
        index = np.flatnonzero(block.count >= least)
        lines = block if len(index) == len(block.starts) else _some(block, index, 0)
        at, fits = lines.starts, np.ones(len(index), bool)
        table = np.empty((len(index), 2 * len(self.members)), np.int32)
        for number, piece in enumerate(pieces):
            for place, mask, wanted in checks(piece):
                fits &= (lines.words[at + place] & mask if mask else lines.words[at + place]) == (
                    wanted
                )
            if number == len(self.names):
                break
            begin = at + len(piece)
            at = lines.quotes[lines.first + (4 * number + 3)]
            if not number:
                fits &= at - begin == self.width
            table[:, 2 * number], table[:, 2 * number + 1] = begin, at
        if len(lines.slashes):
            fits &= ~lines.has_slash(lines.starts, at)
        if self.has_payload:
            begin, end = at + len(pieces[-1]), lines.stops - len(_END)
            fits &= (lines.words[lines.stops - 8] >> 48) == int.from_bytes(_END, "little")
            table[:, -2], table[:, -1] = begin, end
            fits &= begin < end
        else:
            fits &= at + len(pieces[-1]) == lines.stops
        good = np.flatnonzero(fits)
        table = table if len(good) == len(fits) else table[good]
        return index[good], table, _some(lines, good, least)


def _lines(text: bytes, starts: np.ndarray, stops: np.ndarray, has_slash: bool) -> _Lines:
    """The lines of a block with their quotes."""
    low, high = int(starts[0]), int(stops[-1])
    codes = np.frombuffer(text, np.uint8)[low:high]
    words = np.ndarray(max(len(text) - 7, 0), "<u8", text, strides=(1,))
    quotes = np.flatnonzero(codes == _QUOTE) + low
    places = np.flatnonzero(codes == _BACKSLASH) + low if has_slash else quotes[:0]
    first = np.searchsorted(quotes, starts)
    if np.array_equal(starts[1:], stops[:-1]):
        last = np.append(first[1:], len(quotes))
    else:
        last = np.searchsorted(quotes, stops)
    return _Lines(words, starts, stops, quotes, places, first, last - first)


def _some(lines: _Lines, index: np.ndarray, passed: int) -> _Lines:
    """Some of the lines, without so many of their first quotes."""
    starts, stops, first, count = lines.starts, lines.stops, lines.first, lines.count
    if len(index) < len(starts):
        starts, stops, first, count = starts[index], stops[index], first[index], count[index]
    return _Lines(
        lines.words, starts, stops, lines.quotes, lines.slashes, first + passed, count - passed
    )


def _matched(
    lines: _Lines, bounds: np.ndarray, layouts: Sequence[PayloadLayout], base: int
) -> Payloads:
    """Which payloads have which layout; `lines` have had the quotes of their envelope passed."""
    which, found = np.full(len(bounds), -1, np.int16), list[np.ndarray]()
    if not layouts:
        return Payloads(which, found)
    begin, end = bounds[:, -2], bounds[:, -1]
    # Behind a backslash a quote may be a part of its text.
    free = end - begin <= LONGEST
    if len(lines.slashes):
        free &= ~lines.has_slash(begin, end)
    starts = lines.words[begin]
    for number, layout in enumerate(layouts):
        _, mask, wanted = checks(layout.pieces[0])[0]
        alike = (starts & mask if mask else starts) == wanted
        rows = np.flatnonzero(alike & free & (which < 0) & (lines.count == layout.quotes))
        span = bounds[rows, -2:]
        fits, places = layout.match(lines.words, lines.quotes, lines.first[rows], span)
        if not fits.all():
            rows, places = rows[fits], places[fits]
        which[rows] = number
        found.append(places + np.int32(base) if base else places)
    return Payloads(which, found)


def _joined(matched: list[Payloads], layouts: Sequence[PayloadLayout]) -> Payloads:
    """The payloads of all blocks."""
    which = np.concatenate([np.empty(0, np.int16), *(each.which for each in matched)])
    return Payloads(
        which,
        [
            np.concatenate(
                [
                    np.empty((0, 2 * len(layout.slots)), np.int32),
                    *(each.bounds[number] for each in matched),
                ]
            )
            for number, layout in enumerate(layouts)
        ],
    )


def layout_of(line: bytes) -> LineLayout | None:
    """Return the layout of a line, or None if it is none that is looked for."""
    names, width, at = list[str](), -1, 0
    while member := _MEMBER.match(line, at):
        names.append(member[1].decode())
        width = len(member[2]) if width < 0 else width
        at = member.end()
    has_payload = line.startswith(_PAYLOAD, at) and line.endswith(_END)
    is_whole = names and len({*names, "data"}) == len(names) + 1
    if not is_whole or not (has_payload or line[at:] == _END):
        return None
    return LineLayout(tuple(names), width, has_payload)
