"""Formats whose columns are named by lines with a hash, which may come again further down.

Where such a header says something else than the one at the file's beginning, it and the lines
behind it are one record of many events, up to the next header like the first.
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

Tell = Callable[[list[str]], Table | None]


class HashHeaderFormat:
    """A format fitted to a file by the header at its beginning; `tell` reads one."""

    BEGINS = "^"
    WHOLE = MANY = UNTRIMMED = True

    def __init__(self, name: str, tell: Tell, head: bytes) -> None:
        self.NAME, self._tell = name, tell
        lines = head.decode("utf-8", "replace").removeprefix("\ufeff").split("\n")
        self._header = _header(lines)
        self._table = tell(self._header)
        self.QUERY = (
            self._table.query("NOT starts_with(text, '#')")
            if self._table
            else sqltext.none_sql("lines")
        )

    def sniff(self, lines: list[bytes]) -> float:
        """The format is known."""
        return 1.0

    def heads(self, array: pa.Array, starts: Any) -> tuple[Any, bool]:
        """Say of each line whether it begins a record, and whether the last one may go on: all
        begin one but those behind a header that says something else."""
        first, end = np.ones(len(array), dtype=bool), 0
        hashes = np.flatnonzero(pc.starts_with(array, "#"))
        for start, stop in _groups(hashes.tolist()):
            said = [array[i].as_buffer().to_pybytes() for i in range(start, stop)]
            lines = [line.decode("utf-8", "replace") for line in said]
            table = self._tell(_header([*self._kept(lines), *lines]))
            if table is not None and not _same(table, self._table):
                after = hashes[hashes >= stop]
                end = int(after[0]) if len(after) else len(array)
                first[start + 1 : end] = False
        return first, end == len(array)

    def _kept(self, lines: list[str]) -> list[str]:
        """What the file's first header says that these lines do not say again."""
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
            table = self._tell([*self._kept(header), *header]) or self._table
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
    found = []
    for line in lines:
        line = line.rstrip("\r\n")
        if line.startswith("#"):
            found.append(line)
        elif line.strip():
            break
    return found


def _groups(hashes: list[int]) -> list[tuple[int, int]]:
    """Runs of lines that follow each other, as first and end."""
    found: list[tuple[int, int]] = []
    for at in hashes:
        if found and found[-1][1] == at:
            found[-1] = (found[-1][0], at + 1)
        else:
            found.append((at, at + 1))
    return found


def _same(one: Table, other: Table | None) -> bool:
    return other is not None and (one.columns, one.moment, one.type) == (
        other.columns,
        other.moment,
        other.type,
    )
