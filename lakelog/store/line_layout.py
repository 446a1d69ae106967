"""Lines of JSON that spell their members alike: their values as columns, without parsing each.

A layout is the bytes between the values of a line: `{"time":"`, `","type":"` and so on. A line has
the layout if these bytes stand in it, the values between them are texts without quotes, escapes and
control characters, and the payload, whatever it is, goes from `,"data":` to the closing brace. Then
nothing else can be in its envelope. Where the bytes stand is found for thousands of lines at once,
in words of eight bytes; what has another layout is left to the caller.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakelog.lazy import Lazy
from lakelog.store import arrays

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
else:
    np = Lazy("numpy")
    pa = Lazy("pyarrow")

_MEMBER = re.compile(rb'[{,]"([A-Za-z0-9_@.-]+)":"([^"\\\x00-\x1f]*)"')
_PAYLOAD, _END = b',"data":', b"}\n"
_WORDS = 8
"""A longer value than so many words of eight bytes is left to the caller."""
_BLOCK = 8192
"""Lines that are looked at together, so that their positions stay in the processor's cache."""
_ONES, _HIGH = 0x0101010101010101, 0x8080808080808080
_QUOTES, _ESCAPES = 0x22 * _ONES, 0x5C * _ONES


@dataclass(frozen=True)
class LineColumns:
    """The values of those lines that have the layout: `rows` are their indexes, in order.

    `texts` are string columns by the member's name, `data` among them where the layout has it.
    """

    rows: np.ndarray
    texts: dict[str, pa.Array]


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

    def cut(self, data: bytes, starts: np.ndarray, stops: np.ndarray) -> LineColumns:
        """Return the columns of lines that begin and end where these ascending numbers say.

        `data` are less than 2 GiB, and a newline stands only at the end of a line. The first value
        may hold quotes, and any value control characters: the caller refuses them.
        """
        pieces = self._pieces
        # So far a line may be looked at: the last ones are copied, with room after them.
        reach = sum(map(len, pieces)) + 8 * (_WORDS + 1) * len(pieces) + self.width
        count = len(starts)
        near = int(np.searchsorted(starts, max(len(data) - reach, 0)))
        end = int(starts[near]) if near < count else len(data)
        parts = [(data, 0, 0, near), (data[end:] + bytes(reach), end, near, count)]
        found, has_escapes = [], b"\\" in data
        for text, base, first, last in parts:
            words = np.ndarray(max(len(text) - 7, 0), "<u8", text, strides=(1,))
            for at in range(first, last, _BLOCK):
                some = slice(at, min(at + _BLOCK, last))
                lines = starts[some] - base, stops[some] - base
                fits, bounds = self._bounds(words, pieces, lines, has_escapes)
                found.append((fits, (bounds + base).astype(np.int32)))
        if not found:
            return LineColumns(np.empty(0, np.int64), {})
        fits = np.concatenate([fit for fit, _ in found])
        return LineColumns(np.flatnonzero(fits), self._columns(data, [each for _, each in found]))

    def _bounds(
        self,
        words: np.ndarray,
        pieces: list[bytes],
        lines: tuple[np.ndarray, np.ndarray],
        has_escapes: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """A mask of the lines that have the layout, and where their values begin and end."""
        at, stops = lines
        fits = np.ones(len(at), bool)
        bounds: list[np.ndarray] = []
        for number, piece in enumerate(pieces):
            for place, mask, wanted in _checks(piece):
                fits &= (words[at + place] & mask if mask else words[at + place]) == wanted
            if number == len(self.names):
                break
            begin = at + len(piece)
            # The first is a time: what is shorter or longer, or holds a quote, is none of its form.
            at = begin + self.width if not number else begin + _length(words, begin, has_escapes)
            bounds += [begin, at]
        if self.has_payload:
            begin, end = at + len(pieces[-1]), stops - len(_END)
            fits &= (words[stops - 8] >> 48) == int.from_bytes(_END, "little")
            bounds += [begin, end]
            fits &= begin < end
        else:
            fits &= at + len(pieces[-1]) == stops
        table = np.stack(bounds, axis=1)
        return fits, table if fits.all() else table[fits]

    def _columns(self, data: bytes, bounds: list[np.ndarray]) -> dict[str, pa.Array]:
        """The values as columns: every other text of one array over the same bytes."""
        table = np.concatenate(bounds)
        count, width = table.shape
        if not count:
            return {}
        buffers = [None, pa.py_buffer(table.reshape(-1)), pa.py_buffer(data)]
        texts = pa.Array.from_buffers(pa.string(), count * width - 1, buffers)
        columns = {}
        for number, name in enumerate(self.members):
            index = arrays.integers(np.arange(2 * number, count * width, width))
            columns[name] = texts.take(index)
        return columns


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


def _checks(piece: bytes) -> list[tuple[int, int, int]]:
    """Words that tell whether a piece stands somewhere: place, mask (0 for none), and value."""
    places = [*range(0, len(piece) - 7, 8)]
    if len(piece) > 8 and len(piece) % 8:
        places.append(len(piece) - 8)
    if len(piece) >= 8:
        return [(at, 0, int.from_bytes(piece[at : at + 8], "little")) for at in places]
    return [(0, (1 << 8 * len(piece)) - 1, int.from_bytes(piece, "little"))]


def _length(words: np.ndarray, begin: np.ndarray, has_escapes: bool) -> np.ndarray:
    """The bytes before the next quote or escape; of longer values than are looked at, a number
    behind which there is none."""
    length = np.full(len(begin), 8 * _WORDS, np.int64)
    at, rows = begin, None
    for number in range(_WORDS):
        word = words[at]
        hits = _zeros(word ^ np.uint64(_QUOTES))
        if has_escapes:
            hits |= _zeros(word ^ np.uint64(_ESCAPES))
        # The lowest is right; above it there may be false ones.
        place = _lowest_byte(hits)
        is_hit = hits != 0
        if rows is None and is_hit.all():
            return place
        some = np.flatnonzero(is_hit)
        length[some if rows is None else rows[some]] = place[some] + 8 * number
        left = np.flatnonzero(~is_hit)
        if not len(left):
            break
        rows = left if rows is None else rows[left]
        at = at[left] + 8
    return length


def _lowest_byte(hits: np.ndarray) -> np.ndarray:
    """The number of the lowest byte whose high bit is set."""
    below = (hits - np.uint64(1)) & ~hits
    if hasattr(np, "bitwise_count"):  # numpy 2
        counts: np.ndarray = np.bitwise_count(below).astype(np.int64)
        return counts >> 3
    # The exponent of a power of two.
    exponents: np.ndarray = (below + np.uint64(1)).astype(np.float64).view(np.int64) >> 52
    return exponents - 1023 >> 3


def _zeros(words: np.ndarray) -> np.ndarray:
    """The high bit of each byte that is zero; above the lowest such byte there may be others."""
    found: np.ndarray = (words - np.uint64(_ONES)) & ~words & np.uint64(_HIGH)
    return found
