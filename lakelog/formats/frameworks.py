"""Layouts that frameworks give their lines, each declared by its lines.

Spring Boot, Loguru, JBoss, zap and Jenkins, Elasticsearch, spdlog (Envoy), Celery, Airflow, PHP,
Django's server, Cassandra, java.util.logging, .NET, Heroku, logcat, and what tells a time of day.
"""

from __future__ import annotations

from lakelog.formats.pattern import CLOCK, MESSAGE, MONTH, REST, STATUS, WORD, graded
from lakelog.formats.pattern_format import JAVA_LEVEL, program
from lakelog.formats.programs import ANY_MONTH, DATE, LEVEL, STAMP, UNTIMED, ZONE, record
from lakelog.formats.zones import TZ

_TIMED = rf"{DATE}[ T]\d\d:\d\d:\d\d(?:[.,]\d{{1,9}})?{ZONE}?"
"""How a date and a time begin a line, without groups."""
_SLASHED = r"(?P<year>\d{4})/(?P<month>\d\d)/(?P<day>\d\d)"
_SLASHED_TIME = "{year}-{month}-{day}T{clock}"
_DAY = rf"(?P<day>\d\d)-{MONTH}-(?P<year>\d{{4}})"
_DAY_TIME = "{year}-{mon}-{day}T{clock}"
_LEVELLED = rf"(?P<level>{LEVEL})"
_OF_DAY = r"(?P<clock>\d\d:\d\d:\d\d(?:[.,]\d{1,9})?)"

SPRING = program(
    "spring",
    "Applications of Spring Boot.",
    rf"{_TIMED} +[A-Z]+ +(?:\d+|\$\{{[^}}]*\}}) --- \[",
    (
        record(
            rf"{STAMP} +{_LEVELLED} +(?P<pid>\d+) --- (?:\[(?P<application>[^\] ]+)\] )?"
            rf"\[ *(?P<thread>[^\]]*)\](?: \[(?P<trace>[^\]]*)\])? (?P<source>[^ ]+) *:{REST}",
            "pid",
            "application",
            "thread",
            "trace",
            source="source",
        ),
    ),
)
"""`source` is the logger, shortened as Spring does it."""

_LOGURU = graded(
    {
        "TRACE": "TRACE",
        "DEBUG": "DEBUG",
        "INFO": "INFO",
        "SUCCESS": "INFO",
        "WARNING": "WARN",
        "ERROR": "ERROR",
        "CRITICAL": "FATAL",
    }
)
LOGURU = program(
    "loguru",
    "Python's Loguru.",
    rf"{_TIMED} +\| (?:TRACE|DEBUG|INFO|SUCCESS|WARNING|ERROR|CRITICAL) +\| ",
    (
        record(
            rf"{STAMP} +\| (?P<level>TRACE|DEBUG|INFO|SUCCESS|WARNING|ERROR|CRITICAL) +\|"
            rf" (?P<source>[^ :]+):(?P<function>[^ :]+):(?P<line>\d+) -{REST}",
            "function",
            "line",
            source="source",
            level=_LOGURU,
        ),
    ),
)

JBOSS = program(
    "jboss",
    "JBoss, WildFly, Quarkus and Keycloak.",
    rf"(?:{DATE} )?\d\d:\d\d:\d\d,\d{{3}} (?:{LEVEL}) +\[[^\]]+\] \(",
    (
        record(
            rf"{STAMP} {_LEVELLED} +\[(?P<source>[^\]]+)\]"
            r" \((?P<thread>[^()]*(?:\([^()]*\)[^()]*)?)\)"
            rf"{REST}",
            "thread",
            source="source",
        ),
        record(
            rf"{_OF_DAY} {_LEVELLED} +\[(?P<source>[^\]]+)\] \((?P<thread>[^)]*)\){REST}",
            "clock",
            "thread",
            source="source",
            time=UNTIMED,
        ),
    ),
)
"""On a console they have no date."""

