"""Layouts that daemons and devices give their lines, each declared by its lines.

Erlang's reports, apt's history, fail2ban, ClickHouse and SonarQube, macOS, Cisco, Samba,
PostgreSQL's csvlog, Suricata and Snort, CloudFront and Exchange without their headers, multilog,
and what begins with a date as C's ctime gives it or with seconds.
"""

from __future__ import annotations

from lakelog.formats.pattern import CLOCK, MESSAGE, MONTH, PRI, REST, STATUS, Level, graded
from lakelog.formats.pattern_format import program
from lakelog.formats.programs import (
    ANY_MONTH,
    CTIME,
    CTIME_ISO,
    DATE,
    LEVEL,
    STAMP,
    UNTIMED,
    ZONE,
    record,
)
from lakelog.formats.zones import TZ

_TIMED = rf"{DATE}[ T]\d\d:\d\d:\d\d(?:[.,]\d{{1,9}})?{ZONE}?"
"""How a date and a time begin a line, without groups."""
_SLASHED = r"(?P<year>\d{4})/(?P<month>\d\d)/(?P<day>\d\d)"
_SLASHED_TIME = "{year}-{month}-{day}T{clock}"
_DAY_TIME = "{year}-{mon}-{day}T{clock}"
_LEVELLED = rf"(?P<level>{LEVEL})"

FAIL2BAN = program(
    "fail2ban",
    "fail2ban.",
    rf"{_TIMED} fail2ban\.[\w.]+ +\[\d+\]: ",
    (
        record(
            rf"{STAMP} (?P<source>fail2ban\.[\w.]+) +\[(?P<pid>\d+)\]: {_LEVELLED}"
            r"(?: +\[(?P<jail>[^\]]+)\])?(?: +(?P<message>.*))?",
            "pid",
            "jail",
            source="source",
            subject="jail",
        ),
    ),
)
"""`subject` is the jail."""

_CLICKHOUSE = graded(
    {
        "Fatal": "FATAL",
        "Critical": "FATAL",
        "Error": "ERROR",
        "Warning": "WARN",
        "Notice": "INFO",
        "Information": "INFO",
        "Debug": "DEBUG",
        "Trace": "TRACE",
        "Test": "TRACE",
    }
)
_DOTTED = r"(?P<year>\d{4})\.(?P<month>\d\d)\.(?P<day>\d\d)"
CLICKHOUSE = program(
    "clickhouse",
    "ClickHouse and SonarQube, whose dates have dots.",
    r"\d{4}\.\d\d\.\d\d \d\d:\d\d:\d\d",
    (
        record(
            rf"{_DOTTED} {CLOCK} \[ (?P<thread>\d+) \] \{{(?P<query_id>[^}}]*)\}} <(?P<level>Fatal"
            r"|Critical|Error|Warning|Notice|Information|Debug|Trace|Test)>"
            rf" (?P<source>[^ :]+(?: \([^)]*\))?):{REST}",
            "thread",
            "query_id",
            time=_SLASHED_TIME,
            source="source",
            level=_CLICKHOUSE,
        ),
        record(
            rf"{_DOTTED} {CLOCK} {_LEVELLED} +(?P<process>\w+)\[(?P<request>[^\]]*)\]"
            rf"\[(?P<source>[^\]]*)\]{REST}",
            "process",
            "request",
            time=_SLASHED_TIME,
            source="source",
        ),
        record(rf"{_DOTTED} {CLOCK}(?: +\[?{_LEVELLED}\]?:?)?{REST}", time=_SLASHED_TIME),
    ),
)

