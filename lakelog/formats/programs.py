"""The logs of single programs that no common style covers, each declared by its lines.

BIND 9, CouchDB, FreeSWITCH, Gin, AWS Lambda, MySQL's general log, OpenStack, vaultwarden, vsftpd,
the cluster nodes of HPC, and programs under docker compose.
"""

from __future__ import annotations

from lakelog.formats.line_starts import SLOW_QUERY, SLOW_TIME
from lakelog.formats.pattern import (
    CLOCK,
    MESSAGE,
    MONTH,
    REST,
    STATUS,
    WORD,
    Level,
    Pattern,
    graded,
)
from lakelog.formats.pattern_format import program
from lakelog.formats.zones import TZ

_WORDS = "trace debug info notice warn warning error err severe fatal critical crit alert emergency"
LEVEL = "|".join(f"{w.upper()}|{w}|{w.title()}" for w in _WORDS.split())
ZONE = r"(?:Z|[+-]\d\d:?\d\d)"
DATE = r"\d{4}-\d\d-\d\d"
_LOCAL = rf"(?P<stamp>{DATE}[ T]\d\d:\d\d:\d\d(?:[.,]\d{{1,9}})?)"
STAMP = rf"(?P<stamp>{DATE}[ T]\d\d:\d\d:\d\d(?:[.,]\d{{1,9}})?{ZONE}?)"
CTIME = rf"[A-Z][a-z][a-z] {MONTH} +(?P<day>\d{{1,2}}) {CLOCK} (?P<year>\d{{4}})"
CTIME_ISO = "{year}-{mon}-{day}T{clock}"
UNTIMED = "-"
ANY_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_SHORT_DAY = r"(?P<yy>\d\d)(?P<month>\d\d)(?P<day>\d\d)"
_COMMAND = r"\t *(?P<thread>\d+) (?P<command>[A-Z][A-Za-z]*(?: [A-Za-z]+)*)(?:\t(?P<message>.*))?"


def record(
    regex: str,
    *data: str,
    time: str = "{stamp}",
    type: str = "log",
    level: Level | None = WORD,
    message: str = "message",
    source: str = "",
    subject: str = "",
    numbers: tuple[str, ...] = (),
    dashes: tuple[str, ...] = (),
    doubled: tuple[str, ...] = (),
) -> Pattern:
    """A line whose payload is the groups `data`."""
    # Keyword defaults for logs of programs: most declarations below differ from them in one or two.
    return Pattern(
        regex,
        time,
        type,
        level,
        message=message,
        source=source,
        subject=subject,
        data=data,
        numbers=numbers,
        dashes=dashes,
        doubled=doubled,
    )


_NAMED = graded(
    {
        "critical": "FATAL",
        "error": "ERROR",
        "warning": "WARN",
        "notice": "INFO",
        "info": "INFO",
        **{f"debug {n}": "DEBUG" for n in range(100)},
    }
)
_NAMED_LEVEL = r"(?:critical|error|warning|notice|info|debug \d{1,2})"
_NAMED_TIMES = (
    (rf"(?P<day>\d\d)-{MONTH}-(?P<year>\d{{4}}) {CLOCK}", "{year}-{mon}-{day}T{clock}"),
    (STAMP, "{stamp}"),
)
_CATEGORY = (
    r"(?:client|cname|config|database|default|delegation-only|dispatch|dnssec|dnstap|edns-disabled"
    "|general|lame-servers|network|notify|nsid|queries|query-errors|rate-limit|resolver|responses"
    "|rpz|rpz-passthru|security|serve-stale|spill|sslkeylog|trust-anchor-telemetry|unmatched"
    "|update|update-security|xfer-in|xfer-out|zoneload)"
)
_QUERY = (
    rf"(?:(?P<category>{_CATEGORY}): )?(?:(?P<level>{_NAMED_LEVEL}): )?(?P<message>client"
    r" (?:@0x[0-9a-f]+ )?(?P<client>[^ #]+)#(?P<port>\d{1,5}) \([^)]*\):"
    r" (?:view (?P<view>[^ :]+): )?query: (?P<name>[^ ]+) (?P<class>[^ ]+) (?P<record>[^ ]+)"
    r" (?P<flags>[+-][^ ]*)(?: \((?P<server>[^)]*)\))?.*)"
)
BIND = program(
    "bind",
    "BIND 9: query logs and named's own log files.",
    rf"(?:\d\d-[A-Z][a-z][a-z]-\d{{4}} |{DATE}T)\d\d:\d\d:\d\d(?:\.\d{{1,9}})?{ZONE}?"
    rf" (?:(?:[a-z][a-z-]*: )?{_NAMED_LEVEL}:|{_CATEGORY}: |client [@\d:a-f])",
    tuple(
        line
        for stamp, time in _NAMED_TIMES
        for line in (
            record(
                f"{stamp} {_QUERY}",
                "client",
                "port",
                "view",
                "name",
                "class",
                "record",
                "flags",
                "server",
                time=time,
                type="query",
                level=_NAMED,
                source="category",
                subject="name",
                numbers=("port",),
            ),
            record(
                rf"{stamp} (?:(?P<category>[a-z][a-z-]*): )?(?P<level>{_NAMED_LEVEL}):{REST}",
                time=time,
                level=_NAMED,
                source="category",
            ),
            record(
                rf"{stamp} (?P<category>{_CATEGORY}):{REST}",
                time=time,
                level=None,
                source="category",
            ),
            record(rf"{stamp} (?P<message>client .*)", time=time, level=None),
        )
    ),
)
"""named's own files with print-time, perhaps with print-severity and print-category; `source` is
the category, `subject` the name that was asked for."""

