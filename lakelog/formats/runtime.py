"""Runtimes and daemons, recognised by how their lines begin: glog, Redis, Ruby, logcat and others.

glog and klog, Redis, Ruby's Logger (Rails, too), Android's logcat, Asterisk, Nest, qBittorrent,
docker compose, MySQL's slow queries, supercomputers (Blue Gene, Thunderbird), epochs before a
text, Python's default without a time, the kernel's ring buffer, Proxifier, HealthApp, Squid's and
Suricata's own messages, and log4j's layouts that begin with the level. Dates without a year follow
the rule of syslog; lines without a time have that of their ingest. Other lines continue the record
before them.
"""

from __future__ import annotations

from lakelog.formats import sqltext
from lakelog.formats.format import Traits
from lakelog.formats.line_starts import DATE, OTHERS, SLOW_QUERY, SLOW_TIME
from lakelog.formats.pattern import (
    CLOCK,
    COLOURS,
    MESSAGE,
    MONTH,
    REST,
    WORD,
    Level,
    Pattern,
    graded,
)
from lakelog.formats.pattern_format import UNTIMED_SCORE, PatternFormat
from lakelog.formats.zones import TZ

_LETTER = graded(
    {
        "V": "TRACE",
        "D": "DEBUG",
        "I": "INFO",
        "W": "WARN",
        "E": "ERROR",
        "F": "FATAL",
        "S": "FATAL",
        "A": "INFO",
        "N": "INFO",
        "C": "FATAL",
    }
)
_REDIS = graded({".": "DEBUG", "-": "DEBUG", "*": "INFO", "#": "WARN"})
_NEST = graded(
    {
        "VERBOSE": "TRACE",
        "DEBUG": "DEBUG",
        "LOG": "INFO",
        "WARN": "WARN",
        "ERROR": "ERROR",
        "FATAL": "FATAL",
    }
)
_WORDS = "(?P<level>DEBUG|INFO|NOTICE|WARNING|WARN|ERROR|CRITICAL|FATAL|SEVERE|FAILURE)"
_ANY = "(?P<level>DEBUG|INFO|NOTICE|WARNING|WARN|ERROR|CRITICAL|FATAL)"
_OWN = Level("level", lambda text: f"coalesce({sqltext.level_sql(text)}, {text})", str)
"""A level by its name, or one of the program's own: Asterisk's SECURITY."""
_JAVA = "TRACE|DEBUG|INFO|WARN|WARNING|ERROR|FATAL|SEVERE"
_STAMP = r"(?P<stamp>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?)"
_SLASHED = r"(?P<year>\d{4})/(?P<month>\d\d)/(?P<day>\d\d)"
_SURICATA = graded(
    {
        **dict.fromkeys(("Emergency", "Alert", "Critical"), "FATAL"),
        "Error": "ERROR",
        "Warning": "WARN",
        **dict.fromkeys(("Notice", "Info", "Perf", "Config"), "INFO"),
        "Debug": "DEBUG",
    }
)
_SURICATA_LEVEL = "Emergency|Alert|Critical|Error|Warning|Notice|Info|Perf|Config|Debug"
_ISO = r"(?P<stamp>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)?)"
_UNTIMED = "-"


def style(
    regex: str,
    *data: str,
    time: str = "{stamp}",
    source: str = "source",
    level: Level | None = _LETTER,
) -> Pattern:
    """A style whose payload is the groups `data`, and whose level is a letter unless said."""
    return Pattern(regex, time, "log", level, source=source, data=data)