_MAC = graded(
    {"Default": "INFO", "Info": "INFO", "Debug": "DEBUG", "Error": "ERROR", "Fault": "FATAL"}
)
MACOS = program(
    "macos",
    "The unified log of macOS as `log show` prints it.",
    rf"{_TIMED} +0x[0-9a-f]+ +[A-Z][a-z]+ +0x[0-9a-f]+ +\d+ ",
    (
        record(
            rf"{STAMP} +0x(?P<thread>[0-9a-f]+) +(?P<level>Default|Info|Debug|Error|Fault)"
            r" +0x(?P<activity>[0-9a-f]+) +(?P<pid>\d+) +(?P<ttl>\d+) +(?P<source>[^:]+):"
            r"(?: \((?P<library>[^)]+)\))?(?: \[(?P<subsystem>[^\]:]+):(?P<category>[^\]]+)\])?"
            rf"{REST}",
            "thread",
            "activity",
            "pid",
            "ttl",
            "library",
            "subsystem",
            "category",
            source="source",
            level=_MAC,
        ),
    ),
)

_GRAVE = graded(
    dict(
        zip(
            "01234567",
            ("FATAL", "FATAL", "FATAL", "ERROR", "WARN", "INFO", "INFO", "DEBUG"),
            strict=True,
        )
    )
)
_CISCO_TAG = (
    r" ?: ?%(?P<source>[A-Z][A-Z0-9_]*(?:-[A-Z0-9_]*[A-Z_][A-Z0-9_]*)*(?:-[a-z]+)?)"
    rf"-(?P<level>[0-7])-(?P<mnemonic>[A-Z0-9_]+):{REST}"
)
_CISCO_HEAD = r"(?:(?P<serial>\d+): )?(?:(?P<sender>[^ :%]+): )?[*.]?"
_CISCO_DAY = rf"{MONTH} +(?P<day>\d{{1,2}})"
_CISCO_HOST = r"(?: (?P<host>[^ :%]+))?"
CISCO = program(
    "cisco",
    "Cisco's IOS, NX-OS and ASA.",
    rf"(?:<\d{{1,3}}>)?:? ?(?:\d+: )?(?:[^ :%]+: )?[*.]?(?:(?:\d{{4}} )?{ANY_MONTH} +\d{{1,2}}"
    r" (?:\d{4} )?\d\d:\d\d:\d\d(?:\.\d{1,9})?(?: [A-Z]{2,5})?(?: [^ :%]+)? ?:? ?%[A-Z]"
    r"|(?:\d+:\d\d:\d\d|\d+[ywd]\d+[wdh]): %[A-Z])",
    (
        *(
            record(
                rf"(?:{PRI})?:? ?{_CISCO_HEAD}{year}{CLOCK}{zone}"
                rf"{_CISCO_HOST}{_CISCO_TAG.replace(' ?: ?%', tag)}",
                "pri",
                "serial",
                "sender",
                "host",
                "mnemonic",
                *names,
                time=begin + "{mon}-{day}T{clock}" + end,
                level=_GRAVE,
                source="source",
                numbers=("pri",),
            )
            for year, begin in (
                (rf"{_CISCO_DAY} (?P<year>\d{{4}}) ", "{year}-"),
                (rf"(?P<year>\d{{4}}) {_CISCO_DAY} ", "{year}-"),
                (rf"{_CISCO_DAY} ", "?-"),
            )
            for zone, names, end in ((rf" {TZ}", ("tz",), "{tz}"), ("", (), ""))
            for tag in (" ?: ?%", " %")
        ),
        record(
            rf"(?:{PRI})?:? ?{_CISCO_HEAD}(?P<uptime>\d+:\d\d:\d\d|\d+[ywd]\d+[wdh])"
            + _CISCO_TAG.replace(" ?: ?%", ": %"),
            "pri",
            "serial",
            "sender",
            "uptime",
            "mnemonic",
            time=UNTIMED,
            level=_GRAVE,
            source="source",
            numbers=("pri",),
        ),
    ),
)
"""`source` is the facility, `mnemonic` the kind of message; a clock that nobody set tells only how
long the device is up."""

