"""Syslog: RFC 5424, RFC 3164, and files with ISO times, such as `journalctl -o short-iso`.

Lines of RFC 3164 are read as sent or as in files; `short-iso-precise` too, and what journalctl says
between boots; facilities and severities as BSD (`<auth.info>`) and ESXi (`In(14)`) write them.

The level comes from the priority, where there is one, else from the word of a message that begins
with it (`error: …`); `source` is the program. A date without a
year is in the latest year in which it is not more than one day after the time of ingest. A time
without a zone is UTC. A line of RFC 5424 without a time has that of its ingest.
"""

from __future__ import annotations

import re

from lakelog.formats.format import Traits
from lakelog.formats.pattern import CLOCK, MONTH, PRI, SEVERITY, WORD, Level, Pattern
from lakelog.formats.pattern_format import ANY_WORD, PatternFormat
from lakelog.formats.zones import TZ

_LEVELS = "TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|SEVERE|FATAL|CRITICAL"
_STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)"
_HEAD = r"(?P<host>[^ ]+) (?P<app>[^ ]+) (?P<procid>[^ ]+) (?P<msgid>[^ ]+)"
_STRUCTURED = r'(?P<structured>-|(?:\[[^ \]="]+(?: +[^ \]="]+="(?:[^"\\]|\\.)*")* *\])+)'
_NEW = rf"{_HEAD} {_STRUCTURED}(?: +(?P<message>.*))?"
_NEW_DATA = ("host", "procid", "msgid", "structured", "pri")
_TAGGED = (
    r" (?P<host>[^ ]+) +(?:(?P<app>[^ :\[\]]+)(?:\[(?P<procid>[^\]]*)\])?:(?: +|$))?"
    r"(?P<message>.*)"
)
_SEVERITY = "emerg|panic|alert|crit|err|error|warning|warn|notice|info|debug"
_DIGIT = Level("severity", SEVERITY.sql, SEVERITY.of)
"""The level by the number of a severity alone."""
_MAC_WORDS = r"(?: [A-Z(][^ :\[\]]*)"
_MAC_LEVELS = "Emergency|Alert|Critical|Error|Warning|Notice|Info|Debug"
_OLD_DATA = ("host", "procid", "pri")
PATTERNS = (
    Pattern(
        rf"{PRI}1 (?P<stamp>{_STAMP}) {_NEW}",
        "{stamp}",
        "syslog",
        SEVERITY,
        source="app",
        data=_NEW_DATA,
        numbers=("pri",),
        dashes=("app", *_NEW_DATA),
    ),
    Pattern(
        rf"{PRI}1 - {_NEW}",
        "-",
        "syslog",
        SEVERITY,
        source="app",
        data=_NEW_DATA,
        numbers=("pri",),
        dashes=("app", *_NEW_DATA),
    ),
    Pattern(
        rf"(?:{PRI})?{MONTH} +(?P<day>\d{{1,2}}) {CLOCK} {TZ}:?{_TAGGED}",
        "?-{mon}-{day}T{clock}{tz}",
        "syslog",
        SEVERITY,
        source="app",
        data=(*_OLD_DATA, "tz"),
        numbers=("pri",),
    ),
    # BSD's syslogd -v, and -vv: the facility and the severity, in numbers or by name
    *(
        Pattern(
            rf"{MONTH} +(?P<day>\d{{1,2}}) {CLOCK} <(?P<facility>{facility})\.{severity}>{_TAGGED}",
            "?-{mon}-{day}T{clock}",
            "syslog",
            level,
            source="app",
            data=("host", "procid", "facility"),
        )
        for facility, severity, level in (
            (r"\d{1,2}", "(?P<severity>[0-7])", _DIGIT),
            (r"[a-z]+\d?", rf"(?P<level>{_SEVERITY})", WORD),
        )
    ),
    # VMware ESXi, which names the severity before the priority: In(14)
    Pattern(
        rf"(?P<stamp>{_STAMP}) (?P<severity>Em|Al|Cr|Er|Wa|No|In|Db)\((?P<pri>\d{{1,3}})\)"
        r" (?P<app>[^ :\[\]]+)(?:\[(?P<procid>[^\]]*)\])?:(?: +(?P<message>.*))?",
        "{stamp}",
        "syslog",
        SEVERITY,
        source="app",
        data=("procid", "severity", "pri"),
        numbers=("pri",),
    ),
    # with the year, as rsyslog and macOS can be told to write
    Pattern(
        rf"(?:{PRI})?{MONTH} +(?P<day>\d{{1,2}}) (?P<year>\d{{4}}) {CLOCK}{_TAGGED}",
        "{year}-{mon}-{day}T{clock}",
        "syslog",
        SEVERITY,
        source="app",
        data=_OLD_DATA,
        numbers=("pri",),
    ),
    # daemons that write their files themselves name no host: Dovecot, dnsmasq, yum
    Pattern(
        rf"{MONTH} +(?P<day>\d{{1,2}}) {CLOCK} (?P<app>[A-Za-z][\w./-]*)(?:\((?P<user>[^)]*)\))?"
        r"(?:<(?P<session>[^>]*)>)*: (?P<level>Debug|Info|Warning|Error|Fatal|Panic):"
        r"(?: +(?P<message>.*))?",
        "?-{mon}-{day}T{clock}",
        "syslog",
        WORD,
        source="app",
        data=("user", "session"),
    ),
    Pattern(
        rf"{MONTH} +(?P<day>\d{{1,2}}) {CLOCK} (?P<app>[A-Za-z][\w./-]*)(?:\[(?P<procid>\d+)\])?:"
        r"(?: +(?P<message>.*))?",
        "?-{mon}-{day}T{clock}",
        "syslog",
        source="app",
        data=("procid",),
    ),
    # macOS: a level, the service that a launchd speaks of, and names of several words
    *(
        Pattern(
            rf"{MONTH} +(?P<day>\d{{1,2}}) {CLOCK} (?P<host>[^ ]+) +(?P<app>[^ :\[\]]+{words})"
            rf"\[(?P<procid>\d+)\]{mark}:(?: +(?P<message>.*))?",
            "?-{mon}-{day}T{clock}",
            "syslog",
            WORD if mark else None,
            source="app",
            data=("host", "procid", "service") if mark else ("host", "procid"),
        )
        for words, mark in (
            (_MAC_WORDS + "{0,4}", rf" (?:\((?P<service>[^)]*)\)|<(?P<level>{_MAC_LEVELS})>)"),
            (_MAC_WORDS + "{1,4}", ""),
        )
    ),
    Pattern(
        rf"(?:{PRI})?{MONTH} +(?P<day>\d{{1,2}}) {CLOCK}{_TAGGED}",
        "?-{mon}-{day}T{clock}",
        "syslog",
        SEVERITY,
        source="app",
        data=_OLD_DATA,
        numbers=("pri",),
    ),
    # macOS's install.log, whose programs may have names of several words
    Pattern(
        r"(?P<stamp>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d) (?P<host>[^ \[]+)"
        r" (?P<app>[^:\[\]]+)\[(?P<procid>\d+)\]:(?: +(?P<message>.*))?",
        "{stamp}",
        "syslog",
        source="app",
        data=("host", "procid"),
    ),
    Pattern(
        rf"(?:{PRI})?(?P<stamp>{_STAMP})"
        r" (?P<host>[^ \[]+) (?P<app>[^ :\[\]]+)(?:\[(?P<procid>[^\]]*)\])?:(?: +(?P<message>.*))?",
        "{stamp}",
        "syslog",
        SEVERITY,
        source="app",
        data=_OLD_DATA,
        numbers=("pri",),
    ),
    Pattern(
        r"-- (?P<message>(?:(?:Logs begin|Journal begins) at .*|(?:Re)?[Bb]oot.*|No entries)) --",
        "-",
        "syslog",
    ),
)


FORM = PatternFormat(
    "syslog",
    __doc__,
    PATTERNS,
    "no syslog line (RFC 5424 or RFC 3164)",
    Traits(prose=True, by_line=True),
    # A level where a host would stand: the log of an application.
    unlike=re.compile(rf"{_STAMP} (?:{_LEVELS}) ".encode()),
    # sshd, Postfix and others say `error: …` where a file has no priorities.
    word_level=ANY_WORD,
)
