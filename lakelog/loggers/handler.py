"""The handler for Python's logging: `logging.getLogger().addHandler(lakelog.LakeHandler("lake"))`.

A record becomes an event: `type` is "log", `source` the name of the logger, `message` the message
with its arguments. `data` holds what `extra` gave, `code` (file, line, function), `thread` and
`process`, `exception` (see exceptions.py), `stack` where it was asked for, and the open span. The
message of a record from structlog's `ProcessorFormatter.wrap_for_formatter` is an event of its own:
its `event` is the message here, and its other members are members of `data`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

import orjson

from lakelog.event import Severity
from lakelog.loggers.destination import LakeOrPath
from lakelog.loggers.exceptions import add_beside, exception_data, exception_in, text_of
from lakelog.loggers.queue import QueueStats
from lakelog.loggers.recorder import LoggedEvent, Recorder, Redact, Sample, open_span
from lakelog.loggers.values import encode_members

_FLUSH = 5.0
_LEVELS = ((50, "FATAL"), (40, "ERROR"), (30, "WARN"), (20, "INFO"), (10, "DEBUG"))
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes of every record; other handlers add the message and the time as text."""
_FIRST = len(vars(logging.makeLogRecord({})))
"""So many attributes a record has before any that `extra`, a filter or a factory adds."""
_OWN = frozenset(("code", "thread", "process", "exception", "stack", "args"))
"""Members of `data` that the handler fills in."""
_NOT_PLAIN = _STANDARD | _OWN
_WRAPPING = ("_logger", "_name")
"""Attributes that structlog's `wrap_for_formatter` adds to a record."""
_REPEATED = ("logger", "level")
"""Members of structlog's events that are columns here."""
_CACHED_MAX = 2000
_YEAR_10000 = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
_moment = datetime.fromtimestamp
_place_of = itemgetter("pathname", "lineno", "funcName", "threadName", "process")


