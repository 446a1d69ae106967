"""Logs of programs: a time, a level, perhaps a logger and a thread, then a message.

The default styles of Python's logging, log4j and logback, Kafka, Zookeeper, HDFS, Spark, Monolog,
Serilog, env_logger, gunicorn, Tomcat, Go, Odoo, PostgreSQL, MySQL, MongoDB and SQL Server, and the
error logs of Apache and nginx; last any line that begins with a date and a time. `source` is the
logger, class or module. Lines that do not begin with a time (those of a stack trace) belong to the
message before them, and so do DETAIL, HINT and STATEMENT of PostgreSQL.
"""

from __future__ import annotations

import functools

from lakelog.formats import programs, runtime
from lakelog.formats.format import Traits
from lakelog.formats.line_starts import OTHERS
from lakelog.formats.pattern import CLOCK, COLOURS, MESSAGE, MONTH, REST, WORD, Pattern, graded
from lakelog.formats.pattern_format import PatternFormat
from lakelog.formats.zones import TZ

_WORDS = (
    "trace debug info notice warn warning error err severe fatal critical crit alert",
    "emergency emerg",
)
_NAMES = "|".join(f"{w.upper()}|{w}|{w.title()}" for w in " ".join(_WORDS).split())
_LEVEL = rf"(?P<level>{_NAMES})"
_NUMERIC = r"[+-](?:0\d|1[0-4]):?(?:00|15|30|45)"
_LOCAL = r"(?P<stamp>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?)"
_ATTACHED = r"Z|[+-]\d\d:\d\d|[+-]\d{4}|[+-]\d\d"
_STAMP = rf"{_LOCAL}(?P<offset>{_ATTACHED}| {_NUMERIC})?"
_ZONE = rf"(?:{TZ}|(?P<offset>{_NUMERIC}))"
_POSTGRES_ZONE = rf"(?:{TZ}|(?P<offset>[+-]\d\d(?::?\d\d)?))"
"""Zones by word or number; PostgreSQL leaves out minutes that are zero."""
_ALONE = r"(?P<stamp>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d|[+-]\d{4})?)"
_CLASS = r"[A-Za-z_][\w$-]*(?:(?:[./]|::)[\w$-]+)+"
_THREAD = r"\[(?P<thread>[^\]]*)\]"
_DIGITS = r"(?P<yy>\d\d)/?(?P<month>\d\d)/?(?P<day>\d\d)"
_SLASHED = r"(?P<year>\d{4})/(?P<month>\d\d)/(?P<day>\d\d)"


_ZONED = r"(?P<date>\d{4}-\d\d-\d\d)[ T](?P<clock>\d\d:\d\d:\d\d(?:[.,]\d{1,9})?)"
_FULL = _ZONED + r" ?(?P<zone>Z|[+-]\d\d:?\d\d)"
_ZONE_TIME = "{date}T{clock}{zone}"
_SHORT_LEVELS = {
    "PNC": "FATAL",
    "TRC": "TRACE",
    "VRB": "TRACE",
    "DBG": "DEBUG",
    "INF": "INFO",
    "WRN": "WARN",
    "ERR": "ERROR",
    "FTL": "FATAL",
}
_SHORT = graded(_SHORT_LEVELS)
_THREE = rf"(?P<level>{'|'.join(_SHORT_LEVELS)})"
_POSTGRES_LEVELS = {
    **{f"DEBUG{n}": "DEBUG" for n in range(1, 6)},
    "LOG": "INFO",
    "INFO": "INFO",
    "NOTICE": "INFO",
    "WARNING": "WARN",
    "ERROR": "ERROR",
    "FATAL": "FATAL",
    "PANIC": "FATAL",
}
_POSTGRES_TIME = "{date}T{clock}{tz}{offset}"
_POSTGRES = graded(_POSTGRES_LEVELS)
_POSTGRES_CLIENTS = (
    rf"{_ZONED} {_POSTGRES_ZONE} \[(?P<pid>\d+)\](?:-(?P<line>\d+))?:? (?P<host>[^ ]+)"
    r" (?P<user>[^ @]+)@(?P<database>[^ :]+) ",
    rf"{_ZONED} {_POSTGRES_ZONE} \[(?P<pid>\d+)\]: \[(?P<line>\d+)-1\] user=(?P<user>[^ ,]*),"
    r"db=(?P<database>[^ ,]*)(?:,app=(?P<application>[^,]*))?(?:,client=(?P<host>[^ ,]*))? ",
    rf"{_ZONED} {_POSTGRES_ZONE}:(?P<host>[^ ]*):(?P<user>[^ @:]*)@(?P<database>[^ :]*)"
    r":\[(?P<pid>\d+)\]:",
)
"""Prefixes that name the client behind the process, that for pgBadger, and that of Amazon RDS."""
_MYSQL = graded(
    {"System": "INFO", "Note": "INFO", "Warning": "WARN", "ERROR": "ERROR", "Error": "ERROR"}
)
_LETTER = graded(
    {
        "T": "TRACE",
        "D": "DEBUG",
        "I": "INFO",
        "N": "INFO",
        "W": "WARN",
        "E": "ERROR",
        "F": "FATAL",
        "C": "FATAL",
    }
)


