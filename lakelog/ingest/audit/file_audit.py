"""The result of an audit for one file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

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
