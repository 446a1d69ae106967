"""Formats whose columns are named by lines with a hash, which may be repeated further down.

Where such a header differs from the one at the file's beginning, it and the lines after it are one
record of many events, up to the next header.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lakelog.errors import InvalidEvent
from lakelog.ingest.formats import pattern, sqltext
from lakelog.ingest.formats.columns import Table
from lakelog.lazy import Lazy

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    np = Lazy("numpy")
    pc = Lazy("pyarrow.compute")

ReadHeader = Callable[[list[str]], Table | None]


class HashHeaderFormat:
    """A format that the header at the beginning of a file defines; `read_header` parses one."""

    BEGINS = "^"
    WHOLE = MANY = UNTRIMMED = True

    def __init__(self, name: str, read_header: ReadHeader, head: bytes) -> None:
        self.NAME, self._read_header = name, read_header
        lines = head.decode("utf-8", "replace").removeprefix("\ufeff").split("\n")
        self._header = _header(lines)
        self._table = read_header(self._header)
        self.QUERY = (
            self._table.query("NOT starts_with(text, '#')")
            if self._table
            else sqltext.none_sql("lines")
        )

    def sniff(self, lines: list[bytes]) -> float:
        """The format is known."""
        return 1.0

    def heads(self, array: pa.Array, starts: Any) -> tuple[Any, bool]:
        """A mask of the lines that begin a record, and whether the last record may continue: all
        begin one but those after a header that differs from the first."""
        first, end = np.ones(len(array), dtype=bool), 0
        hashes = np.flatnonzero(pc.starts_with(array, "#"))
        for start, stop in _groups(hashes.tolist()):
            raw = [array[i].as_buffer().to_pybytes() for i in range(start, stop)]
            lines = [line.decode("utf-8", "replace") for line in raw]
            table = self._read_header(_header([*self._unrepeated(lines), *lines]))
            if table is not None and not _same(table, self._table):
                after = hashes[hashes >= stop]
                # Lines under another header form one record with it, so that they are read by it,
                # and not by the query of the first.
                end = int(after[0]) if len(after) else len(array)
                first[start + 1 : end] = False
        return first, end == len(array)

    def _unrepeated(self, lines: list[str]) -> list[str]:
        """The lines of the first header whose directives these lines do not repeat."""
        again = {line.split()[0] for line in lines if line.strip()}
        return [line for line in self._header if line.split()[0] not in again]

    def parse(self, line: bytes) -> dict[str, Any] | list[dict[str, Any]]:
        """Return the event of a line, or those of the lines under a header. Raises InvalidEvent."""
        try:
            text = line.decode("utf-8").removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            raise InvalidEvent(f"not UTF-8 at byte {error.start}") from None
        text = text.rstrip("\r\n")
        if text.startswith("#"):
            lines = text.split("\n")
            header = _header(lines)
            table = self._read_header([*self._unrepeated(header), *header]) or self._table
            return [_event(table, row.rstrip("\r")) for row in lines if _is_row(row)]
        return _event(self._table, text)

    def places(self, line: bytes) -> list[int]:
        """Where in a record its events begin: with their lines."""
        lines = line.split(b"\n")
        starts = itertools.accumulate((len(row) + 1 for row in lines), initial=0)
        rows = (row.decode("utf-8", "replace") for row in lines)
        return [at for at, row in zip(starts, rows, strict=False) if _is_row(row)]


def _is_row(line: str) -> bool:
    line = line.removeprefix("\ufeff")
    return bool(line.strip(pattern.SPACE)) and line[:1] != "#"


def _event(table: Table | None, text: str) -> dict[str, Any]:
    if table is None:
        raise InvalidEvent("no header line names its columns")
    return table.event(text)


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
    for at in hashes:
        if runs and runs[-1][1] == at:
            runs[-1] = (runs[-1][0], at + 1)
        else:
            runs.append((at, at + 1))
    return runs


def _same(table: Table, other: Table | None) -> bool:
    return other is not None and (table.columns, table.moment, table.type) == (
        other.columns,
        other.moment,
        other.type,
    )
