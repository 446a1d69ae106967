"""Access logs of proxies, load balancers and object storage, and network flows.

HAProxy, load balancers of AWS (application and classic), S3, VPC flows, Squid, uWSGI, and access
logs with the virtual host before them. The level comes from the status, where there is one; a dash
is null. What comes after the fields that are named stays as it is under `more`.
"""

from __future__ import annotations

from lakelog.formats.access import REQUEST
from lakelog.formats.pattern import MONTH, STATUS, Level, Pattern
from lakelog.formats.pattern_format import PatternFormat

_ASKED = rf'"(?P<request>{REQUEST})"'
_PARTS = ("method", "path", "query", "protocol")
_LOCAL = rf"(?P<day>\d\d)/{MONTH}/(?P<year>\d{{4}}):(?P<clock>\d\d:\d\d:\d\d(?:\.\d{{1,6}})?)"
_TIME = "{year}-{mon}-{day}T{clock}"
_STAMP = r"(?P<stamp>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z)"
_STATUS = r"(?P<status>\d{3}|-)"
_MORE = "(?: (?P<more>.+))?"
_BALANCED = (
    *("balancer", "client", "target", "request_time", "target_time", "response_time", "status"),
    *("target_status", "received", "sent", "agent", "cipher", "tls"),
)
"""What both kinds of load balancers of AWS log."""
_NUMBERS = (
    "status",
    "bytes",
    "received",
    "sent",
    "duration_ms",
    "duration_us",
    "packets",
    "vars",
    "port",
    "from_port",
)


def _kind(
    regex: str,
    *data: str,
    time: str = _TIME,
    message: str = "request",
    subject: str = "",
    level: Level | None = STATUS,
) -> Pattern:
    parts = _PARTS if REQUEST in regex else ()
    payload = (*data, *parts)
    return Pattern(
        regex,
        time,
        "access",
        level,
        message=message,
        subject=subject,
        data=payload,
        numbers=tuple(name for name in payload if name in _NUMBERS),
        dashes=(*payload, *filter(None, (message, subject))),
        quoted=("request", *parts, *(name for name in payload if name in ("agent", "referer")))
        if parts
        else (),
    )


def _quoted(name: str) -> str:
    return rf'"(?P<{name}>(?:[^"\\]|\\.)*)"'


