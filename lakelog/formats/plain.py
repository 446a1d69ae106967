"""Text of no known format: one event per line, indented lines belong to the one above.

The text is the message and nothing else is made of it; the time is that of ingest. It is the
last resort, for files that look like nothing else.
"""

from __future__ import annotations

import re

from lakelog.formats import pattern
from lakelog.formats.format import EventMembers, Format, Traits
from lakelog.formats.pattern import Pattern
from lakelog.formats.pattern_format import PatternFormat

_SUREST = 0.001
PATTERNS = (Pattern(r"(?P<message>[^\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]+)", "-", "log"),)
_JSON = re.compile(rb"\s*(?:\{(?!')|\[\s*(?:[\[{\"]|\]?\s*$))")
"""How a document begins; a bracket with a word after it is text, and so is what Python prints."""


class Plain(PatternFormat):
    """The format of text that no other format knows."""

    def sniff(self, lines: list[bytes]) -> float:
        """Return how likely it is (0 to 1) that this is text: less than for any known format."""
        full = [line for line in lines if line.strip()]
        return _SUREST * sum(map(self._is_words, full)) / len(full) if full else 0.0

    def specialize(self, head: bytes) -> Format:
        """Indentation is all that tells which lines of text belong together."""
        return self

    def _is_words(self, line: bytes) -> bool:
        """Whether this is text that is no beginning of a document."""
        return not _JSON.match(line) and pattern.timed_share([line], self._untimed) > 0

    def _untimed(self, line: bytes) -> EventMembers:
        return {**self.parse(line), "time": 0}


FORM = Plain(
    "plain",
    __doc__,
    PATTERNS,
    "no text: it holds control characters",
    Traits(begins=r"^[^ \t\n\v\f\r]", prose=True, by_line=True, surest=_SUREST),
)
