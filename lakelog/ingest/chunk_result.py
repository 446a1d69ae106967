"""What a chunk of a file gives: rows, and the lines that are no events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lakelog import arrays
from lakelog.disk import disk
from lakelog.libraries import np, pa
from lakelog.segments import segment_schema
from lakelog.typed_columns import FieldColumns


@dataclass
class RejectedLine:
    """One line that is no event."""

    position: int
    reason: str
    line: str
    origin: str = ""


@dataclass
class ChunkResult:
    """The result of one chunk: rows in the file's order, bad lines, and the bytes consumed.

    `length` is less than that of the chunk when its last line is unfinished, or is an action whose
    document is still to come. Rows and bad lines are complete after `finish`.
    """

    table: Any = None
    bad: list[RejectedLine] = field(default_factory=list)
    lines: int = 0
    length: int = 0
    rest: Callable[[], object] | None = None
    fields: FieldColumns | None = None
    """How payloads in the column `fields` of the table are stored, if it has one."""

    def finish(self) -> ChunkResult:
        """Parse the remaining lines one by one."""
        parse_rest, self.rest = self.rest, None
        if parse_rest is not None:
            self.table = parse_rest()
        return self


def bad_table(bad: list[RejectedLine]) -> pa.Table:
    """Return quarantined lines as rows of a quarantine segment, in the order of their files."""
    ingested_at = disk.now_us()
    ordered = sorted(bad, key=lambda b: (b.origin, b.position))
    columns = {
        "ingested_at": arrays.times(np.full(len(bad), ingested_at)),
        "origin": arrays.texts([b.origin for b in ordered]),
        "position": arrays.integers(np.array([b.position for b in ordered], np.int64)),
        "reason": arrays.texts([b.reason for b in ordered]),
        "line": arrays.texts([b.line for b in ordered]),
    }
    return pa.table(columns, schema=segment_schema("quarantine"))