PATTERNS = (
    _kind(
        rf"(?P<vhost>[^ ]+) (?P<host>[^ ]+) (?P<ident>[^ ]+) (?P<user>[^ ]+)(?: -)?"
        rf" \[{_LOCAL} (?P<zone>[+-]\d{{4}})\] {_ASKED} (?P<status>\d{{3}}) (?P<bytes>\d{{1,18}}|-)"
        rf"(?: {_quoted('referer')} {_quoted('agent')})?{_MORE}",
        "vhost",
        "host",
        "ident",
        "user",
        "status",
        "bytes",
        "referer",
        "agent",
        "more",
        time=_TIME + "{zone}",
    ),
    _kind(
        rf"(?P<client>[^ ]+):(?P<port>\d{{1,5}}) \[{_LOCAL}\] (?P<frontend>[^ ]+)"
        r" (?P<backend>[^ /]+)/(?P<server>[^ ]+) (?P<timers>[\d+/-]+) (?P<status>\d{3}|-1)"
        r" \+?(?P<bytes>\d{1,18}) (?P<request_cookie>[^ ]+) (?P<response_cookie>[^ ]+)"
        r" (?P<termination>[^ ]{4}) (?P<connections>[\d+/]+) (?P<queues>[\d/]+)"
        rf" (?:(?P<headers>\{{[^}}]*\}}(?: \{{[^}}]*\}})*) )?{_ASKED}{_MORE}",
        "client",
        "port",
        "frontend",
        "backend",
        "server",
        "timers",
        "status",
        "bytes",
        "request_cookie",
        "response_cookie",
        "termination",
        "connections",
        "queues",
        "headers",
        "more",
    ),
    _kind(
        rf"(?P<protocol_of>https?|h2|wss?|grpcs?) {_STAMP} (?P<balancer>[^ ]+) (?P<client>[^ ]+)"
        r" (?P<target>[^ ]+) (?P<request_time>[\d.-]+) (?P<target_time>[\d.-]+)"
        rf" (?P<response_time>[\d.-]+) {_STATUS} (?P<target_status>[\d-]+)"
        rf" (?P<received>\d{{1,18}}) (?P<sent>\d{{1,18}}) {_ASKED} {_quoted('agent')}"
        r" (?P<cipher>[^ ]+) (?P<tls>[^ ]+) (?P<group>[^ ]+) "
        rf'"(?P<trace>[^"]*)"{_MORE}',
        "protocol_of",
        *_BALANCED,
        "group",
        "more",
        time="{stamp}",
        subject="trace",
    ),
    _kind(
        rf"{_STAMP} (?P<balancer>[^ ]+) (?P<client>[^ ]+:\d+) (?P<target>[^ ]+)"
        r" (?P<request_time>[\d.-]+) (?P<target_time>[\d.-]+) (?P<response_time>[\d.-]+)"
        rf" {_STATUS} (?P<target_status>[\d-]+) (?P<received>\d{{1,18}}) (?P<sent>\d{{1,18}})"
        rf" {_ASKED}(?: {_quoted('agent')} (?P<cipher>[^ ]+) (?P<tls>[^ ]+))?",
        *_BALANCED,
        time="{stamp}",
    ),
    _kind(
        rf"(?P<owner>[0-9a-f]{{64}}) (?P<bucket>[^ ]+) \[{_LOCAL} (?P<zone>[+-]\d{{4}})\]"
        r" (?P<client>[^ ]+) (?P<requester>[^ ]+) (?P<request_id>[^ ]+) (?P<operation>[^ ]+)"
        rf" (?P<key>[^ ]+) (?:{_ASKED}|-) {_STATUS} (?P<error>[^ ]+) (?P<bytes>\d{{1,18}}|-)"
        rf" (?P<size>[\d-]+) (?P<duration_ms>\d{{1,18}}|-) (?P<turnaround>[\d-]+)"
        rf" {_quoted('referer')} {_quoted('agent')}{_MORE}",
        "owner",
        "bucket",
        "client",
        "requester",
        "request_id",
        "operation",
        "key",
        "status",
        "error",
        "bytes",
        "size",
        "duration_ms",
        "turnaround",
        "referer",
        "agent",
        "more",
        time=_TIME + "{zone}",
    ),
    _kind(
        r"2 (?P<account>\d+) (?P<interface>eni-[^ ]+) (?P<client>[^ ]+) (?P<target>[^ ]+)"
        r" (?P<from_port>\d{1,5}|-) (?P<port>\d{1,5}|-) (?P<protocol>\d+|-)"
        r" (?P<packets>\d{1,18}|-) (?P<bytes>\d{1,18}|-) (?P<stamp>\d{10}) (?P<until>\d{10})"
        r" (?P<action>[A-Z]+|-) (?P<result>[A-Z]+)",
        "account",
        "interface",
        "client",
        "target",
        "from_port",
        "port",
        "protocol",
        "packets",
        "bytes",
        "until",
        "action",
        "result",
        time="{stamp}",
        message="",
        level=None,
    ),
    _kind(
        r"(?P<stamp>\d{9,10}\.\d{3}) +(?P<duration_ms>\d{1,18}) (?P<client>[^ ]+)"
        r" (?P<result>[A-Z_]+)/(?P<status>\d{3}) (?P<bytes>\d{1,18}) (?P<method>[A-Z_-]+)"
        r" (?P<url>[^ ]+) (?P<user>[^ ]+) (?P<hierarchy>[^ ]+) (?P<content>.*)",
        "duration_ms",
        "client",
        "result",
        "status",
        "bytes",
        "method",
        "user",
        "hierarchy",
        "content",
        time="{stamp}",
        message="url",
    ),
    _kind(
        r"\[pid: (?P<pid>\d+)\|app: (?P<app>[\d-]+)\|req: (?P<requests>[\d/-]+)\] (?P<client>[^ ]+)"
        r" \((?P<user>[^)]*)\) \{(?P<vars>\d{1,18}) vars in (?P<received>\d{1,18}) bytes\}"
        r" \[[A-Z][a-z][a-z] "
        rf"{MONTH} +(?P<day>\d{{1,2}}) (?P<clock>\d\d:\d\d:\d\d) (?P<year>\d{{4}})\]"
        r" (?P<request>[A-Z]+ [^ ]+) => generated (?P<bytes>\d{1,18}) bytes in"
        r" (?:(?P<duration_ms>\d{1,18}) msecs|(?P<duration_us>\d{1,18}) micros)"
        rf" \((?:(?P<protocol>[^) ]+) )?(?P<status>\d{{3}})\){_MORE}",
        "pid",
        "app",
        "requests",
        "client",
        "user",
        "vars",
        "received",
        "bytes",
        "duration_ms",
        "duration_us",
        "protocol",
        "status",
        "more",
    ),
    _kind(
        rf"(?P<client>[^ ]+):(?P<port>\d{{1,5}}) \[{_LOCAL}\] (?P<frontend>[^ ]+)"
        r" (?P<backend>[^ /]+)/(?P<server>[^ ]+) (?P<timers>[\d+/-]+) \+?(?P<bytes>\d{1,18})"
        r" (?P<termination>[^ ]{2}) (?P<connections>[\d+/]+) (?P<queues>[\d/]+)",
        "client",
        "port",
        "frontend",
        "backend",
        "server",
        "timers",
        "bytes",
        "termination",
        "connections",
        "queues",
        message="",
        level=None,
    ),
    _kind(
        rf"(?P<client>[^ ]+):(?P<port>\d{{1,5}}) \[{_LOCAL}\] (?P<frontend>[^ :]+):"
        r" (?P<message>.*)",
        "client",
        "port",
        "frontend",
        message="message",
        level=None,
    ),
)


FORM = PatternFormat("traffic", __doc__, PATTERNS, "no line of a proxy, balancer or bucket")
