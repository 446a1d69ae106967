"""Text of no known format: one event per line, indented lines belong to the one above.

The text is the message and nothing else is made of it; the time is that of ingest. It is the
last resort, for files that look like nothing else.
"""

from __future__ import annotations

import re
from typing import Any

from lakelog.ingest.formats import pattern
from lakelog.ingest.formats.pattern import Pattern

NAME = "plain"
BY_LINE = True
SUREST = 0.001
PROSE = True
"""A line is free text, so its last character does not say whether it is complete."""
BEGINS = r"^[^ \t\n\v\f\r]"
PATTERNS = (Pattern(r"(?P<message>[^\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]+)", "-", "log"),)
_JSON = re.compile(rb"\s*(?:\{|\[\s*(?:[\[{\"]|\]?\s*$))")
"""How a document begins; a bracket with a word after it is text."""


def __getattr__(name: str) -> str:
    return pattern.lazy_query(name, PATTERNS, joined=True)


def sniff(lines: list[bytes]) -> float:
    """Return how likely it is (0 to 1) that this is text: less than for any known format."""
    full = [line for line in lines if line.strip()]
    return SUREST * sum(map(_is_words, full)) / len(full) if full else 0.0


def parse(line: bytes) -> dict[str, Any]:
    """Return the event of a line and of those that continue it. Raises InvalidEvent."""
    return pattern.parse(PATTERNS, line, "no text: it holds control characters", joined=True)


def _is_words(line: bytes) -> bool:
    """Whether this is text that is no beginning of a document."""
    return not _JSON.match(line) and pattern.share([line], _untimed) > 0


def _untimed(line: bytes) -> dict[str, Any]:
    return {**parse(line), "time": 0}