_ZAP = graded(
    {
        **{
            word: name
            for name, words in {
                "DEBUG": "DEBUG",
                "INFO": "INFO",
                "WARN": "WARN WARNING",
                "ERROR": "ERROR SEVERE",
                "FATAL": "DPANIC PANIC FATAL",
                "TRACE": "TRACE FINE FINER FINEST CONFIG",
            }.items()
            for upper in words.split()
            for word in (upper, upper.lower())
        }
    }
)
_ZAPPED = (
    "(?P<level>(?:DEBUG|INFO|WARN|WARNING|ERROR|SEVERE|DPANIC|PANIC|FATAL|TRACE|FINE|FINER|FINEST"
    "|CONFIG|debug|info|warn|warning|error|dpanic|panic|fatal|trace))"
)
_CALLER = r"(?:(?P<source>[A-Za-z_][\w./@-]*(?::\d+)?)\t)?"
_NAMED = r"(?P<source>[A-Za-z_][\w.-]*)\t(?P<caller>[\w./@-]+\.go:\d+)\t"
ZAP = program(
    "zap",
    "Go's zap for people, as Caddy and controllers of Kubernetes have it, and Jenkins.",
    rf"(?:{_TIMED}|\d{{4}}/\d\d/\d\d \d\d:\d\d:\d\d(?:\.\d{{1,9}})?)(?: \[id=\d+\])?\t[A-Za-z]+\t",
    (
        record(
            rf"{STAMP} \[id=(?P<thread>\d+)\]\t{_ZAPPED}\t(?P<source>[^ :]+):{REST}",
            "thread",
            source="source",
            level=_ZAP,
        ),
        *(
            record(
                rf"{at}\t{_ZAPPED}\t{who}{MESSAGE}", *data, time=time, source="source", level=_ZAP
            )
            for who, data in ((_NAMED, ("caller",)), (_CALLER, ()))
            for at, time in ((STAMP, "{stamp}"), (rf"{_SLASHED} {CLOCK}", _SLASHED_TIME))
        ),
    ),
)
"""`source` is the logger, else the place in the code; members of an event stay in the message."""

ELASTIC = program(
    "elasticsearch",
    "Elasticsearch, OpenSearch and Logstash.",
    rf"\[{_TIMED}\]\[(?:[A-Z]+ *\]\[|\d+\]\[(?:gc|safepoint))",
    (
        *(
            record(
                rf"\[{STAMP}\]\[{word} *\]\[(?P<source>[^\] ]+) *\]"
                rf"(?: ?\[(?P<node>[^\]]*)\])?(?: ?\[(?P<index>[^\]]*)\])?{REST}",
                "node",
                "index",
                source="source",
                level=level,
            )
            for word, level in (
                (_LEVELLED, WORD),
                ("(?P<level>DEPRECATION)", graded({"DEPRECATION": "WARN"})),
            )
        ),
        record(
            rf"\[{STAMP}\]\[(?P<pid>\d+)\]\[(?P<source>(?:gc|safepoint)[\w,]*) *\]{REST}",
            "pid",
            source="source",
            level=None,
        ),
    ),
)
"""Also what their JVM says of its garbage collection."""

_SPDLOG = graded(
    {
        "trace": "TRACE",
        "debug": "DEBUG",
        "info": "INFO",
        "warning": "WARN",
        "warn": "WARN",
        "error": "ERROR",
        "critical": "FATAL",
        "off": "INFO",
    }
)
SPDLOG = program(
    "spdlog",
    "C++'s spdlog as Envoy has it.",
    rf"\[{_TIMED}\] ?\[\d+\] ?\[[a-z]+\]",
    (
        record(
            rf"\[{STAMP}\] ?\[(?P<thread>\d+)\] ?\[(?P<level>trace|debug|info|warning|warn|error"
            rf"|critical|off)\](?: ?\[(?P<source>[^\]]+)\])?(?: \[(?P<place>[^\]]+:\d+)\])?{REST}",
            "thread",
            "place",
            source="source",
            level=_SPDLOG,
        ),
    ),
)

ENVOY = program(
    "envoy",
    "Access logs of Envoy and Istio.",
    rf'\[{DATE}T[^ \]]+\] "[A-Z-]+ ',
    (
        record(
            r'\[(?P<stamp>[^ \]]+)\] "(?P<request>(?P<method>[A-Z-]+) (?P<path>[^ "]+)'
            r' (?P<protocol>[^"]+))" (?P<status>\d{1,3}) (?P<flags>[^ ]+)'
            r'(?P<details>(?: (?:"[^"]*"|[A-Za-z_][^ "]*|-))*)'
            r" (?P<received>\d{1,18}) (?P<sent>\d{1,18})"
            r' (?P<duration_ms>\d{1,18}) (?P<upstream_ms>\d{1,18}|-) "(?P<forwarded>[^"]*)"'
            r' "(?P<agent>[^"]*)" "(?P<request_id>[^"]*)" "(?P<authority>[^"]*)"'
            r' "(?P<upstream>[^"]*)"(?: (?P<more>.+))?',
            "method",
            "path",
            "protocol",
            "status",
            "flags",
            "details",
            "received",
            "sent",
            "duration_ms",
            "upstream_ms",
            "forwarded",
            "agent",
            "request_id",
            "authority",
            "upstream",
            "more",
            type="access",
            level=STATUS,
            message="request",
            numbers=("status", "received", "sent", "duration_ms", "upstream_ms"),
            dashes=(
                "flags",
                "upstream_ms",
                "forwarded",
                "agent",
                "request_id",
                "authority",
                "upstream",
            ),
        ),
    ),
)

