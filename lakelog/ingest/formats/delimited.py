"""Lines of comma, semicolon, tab or bar separated values under a header, as RFC 4180 has them.

The first line names the columns, and what divides it divides all lines. Columns that are named as
a key of an event's envelope (time, level, message, source, id and so on) are that; the others go
into `data`, as a number where its text is the one that the number has. Cells in quotes may hold
what divides, quotes doubled, and newlines: a line that ends within quotes goes on with the next
one that closes them, if that comes within a mebibyte; else it stands for itself. A cell that is
empty is null. The header is no event, and lines with other numbers of cells are none.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

from lakelog.errors import InvalidEvent
from lakelog.ingest.formats import columns
from lakelog.ingest.formats.columns import DATA, Column, Table
from lakelog.ingest.formats.sqltext import COLUMN, DEFAULT_TYPE

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "csv"
_MARKS = (",", "\t", ";", "|")
_WORD = re.compile(r"[^\W\d][\w .:()/#%-]{0,60}")
_SURE, _MOST = 0.9, 0.8
OPEN_MAX = 1 << 20
"""So far the lines of one record may reach."""


def sniff(lines: list[bytes]) -> float:
    """Say how sure it is that this is a table: a first line of names, and as many cells in nearly
    all records behind it."""
    full = [line.decode("utf-8", "replace").rstrip("\r") for line in lines if line.strip()]
    if len(full) < 2 or not is_header(full[0]):
        return 0.0
    mark, records = _mark(full[0]), [full[0]]
    width = len(_cells(full[0], mark))
    for before, line in itertools.pairwise(full):
        if records[-1].count('"') % 2 and before:
            records[-1] += "\n" + line
        else:
            records.append(line)
    # the last one may have been cut by who took the sample
    rows = records[1:-1] or records[1:]
    share = sum(len(_cells(row, mark)) == width for row in rows) / len(rows) if rows else 0.0
    return _SURE * share if share >= _MOST else 0.0


def is_header(line: str) -> bool:
    """Whether a line looks as if it named columns."""
    mark = _mark(line)
    names = _cells(line, mark) if mark else []
    named = [name for name in names if name]
    words = all(_WORD.fullmatch(name) for name in named)
    return words and len(named) > 1 and len(set(named)) == len(named) > len(names) - 2


def fitted(head: bytes) -> Delimited:
    """Return the format of a file that begins so."""
    return Delimited(head)


def parse(line: bytes) -> dict[str, Any]:
    """Refuse a line without its header."""
    raise InvalidEvent("no line that names the columns before it")


QUERY = ""  # made of the header


class Delimited:
    """The format fitted to a file by its first line."""

    NAME, BEGINS = NAME, "^"
    WHOLE = MANY = UNTRIMMED = PROSE = True

    def __init__(self, head: bytes) -> None:
        self._header = (
            head.decode("utf-8", "replace").removeprefix("\ufeff").split("\n")[0].rstrip("\r")
        )
        mark = _mark(self._header) or ","
        names = columns.distinct(_cells(self._header, mark))
        taken: set[str] = set()
        made = []
        for name in names:
            place = COLUMN.get(name, DATA)
            if place in taken:
                place = DATA
            taken.add(place if place != DATA else "")
            made.append(Column(name, "cell", place))
        at = next((i for i, c in enumerate(made) if c.place == "time"), None)
        self._table = Table(
            tuple(made), columns.quoted(mark), columns.quoted_sql(mark), DEFAULT_TYPE,
            () if at is None else (at,), tabs=mark == "\t",
        )  # fmt: skip
        self._escaped = self._header.replace("'", "''")
        self.QUERY = self._table.query(f"text <> '{self._escaped}'")
        self._whole = _alone(mark)

    def sniff(self, lines: list[bytes]) -> float:
        """The format is known."""
        return _SURE

    def parse(self, line: bytes) -> list[dict[str, Any]]:
        """Return the event of a record, none for the header. Raises InvalidEvent."""
        try:
            text = line.decode("utf-8").removeprefix("\ufeff").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InvalidEvent(f"not UTF-8 at byte {error.start}") from None
        return [] if text == self._header else [self._table.event(text)]

    def heads(self, array: pa.Array, starts: Any) -> tuple[Any, bool]:
        """Say of each line whether it begins a record, and whether the last one is open."""
        import numpy as np
        import pyarrow.compute as pc

        first = np.ones(len(array), dtype=bool)
        opening = np.flatnonzero(pc.invert(pc.match_substring_regex(array, self._whole)))
        if not len(opening):
            return first, False
        quotes = np.asarray(pc.count_substring(array, '"'))
        odd, end = np.flatnonzero(quotes % 2), 0
        for at in opening.tolist():
            if at < end or not quotes[at] % 2:
                continue
            later = int(np.searchsorted(odd, at + 1))
            if later == len(odd):
                if starts[-1] - starts[at] <= OPEN_MAX:
                    first[at + 1 :] = False
                    return first, True
            elif starts[odd[later] + 1] - starts[at] <= OPEN_MAX:
                end = int(odd[later]) + 1
                first[at + 1 : end] = False
        return first, False


def _mark(header: str) -> str:
    """What divides a first line: the sign there is most of outside of quotes."""
    bare = re.sub(r'"[^"]*"', "", header)
    most = max(_MARKS, key=bare.count)
    return most if bare.count(most) else ""


def _cells(line: str, mark: str) -> list[str]:
    try:
        return columns.quoted(mark)(line)
    except InvalidEvent:
        return line.split(mark)


def _alone(mark: str) -> str:
    """A regex for lines that are whole in themselves."""
    d = re.escape(mark)
    cell = rf'(?:"[^"]*(?:""[^"]*)*"|[^"{d}][^{d}]*|)'
    return rf"^{cell}(?:{d}{cell})*\r?\n?$"