_SAMBA = graded({"0": "ERROR", "1": "WARN", "2": "INFO", **{str(n): "DEBUG" for n in range(3, 11)}})
SAMBA = program(
    "samba",
    "Samba's logs and what it says of authentications.",
    r"\[\d{4}/\d\d/\d\d \d\d:\d\d:\d\d(?:\.\d{1,9})?, +\d+|(?:Auth|Authorization): \[",
    (
        record(
            rf"\[{_SLASHED} {CLOCK}, +(?P<level>\d|10)(?:, pid=(?P<pid>\d+)"
            r"(?:, (?P<context>[^\]]*))?)?\] (?P<source>[^ (]+:\d+)"
            r"\((?P<function>[^)]*)\)(?: +(?P<message>.*))?",
            "pid",
            "context",
            "function",
            time=_SLASHED_TIME,
            level=_SAMBA,
            source="source",
        ),
        record(
            r"(?P<message>Auth: \[(?P<service>[^\]]*)\] user \[(?P<domain>[^\]]*)\]\\"
            r"\[(?P<user>[^\]]*)\] at \[[A-Z][a-z][a-z], (?P<day>\d\d) "
            rf"{MONTH} (?P<year>\d{{4}}) {CLOCK} {TZ}\] with \[(?P<method>[^\]]*)\]"
            r" status \[(?P<status>[^\]]*)\](?: workstation \[(?P<workstation>[^\]]*)\])?"
            r"(?: remote host \[(?P<client>[^\]]*)\])?.*)",
            "service",
            "domain",
            "user",
            "method",
            "status",
            "workstation",
            "client",
            "tz",
            time=_DAY_TIME + "{tz}",
            type="auth",
            source="service",
            subject="user",
            level=Level(
                "status",
                lambda t: f"CASE WHEN {t} = 'NT_STATUS_OK' THEN 'INFO' ELSE 'WARN' END",
                lambda t: "INFO" if t == "NT_STATUS_OK" else "WARN",
            ),
        ),
        record(
            r"(?P<message>Authorization: .* at \[[A-Z][a-z][a-z], (?P<day>\d\d) "
            rf"{MONTH} (?P<year>\d{{4}}) {CLOCK} {TZ}\].*)",
            "tz",
            time=_DAY_TIME + "{tz}",
            type="auth",
            level=None,
        ),
    ),
)
"""The level is the depth of debugging at which a line is written."""

_PG = graded(
    {
        **{f"DEBUG{n}": "DEBUG" for n in range(1, 6)},
        "LOG": "INFO",
        "INFO": "INFO",
        "NOTICE": "INFO",
        "WARNING": "WARN",
        "ERROR": "ERROR",
        "FATAL": "FATAL",
        "PANIC": "FATAL",
    }
)
_CELL = r'"(?:[^"]|"")*"'
POSTGRES_CSV = program(
    "postgres-csv",
    "PostgreSQL's csvlog.",
    rf"{DATE} \d\d:\d\d:\d\d\.\d{{3}} [A-Z+0-9-]+,(?:{_CELL})?,(?:{_CELL})?,\d*,",
    (
        record(
            rf'(?P<date>{DATE}) {CLOCK} {TZ},(?:"(?P<user>[^"]*)")?,(?:"(?P<database>[^"]*)")?,'
            r'(?P<pid>\d*),(?:"(?P<client>[^"]*)")?,(?P<session>[^,]*),(?P<line>\d*),'
            r'(?:"(?P<command>[^"]*)")?,(?P<begun>[^,]*),(?P<virtual>[^,]*),(?P<transaction>\d*),'
            r"(?P<level>DEBUG[1-5]|LOG|INFO|NOTICE|WARNING|ERROR|FATAL|PANIC),(?P<code>[^,]*)"
            r',(?:"(?P<message>(?:[^"]|"")*)"?)?(?:,(?P<more>.*))?',
            "user",
            "database",
            "pid",
            "client",
            "session",
            "line",
            "command",
            "begun",
            "virtual",
            "transaction",
            "code",
            "more",
            "tz",
            time="{date}T{clock}{tz}",
            level=_PG,
            source="database",
            doubled=("message",),
        ),
    ),
)
"""`more` holds the columns after the message, as they stand in the file."""

