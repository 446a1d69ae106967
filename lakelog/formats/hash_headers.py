"""Formats whose columns are named by lines with a hash, which may be repeated further down.

Where such a header differs from the one at the file's beginning, it and the lines after it are one
record of many events, up to the next header.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from lakelog.errors import InvalidEvent
from lakelog.formats import pattern
from lakelog.formats.columns import LineTable
from lakelog.formats.format import EventMembers, Format, Heads, Traits, utf8
from lakelog.libraries import np, pa, pc

ReadHeader = Callable[[list[str]], LineTable | None]


@dataclass(frozen=True, eq=False)
class HashHeaders(Format):
    """A format that is defined by the header at the beginning of a file, whose columns `directive`
    names; `read_header` parses one, `is_log` says whether first lines are of such a file."""

    NAME: str
    about: str
    directive: str
    read_header: ReadHeader
    is_log: Callable[[list[bytes]], bool]

    def sniff(self, lines: list[bytes]) -> float:
        """Return 1 for a file that begins with such a header, else 0."""
        return float(self.is_log(lines))

    def specialize(self, head: bytes) -> Format:
        """Return the format of a file that begins so."""
        return HashHeaderFormat(self, head)

    def parse(self, line: bytes) -> EventMembers:
        """Refuse a line without its header."""
        raise InvalidEvent(f"no {self.directive} before it")


class HashHeaderFormat(Format):
    """The format of one file, by its header."""

    traits = Traits(begins="^", whole=True, many=True, untrimmed=True)

    def __init__(self, form: HashHeaders, head: bytes) -> None:
        super().__init__(form.about)
        self.NAME, self._read_header = form.NAME, form.read_header
        lines = head.decode("utf-8", "replace").removeprefix("\ufeff").split("\n")
        self._header = _header(lines)
        self._table = self._read_header(self._header)

    def _query(self) -> str:
        if self._table is None:
            return super()._query()
        return self._table.query("NOT starts_with(text, '#')")

    def sniff(self, lines: list[bytes]) -> float:
        """The format is known."""
        return 1.0

    def heads(self, lines: pa.Array, starts: np.ndarray) -> Heads:
        """A mask of the lines that begin a record, and whether the last record may continue: all
        begin one but those after a header that differs from the first."""
        is_head, end = np.ones(len(lines), dtype=bool), 0
        hashes = np.flatnonzero(pc.starts_with(lines, "#"))
        for start, stop in _groups(hashes.tolist()):
            raw = [lines[i].as_buffer().to_pybytes() for i in range(start, stop)]
            header = [line.decode("utf-8", "replace") for line in raw]
            table = self._read_header(_header([*self._unrepeated(header), *header]))
            if table is not None and not _same(table, self._table):
                after = hashes[hashes >= stop]
                # Lines under another header form one record with it, so that they are read by it,
                # and not by the query of the first.
                end = int(after[0]) if len(after) else len(lines)
                is_head[start + 1 : end] = False
        return is_head, end == len(lines)

    def _unrepeated(self, lines: list[str]) -> list[str]:
        """The lines of the first header whose directives these lines do not repeat."""
        repeats = {line.split()[0] for line in lines if line.strip()}
        return [line for line in self._header if line.split()[0] not in repeats]

    def parse(self, line: bytes) -> EventMembers | list[EventMembers]:
        """Return the event of a line, or those of the lines under a header. Raises InvalidEvent."""
        record = utf8(line).removeprefix("\ufeff").rstrip("\r\n")
        if record.startswith("#"):
            lines = record.split("\n")
            header = _header(lines)
            table = self._read_header([*self._unrepeated(header), *header]) or self._table
            return [_event(table, row.rstrip("\r")) for row in lines if _is_row(row)]
        return _event(self._table, record)

    def places(self, line: bytes) -> list[int]:
        """Where in a record its events begin: with their lines."""
        lines = line.split(b"\n")
        starts = itertools.accumulate((len(row) + 1 for row in lines), initial=0)
        rows = (row.decode("utf-8", "replace") for row in lines)
        return [position for position, row in zip(starts, rows, strict=False) if _is_row(row)]


def _is_row(line: str) -> bool:
    line = line.removeprefix("\ufeff")
    return bool(line.strip(pattern.SPACE)) and line[:1] != "#"


def _event(table: LineTable | None, line: str) -> EventMembers:
    if table is None:
        raise InvalidEvent("no header line names its columns")
    return table.event(line)


def _header(lines: list[str]) -> list[str]:
    """The lines with a hash before the first that has none."""
    header = []
    for line in lines:
        line = line.rstrip("\r\n")
        if line.startswith("#"):
            header.append(line)
        elif line.strip():
            break
    return header


def _groups(hashes: list[int]) -> list[tuple[int, int]]:
    """Runs of lines that follow each other, as first and end."""
    runs: list[tuple[int, int]] = []
    for index in hashes:
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return runs


def _same(table: LineTable, newer: LineTable | None) -> bool:
    return newer is not None and (table.columns, table.moment, table.type) == (
        newer.columns,
        newer.moment,
        newer.type,
    )