class LakeHandler(logging.Handler):
    """Stores log records in a lake, in the background.

    `lake` is a path, which is created as a lake if it is none, or an open lake. `full` says what
    happens when the queue is full: "buffer" (on disk), "block" or "drop" (the oldest). `sample`,
    `redact`, `context` and `strict` are those of `Recorder`. Raises what `lakelog.open` does.
    """

    def __init__(
        self,
        lake: LakeOrPath,
        level: int | str = logging.NOTSET,
        *,
        full: str = "buffer",
        sample: Sample | None = None,
        redact: Redact | None = None,
        context: Iterable[ContextVar[object]] = (),
        strict: bool = False,
    ) -> None:
        # First: logging flushes at exit every handler that was begun, however its making ended.
        self._recorder = Recorder(
            lake, full=full, sample=sample, redact=redact, context=context, strict=strict
        )
        super().__init__(level)
        self._lines = LineEncoder()

    def handle(self, record: logging.LogRecord) -> Any:
        """Filter a record and queue it."""
        # Without the lock of other handlers: the queue has its own, and nothing here is shared.
        if self.filters:
            filtered: object = self.filter(record)  # from Python 3.12 it may be another record
            if not filtered:
                return filtered
            if isinstance(filtered, logging.LogRecord):
                record = filtered
        self.emit(record)
        return record

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record. Raises nothing, unless the handler is `strict`."""
        recorder = self._recorder
        try:
            # Most records need no more than text put together, in a third of the time.
            line = None if recorder.needs_events else self._lines.line(record)
            if line is not None:
                recorder.put(line)
                return
            event = event_of(record)
        except Exception as error:
            recorder.fail(error)
            return
        recorder.record(event)

    def flush(self) -> None:
        """Wait until everything is stored, a few seconds at most."""
        self._recorder.flush(_FLUSH)

    def close(self) -> None:
        """Flush; the queue goes on, as other handlers of this lake may use it."""
        self.flush()
        super().close()

    def stats(self) -> QueueStats:
        """What was stored, is waiting, was dropped or refused."""
        return self._recorder.stats()


class LineEncoder:
    """Encodes plain records as `event_of` and `encode_event` do together, from parts that are the
    same for all records of a logger or of a place in the code."""

    def __init__(self) -> None:
        self._heads: dict[object, bytes] = {}
        self._places: dict[object, bytes] = {}
        self._clock = (0, b"")

    def line(self, record: logging.LogRecord) -> bytes | None:
        """Return the WAL line of a record, None for one that is not plain."""
        if record.exc_info or record.exc_text or record.stack_info:
            return None
        if type(record) is not logging.LogRecord:
            return None  # its own attributes may come before the standard ones
        members = record.__dict__
        extra = {name: members[name] for name in list(members)[_FIRST:]}
        if extra and not _NOT_PLAIN.isdisjoint(extra):
            return None
        if (ids := open_span()) is not None:
            extra["traceId"], extra["spanId"] = ids
        try:
            # As `getMessage` puts it together, for nearly all records in half the time.
            message_text, args = record.msg, record.args
            if type(message_text) is not str:
                if _is_wrapped(record):
                    return None
                message_text = record.getMessage()
            elif args:
                message_text = message_text % args
            message = orjson.dumps(message_text)
            key = members["name"], members["levelno"], members["levelname"]
            head = self._heads.get(key) or self._head(key)
            place_key = _place_of(members)
            place = self._places.get(place_key) or self._place(place_key)
        # Arguments that do not fit; text that is not Unicode, such as the path of a program.
        except Exception:
            return None
        created = members["created"]
        if not 0 <= created < _YEAR_10000:  # a datetime knows which of the others are times
            return None
        suffix = b"," + encode_members(extra)[1:] if extra else b"}"
        whole_second = int(created)
        start, day = self._clock
        if whole_second != start:
            day = time.strftime('{"time":"%Y-%m-%dT%H:%M:%S', time.gmtime(whole_second)).encode()
            self._clock = whole_second, day
        # To the nearest, as a datetime has it.
        micros = int((created - whole_second) * 1e6 + 0.5)
        if micros > 999_999:
            micros = 999_999
        return b"%b.%06dZ%b%b%b%b}" % (day, micros, head, message, place, suffix)

    def _head(self, key: tuple[str, int, str]) -> bytes:
        name, number, level = key
        columns = {"type": "log", "source": name, "level": severity_of(number, level)}
        return _cached(self._heads, key, b'",' + orjson.dumps(columns)[1:-1] + b',"message":')

    def _place(self, key: tuple[Any, ...]) -> bytes:
        return _cached(self._places, key, b',"data":' + orjson.dumps(_place_data(*key))[:-1])


def _cached(cache: dict[object, bytes], key: object, encoded: bytes) -> bytes:
    if len(cache) >= _CACHED_MAX:  # names of loggers or threads that are made up without end
        cache.clear()
    cache[key] = encoded
    return encoded


def event_of(record: logging.LogRecord) -> LoggedEvent:
    """Return a log record as an event."""
    data = _place_data(*_place_of(record.__dict__))
    for name, value in record.__dict__.items():
        if name not in _STANDARD:
            data[name] = value
    _, error, trace = record.exc_info or (None, None, None)
    if _is_wrapped(record):
        message, error, trace = *_unwrap(record, data), None
    else:
        try:
            message = record.getMessage()
        except Exception:  # arguments that do not fit: what there is is kept
            message, data["args"] = text_of(record.msg), record.args
    if error is not None:
        add_beside(data, "exception", exception_data(error, trace))
    elif record.exc_text:  # of a record that came from another process
        add_beside(data, "exception", {"text": record.exc_text})
    if record.stack_info:
        add_beside(data, "stack", record.stack_info)
    return {
        "time": _moment(record.created, UTC),
        "type": "log",
        "source": record.name,
        "level": severity_of(record.levelno, record.levelname),
        "message": message,
        "data": data,
    }


def _is_wrapped(record: logging.LogRecord) -> bool:
    """Whether the message of a record is an event of structlog."""
    return isinstance(record.msg, dict) and all(name in record.__dict__ for name in _WRAPPING)


def _unwrap(record: Any, data: dict[str, object]) -> tuple[str, BaseException | None]:
    """Move the members of structlog's event to `data`; return its message and exception."""
    for name in _WRAPPING:
        del data[name]
    members = {name: value for name, value in record.msg.items() if name not in _REPEATED}
    message = members.pop("event", None)
    error = exception_in(members.pop("exc_info", None))
    data |= members
    return "" if message is None else text_of(message), error


def _place_data(
    path: str, line: int, function: str | None, thread: str | None, process: int | None
) -> dict[str, object]:
    code = {"file": path, "line": line, "function": function}
    return {"code": code, "thread": thread, "process": process}


def severity_of(number: int, name: str) -> str:
    """Return the level of a record: that of its number, for a level of its own its name."""
    exact = next((level for minimum, level in _LEVELS if number == minimum), None)
    nearest = next((level for minimum, level in _LEVELS if number >= minimum), "TRACE")
    return exact or Severity.level_of(name) or nearest
