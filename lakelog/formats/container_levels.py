"""The level that a line of a container says itself, for its runtime knows only the stream.

Read are `"level": "error"` of an object, also pino's numbers, `level=error` among pairs, klog's
letter, and the word in capitals, in brackets or before a colon with which a line begins, perhaps
after a time, a thread and a logger (`app.WARNING:`). The text stays as it is.
"""

from __future__ import annotations

import re

from lakelog.event import Severity
from lakelog.formats import sqltext
from lakelog.formats.format import EventMembers
from lakelog.formats.line_starts import LEVEL_WORDS

_KEYS = r"level|severity|lvl|loglevel|log_level|levelname|log\.level"
# Blanks are so many at most: two runs of any length side by side would take their product of steps.
_TIME = (
    r"[\[(]?(?:\d{4}[-/]\d\d[-/]\d\d[T ]|\d{6} +)?\d{1,2}:\d\d:\d\d[^ \])]*"
    r"(?: [+-]\d{4})?[\])]?[ ,:|-]{1,16}"
    r"(?:\[[^\]]{0,60}\] {1,16}|[\w.$-]+ - )?"
)
_BRACKETED = rf"[\[(<|]? {{0,16}}((?i:{LEVEL_WORDS}))(?: {{0,16}}[\])>|]:?|:)(?:[ \n]|$)"
_CAPITALS = rf" {{0,16}}(?:[\w-]+\.)?({LEVEL_WORDS}):?(?:[ \n]|$)"
_FORMS = (
    rf'^\{{(?:.*?[,{{] ?)?"(?:{_KEYS})" ?: ?"([A-Za-z]{{3,13}})"',
    r'^\{(?:.*?[,{] ?)?"level" ?: ?([1-6]0)[,}]',
    rf'(?:^| )(?:{_KEYS})="?([A-Za-z]{{3,13}})"?(?:[ \n]|$)',
    rf"^(?:{_TIME})?{_BRACKETED}",
    rf"^(?:{_TIME})?{_CAPITALS}",
    r"^([IWEF])\d{4} \d\d:\d\d:\d\d",
)
"""Regexes, which are the same to RE2 and Python, each with a group for the level: the first that
fits decides."""
_MARKED = (*_FORMS[:3], _FORMS[-1], rf"^{_TIME}{_BRACKETED}", rf"^{_TIME}{_CAPITALS}")
"""Those that are asked of few lines: words are looked for behind a time alone."""
_MAY_BE_TIME = "ascii(message) BETWEEN 48 AND 57 OR ascii(message) IN (40, 91)"
_OTHER_NAMES = {
    **dict(zip(("10", "20", "30", "40", "50", "60"), Severity.ALL, strict=True)),
    "I": "INFO",
    "W": "WARN",
    "E": "ERROR",
    "F": "FATAL",
}


def with_level(event: EventMembers, *, marked: bool = False) -> EventMembers:
    """Return an event with the level that its message says, unless it has one; only what is
    `marked` as a level counts, if so asked, and no word that begins the message."""
    message = event.get("message")
    if isinstance(message, str) and "level" not in event:
        matches = (re.search(regex, message, re.ASCII) for regex in (_MARKED if marked else _FORMS))
        match = next(filter(None, matches), None)
        severity = match and (_OTHER_NAMES.get(match[1]) or Severity.of(match[1]))
        if severity:
            event["level"] = severity
    return event


def with_levels(query: str, *, marked: bool = False) -> str:
    """Return a query over rows of events with the levels that their messages say, as `with_level`
    finds them."""
    forms = _MARKED if marked else _FORMS
    words = [f"nullif(regexp_extract(message, '{regex}', 1), '')" for regex in forms]
    others = ", ".join(words[3:])
    if marked:
        others = f"{words[3]}, CASE WHEN {_MAY_BE_TIME} THEN coalesce({words[4]}, {words[5]}) END"
    # A regex is asked of the lines alone that it may fit: each takes as long as all else.
    word = f"""
CASE WHEN starts_with(message, '{{') THEN coalesce({words[0]}, {words[1]}) END,
CASE WHEN contains(message, '=') THEN {words[2]} END, {others}"""
    names = " ".join(f"WHEN '{name}' THEN '{level}'" for name, level in _OTHER_NAMES.items())
    level = f"CASE word {names} ELSE {sqltext.level_sql('word')} END"
    return f"""
SELECT * EXCLUDE word REPLACE (coalesce(level, {level}) AS level)
FROM (SELECT *, coalesce({word}) AS word FROM ({query}))"""
