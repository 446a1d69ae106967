"""Comma, semicolon, tab or bar separated values under a header line (RFC 4180).

The first line names the columns, and what divides it divides all lines. Columns that are named as a
key of an event's envelope (time, level, message, source and so on) are that, `Level`, `Event
DateTime` and their like too; a column is the time only if the first rows hold times there, or dates
and times of day in two columns, spelled in any way that a line may begin with. An `id` is that of
an event only beside a type. The others go into `data`, as a number where its text is the one that
the number has. JSON in a column `data` is the payload itself. Cells in quotes may hold what
divides, quotes doubled, and newlines: a line that ends within quotes continues up to the next one
that closes them, if that comes within a mebibyte; else it stands for itself. A cell that is empty
is null; in a file that lakelog exported one that is empty and in quotes is an empty text, and what
a lake says of an event by itself is left out. The header is no event, and lines with other numbers
of cells are none; that of Windows' Event Viewer lacks the name of its last column, the message. A
first line that is like those below it, with a level or a time at the same place, is no header, and
the file is no table.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from lakelog import arrays
from lakelog.errors import InvalidEvent
from lakelog.event import Severity, assigned_columns
from lakelog.formats import columns, leading_times
from lakelog.formats.columns import DATA, NOWHERE, Column, LineTable
from lakelog.formats.date_orders import DateOrders
from lakelog.formats.format import EventMembers, Format, Heads, Traits, utf8
from lakelog.formats.sqltext import COLUMN, DEFAULT_TYPE, TIMES
from lakelog.libraries import np, pa, pc
from lakelog.sql import literal
from lakelog.values import parse_time

_MARKS, _SPACE = (",", "\t", ";", "|"), " "
_WORD = re.compile(r"@?[^\W\d][\w .:()/#%-]{0,60}")
_SURE, _MOST = 0.9, 0.8
_ALIKE = {
    **dict.fromkeys(("level", "loglevel", "severity", "leveldisplayname"), "level"),
    **dict.fromkeys(("source", "providername"), "source"),
    "message": "message",
}
"""Places of columns that are written otherwise, by their bare names."""
_TIMES = (
    "timestamp",
    "datetime",
    "eventdatetime",
    "eventtime",
    "eventtimestamp",
    "logtime",
    "time",
    "datetimeutc",
    "timestamputc",
    "timegenerated",
    "timecreated",
    "dateandtime",
    "createdat",
    "creationdate",
    "creationtime",
    "date",
    "start",
)
"""Bare names of columns that may hold times, the surest first."""
_HOUR, _CLOCK = re.compile(r"\d{1,2}:\d\d"), re.compile(r"\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?")
_FULL = re.compile(r"\d{4}-\d\d-\d\d|\d{9}")
"""How times begin, unlike columns of elapsed seconds."""
_BANNER = re.compile(rb"(?:\xef\xbb\xbf)?#TYPE [^\n]*\n")
"""What Windows PowerShell's Export-Csv writes above the header."""
_FLOWS = re.compile(r"(?=.*\bstart\b)(?=.*\baccount-id\b)[a-z]+(?:[ -][a-z]+)+")
"""The header of network flows of AWS (VPC and transit gateways), which spaces divide."""
_EVENT_VIEWER = ["Level", "Date and Time", "Source", "Event ID", "Task Category"]
_SAMPLES = 20
OPEN_MAX = 1 << 20
"""Bytes of the lines of one record, at most."""


def is_header(line: str) -> bool:
    """Whether a line looks as if it named columns."""
    mark = _mark(line)
    names = _cells(line, mark) if mark else []
    filled = [name for name in names if name]
    is_words = all(_WORD.fullmatch(name) for name in filled)
    return is_words and len(filled) > 1 and len(set(filled)) == len(filled) > len(names) - 2


class Delimited(Format):
    """The format of tables, which the first line of a file defines."""

    NAME = "csv"

    def sniff(self, lines: list[bytes]) -> float:
        """Return how likely it is (0 to 1) that this is a table: a first line of names, and the
        same number of cells in nearly all records after it."""
        full = [line.decode("utf-8", "replace").rstrip("\r") for line in lines if line.strip()]
        full = full[1:] if lines and _BANNER.match(lines[0] + b"\n") else full
        if len(full) < 2 or not is_header(full[0]):
            return 0.0
        mark, records = _mark(full[0]), [full[0]]
        width = len(_names(full[0], mark))
        for before, line in itertools.pairwise(full):
            # Quotes are doubled within a cell, so an odd number of them means that one is open.
            if records[-1].count('"') % 2 and before:
                records[-1] += "\n" + line
            else:
                records.append(line)
        rows = [_cells(row, mark) for row in records[1:]]
        # the last one may have been cut by who took the sample
        fits = [len(row) == width for row in rows[:-1] or rows]
        share = sum(fits) / len(fits) if fits else 0.0
        whole = [row for row in rows if len(row) == width]
        return _SURE * share if share >= _MOST and not _is_row(full[0], whole) else 0.0

    def specialize(self, head: bytes) -> Format:
        """Return the format of a file that begins so."""
        return DelimitedFormat(head)

    def parse(self, line: bytes) -> EventMembers:
        """Refuse a line without its header."""
        raise InvalidEvent("no header line names its columns")