CELERY = program(
    "celery",
    "Workers of Celery.",
    rf"\[{_TIMED}: [A-Z]+/",
    (
        record(
            rf"\[{STAMP}: {_LEVELLED}/(?P<process>[^\]]+)\]"
            r"(?: (?P<source>[\w-]+(?:\.[\w-]+)+\[[0-9a-f-]{36}\]):)?(?: (?P<message>.*))?",
            "process",
            source="source",
        ),
    ),
)

AIRFLOW = program(
    "airflow",
    "Tasks and schedulers of Airflow.",
    rf"\[{DATE}(?:[ T]|, )[^\]]*\] \{{[^}}]*:\d+\}} ",
    (
        record(
            rf"\[{STAMP}\] \{{(?P<source>[^}}:]+):(?P<line>\d+)\}} {_LEVELLED} -{REST}",
            "line",
            source="source",
        ),
        record(
            rf"\[(?P<date>{DATE}), {CLOCK} {TZ}\] \{{(?P<source>[^}}:]+):(?P<line>\d+)\}}"
            rf" {_LEVELLED} -{REST}",
            "line",
            "tz",
            source="source",
            time="{date}T{clock}{tz}",
        ),
    ),
)

_PHP = graded(
    {
        **{
            word: level
            for level, words in {
                "FATAL": "PHP Fatal error|PHP Parse error|PHP Recoverable fatal error|ALERT"
                "|Fatal error",
                "ERROR": "ERROR|PHP Core error|PHP Compile error|PHP User Error",
                "DEBUG": "DEBUG",
                "WARN": "WARNING|PHP Warning|PHP Core Warning|PHP User Warning|PHP Deprecated",
                "INFO": "NOTICE|PHP Notice|PHP Strict Standards|PHP User Notice|PHP Startup",
            }.items()
            for word in words.split("|")
        }
    }
)
_PHP_LEVEL = (
    "(?P<level>PHP (?:Fatal error|Parse error|Recoverable fatal error|Core error|Compile error"
    "|User Error|Warning|Core Warning|User Warning|Deprecated|Notice|Strict Standards|User Notice"
    "|Startup)|ALERT|ERROR|WARNING|NOTICE|DEBUG)"
)
PHP = program(
    "php",
    "PHP's error log and PHP-FPM.",
    rf"\[\d\d-{ANY_MONTH}-\d{{4}} \d\d:\d\d:\d\d",
    tuple(
        record(
            rf"\[{_DAY} {CLOCK}{zone}\](?: {_PHP_LEVEL}:)?"
            r"(?: +\[pool (?P<pool>[^\]]+)\])?(?: +(?P<message>.*))?",
            *names,
            "pool",
            time=time,
            level=_PHP,
        )
        for zone, names, time in (
            (rf" {TZ}", ("tz",), _DAY_TIME + "{tz}"),
            ("", (), _DAY_TIME),
            (r" (?P<zone_name>[A-Z][a-z]+/[\w/+-]+)", ("zone_name",), _DAY_TIME + "@{zone_name}"),
        )
    ),
)
"""A zone may be named by a city; one that is not known is that of the source."""

DJANGO = program(
    "django",
    "The development servers of Django and Flask.",
    rf'(?:[^ ]+ - - )?\[\d\d/{ANY_MONTH}/\d{{4}} \d\d:\d\d:\d\d\] "',
    (
        record(
            rf"(?:(?P<host>[^ ]+) - - )?\[(?P<day>\d\d)/{MONTH}/(?P<year>\d{{4}}) {CLOCK}\]"
            r' "(?P<request>(?:(?P<method>[A-Z]+) (?P<path>[^ "?]+)(?:\?(?P<query>[^ "]*))?'
            r'(?: (?P<protocol>HTTP/[\d.]+))?|[^"]*))" (?P<status>\d{3}) (?P<bytes>\d{1,18}|-)',
            "host",
            "method",
            "path",
            "query",
            "protocol",
            "status",
            "bytes",
            time=_DAY_TIME,
            type="access",
            level=STATUS,
            message="request",
            numbers=("status", "bytes"),
            dashes=("bytes",),
        ),
    ),
)

CASSANDRA = program(
    "cassandra",
    "Cassandra.",
    rf"(?:{LEVEL}) +\[[^\]]*\] {_TIMED} ",
    (
        record(
            rf"{_LEVELLED} +\[(?P<thread>[^\]]*)\] {STAMP} (?P<source>[^ :]+):(?P<line>\d+) -"
            rf"{REST}",
            "thread",
            "line",
            source="source",
        ),
    ),
)

