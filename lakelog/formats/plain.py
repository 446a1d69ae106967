"""Text of no known format: one event per line, indented lines belong to the one above.

The text is the message and nothing else is made of it; the time is that of ingest. It is the
last resort, for files that look like nothing else.
"""

from __future__ import annotations

import re

from lakelog.formats import leading_times
from lakelog.formats.format import Format, Traits
from lakelog.formats.pattern import Pattern
from lakelog.formats.pattern_format import FIRST_LINE, PatternFormat, indented

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
        """Indentation is all that tells which lines of text belong together; a file whose first
        line is indented before its time has others that are."""
        line = FIRST_LINE.match(head)
        is_indented = line and line[1] and leading_times.find(line[2].decode("utf-8", "replace"))
        return indented(self, line[1].decode()) if line and is_indented else self

    def _is_words(self, line: bytes) -> bool:
        """Whether this is text that is no beginning of a document."""
        return not _JSON.match(line) and self.is_event(line)


FORM = Plain(
    "plain",
    __doc__,
    PATTERNS,
    "no text: it holds control characters",
    Traits(begins=r"^[^ \t\n\v\f\r]", prose=True, by_line=True, surest=_SUREST),
)
