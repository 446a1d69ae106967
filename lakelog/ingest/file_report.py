"""What became of one file that was ingested, as it is told to people and programs."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar


@dataclass
class FileReport:
    """The result of one file: new events, quarantined lines, known ones skipped."""

    MISSING: ClassVar = os.strerror(errno.ENOENT)
    """The error of a file that has gone."""
    path: str
    format: str = ""
    events: int = 0
    quarantined: int = 0
    arrivals: int = 0
    """Events whose time is that of their ingest, as none was found in their lines."""
    skipped: int = 0
    erased: int = 0
    """Events and quarantined lines that are refused, as they were erased."""
    lines: int = 0
    """Lines ingested, including blank ones and those that are no events."""
    left: int = 0
    """Bytes of an unfinished last line, and of NULs after it, left for next time."""
    nuls: int = 0
    """Bytes of holes, which were skipped: NULs that no writer replaced by text."""
    error: str = ""
    ignored: str = ""
    """Why it was skipped although nothing is wrong: it is not a regular file."""
    reason: str = ""
    """Why the first quarantined line is no event, and where it is."""
    same_as: str = ""
    """The file from which all of this content was ingested before."""
    repeated: int = 0
    """Lines that were stored before, from what had this name or inode then."""
    note: str = ""
    """A remark on how the file was recognised."""
    is_undecided: bool = field(default=False, compare=False)
    """Whether nothing was read, because the file may be about to replace another one."""
    is_copy: bool = field(default=False, compare=False)
    """Whether all of it is a copy of a file that is still there."""
    alone: int = field(default=0, compare=False)
    """Up to here this process reads the file alone, as another one refused a split of it."""
    begun_origin: str = field(default="", compare=False)
    """The origin of a file that was read from its beginning, or from that of another one on."""
    is_doubtful: bool = field(default=False, compare=False)
    """Whether that is done for want of evidence that it is another one."""
    released: int = field(default=0, compare=False)
    """Cursors whose file was truncated or replaced by this one."""

    def record(self) -> dict[str, Any]:
        """The values that are reported to users, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.compare}