JUL = program(
    "jul",
    "Java's own logging, two lines a record.",
    rf"{ANY_MONTH} \d\d?, \d{{4}},? \d\d?:\d\d:\d\d.?[AP]M [\w.$]+ ",
    (
        record(
            rf"{MONTH} (?P<day>\d\d?), (?P<year>\d{{4}}),? (?P<hour12>\d\d?):(?P<minute>\d\d:\d\d)"
            r"[^ap](?P<half>AM|PM) (?P<source>[\w.$]+) (?P<method>[\w$<>]+)",
            "method",
            time="{year}-{mon}-{day}T{hour12}:{minute}",
            level=None,
            source="source",
            message="",
        ),
    ),
    is_alone=True,
    word_level=JAVA_LEVEL,
)
"""The level begins the second line, which is the message."""

_DOTNET = graded(
    {
        "trce": "TRACE",
        "dbug": "DEBUG",
        "info": "INFO",
        "warn": "WARN",
        "fail": "ERROR",
        "crit": "FATAL",
    }
)
DOTNET = program(
    "dotnet",
    "The console of .NET.",
    r"(?:trce|dbug|info|warn|fail|crit): [\w.`+]+\[-?\d+\]",
    (
        record(
            r"(?P<level>trce|dbug|info|warn|fail|crit): (?P<source>[\w.`+]+)\[(?P<event>-?\d+)\]"
            rf"{REST}",
            "event",
            source="source",
            level=_DOTNET,
            time=UNTIMED,
        ),
    ),
)

HEROKU = program(
    "heroku",
    "Heroku's `heroku logs`.",
    rf"{DATE}T\d\d:\d\d:\d\d\.\d{{1,9}}{ZONE} [\w-]+\[[\w.-]+\]: ",
    (
        record(
            rf"{STAMP} (?P<source>[\w-]+)\[(?P<dyno>[\w.-]+)\]:{REST}",
            "dyno",
            level=None,
            source="source",
        ),
    ),
)

CLOCKED = program(
    "clock",
    "Lines that tell a time of day but no date: Logback, Elixir, Minecraft.",
    rf"\d\d:\d\d:\d\d(?:[.,]\d{{1,9}})? (?:\[[^\]]*\] +(?:{LEVEL}) |(?:[\w.-]+=[^ ]* )*"
    rf"\[(?:{LEVEL})\](?:[ \r\n]|$))|\[\d\d:\d\d:\d\d\] \[[^\]/]+/(?:{LEVEL})\]",
    (
        record(
            rf"{_OF_DAY} \[(?P<thread>[^\]]*)\] +{_LEVELLED} +(?P<source>[^ ]+) -{REST}",
            "clock",
            "thread",
            time=UNTIMED,
            source="source",
        ),
        record(
            rf"\[{_OF_DAY}\] \[(?P<thread>[^\]/]+)/{_LEVELLED}\](?: \[(?P<source>[^\]]+)\])?:?"
            rf"{REST}",
            "clock",
            "thread",
            time=UNTIMED,
            source="source",
        ),
        record(
            rf"{_OF_DAY} (?:(?P<metadata>(?:[\w.-]+=[^ ]* )+))?\[{_LEVELLED}\]{REST}",
            "clock",
            "metadata",
            time=UNTIMED,
        ),
    ),
)
"""They get the time of the line before, else that of ingest; `clock` is their own text."""

_TAGS = graded(
    {"V": "TRACE", "D": "DEBUG", "I": "INFO", "W": "WARN", "E": "ERROR", "F": "FATAL", "S": "FATAL"}
)
LOGCAT = program(
    "logcat-brief",
    "Android's logcat in its older layouts.",
    r"(?:\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (?: *\d+-\d+/[^ ]+ )?)?[VDIWEFS]/[^(:]+(?:\( *\d+\))?: ",
    (
        record(
            r"(?P<level>[VDIWEFS])/(?P<source>[^(:]+?) *\( *(?P<pid>\d+)\):" + REST,
            "pid",
            time=UNTIMED,
            level=_TAGS,
            source="source",
        ),
        record(
            rf"(?P<month>\d\d)-(?P<day>\d\d) {CLOCK} (?: *(?P<pid>\d+)-(?P<thread>\d+)"
            r"/(?P<package>[^ ]+) )?(?P<level>[VDIWEFS])/(?P<source>[^(:]+?) *"
            rf"(?:\( *(?P<process>\d+)\))?:{REST}",
            "pid",
            "thread",
            "package",
            "process",
            time="?-{month}-{day}T{clock}",
            level=_TAGS,
            source="source",
        ),
    ),
)

LAYOUTS = (
    SPRING,
    LOGURU,
    JBOSS,
    ZAP,
    ELASTIC,
    SPDLOG,
    ENVOY,
    CELERY,
    AIRFLOW,
    PHP,
    DJANGO,
    CASSANDRA,
    JUL,
    DOTNET,
    HEROKU,
    CLOCKED,
    LOGCAT,
)
"""All of them; no two are sure of the same line."""
