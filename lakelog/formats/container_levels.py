"""The level that a line of a container says itself, for its runtime knows only the stream.

Read are `"level": "error"` of an object, also pino's numbers, `level=error` among pairs, klog's
letter, and the word in capitals, in brackets or before a colon with which a line begins, perhaps
after a time, a thread and a logger. The text stays as it is.
"""

from __future__ import annotations

import re

from lakelog.event import Severity
from lakelog.formats import sqltext
from lakelog.formats.format import EventMembers
from lakelog.formats.pattern import Level, graded

_KEYS = r"level|severity|lvl|loglevel|log_level|levelname|log\.level"
_WORDS = (
    "TRACE|VERBOSE|DEBUG|INFO|INFORMATION|NOTICE|WARN|WARNING|ERROR|ERR|SEVERE|CRITICAL|CRIT|ALERT"
    "|EMERGENCY|EMERG|FATAL|PANIC"
)
_BEFORE = (
    r"^(?:[\[(]?\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d[^ \])]*[\])]?[ ,:|-]+"
    r"(?:\[[^\]]{0,60}\] +|[\w.$-]+ - )?)?"
)
_NAMED = Level("level", sqltext.level_sql, Severity.of)
_FORMS = (
    (rf'^\{{(?:.*?[,{{] ?)?"(?:{_KEYS})" ?: ?"([A-Za-z]{{3,13}})"', _NAMED),
    (
        r'^\{(?:.*?[,{] ?)?"level" ?: ?([1-6]0)[,}]',
        graded(dict(zip(("10", "20", "30", "40", "50", "60"), Severity.ALL, strict=True))),
    ),
    (rf'(?:^| )(?:{_KEYS})="?([A-Za-z]{{3,13}})"?(?:[ \n]|$)', _NAMED),
    (rf"{_BEFORE}[\[(<|]? *((?i:{_WORDS}))(?: *[\])>|]:?|:)(?:[ \n]|$)", _NAMED),
    (rf"{_BEFORE} *({_WORDS})(?:[ \n]|$)", _NAMED),
    (
        r"^([IWEF])\d{4} \d\d:\d\d:\d\d",
        graded({"I": "INFO", "W": "WARN", "E": "ERROR", "F": "FATAL"}),
    ),
)
"""Regexes, which are the same to RE2 and Python, each with a group for the level."""


def with_level(event: EventMembers) -> EventMembers:
    """Return an event with the level that its message says, unless it has one."""
    message = event.get("message")
    if isinstance(message, str) and "level" not in event:
        for regex, level in _FORMS:
            found = re.search(regex, message, re.ASCII)
            severity = level.of(found[1]) if found else None
            if severity is not None:
                event["level"] = severity
                break
    return event


def with_levels(query: str) -> str:
    """Return a query over rows of events with the levels that their messages say."""
    levels = ", ".join(
        level.sql(f"regexp_extract(message, '{regex}', 1)") for regex, level in _FORMS
    )
    return f"SELECT * REPLACE (coalesce(level, {levels}) AS level) FROM ({query})"