FORM = Delimited(__doc__)


class DelimitedFormat(Format):
    """The format fitted to a file by its first line."""

    NAME = FORM.NAME
    traits = Traits(begins="^", whole=True, many=True, untrimmed=True, prose=True)

    def __init__(self, head: bytes) -> None:
        super().__init__(FORM.about)
        banner = _BANNER.match(head)
        self._banner = banner[0].decode("utf-8", "replace").strip("\ufeff\r\n") if banner else ""
        head = head[banner.end() :] if banner else head
        self._header = (
            head.decode("utf-8", "replace").removeprefix("\ufeff").split("\n")[0].rstrip("\r")
        )
        # A header of one column has no delimiter at all.
        mark = _mark(self._header) or ","
        names = columns.distinct(_names(self._header, mark))
        samples = _samples(head, mark, len(names))
        moment = _moment(names, samples)
        placed = _placed(names, moment)
        if mark == _SPACE:
            # The type of a flow is that of its traffic.
            placed = [replace(c, place=DATA) if c.place == "type" else c for c in placed]
        # What a lake assigns to rows is assigned again when its export is ingested.
        assigned = assigned_columns(names)
        if assigned:
            placed = [replace(c, place=NOWHERE) if c.name in assigned else c for c in placed]
        self._table = LineTable(
            tuple(placed),
            columns.quoted(mark, nulls=bool(assigned)),
            columns.quoted_sql(mark),
            "access" if mark == _SPACE else DEFAULT_TYPE,
            moment,
            unset="-" if mark == _SPACE else "",
            tabs=mark == "\t",
            nulls=bool(assigned),
            respelled=_Respelled(_text(moment, row) for row in samples),
        )
        self._whole = _alone(mark)

    def _query(self) -> str:
        return self._table.query(f"text NOT IN ({literal(self._header)}, {literal(self._banner)})")

    def sniff(self, lines: list[bytes]) -> float:
        """The format is known."""
        return _SURE

    def parse(self, line: bytes) -> list[EventMembers]:
        """Return the event of a record, none for the header. Raises InvalidEvent."""
        record = utf8(line).removeprefix("\ufeff").rstrip("\r\n")
        is_head = record in (self._header, self._banner)
        return [] if is_head else [self._table.event(record)]

    def heads(self, lines: pa.Array, starts: np.ndarray) -> Heads:
        """A mask of the lines that begin a record, and whether the last record is open."""
        is_head = np.ones(len(lines), dtype=bool)
        opening = np.flatnonzero(~arrays.truths(pc.match_substring_regex(lines, self._whole)))
        if not len(opening):
            return is_head, False
        quotes = arrays.numbers(pc.count_substring(lines, '"').cast("int64"))
        odd, end = np.flatnonzero(quotes % 2), 0
        for index in opening.tolist():
            if index < end or not quotes[index] % 2:
                continue
            # The next line with an odd number of quotes closes the open one.
            later = int(np.searchsorted(odd, index + 1))
            if later == len(odd):
                if starts[-1] - starts[index] <= OPEN_MAX:
                    is_head[index + 1 :] = False
                    return is_head, True
            elif starts[odd[later] + 1] - starts[index] <= OPEN_MAX:
                end = int(odd[later]) + 1
                is_head[index + 1 : end] = False
        return is_head, False


def _is_row(line: str, rows: list[list[str]]) -> bool:
    """Whether a first line has what the rows below it have at the same place, so that it is one of
    them and names no columns: a time of day, a level, or the same text again."""
    names = columns.distinct(_names(line, _mark(line)))
    if not rows or _moment(names, rows):
        return False
    for name, *cells in zip(names, *rows, strict=True):
        same = cells.count(name) if len(rows) > 1 else 0
        levels = sum(map(_is_level, cells)) if _is_level(name) else 0
        times = sum(map(bool, map(_CLOCK.search, cells))) if _CLOCK.search(name) else 0
        if name and 2 * max(same, levels, times) > len(rows):
            return True
    return False