SURICATA = program(
    "suricata-fast",
    "Alerts of Suricata and Snort, a line each.",
    r"\d\d/\d\d(?:/\d{4})?-\d\d:\d\d:\d\d\.\d{6} +\[",
    tuple(
        record(
            rf"(?P<month>\d\d)/(?P<day>\d\d){year}-{CLOCK} +(?:\[(?P<action>\w+)\] +)?\[\*\*\]"
            r" +\[(?P<signature>[\d:]+)\] (?P<message>.*?) +\[\*\*\]"
            r"(?: \[Classification: (?P<class>[^\]]*)\])?(?: \[Priority: (?P<level>[1-9])\])?"
            r" \{(?P<protocol>[^}]*)\} (?P<from>[^ ]+) -> (?P<to>[^ ]+)",
            "action",
            "signature",
            "class",
            "protocol",
            "from",
            "to",
            time=time,
            type="alert",
            level=graded(dict(zip("123456789", ("ERROR", "WARN", *("INFO",) * 7), strict=True))),
        )
        for year, time in ((r"/(?P<year>\d{4})", _SLASHED_TIME), ("", "?-{month}-{day}T{clock}"))
    ),
)

_CLOUDFRONT = (
    "edge_location",
    "bytes",
    "client",
    "method",
    "host",
    "path",
    "status",
    "referer",
    "agent",
    "query",
    "cookie",
    "result",
    "request_id",
    "host_header",
    "protocol",
    "received",
    "duration_s",
    "forwarded",
    "tls",
    "cipher",
    "response_result",
    "http_version",
)
_FRONT_NUMBERS = ("bytes", "status", "received")
_WHOLE, _ANY = r"\d{1,18}|-", r"[^\t]*"
CLOUDFRONT = program(
    "cloudfront",
    "Access logs of CloudFront whose header is gone.",
    r"\d{4}-\d\d-\d\d\t\d\d:\d\d:\d\d\t",
    (
        record(
            rf"(?P<date>{DATE})\t(?P<clock>\d\d:\d\d:\d\d)\t"
            + r"\t".join(
                rf"(?P<{name}>\d{{3}})"  # else its level would be that of no status
                if name == "status"
                else f"(?P<{name}>{_WHOLE if name in _FRONT_NUMBERS else _ANY})"
                for name in _CLOUDFRONT
            )
            + r"(?:\t(?P<more>.*))?",
            *_CLOUDFRONT,
            "more",
            time="{date}T{clock}Z",
            type="access",
            message="path",
            level=STATUS,
            numbers=_FRONT_NUMBERS,
            dashes=_CLOUDFRONT,
        ),
        record(
            rf"(?P<date>{DATE})\t(?P<clock>\d\d:\d\d:\d\d)\t{MESSAGE}",
            time="{date}T{clock}Z",
            level=None,
        ),
    ),
)

EXCHANGE = program(
    "exchange",
    "Protocol logs of Exchange whose header is gone.",
    rf"{DATE}T\d\d:\d\d:\d\d\.\d{{3}}Z,[^,]*,[0-9A-F]{{16}},\d+,",
    (
        record(
            rf"(?P<stamp>{DATE}T\d\d:\d\d:\d\d\.\d{{3}}Z),(?P<connector>[^,]*),"
            r"(?P<session>[0-9A-F]{16}),(?P<number>\d{1,18}),"
            r'(?P<local>[^,]*),(?P<remote>[^,]*),(?P<event>[^,]*),(?:"(?P<text>[^"]*)"|'
            r"(?P<message>[^,]*)),(?P<context>.*)",
            "session",
            "number",
            "local",
            "remote",
            "event",
            "text",
            "context",
            level=None,
            source="connector",
            numbers=("number",),
        ),
    ),
)

TAI64N = program(
    "tai64n",
    "multilog, svlogd and s6-log: labels of TAI64N.",
    r"@[0-9a-f]{24} ",
    (record(rf"@(?P<tai>[0-9a-f]{{24}}) {MESSAGE}", time="{tai}", level=None),),
)

