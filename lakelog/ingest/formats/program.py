"""Formats of single programs: patterns, and how a record of them begins.

Each is declared in `programs`. A line that begins otherwise continues the record before it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from lakelog.errors import InvalidEvent
from lakelog.ingest.formats import line_starts, pattern
from lakelog.ingest.formats.pattern import COLOURS, Pattern
from lakelog.lazy import LazyProperty

_LESS = 0.9
"""The score of a line without a time; one with a time has 1."""


@dataclass(frozen=True)
class Program:
    """The log of one program, which is a format itself.

    `about` says what it is, for `lakelog formats list`. `begins` is a regex for the beginning of a
    record that only lines of this program have, so that lines of others are ruled out at once.
    """

    NAME: str
    about: str
    begins: str
    PATTERNS: tuple[Pattern, ...]
    PROSE: bool = True
    is_alone: bool = False
    """Whether lines of other styles belong to a record."""
    BY_LINE = True

    @property
    def BEGINS(self) -> str:
        """How a record begins, also after colours of a terminal, or as a line of another style."""
        more = "" if self.is_alone else rf"|\[?{line_starts.DATE}|{line_starts.OTHERS}"
        return f"^{COLOURS}(?:{self.begins}{more})"

    @property
    def HEAD(self) -> str:
        """How a record of this program begins."""
        return rf"^[ \t]*{COLOURS}(?:{self.begins})"

    @LazyProperty
    def QUERY(self) -> str:
        """SQL over `lines`."""
        return pattern.query(self.PATTERNS, joined=True)

    def sniff(self, lines: list[bytes]) -> float:
        """Return how likely it is (0 to 1) that these are lines of this program."""
        full = [line for line in lines if line.strip()]
        own = [line for line in full if self._head.match(line.lstrip())]
        return sum(map(self._sure, own)) / len(full) if own else 0.0

    def parse(self, line: bytes) -> dict[str, Any]:
        """Return the event of a line and of those that continue it. Raises InvalidEvent."""
        return pattern.parse(self.PATTERNS, line, f"no line of {self.NAME}", joined=True)

    def cheaper(self, lines: list[bytes]) -> list[str]:
        """Return the query of those patterns only that these lines show."""
        return pattern.narrowed(self.PATTERNS, lines, joined=True)

    @LazyProperty
    def _head(self) -> re.Pattern[bytes]:
        return re.compile(self.HEAD.encode(), re.ASCII)

    def _sure(self, line: bytes) -> float:
        timed = pattern.share([line], self.parse)
        try:
            return timed or (_LESS if self.parse(line) else 0.0)
        except InvalidEvent:
            return 0.0
