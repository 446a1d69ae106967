"""Lines of no known layout that have the time of an access log among their first words.

The whole line is the message. It is a style that lines of any file may have, no format of files.
"""

from __future__ import annotations

from lakelog.formats.line_starts import WORDS
from lakelog.formats.pattern import MONTH, Pattern
from lakelog.formats.pattern_format import PatternFormat

_LOCAL = rf"(?P<day>\d\d)/{MONTH}/(?P<year>\d{{4}}):(?P<clock>\d\d:\d\d:\d\d(?:\.\d{{1,9}})?)"
PATTERNS = tuple(
    Pattern(
        rf"(?P<message>{WORDS}\[?{_LOCAL}{zone}[^0-9].*)",
        "{year}-{mon}-{day}T{clock}" + template,
        "log",
    )
    for zone, template in ((r" (?P<zone>[+-]\d{4})", "{zone}"), ("", ""))
)

FORM = PatternFormat("stamped", __doc__, PATTERNS, "no time of an access log")