def _mark(header: str) -> str:
    """The delimiter of a first line: the most frequent candidate outside of quotes."""
    if _FLOWS.fullmatch(header):
        return _SPACE
    bare = re.sub(r'"[^"]*"', "", header)
    mark = max(_MARKS, key=bare.count)
    return mark if bare.count(mark) else ""


def _names(header: str, mark: str) -> list[str]:
    names = _cells(header, mark)
    return [*names, "Message"] if names == _EVENT_VIEWER else names


def _cells(line: str, mark: str) -> list[str]:
    try:
        return columns.quoted(mark)(line)
    except InvalidEvent:
        return line.split(mark)


def _placed(names: list[str], moment: tuple[str | int, ...]) -> list[Column]:
    """The columns, each in its place; of several for one place the first is there."""
    result: list[Column] = []
    # without types an id may be anything, such as that of a user
    occupied = {DATA, "time", "" if any(COLUMN.get(n) == "type" for n in names) else "id"}
    for index, name in enumerate(names):
        place = COLUMN.get(name.removeprefix("@"), _ALIKE.get(_bare(name), DATA))
        place = "time" if index in moment else DATA if place in occupied else place
        occupied.add(place)
        result.append(Column(name, "payload" if name == DATA else "cell", place))
    return result


def _moment(names: list[str], samples: list[list[str]]) -> tuple[str | int, ...]:
    """The columns of the time: one of times, or one of dates and one of times of day. As long as
    there is no row, a column with a name of the envelope counts as the time."""
    bare = {_bare(name): index for index, name in reversed(list(enumerate(names)))}
    date, clock = bare.get("date", -1), bare.get("time", -1)
    for index, name in enumerate(names):
        cells = [row[index] for row in samples if row[index]]
        # beside a date it is perhaps half of one
        is_time = any(map(_is_whole, cells)) or (date < 0 and any(map(_is_time, cells)))
        if name.removeprefix("@") in TIMES and (not cells or is_time):
            return (index,)
    pair = (date, "T", clock)
    has_pair = min(date, clock) >= 0 and all(_HOUR.match(row[clock]) for row in samples)
    if samples and has_pair and all(_is_whole(_text(pair, row)) for row in samples):
        return pair
    for name in _TIMES:
        index = bare.get(name, -1)
        cells = [row[index] for row in samples if row[index]]
        if index >= 0 and cells and all(map(_is_whole, cells)):
            return (index,)
    return ()


def _text(moment: tuple[str | int, ...], row: list[str]) -> str:
    return "".join(part if isinstance(part, str) else row[part] for part in moment)


def _samples(head: bytes, mark: str, width: int) -> list[list[str]]:
    """The cells of the first rows that are whole."""
    lines = head.decode("utf-8", "replace").split("\n")[1:]
    rows = [_cells(record.rstrip("\r"), mark) for record in _records(lines[:-1] or lines)]
    return [row for row in rows if len(row) == width and any(row)][:_SAMPLES]


def _records(lines: list[str]) -> Iterator[str]:
    """Join lines whose quotes go on over their end; lines by themselves where none closes them."""
    open_lines: list[str] = []
    quotes = 0
    for line in lines:
        open_lines.append(line)
        quotes += line.count('"')
        if quotes % 2 == 0:
            yield "\n".join(open_lines)
            open_lines = []
    yield from open_lines


class _Respelled:
    """The ISO text of times that are spelled otherwise, in the order of day and month that the
    samples of a file allow."""

    def __init__(self, samples: Iterable[str]) -> None:
        self._orders = DateOrders()
        self._orders.add(sample.encode() for sample in samples)

    def __call__(self, moment: str) -> str:
        with self._orders.settled():
            time = leading_times.whole(moment)
        return time.iso if time else moment


def _is_whole(cell: str) -> bool:
    """Whether a cell holds a date and a time of day, unlike those of elapsed seconds."""
    if _is_time(cell):
        return _FULL.match(cell) is not None
    return not cell.isdigit() and _is_time(_ANY_ORDER(cell))


def _is_time(cell: str) -> bool:
    try:
        parse_time(cell)
    except InvalidEvent:
        return False
    return True


_ANY_ORDER = _Respelled(())


def _is_level(cell: str) -> bool:
    return cell.isalpha() and Severity.of(cell) is not None


def _bare(name: str) -> str:
    """A name without what one writes it with: case, spaces and dashes."""
    return re.sub(r"[^a-z]", "", name.lower())


def _alone(mark: str) -> str:
    """A regex for lines that are whole in themselves."""
    d = re.escape(mark)
    cell = rf'(?:"[^"]*(?:""[^"]*)*"|[^"{d}][^{d}]*|)'
    return rf"^{cell}(?:{d}{cell})*\r?\n?$"
