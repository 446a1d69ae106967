"""Adapters for structlog and loguru.

    structlog.configure(processors=[..., lakelog.StructlogProcessor("lake"), JSONRenderer()])
    loguru.logger.add(lakelog.LoguruSink("lake"))

Both store an event of type "log": `source` is the name of the logger, `message` the text, and
`data` what was bound, `code`, `exception` as data (exceptions.py), and the open span.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

from lakelog.errors import InvalidEvent
from lakelog.event import Severity
from lakelog.loggers.destination import LakeOrPath
from lakelog.loggers.exceptions import add_beside, exception_data, exception_in, text_of, type_name
from lakelog.loggers.handler import severity_of
from lakelog.loggers.queue import QueueStats
from lakelog.loggers.recorder import Recorder
from lakelog.values import JsonObject, parse_time

_FLUSH = 5.0
_MESSAGES = ("event", "message", "msg")
_SOURCES = ("logger", "logger_name")


class StructlogProcessor:
    """A structlog processor that stores each event and passes it on unchanged.

    Put it before the renderer. It reads what `add_log_level`, `add_logger_name`, `TimeStamper` and
    `merge_contextvars` add, if they come before it. Options are those of `Recorder`.
    """

    def __init__(self, lake: LakeOrPath, **options: Any) -> None:
        self._recorder = Recorder(lake, **options)

    def __call__(
        self, logger: object, method: str, event_dict: MutableMapping[str, object]
    ) -> MutableMapping[str, object]:
        """Store an event; return it as it came."""
        try:
            event = _structlog_event(logger, method, dict(event_dict))
        # What goes wrong here is counted: logging must not raise in a program.
        except Exception as error:
            self._recorder.fail(error)
        else:
            self._recorder.record(event)
        return event_dict

    def flush(self, timeout: float = _FLUSH) -> bool:
        """Wait until everything is stored, or so many seconds; whether it is."""
        return self._recorder.flush(timeout)

    def stats(self) -> QueueStats:
        """What was stored, is waiting, was dropped or refused."""
        return self._recorder.stats()


class LoguruSink:
    """A loguru sink that stores each message with its `extra`. Options are those of `Recorder`."""

    def __init__(self, lake: LakeOrPath, **options: Any) -> None:
        self._recorder = Recorder(lake, **options)

    def write(self, message: Any) -> None:
        """Store a message of loguru, which carries its record."""
        try:
            event = _loguru_event(message.record, str(message))
        except Exception as error:
            self._recorder.fail(error)
        else:
            self._recorder.record(event)

    def stop(self) -> None:
        """Wait until everything is stored: loguru calls this when the sink is removed."""
        self._recorder.flush(_FLUSH)

    def stats(self) -> QueueStats:
        """What was stored, is waiting, was dropped or refused."""
        return self._recorder.stats()


def _structlog_event(logger: object, method: str, members: dict[str, object]) -> dict[str, object]:
    members.pop("_from_structlog", None)
    # Within structlog's `ProcessorFormatter`, which has no logger for records of others.
    record = members.pop("_record", None)
    logger = logger if logger is not None else record
    moment = _time(members)
    name = next((members.pop(k) for k in _SOURCES if k in members), None)
    level = str(members.pop("level", method))
    message = next((members.pop(k) for k in _MESSAGES if k in members), None)
    # Before its own renderer has made text of it.
    error = exception_in(members.pop("exc_info", None))
    if error is not None:
        add_beside(members, "exception", exception_data(error))
    severity = Severity.level_of(level)
    if severity is None:
        # A level of the program's own stays with its data, as the column has known ones only.
        members["level"] = level
    event = {"time": moment, "type": "log", "source": _text(name or getattr(logger, "name", None))}
    return event | {"level": severity, "message": _text(message), "data": members}


def _time(members: dict[str, object]) -> datetime:
    """The time that a TimeStamper added, which is text or a number; else now."""
    timestamp = members.get("timestamp")
    if timestamp is not None:
        try:
            moment = parse_time(timestamp)
            # Local time without an offset is not known; that of `utc=True` ends with Z.
            if not isinstance(timestamp, str) or timestamp.endswith("Z") or "+" in timestamp:
                del members["timestamp"]
                return moment
        except InvalidEvent:
            pass
    # The program's own clock, which is that of the lake.
    return datetime.now(UTC)


def _loguru_event(record: JsonObject, formatted: str) -> dict[str, object]:
    data: dict[str, object] = {
        "code": {
            "file": record["file"].path,
            "line": record["line"],
            "function": record["function"],
        },
        "thread": record["thread"].name,
        "process": record["process"].id,
        **record["extra"],
    }
    level = severity_of(record["level"].no, record["level"].name)
    # loguru gives an exception without a type where there was none.
    if record["exception"] is not None and record["exception"].type is not None:
        exception = _loguru_exception(record["exception"], record["message"], formatted)
        add_beside(data, "exception", exception)
    return {
        "time": record["time"].astimezone(UTC),
        "type": "log",
        "source": record["name"],
        "level": level,
        "message": record["message"],
        "data": data,
    }


def _loguru_exception(error: Any, message: str, formatted: str) -> JsonObject:
    """Return an exception, with its traceback as text where it was pickled, for `enqueue`: that
    keeps neither frames nor causes, and of some exceptions the type alone."""
    data = {"type": type_name(error.type)}
    if error.value is not None:
        data = exception_data(error.value, error.traceback)
    if error.traceback is None:
        data["text"] = formatted[formatted.find(message) + len(message) :].strip()
    return data


def _text(message: object) -> str | None:
    return message if message is None or isinstance(message, str) else text_of(message)