_COUCH = rf"\[(?P<level>{LEVEL})\] {STAMP} (?P<node>[^ @]+@[^ ]+) (?P<pid><[\d.]+>|[\w-]+)"
COUCHDB = program(
    "couchdb",
    "CouchDB 1, 2 and 3.",
    rf"\[(?:{LEVEL})\] {DATE}T[^ ]+ [^ @]+@[^ ]+ [<\w-]"
    rf"|\[[A-Z][a-z][a-z], \d\d {ANY_MONTH} \d{{4}} ",
    (
        record(
            rf"{_COUCH} (?P<request_id>[0-9a-f]{{10}}) (?P<host>[^ ]+) (?P<client>[^ ]+)"
            r" (?P<user>[^ ]+) (?P<request>(?P<method>[A-Z]+) (?P<path>[^ ]+))"
            r" (?P<status>\d{3}) (?P<result>[^ ]+) (?P<duration_ms>\d{1,18})",
            "pid",
            "request_id",
            "host",
            "client",
            "user",
            "method",
            "path",
            "status",
            "result",
            "duration_ms",
            type="access",
            message="request",
            source="node",
            numbers=("status", "duration_ms"),
        ),
        record(
            rf"{_COUCH} (?:-{{8}}|(?P<request_id>[0-9a-f]{{10}})){REST}",
            "pid",
            "request_id",
            source="node",
        ),
        record(
            rf"\[[A-Z][a-z][a-z], (?P<day>\d\d) {MONTH} (?P<year>\d{{4}}) {CLOCK} {TZ}\]"
            rf" \[(?P<level>{LEVEL})\] \[(?P<pid><[\d.]+>)\]{REST}",
            "pid",
            time="{year}-{mon}-{day}T{clock}{tz}",
        ),
    ),
)
"""CouchDB 2 and 3, whose `source` is the node, and 1."""

_SWITCH = graded(
    {
        "CONSOLE": "INFO",
        "ALERT": "FATAL",
        "CRIT": "FATAL",
        "ERR": "ERROR",
        "WARNING": "WARN",
        "NOTICE": "INFO",
        "INFO": "INFO",
        "DEBUG": "DEBUG",
    }
)
FREESWITCH = program(
    "freeswitch",
    "FreeSWITCH.",
    rf"(?:[0-9a-f]{{8}}-[0-9a-f-]{{27}} )?{DATE} \d\d:\d\d:\d\d\.\d{{6}}(?: \d+\.\d+%)?"
    r" \[[A-Z]+\] [\w./-]+:\d+(?: |$)",
    (
        record(
            rf"(?:(?P<session>[0-9a-f]{{8}}-[0-9a-f-]{{27}}) )?{STAMP}(?: (?P<idle>\d+\.\d+)%)?"
            r" \[(?P<level>CONSOLE|ALERT|CRIT|ERR|WARNING|NOTICE|INFO|DEBUG)\]"
            rf" (?P<source>[\w./-]+:\d+){REST}",
            "session",
            "idle",
            source="source",
            level=_SWITCH,
        ),
    ),
)
"""FreeSWITCH; `source` is the place in its code, `idle` how many percent of the time it idled."""