_CTIME_LEVELS = graded(
    {
        "Info": "INFO",
        "Error": "ERROR",
        "Warning": "WARN",
        "Debug": "DEBUG",
        "Auth": "INFO",
        "Proxy": "INFO",
    }
)
_DAYS = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
CTIMED = program(
    "ctime",
    "OpenVPN, FreeRADIUS, dmesg -T and others with dates as C's ctime gives them.",
    rf"{_DAYS} {ANY_MONTH} +\d{{1,2}} \d\d:\d\d:\d\d \d{{4}} (?:us=|: |[A-Za-z]|\d+\.)"
    rf"|\[{_DAYS} {ANY_MONTH} +\d{{1,2}} \d\d:\d\d:\d\d \d{{4}}\] [^\[]",
    (
        record(rf"{CTIME} us=(?P<micros>\d{{1,6}}){REST}", "micros", time=CTIME_ISO, level=None),
        record(
            rf"{CTIME} : (?P<level>Info|Error|Warning|Debug|Auth|Proxy):{REST}",
            time=CTIME_ISO,
            level=_CTIME_LEVELS,
        ),
        record(rf"{CTIME}(?: :)? {MESSAGE}", time=CTIME_ISO, level=None),
        record(
            rf"\[{CTIME}\](?: (?P<source>[\w-]+(?: [\w.:-]+)?):)?{REST}",
            time=CTIME_ISO,
            level=None,
            source="source",
        ),
    ),
)

EPOCHAL = program(
    "epoch",
    "Unbound, Mosquitto and others that begin with the seconds of Unix.",
    r"\[\d{10}(?:\.\d{1,9})?\] |\d{10}: ",
    (
        record(
            rf"\[(?P<stamp>\d{{10}})\] (?P<source>[\w-]+)\[(?P<pid>\d+)(?::(?P<thread>[^\]]+))?"
            rf"\] {_LEVELLED}:{REST}",
            "pid",
            "thread",
            source="source",
        ),
        record(rf"\[(?P<stamp>\d{{10}}(?:\.\d{{1,9}})?)\] {MESSAGE}", level=None),
        record(rf"(?P<stamp>\d{{10}}): {MESSAGE}", level=None),
    ),
)

ERLANG = program(
    "erlang",
    "Erlang's reports, as RabbitMQ to 3.6 and ejabberd write them: a head and the lines below it.",
    r"=[A-Z]+ REPORT==== \d",
    (
        record(
            rf"=(?P<level>[A-Z]+) REPORT==== (?P<day>\d{{1,2}})-{MONTH}-(?P<year>\d{{4}})"
            rf"::{CLOCK} ==={REST}",
            time=_DAY_TIME,
            level=graded(
                {
                    "DEBUG": "DEBUG",
                    "INFO": "INFO",
                    "PROGRESS": "INFO",
                    "NOTICE": "INFO",
                    "WARNING": "WARN",
                    "ERROR": "ERROR",
                    "SUPERVISOR": "ERROR",
                    "CRASH": "ERROR",
                    "CRITICAL": "FATAL",
                    "ALERT": "FATAL",
                    "EMERGENCY": "FATAL",
                }
            ),
        ),
    ),
)
APT = program(
    "apt-history",
    "apt's history: blocks of a command, the packages that it changed, and its end.",
    r"Start-Date: \d",
    (
        record(
            rf"Start-Date: (?P<date>\d{{4}}-\d\d-\d\d) +{CLOCK}{REST}",
            time="{date}T{clock}",
            level=None,
        ),
    ),
)

DAEMONS = (
    ERLANG,
    APT,
    FAIL2BAN,
    CLICKHOUSE,
    MACOS,
    CISCO,
    SAMBA,
    POSTGRES_CSV,
    SURICATA,
    CLOUDFRONT,
    EXCHANGE,
    TAI64N,
    CTIMED,
    EPOCHAL,
)
"""All of them; no two are sure of the same line."""
