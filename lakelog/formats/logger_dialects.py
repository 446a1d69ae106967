"""The dialects of JSON lines that loggers of programs write, each declared by its members."""

from __future__ import annotations

from typing import Any

from lakelog.formats.dialect import Dialect

SEVERITY = Dialect(
    "severity-json",
    "JSON lines with a severity, a time and a message, as GitLab writes them.",
    fits=("severity=[A-Za-z]+", "time|timestamp|@timestamp|ts", "message|msg"),
    time=("time", "timestamp", "@timestamp", "ts"),
    level=("severity",),
    types=("type", "event"),
    message=("message", "msg"),
    source=("logger", "logger_name", "service"),
)
"""Loggers that call the level a severity."""
_ISO_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}[0-9.,Z+:-]*"
DOTNET_JSON = Dialect(
    "dotnet-json",
    "Serilog's JSON and that of .NET's console.",
    fits=(
        f"Timestamp={_ISO_TIME} *",
        "Level=[A-Za-z]+|LogLevel=[A-Za-z]+",
        "MessageTemplate|RenderedMessage|Message",
    ),
    time=(f"Timestamp=({_ISO_TIME}) *",),
    level=("Level", "LogLevel"),
    message=("Message", "RenderedMessage", "MessageTemplate"),
    source=("Category", "Properties/SourceContext"),
)


def _with_millis(event: dict[str, Any]) -> dict[str, Any]:
    """An event of log4j2 with its instant as one number of seconds."""
    instant = event.get("instant")
    if not isinstance(instant, dict) or type(instant.get("epochSecond")) is not int:
        return event
    part = instant.get("nanoOfSecond")
    nanos = part if type(part) is int and 0 <= part < 10**9 else 0
    return event | {"timeMillis": f"{instant['epochSecond']}.{nanos:09}"}


LOG4J = Dialect(
    "log4j-json",
    "Log4j 2's JSON layout.",
    fits=("instant/epochSecond|timeMillis", "level=[A-Z]+", "loggerName|loggerFqcn|thread"),
    time=("timeMillis",),
    level=("level",),
    message=("message",),
    source=("loggerName",),
    prepared=_with_millis,
    exact=True,
)
ZAP_DEVELOPMENT = Dialect(
    "zap-development",
    "Go's zap in development, with keys of one letter.",
    fits=("L=[A-Za-z]+", f"T={_ISO_TIME}", "M"),
    time=("T",),
    level=("L",),
    message=("M",),
    source=("N", "C"),
)
STRUCTLOG = Dialect(
    "structlog",
    "structlog's JSON, in which the event is the message.",
    # an event of one word may be the type of any other program's events, and one of few words, too;
    # a sentence is none
    fits=(
        "event",
        "level|log_level|event=(?:[^ ]+ ){3}.*",
        "event=[^ ]+ .*|logger|logger_name|func_name|filename|lineno",
    ),
    lacks=("message", "msg", "event_type"),
    time=("timestamp", "time", "ts", "@timestamp"),
    level=("level", "log_level"),
    types=("type",),
    message=("event",),
    source=("logger", "logger_name"),
)
"""structlog (Python); its texts would be as many types."""
LOG15 = Dialect(
    "log15",
    "Loggers that call the level lvl, as log15 (Go) does.",
    fits=("lvl=[A-Za-z]+", "msg", "t|ts|time|timestamp"),
    time=("t", "ts", "time", "timestamp"),
    level=("lvl",),
    types=("type",),
    message=("msg",),
    source=("logger", "logger_name", "name", "component"),
)
LOGGERS = (SEVERITY, DOTNET_JSON, LOG4J, ZAP_DEVELOPMENT, STRUCTLOG, LOG15)
"""All of them; of those that fit equally well the first is taken."""