GIN = program(
    "gin",
    "Gin, the web framework for Go.",
    r"\[GIN(?:-debug)?\] ",
    (
        record(
            r"\[GIN\] (?P<year>\d{4})/(?P<month>\d\d)/(?P<day>\d\d) - (?P<clock>\d\d:\d\d:\d\d) +\|"
            r" *(?P<status>\d{3}) *\| *(?P<latency>[^ |]+) *\| *(?P<client>[^ |]+) *\|"
            r' *(?P<request>(?P<method>[A-Z]+) +"?(?P<path>[^ "?]+)(?:\?(?P<query>[^ "]*))?"?)',
            "status",
            "latency",
            "client",
            "method",
            "path",
            "query",
            time="{year}-{month}-{day}T{clock}",
            type="access",
            level=STATUS,
            message="request",
            numbers=("status",),
        ),
        record(rf"\[GIN-debug\](?: \[(?P<level>WARNING|ERROR)\])?{REST}", time=UNTIMED),
    ),
)
"""The web framework of Go: requests, and what it says as it starts."""

HPC = program(
    "hpc",
    "Node events of HPC clusters at Los Alamos.",
    r"\d+ [^ ]+ [^ ]+ [^ ]+ \d{10} \d ",
    (
        record(
            r"(?P<log_id>\d+) (?P<node>[^ ]+) (?P<component>[^ ]+) (?P<state>[^ ]+)"
            rf" (?P<stamp>\d{{10}}) (?P<flag>\d) {MESSAGE}",
            "log_id",
            "node",
            "state",
            "flag",
            level=None,
            source="component",
            subject="node",
        ),
    ),
)
"""Events of a cluster's nodes (HPC at Los Alamos): `source` is the component."""

_ASKS = (
    "Binlog Dump|Change user|Close stmt|Connect(?: Out)?|Create DB|Daemon|Debug|Drop DB|Execute"
    "|Fetch|Field List|Init DB|Kill|Long Data|Ping|Prepare|Processlist|Query|Quit|Refresh"
    "|Register Slave|Reset stmt|Set option|Shutdown|Sleep|Statistics|Table Dump|Time"
)
MYSQL = program(
    "mysql-general",
    "The general query log of MySQL and MariaDB.",
    rf"(?:{DATE}T\d\d:\d\d:\d\d\.\d{{6}}{ZONE}|\d{{6}} [ \d]\d:\d\d:\d\d)\t *\d+ [A-Z][A-Za-z ]+"
    rf"(?:[\t\r\n]|$)|(?:\t\t)? *\d+ (?:{_ASKS})(?:[\t\r\n]|$)"
    rf"|[^ ]+, Version: [^ ]+ .*\. started with:|{SLOW_QUERY}",
    (
        record(rf"{STAMP}{_COMMAND}", "thread", "command", type="query", level=None),
        record(
            rf"{_SHORT_DAY} +(?P<hour>\d\d?):(?P<minute>\d\d:\d\d){_COMMAND}",
            "thread",
            "command",
            time="20{yy}-{month}-{day}T{hour}:{minute}",
            type="query",
            level=None,
        ),
        record(
            rf"(?P<thread>\d+) (?P<command>{_ASKS})(?:\t(?P<message>.*))?",
            "thread",
            "command",
            time=UNTIMED,
            type="query",
            level=None,
        ),
        record(
            r"(?P<message>(?P<program>[^ ]+), Version: (?P<version>[^ ]+) .*\. started with:)",
            "program",
            "version",
            time=UNTIMED,
            level=None,
        ),
    ),
    leads=SLOW_TIME,
)
"""What clients ask of MySQL and MariaDB; statements may take several lines. Of several within one
second the first has the time, and two tabs stand before the others. A log of slow queries begins as
this one does, and may be taken for one as long as there is no query."""

