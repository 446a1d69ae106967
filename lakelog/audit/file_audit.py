"""The result of an audit for one file.

The lines of a chunk and of what it gave, as positions in their file.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lakelog.ingest import ChunkResult
from lakelog.libraries import np
from lakelog.lines import Chunk

FIRST_MAX = 5
"""Offsets that are listed for each fault."""


@dataclass
class FileAudit:
    """The result of an audit for one file; offsets and bytes count its decompressed text.

    `gone` says why only the lake's side was checked, `error` why the file could not be checked.
    """

    source: str
    label: str | None = None
    format: str = ""
    seen: int = 0
    """Bytes that were ingested."""
    waiting: int = 0
    """Bytes beyond the cursor."""
    lines: int = 0
    """Lines that have to be in the lake; of a file that is gone all lines its cursor counts."""
    stored: int = 0
    quarantined: int = 0
    arrival: int = 0
    """Events whose time is that of their ingest, as none was found in their lines."""
    known: int = 0
    let_go: int = 0
    missing: int = 0
    doubled: int = 0
    foreign: int = 0
    gone: str = ""
    error: str = ""
    copy_of: str = ""
    """The file whose rows stand for those of this one, which is a copy of it."""
    backup: str = ""
    """The verified backup that was read in the file's place."""
    first: dict[str, list[int]] = field(default_factory=dict)
    """The first offsets of what is missing, doubled, foreign."""

    @property
    def wrong(self) -> int:
        """The number of faults: positions that are missing, doubled or foreign."""
        return self.missing + self.doubled + self.foreign

    def note(self, fault: str, positions: Any) -> None:
        """Add to the count of a fault and keep the first offsets, FIRST_MAX at most."""
        if len(positions):
            setattr(self, fault, getattr(self, fault) + len(positions))
            earliest = [
                *self.first.get(fault, ()),
                *(int(p) for p in sorted(positions)[:FIRST_MAX]),
            ]
            self.first[fault] = sorted(earliest)[:FIRST_MAX]


_ODD = (9, 10, 11, 12, 13, 32, 0xEF)
"""Bytes that a blank line may begin with: white space, or a byte order mark."""


def full_lines(chunk: Chunk) -> np.ndarray:
    """A mask of the lines of a chunk that are not blank."""
    starts = chunk.lines[1]
    # One byte of each line decides nearly all of them; only lines that begin with white space or a
    # byte order mark are looked at whole.
    heads = np.frombuffer(chunk.text, np.uint8)[starts[:-1]]
    full = np.ones(len(heads), dtype=bool)
    odd = np.isin(heads, _ODD)
    alone = odd & (np.diff(starts) == 1) & (heads != 0xEF)
    full[alone] = False
    for i in np.flatnonzero(odd & ~alone).tolist():
        line = chunk.text[starts[i] : starts[i + 1]]
        full[i] = bool(line.strip().removeprefix(BOM_UTF8))
    return full


def line_at(data: bytes, start: int) -> bytes:
    """The line that begins at an offset, with its newline."""
    end = data.find(b"\n", start) + 1
    return data[start : end or len(data)]


def result_places(result: ChunkResult) -> tuple[np.ndarray, np.ndarray]:
    """The positions of events and of bad lines of a chunk."""
    events = np.asarray(result.table["position"]) if result.table else integers([])
    return events, integers([b.position for b in result.bad])


def sorted_places(places: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """The positions of events and of bad lines, in order."""
    return np.sort(np.concatenate([places, bad]))


def integers(values: Sequence[int]) -> np.ndarray:
    """Integers as an array."""
    return np.asarray(values, dtype=np.int64)
