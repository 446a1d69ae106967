"""How lines of a known style begin, whatever the format of their file.

Formats whose events span lines end a record at such a line, and plain text may contain such lines.
Nothing listed here begins a line of a stack trace, a statement or a dumped document.
"""

from __future__ import annotations

_LEVELS = "DEBUG|INFO|NOTICE|WARNING|WARN|ERROR|CRITICAL|FATAL"
DATE = r"\d{4}[-/]\d\d[-/]\d\d[T :][ \d]\d:\d\d"
_JSON = r'\{(?:.*, *)?"(?:time|timestamp|ts|@timestamp|level|severity|t)" *:'
WORDS = r"(?:[^ \[\"]+ ){0,5}"
"""So many words may stand before the time of a line."""
OTHERS = (
    rf"(?:{_LEVELS}):|(?:time|timestamp|ts|t|level|lvl)=[^ ]|{_JSON}"
    rf"|{WORDS}\[?\d\d/(?:[A-Z][a-z][a-z]|\d\d)/\d{{4}}:\d\d:\d\d:\d\d"
    r"|\d\d-[A-Z][a-z][a-z]-\d{4} \d\d:\d\d:\d\d"
    r"|(?:<\d{1,3}>)?[A-Z][a-z][a-z] [ \d]\d \d\d:\d\d:\d\d |<\d{1,3}>1 "
    r"|[IWEFD](?:\d{4}){1,2} \d\d:\d\d:\d\d\.|\[pid: \d+\|"
)
"""A level with a colon, pairs that begin with a time or a level, an object with one, the time of
an access log, a date with the month's name, the time of syslog, glog, and uWSGI."""
SLOW_TIME = "^# Time: "
SLOW_QUERY = "# (?:Time|User@Host): "
"""How queries begin in MySQL's log of slow ones; of several within one second only the first has
its time before it."""
TIMED = rf"^(?:\[?{DATE}|\[[A-Z][a-z][a-z] [A-Z][a-z][a-z] +\d|{OTHERS})"
"""These, and lines that begin with a date and a time."""