_OSLO = graded(
    {
        "TRACE": "TRACE",
        "DEBUG": "DEBUG",
        "INFO": "INFO",
        "AUDIT": "INFO",
        "WARNING": "WARN",
        "WARN": "WARN",
        "ERROR": "ERROR",
        "CRITICAL": "FATAL",
    }
)
_OSLO_LEVEL = "TRACE|DEBUG|INFO|AUDIT|WARNING|WARN|ERROR|CRITICAL"
OPENSTACK = program(
    "openstack",
    "Services of OpenStack.",
    rf"(?:[\w.-]+\.log[\w.:-]* )?{DATE} \d\d:\d\d:\d\d\.\d{{3}} \d+ (?:{_OSLO_LEVEL})"
    r" [\w.-]+ \[(?:-?\]|None |req-|[0-9a-f-]+ )",
    (
        record(
            rf"(?:(?P<file>[\w.-]+\.log[\w.:-]*) )?{STAMP} (?P<pid>\d+) (?P<level>{_OSLO_LEVEL})"
            r" (?P<source>[\w.-]+) \[(?P<context>[^\]]*)\](?: \[instance: (?P<instance>[^\]]*)\])?"
            rf"{REST}",
            "file",
            "pid",
            "context",
            "instance",
            level=_OSLO,
            source="source",
            subject="instance",
            dashes=("context",),
        ),
    ),
)
"""Services of OpenStack, perhaps with the name of their file before each line; `subject` is the
instance, `context` the request with its user and project."""

VAULTWARDEN = program(
    "vaultwarden",
    "vaultwarden.",
    rf"\[{DATE} \d\d:\d\d:\d\d(?:\.\d{{1,9}})?\]\[[A-Za-z_][\w:.-]*\]\[(?:{LEVEL})\]",
    (
        record(
            rf"\[{STAMP}\]\[(?P<source>[A-Za-z_][\w:.-]*)\]\[(?P<level>{LEVEL})\]{REST}",
            source="source",
        ),
    ),
)

_RUN = r"(?P<request_id>[0-9a-z]{8}-[0-9a-z]{4}-[0-9a-z]{4}-[0-9a-z]{4}-[0-9a-z]{12})"
_INSTANT = rf"{DATE}T\d\d:\d\d:\d\d\.\d{{3,9}}Z"
LAMBDA = program(
    "aws-lambda",
    "AWS Lambda functions, exported from CloudWatch to S3.",
    rf"{_INSTANT} (?:(?:START|END|REPORT) RequestId: |INIT_START Runtime Version: "
    rf"|{_INSTANT}\t[0-9a-z-]{{36}}\t|\[(?:{LEVEL})\]\t{_INSTANT}\t)",
    (
        record(
            rf"(?P<stamp>{_INSTANT}) (?P<message>(?P<phase>START|END|REPORT) RequestId: {_RUN}.*)",
            "phase",
            "request_id",
            level=None,
        ),
        record(
            rf"(?P<stamp>{_INSTANT}) (?P<message>(?P<phase>INIT_START) .*)", "phase", level=None
        ),
        record(
            rf"{_INSTANT} (?P<stamp>{_INSTANT})\t{_RUN}\t(?P<level>{LEVEL})\t{MESSAGE}",
            "request_id",
        ),
        record(
            rf"{_INSTANT} \[(?P<level>{LEVEL})\]\t(?P<stamp>{_INSTANT})\t{_RUN}\t{MESSAGE}",
            "request_id",
        ),
    ),
)
"""What Lambda says of each run, and the lines of its runtimes for Node.js and Python."""

