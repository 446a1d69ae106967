"""How lines of a known style begin, whatever the format of their file.

Formats whose events span lines end a record at such a line (`OTHERS`), and lines of plain text that
do not begin as one of them (`STYLED`) are text. Nothing in `OTHERS` begins a line of a stack trace,
a statement or a dumped document.
"""

from lakelog.formats.pattern import COLOURS

_LEVELS = "DEBUG|INFO|NOTICE|WARNING|WARN|ERROR|CRITICAL|FATAL"
LEVEL_WORDS = (
    "TRACE|VERBOSE|DEBUG|INFORMATION|INFO|NOTICE|NOTE|WARNING|WARN|ERROR|ERR|SEVERE|CRITICAL|CRIT"
    "|ALERT|EMERGENCY|EMERG|FATAL|PANIC"
)
"""Words by which text says its level."""
DATE = r"\d{4}[-/]\d\d[-/]\d\d[T :][ \d]\d:\d\d"
_JSON = r'\{(?:.*, *)?"(?:time|timestamp|ts|@timestamp|level|severity|t)" *:'
WORDS = r"(?:[^ \[\"]+ ){0,5}"
"""So many words may stand before the time of a line."""
OTHERS = (
    rf"(?:{_LEVELS}):|(?:time|timestamp|ts|t|level|lvl)=[^ ]|{_JSON}"
    rf"|{WORDS}\[?\d\d/(?:[A-Z][a-z][a-z]|\d\d)/\d{{4}}:\d\d:\d\d:\d\d"
    r"|\d\d-[A-Z][a-z][a-z]-\d{4} \d\d:\d\d:\d\d"
    r"|(?:<\d{1,3}>)?[A-Z][a-z][a-z] [ \d]\d (?:\d{4} )?\d\d:\d\d:\d\d |<\d{1,3}>1 "
    r"|[IWEFD](?:\d{4}){1,2} \d\d:\d\d:\d\d\.|\[pid: \d+\|"
)
"""A level with a colon, pairs that begin with a time or a level, an object with one, the time of
an access log, a date with the month's name, the time of syslog, glog, and uWSGI."""
SLOW_QUERY = "# (?:Time|User@Host): "
"""How queries begin in MySQL's log of slow ones; of several within one second only the first has
its time before it."""
_RARE = (
    rf'\{{ *"|[\w.-]+ +\|{COLOURS} +{COLOURS}(?:\d{{4}}-|\{{|[\w.-]+=)|{SLOW_QUERY}'
    r"|(?:<\d{1,3}>)?[\w./@-]+=|<\d{1,3}>"
    r"|-- (?:Logs begin|Journal begins|(?:Re)?[Bb]oot|No entries)"
    r"|(?:\[rank\d+\]:)?\[[IWEFD]\d{4} \d\d:\d\d:\d\d"
    r"|\d+:[MSCX] \d\d [A-Z]|[DIWEFA], \[\d|\[Nest\] |\([NIWC]\) \d{4}-|\[ *\d+\.\d{6}\] "
    r"|\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} |\[?[A-Z][a-z][a-z] +\d{1,2} \d\d:\d\d:\d\d"
    r"|\d{10}(?:\.\d{1,9})? |\d{13} |[^ ]+ \d{9,10} \d{4}\.\d\d\.\d\d "
    r"|\d\d/?\d\d/?\d\d \d\d:?\d\d:?\d\d |[0-9a-fA-F.:]+ \d{4}-\d\d-\d\d |\[[0-9a-f:.]+\] - "
    r"|(?:https?|h2|grpcs?|wss?) \d{4}-\d\d-\d\dT|\d \d{12} eni-"
    r"|\[\d\d\.\d\d \d\d:\d\d:\d\d\] |\d{8}-\d{1,2}:\d{1,2}:\d{1,2}:\d"
    r"|(?:\[[^\]]+\] )?\d{1,2}/\d{1,2}/\d{4} -- \d\d:"
    r"|(?:TRACE|DEBUG|INFO|WARN|ERROR|FATAL) +\[?\d{4}-\d\d-\d\d[T ]"
)
"""Objects, pairs, and how rarer lines of syslog, runtimes and traffic begin."""
STYLED = (
    rf"^[ \t\v\f\r]*{COLOURS}(?:\[?{DATE}|\[[A-Z][a-z][a-z] [A-Z][a-z][a-z] +\d|{OTHERS}|{_RARE})"
)
"""How all lines begin that a style may fit, but those of single programs, which have a `head`."""
