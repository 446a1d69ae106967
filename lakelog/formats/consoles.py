"""Layouts that programs give to lines which people read at a terminal, each declared by its lines.

logrus, zerolog and older InfluxDB, HashiCorp's programs (Vault, Consul, Nomad), HAProxy's own
messages, WebLogic, and ProFTPD. A clock without a date says nothing of the day: those lines, and
lines without a time, have that of their ingest.
"""

from __future__ import annotations

from lakelog.formats.pattern import MESSAGE, REST, Pattern, graded
from lakelog.formats.pattern_format import program
from lakelog.formats.programs import STAMP, UNTIMED, record

_LOGRUS_LEVELS = {
    "TRAC": "TRACE",
    "DEBU": "DEBUG",
    "INFO": "INFO",
    "WARN": "WARN",
    "ERRO": "ERROR",
    "FATA": "FATAL",
    "PANI": "FATAL",
}
LOGRUS = program(
    "logrus",
    "Go's logrus at a terminal; `seconds` are those since its start.",
    rf"(?:{'|'.join(_LOGRUS_LEVELS)})\[\d{{4,}}\]",
    (
        record(
            rf"(?P<level>{'|'.join(_LOGRUS_LEVELS)})\[0*(?P<seconds>\d+)\]{REST}",
            "seconds",
            time=UNTIMED,
            level=graded(_LOGRUS_LEVELS),
            numbers=("seconds",),
        ),
    ),
)

_THREE = {
    "TRC": "TRACE",
    "DBG": "DEBUG",
    "INF": "INFO",
    "WRN": "WARN",
    "ERR": "ERROR",
    "FTL": "FATAL",
    "PNC": "FATAL",
}
ZEROLOG = program(
    "zerolog",
    "Go's zerolog at a terminal, which says the time of day alone.",
    rf"\d{{1,2}}:\d\d[AP]M (?:{'|'.join(_THREE)}) ",
    (
        record(
            rf"(?P<clock>\d{{1,2}}:\d\d[AP]M) (?P<level>{'|'.join(_THREE)})"
            rf"(?: (?P<source>[\w./@-]+\.go:\d+) >)?{REST}",
            "clock",
            time=UNTIMED,
            level=graded(_THREE),
            source="source",
        ),
    ),
)

_LETTERS = {"D": "DEBUG", "I": "INFO", "W": "WARN", "E": "ERROR"}
INFLUX = program(
    "influxdb",
    "InfluxDB to 1.4, Telegraf and Kapacitor then.",
    r"\[[DIWE]\] \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d) ",
    (record(rf"\[(?P<level>[DIWE])\] {STAMP}{REST}", level=graded(_LETTERS)),),
)

_HC_TIME = r"(?P<stamp>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(?:Z|[+-]\d{4}))"
_HC_NAME = r"(?P<source>[a-zA-Z][\w-]*(?:[./][\w-]+)*)"
# Padded to the longest level: that, and the milliseconds, tell it from others.
_HC_LEVEL = r"\[(?P<level>INFO|WARN)\]  ", r"\[(?P<level>TRACE|DEBUG|ERROR)\] "
HASHICORP = program(
    "hashicorp",
    "Vault, Consul, Nomad, Terraform and others of HashiCorp.",
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(?:Z|[+-]\d{4})"
    r" \[(?:(?:INFO|WARN)\]  |(?:TRACE|DEBUG|ERROR)\] )[a-zA-Z][\w./-]*: ",
    tuple(
        record(rf"{_HC_TIME} {level}{_HC_NAME}: {MESSAGE}", source="source") for level in _HC_LEVEL
    ),
)
"""`source` is the subsystem; pairs of keys and values stay in the message."""

_ALERTS = "NOTICE|WARNING|ALERT|EMERG|DEBUG"
HAPROXY = program(
    "haproxy",
    "What HAProxy says of itself; its requests are syslog.",
    rf"\[(?:{_ALERTS})\] +(?:\d{{3}}/\d{{6}} )?\(\d+\) : ",
    (
        record(
            rf"\[(?P<level>{_ALERTS})\] +(?:(?P<clock>\d{{3}}/\d{{6}}) )?\((?P<pid>\d+)\)"
            rf" : {MESSAGE}",
            *("clock", "pid"),
            time=UNTIMED,
            level=graded(
                {
                    "NOTICE": "INFO",
                    "WARNING": "WARN",
                    "ALERT": "ERROR",
                    "EMERG": "FATAL",
                    "DEBUG": "DEBUG",
                }
            ),
        ),
    ),
)

_BEA = {
    "Trace": "TRACE",
    "Debug": "DEBUG",
    **dict.fromkeys(("Info", "Notice"), "INFO"),
    "Warning": "WARN",
    "Error": "ERROR",
    **dict.fromkeys(("Critical", "Alert", "Emergency"), "FATAL"),
}


def _weblogic(extra: str, *data: str) -> Pattern:
    """A line of WebLogic; its moment is told once more, in milliseconds, which have a zone."""
    columns = ("host", "server", "thread", "user", "transaction", "context", "code")
    user = r"<(?P<user><[^<>]*>|[^<>]*)>"
    return record(
        rf"####<(?P<local_time>[^<>]+)> <(?P<level>{'|'.join(_BEA)})> <(?P<source>[^<>]*)>"
        rf" <(?P<host>[^<>]*)> <(?P<server>[^<>]*)> <(?P<thread>.*?)> {user}"
        rf" <(?P<transaction>[^<>]*)> <(?P<context>[^<>]*)> <(?P<stamp>\d{{13}})>"
        rf" {extra}<(?P<code>[^<>]*)>"
        r" <(?P<message>.*?)>? *",
        *("local_time", *columns, *data),
        level=graded(_BEA),
        source="source",
    )


WEBLOGIC = program(
    "weblogic",
    "Oracle WebLogic.",
    "####<",
    (_weblogic(r"<(?P<attributes>(?:\[[^\]]*\] ?)+)> ", "attributes"), _weblogic("")),
)
"""`source` is the subsystem, and `code` the number of the message."""

PROFTPD = program(
    "proftpd",
    "ProFTPD.",
    r"(?:\d{4}-\d\d-\d\d|[A-Z][a-z][a-z] \d\d) \d\d:\d\d:\d\d(?:,\d{3})? [^ ]+ proftpd\[\d+\]",
    (
        record(
            rf"{STAMP} (?P<host>[^ ]+) (?P<source>proftpd)\[(?P<pid>\d+)\]:?"
            rf"(?: (?P<server>[^ ]+?)(?: \((?P<client>[^)]*)\))?:)? {MESSAGE}",
            *("host", "pid", "server", "client"),
            level=None,
            source="source",
        ),
    ),
)

CONSOLES = (LOGRUS, ZEROLOG, INFLUX, HASHICORP, HAPROXY, WEBLOGIC, PROFTPD)
"""All of them; no two are sure of the same line."""