_FTP = graded({"OK": "INFO", "FAIL": "WARN"})
_XFER = graded({"c": "INFO", "i": "WARN"})
_FTP_DATA = ("pid", "user", "result", "action", "client", "path", "bytes", "rate")
VSFTPD = program(
    "vsftpd",
    "vsftpd, and transfer logs in the style of wu-ftpd.",
    rf"[A-Z][a-z][a-z] {ANY_MONTH} +\d{{1,2}} \d\d:\d\d:\d\d \d{{4}}"
    r" (?:\[pid \d+\] |\d+ [^ ]+ \d+ /)",
    (
        record(
            rf"{CTIME} \[pid (?P<pid>\d+)\] (?P<message>(?:\[(?P<user>[^\]]*)\] )?"
            r'(?P<action>FTP (?:command|response)): Client "(?P<client>[^"]*)", "(?P<text>.*)")',
            "pid",
            "user",
            "action",
            "client",
            "text",
            time=CTIME_ISO,
            level=None,
        ),
        record(
            rf"{CTIME} \[pid (?P<pid>\d+)\] (?P<message>(?:\[(?P<user>[^\]]*)\] )?"
            r'(?:(?P<result>OK|FAIL) )?(?P<action>[A-Z][A-Za-z ]*): Client "(?P<client>[^"]*)"'
            r'(?:, "(?P<path>[^"]*)")?(?:, (?P<bytes>\d{1,18}) bytes)?'
            r"(?:, (?P<rate>[\d.]+Kbyte/sec))?.*)",
            *_FTP_DATA,
            time=CTIME_ISO,
            level=Level("result", _FTP.sql, _FTP.of),
            subject="path",
            numbers=("bytes",),
        ),
        record(rf"{CTIME} \[pid (?P<pid>\d+)\]{REST}", "pid", time=CTIME_ISO, level=None),
        record(
            rf"{CTIME} (?P<duration_s>\d{{1,18}}) (?P<client>[^ ]+) (?P<bytes>\d{{1,18}})"
            r" (?P<path>[^ ]+) (?P<mode>[ab]) (?P<special>[CUT_]+) (?P<direction>[oid])"
            r" (?P<access>[agr]) (?P<user>[^ ]+) (?P<service>[^ ]+) (?P<authentication>[01])"
            r" (?P<authenticated>[^ ]+) (?P<completion>[ci])",
            "duration_s",
            "client",
            "bytes",
            "path",
            "mode",
            "special",
            "direction",
            "access",
            "user",
            "service",
            "authentication",
            "authenticated",
            "completion",
            time=CTIME_ISO,
            type="access",
            message="path",
            subject="path",
            level=Level("completion", _XFER.sql, _XFER.of),
            numbers=("duration_s", "bytes"),
            dashes=("authenticated",),
        ),
    ),
)
"""vsftpd, and the transfers that it and others log as wu-ftpd did; `subject` is the file."""

_SERVICE = r"(?P<service>[\w.-]+) +\| +"
COMPOSE = program(
    "compose",
    "Programs under docker compose that log a time of their own.",
    rf"[\w.-]+ +\| +\[?{DATE}(?: \d\d:\d\d:\d\d|T\d\d:\d\d:\d\d,)",
    (
        record(
            rf"{_SERVICE}{STAMP} - (?P<logger>[^ ]+) - (?P<level>{LEVEL}) -{REST}",
            "logger",
            source="service",
        ),
        record(
            rf"{_SERVICE}\[{STAMP}\] (?P<level>{LEVEL}) in (?P<logger>[\w.]+):{REST}",
            "logger",
            source="service",
        ),
        record(
            rf"{_SERVICE}\[?{STAMP}\]?:? +\[?(?P<level>{LEVEL})\]?:?"
            rf"(?: +(?P<logger>\w+(?:\.\w+)+):?)?{REST}",
            "logger",
            source="service",
        ),
        record(
            rf"{_SERVICE}\[?{_LOCAL} {TZ}\]?:? +\[?(?P<level>{LEVEL})\]?:?{REST}",
            "tz",
            time="{stamp}{tz}",
            source="service",
        ),
        record(
            rf"{_SERVICE}\[?{_LOCAL} {TZ}\]?:?{REST}",
            "tz",
            time="{stamp}{tz}",
            level=None,
            source="service",
        ),
        record(rf"{_SERVICE}\[?{STAMP}\]?{REST}", level=None, source="service"),
    ),
)
"""Programs under docker compose that say the time themselves; `source` is the service."""

PROGRAMS = (
    BIND,
    COUCHDB,
    FREESWITCH,
    GIN,
    HPC,
    LAMBDA,
    MYSQL,
    OPENSTACK,
    VAULTWARDEN,
    VSFTPD,
    COMPOSE,
)
"""All of them; no two are sure of the same line."""