_style = functools.partial(runtime.style, time="{stamp}{offset}", level=WORD)
_BEGINS = (
    rf"^{COLOURS}(?:\[?\d{{4}}[-/]\d\d[-/]\d\d[T :]|\[[A-Z][a-z][a-z] [A-Z][a-z][a-z] +\d"
    r"|\d\d/?\d\d/?\d\d \d\d:?\d\d:?\d\d|\d\d-[A-Z][a-z][a-z]-\d{4} "
    rf"|[0-9a-fA-F.:]+ \d{{4}}-\d\d-\d\d |{OTHERS})"
)
"""How a record begins: with a time, or as a line of another style."""
_CONTINUES = (
    r"\[\d+\](?:(?:[ :-][^ ]*){0,2}|: \[\d+-1\] user=[^ ]*)"
    r" *(?:DETAIL|HINT|STATEMENT|CONTEXT|QUERY|LOCATION):  "
)
"""Lines that PostgreSQL adds to a message, which begin like others."""
# Specific styles first: the last ones accept any text after a time.
PATTERNS = (
    _style(rf"{_STAMP} - (?P<source>[^ ]+) - {_LEVEL} -{REST}"),
    _style(rf"\[{_STAMP}\] (?P<source>[\w-]+)\.{_LEVEL}:{REST}"),
    _style(
        # with a space before the offset, what follows in brackets is the source
        rf"\[{_LOCAL}(?P<offset>{_ATTACHED})?\] {_LEVEL}:?"
        r"(?: +(?P<message>.*?)(?: \((?P<source>[\w.$-]+(?::\d+)?)\))?)?"
    ),
    _style(
        rf"{_STAMP} (?:\[myid:(?P<myid>[^\]]*)\] )?- {_LEVEL}"
        rf" +\[(?P<thread>.*):(?P<source>[\w.$]+)@(?P<line>\d+)\] -{REST}",
        "thread",
        "line",
        "myid",
    ),
    _style(rf"{_STAMP} +\[{_LEVEL} +\](?: +(?P<message>.*))?", source=""),
    _style(rf"{_STAMP} (?P<level>[TDIWNEC]) \| (?P<source>[\w./-]+):{REST}", level=_LETTER),
    _style(rf"{_FULL} {_THREE} (?P<source>[^ ]+\.go:\d+) >{REST}", time=_ZONE_TIME, level=_SHORT),
    _style(rf"{_FULL} {_THREE}{REST}", time=_ZONE_TIME, source="", level=_SHORT),
    _style(rf"{_STAMP} +{_LEVEL} +\[(?P<source>{_CLASS})\](?: -)?{REST}"),
    _style(rf"{_STAMP} +{_LEVEL} +{_THREAD} +(?P<source>[\w.$/-]+) *:{REST}", "thread"),
    _style(rf"{_STAMP} +{_THREAD} +{_LEVEL} +(?P<source>[\w.$/-]+) +-{REST}", "thread"),
    # log4net, with its nested context
    _style(
        rf"{_STAMP} +{_THREAD} +{_LEVEL} +(?P<source>[\w.$/-]+) +\[(?P<context>[^\]]*)\] -{REST}",
        "thread",
        "context",
    ),
    _style(rf"{_STAMP} +{_LEVEL} +(?P<source>{_CLASS}) +{_THREAD}{REST}", "thread"),
    _style(rf"{_STAMP}[ :]{_LEVEL}:(?P<source>[A-Za-z_][\w.-]*):(?P<message>(?:[^/].*)?)"),
    _style(
        rf"{_STAMP}(?: +|::?|: )\[?{_LEVEL}\]?"
        rf"(?:(?: +|: *)(?:(?P<source>{_CLASS}): )?(?P<message>.*))?"
    ),
    _style(
        rf"{_DIGITS} (?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d) (?P<pid>\d+) {_LEVEL}"
        rf" (?P<source>[^ :]+):{REST}",
        "pid",
        time="20{yy}-{month}-{day}T{hour}:{minute}:{second}",
    ),
    _style(
        rf"{_DIGITS} {CLOCK} {_LEVEL} (?P<source>[^ :]+):{REST}",
        time="20{yy}-{month}-{day}T{clock}",
    ),
    _style(
        rf"\[[A-Z][a-z][a-z] {MONTH} +(?P<day>\d{{1,2}}) {CLOCK} (?P<year>\d{{4}})\]"
        rf" \[(?:(?P<source>[\w-]*):)?{_LEVEL}\](?: \[pid (?P<pid>\d+)(?::tid (?P<tid>\d+))?\])?"
        rf"{REST}",
        "pid",
        "tid",
        time="{year}-{mon}-{day}T{clock}",
    ),
    _style(
        rf"{_SLASHED} {CLOCK} \[{_LEVEL}\] (?P<pid>\d+)#(?P<tid>\d+):{REST}",
        "pid",
        "tid",
        time="{year}-{month}-{day}T{clock}",
        source="",
    ),
    _style(
        rf"(?:(?P<host>[0-9a-fA-F.:]+) )?{_ZONED} {_POSTGRES_ZONE} \[(?P<pid>\d+)\]"
        r"(?:-(?P<line>\d+))?:?"
        r"(?: (?:(?P<user>[^ @\[\]]+|\[unknown\])@)?(?P<database>[^ :\[\]]+|\[unknown\]))?"
        rf" (?P<level>{'|'.join(_POSTGRES_LEVELS)}): +{MESSAGE}",
        "host",
        "pid",
        "user",
        "database",
        "tz",
        "line",
        time=_POSTGRES_TIME,
        source="",
        level=_POSTGRES,
    ),
    *(
        _style(
            rf"{prefix}(?P<level>{'|'.join(_POSTGRES_LEVELS)}): +{MESSAGE}",
            "host",
            "pid",
            "user",
            "database",
            "tz",
            *(name for name in ("line", "application") if f"<{name}>" in prefix),
            time=_POSTGRES_TIME,
            source="",
            level=_POSTGRES,
        )
        for prefix in _POSTGRES_CLIENTS
    ),
    _style(
        rf"{_STAMP} +(?P<thread>\d+) \[(?P<level>System|Note|Warning|ERROR|Error)\]"
        rf"(?: \[(?P<code>MY-\d+)\] \[(?P<source>\w+)\])?{REST}",
        "thread",
        "code",
        level=_MYSQL,
    ),
    # MariaDB pads hours with a space
    _style(
        r"(?P<date>\d{4}-\d\d-\d\d)  (?P<hour>\d):(?P<minute>\d\d:\d\d) +(?P<thread>\d+)"
        rf" \[(?P<level>Note|Warning|ERROR)\]{REST}",
        "thread",
        time="{date}T{hour}:{minute}",
        source="",
        level=_MYSQL,
    ),
    _style(
        rf"{_STAMP} (?P<level>[DIWEF])(?P<verbosity>\d)? (?P<source>[A-Z]+|-)"
        rf" +\[(?P<thread>[^\]]*)\]{REST}",
        "thread",
        "verbosity",
        level=_LETTER,
    ),
    _style(rf"{_FULL} \[{_THREE}\]{REST}", time=_ZONE_TIME, source="", level=_SHORT),
    _style(
        rf"\[?{_FULL}\]? \[{_THREE}\](?: \[(?P<thread>\d+)\])? (?P<source>[\w.]+):{REST}",
        "thread",
        time=_ZONE_TIME,
        level=_SHORT,
    ),
    _style(rf"\[?{_ZONED} {_THREE}\]{REST}", time="{date}T{clock}", source="", level=_SHORT),
    _style(rf"\[{_FULL}\] \[(?P<pid>\d+)\] \[{_LEVEL}\]{REST}", "pid", time=_ZONE_TIME, source=""),
    _style(rf"\[{_FULL}\] {_LEVEL} \[(?P<source>[^\]]*)\]{REST}", time=_ZONE_TIME),
    _style(rf"\[{_STAMP}\] \[{_LEVEL} *\](?: \[(?P<source>[^\]]+)\])?{REST}"),
    _style(rf"\[{_STAMP} {_LEVEL} +(?P<source>[^\] ]+)\]{REST}"),
    _style(rf"{_STAMP} +\[(?P<source>[^\]]+)\] {_LEVEL}:{REST}"),
    _style(rf"{_STAMP} \[{_LEVEL}\]\[(?P<source>[^\]]+)\]:{REST}"),
    _style(
        rf"{_STAMP} (?P<pid>\d+) {_LEVEL} (?P<database>[^ ]+) (?P<source>[\w.]+):{REST}",
        "pid",
        "database",
    ),
    _style(rf"{_STAMP}, {_LEVEL} +(?P<source>[A-Z]\w*) +{MESSAGE}"),
    _style(
        rf"{_STAMP}\|{_LEVEL} *\|(?P<source>[^|]*?) *\| *(?P<server>\d*) *\|{MESSAGE}", "server"
    ),
    _style(rf"{_STAMP}\| *{_LEVEL} *\| *(?P<source>[^|]*?) *\|{MESSAGE}"),
    # OOS lines have no comma in their times
    _style(
        rf"(?P<stamp>\d{{4}}-\d\d-\d\d[T ]\d\d:\d\d:\d\d,\d{{1,9}})\|{MESSAGE}",
        time="{stamp}",
        source="",
        level=None,
    ),
    _style(
        rf"(?P<day>\d\d)-{MONTH}-(?P<year>\d{{4}}) {CLOCK} {_LEVEL} {_THREAD}"
        rf" (?P<source>[\w.$/<>-]+){REST}",
        "thread",
        time="{year}-{mon}-{day}T{clock}",
    ),
    _style(
        rf"(?P<day>\d\d)-{MONTH}-(?P<year>\d{{4}}) {CLOCK} {MESSAGE}",
        time="{year}-{mon}-{day}T{clock}",
        source="",
        level=None,
    ),
    _style(
        rf"{_SLASHED} {CLOCK} (?P<source>[^ ]+\.go:\d+:[^ ]*) \[(?P<level>[TDIWEFC])\]{REST}",
        time="{year}-{month}-{day}T{clock}",
        level=_LETTER,
    ),
    *(
        _style(regex, "tz", time=time + "{tz}{offset}", source="", level=level)
        for stamp, time in (
            (_ZONED, "{date}T{clock}"),
            (rf"{_SLASHED} {CLOCK}", "{year}-{month}-{day}T{clock}"),
        )
        for regex, level in (
            (rf"\[?{stamp} {_ZONE}\]?:? +[\[<(]?{_LEVEL}[\])>]?(?:(?: +|: *){MESSAGE})?", WORD),
            (rf"\[?{stamp} {_ZONE}\]?(?:(?:: *| +){MESSAGE})?", None),
        )
    ),
    _style(
        rf"{_ZONED}(?P<tz>[A-Z]{{2,5}}) +{MESSAGE}",
        "tz",
        time="{date}T{clock}{tz}",
        source="",
        level=None,
    ),
    _style(
        rf"{_SLASHED} {CLOCK} (?:\[?{_LEVEL}\]?:? )?(?:(?P<source>[\w./-]+\.go:\d+): )?{MESSAGE}",
        time="{year}-{month}-{day}T{clock}",
    ),
    _style(rf"{_STAMP} (?P<source>spid\d+\w*|Logon|Server|Backup) +{MESSAGE}", level=None),
    _style(rf"{_STAMP}:? +{MESSAGE}", source="", level=None),
    # The time of the lines after it, as Oracle's alert log has it; never a row of a CSV file.
    Pattern(_ALONE, "{stamp}", "log", message=""),
)


FORM = PatternFormat(
    "applog",
    __doc__,
    PATTERNS,
    "a line that continues another",
    Traits(begins=_BEGINS, continues=_CONTINUES, prose=True, by_line=True),
    rivals=programs.PROGRAMS,
)