_BEGINS = (
    rf"^{COLOURS}(?:[IWEFD](?:\d{{4}}){{1,2}} \d\d:\d\d:\d\d|\d+:[MSCX] \d\d [A-Z][a-z][a-z] "
    rf"|[DIWEFA], \[|\[\d\d\.\d\d \d\d:|\d{{8}}-\d\d?:\d\d?:\d\d?:\d{{1,3}}\|"
    rf"|(?:{_JAVA}) +\[?{DATE}"
    r"|(?:\[\d+\] )?\d\d?/\d\d?/\d{4} -- \d\d:\d\d:\d\d - "
    r"|\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} |\[[A-Z][a-z][a-z] [ \d]\d \d\d:|\[Nest\] |\([NIWC]\) \d{4}-"
    rf"|{SLOW_QUERY}"
    r"|[\w.-]+ +\| |[^ ]+ \d{9,10} \d{4}\.\d\d\.\d\d |\d{10}(?:\.\d{1,9})? |\d{13} "
    rf"|\[ *\d+\.\d{{6}}\] |\[?{DATE}|{OTHERS})"
)
PATTERNS = (
    style(
        rf"(?P<level>[IWEFD])(?P<month>\d\d)(?P<day>\d\d) {CLOCK} +(?P<thread>\d+)"
        rf" (?P<source>[^ \]]+)\]{REST}",
        "thread",
        time="?-{month}-{day}T{clock}",
    ),
    style(
        rf"(?P<level>[IWEFD])(?P<year>\d{{4}})(?P<month>\d\d)(?P<day>\d\d) {CLOCK}"
        rf" +(?P<thread>\d+) (?P<source>[^ \]]+)\]{REST}",
        "thread",
        time="{year}-{month}-{day}T{clock}",
    ),
    *(
        style(
            rf"(?P<pid>\d+):(?P<role>[MSCX]) (?P<day>\d\d) {MONTH} {year}{CLOCK}"
            rf" (?P<level>[.*#-]){REST}",
            "pid",
            "role",
            time=time + "-{mon}-{day}T{clock}",
            source="",
            level=_REDIS,
        )
        for year, time in ((r"(?P<year>\d{4}) ", "{year}"), ("", "?"))
    ),
    style(
        r"(?P<level>[DIWEFA]), \[(?P<stamp>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}) #(?P<pid>\d+)\]"
        rf" +(?:DEBUG|INFO|WARN|ERROR|FATAL|ANY) -- (?P<source>[^:]*):{REST}",
        "pid",
    ),
    style(
        rf"(?P<month>\d\d)-(?P<day>\d\d) {CLOCK} +(?P<pid>\d+) +(?P<thread>\d+)"
        rf" (?P<level>[VDIWEFS]) (?P<source>[^:]*?) *:{REST}",
        "pid",
        "thread",
        time="?-{month}-{day}T{clock}",
    ),
    *(
        style(
            rf"\[{moment}\] (?P<level>[A-Z]{{1,24}})\[(?P<pid>\d+)\]"
            rf"(?:\[(?P<call>[^\]]*)\])?:? (?P<source>[^ :]+):(?P<line>\d+)?{REST}",
            "pid",
            "call",
            "line",
            time=time,
            level=_OWN,
        )
        for moment, time in (
            (rf"{MONTH} +(?P<day>\d{{1,2}}) {CLOCK}", "?-{mon}-{day}T{clock}"),
            (_STAMP, "{stamp}"),
        )
    ),
    style(
        r"\[Nest\] (?P<pid>\d+) +- (?P<month>\d\d?)/(?P<day>\d\d?)/(?P<year>\d{4}),"
        r" (?P<hour12>\d\d?):(?P<minute>\d\d:\d\d) (?P<half>AM|PM) +"
        rf"(?P<level>VERBOSE|DEBUG|LOG|WARN|ERROR|FATAL)(?: \[(?P<source>[^\]]*)\])?{REST}",
        "pid",
        time="{year}-{month}-{day}T{hour12}:{minute}",
        level=_NEST,
    ),
    style(rf"\((?P<level>[NIWC])\) {_ISO} -{REST}", source=""),
    style(
        rf"(?P<source>[\w.-]+) +\| +(?P<stamp>\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{{1,9}})?)"
        rf" {TZ}{REST}",
        "tz",
        time="{stamp}{tz}",
        level=None,
    ),
    style(rf"(?P<source>[\w.-]+) +\| +{_ISO}{REST}", level=None),
    style(rf"# Time: {_ISO}{REST}", source="", level=None),
    style(
        r"# Time: (?P<yy>\d\d)(?P<month>\d\d)(?P<day>\d\d) +(?P<hour>\d\d?):(?P<minute>\d\d:\d\d)"
        rf"{REST}",
        time="20{yy}-{month}-{day}T{hour}:{minute}",
        source="",
        level=None,
    ),
    style(r"(?P<message># User@Host: .*)", time=_UNTIMED, source="", level=None),
    style(
        r"(?P<alert>[^ ]+) (?P<stamp>\d{9,10}) \d{4}\.\d\d\.\d\d (?P<node>[^ ]+)"
        r" \d{4}-\d\d-\d\d-\d\d\.\d\d\.\d\d\.(?P<micros>\d{1,6}) (?P<location>[^ ]+)"
        r" (?P<kind>[A-Z]+) (?P<source>[A-Z_]+)"
        rf" {_WORDS}{REST}",
        "alert",
        "node",
        "location",
        "kind",
        time="{stamp}.{micros}",
        level=graded(
            {
                "DEBUG": "DEBUG",
                "INFO": "INFO",
                "NOTICE": "INFO",
                "WARNING": "WARN",
                "WARN": "WARN",
                "ERROR": "ERROR",
                "SEVERE": "ERROR",
                "FAILURE": "ERROR",
                "CRITICAL": "FATAL",
                "FATAL": "FATAL",
            }
        ),
    ),
    style(
        r"(?P<alert>[^ ]+) (?P<stamp>\d{9,10}) \d{4}\.\d\d\.\d\d (?P<node>[^ ]+)"
        r" [A-Z][a-z][a-z] +\d{1,2} \d\d:\d\d:\d\d (?P<location>[^ ]+)"
        r" (?:(?P<source>[^ :\[\]]+)(?:\[(?P<pid>\d+)\])?:(?: |$))?(?P<message>.*)",
        "alert",
        "node",
        "location",
        "pid",
        level=None,
    ),
    style(rf"(?P<stamp>\d{{10}}(?:\.\d{{1,9}})?|\d{{13}}) {MESSAGE}", source="", level=None),
    style(
        rf"\[(?P<month>\d\d)\.(?P<day>\d\d) {CLOCK}\]"
        rf" (?:(?P<source>[^ ]+(?: [^ -][^ ]*)*) - )?{MESSAGE}",
        time="?-{month}-{day}T{clock}",
        level=None,
    ),
    style(
        r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)-(?P<hour>\d{1,2}):(?P<min>\d{1,2})"
        rf":(?P<sec>\d{{1,2}}):(?P<millis>\d{{1,3}})\|(?P<source>[^|]*)\|(?P<pid>\d*)\|{MESSAGE}",
        "pid",
        time="{year}-{month}-{day}T{hour}:{min}:{sec}.{millis}",
        level=None,
    ),
    style(
        rf"{_SLASHED} {CLOCK}(?: (?P<source>kid\d+))?\|"
        rf"(?: (?:(?P<level>NOTICE|WARNING|ERROR|FATAL): )?{MESSAGE})?",
        time="{year}-{month}-{day}T{clock}",
        level=WORD,
    ),
    style(
        r"(?:\[(?P<pid>\d+)\] )?(?P<day>\d{1,2})/(?P<month>\d{1,2})/(?P<year>\d{4}) --"
        rf" {CLOCK} - (?:\((?P<source>[^)]*)\) )?<(?P<level>{_SURICATA_LEVEL})>"
        rf"(?: \((?P<function>[^)]*)\))? --?{REST}",
        "pid",
        "function",
        time="{year}-{month}-{day}T{clock}",
        level=_SURICATA,
    ),
    style(
        rf"(?P<level>{_JAVA}) +{_STAMP} +\[(?P<thread>[^\]]*)\] +(?P<source>[^ ]+) +-{REST}",
        "thread",
        level=WORD,
    ),
    style(rf"(?P<level>{_JAVA}) +\[{_STAMP}\] (?P<source>[\w.$/-]+):{REST}", level=WORD),
    style(rf"{_ANY}:(?P<source>[A-Za-z_][\w.-]*):{MESSAGE}", time=_UNTIMED, level=WORD),
    style(rf"{_ANY}: +{MESSAGE}", time=_UNTIMED, source="", level=WORD),
    style(
        rf"\[ *(?P<uptime>\d+\.\d{{6}})\] (?:(?P<source>[\w-]+(?: [\w.:-]+)?): )?{MESSAGE}",
        "uptime",
        time=_UNTIMED,
        level=None,
    ),
)
FORM = PatternFormat(
    "runtime",
    __doc__,
    PATTERNS,
    "a line that continues another",
    Traits(begins=_BEGINS, leads=SLOW_TIME, prose=True, by_line=True),
    UNTIMED_SCORE,
)
