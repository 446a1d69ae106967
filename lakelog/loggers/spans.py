"""Spans: `with lakelog.span("checkout", items=3) as span: ...`

A span is an event of type `span` in the form of OpenTelemetry (see otel.py), stored when it ends.
Spans nest by a context variable, so each asyncio task has its own; a thread starts without one, and
is given it by `parent=`. Inside one of OpenTelemetry it is part of that trace.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from lakelog.loggers.destination import LakeOrPath
from lakelog.loggers.exceptions import exception_data, text_of
from lakelog.loggers.recorder import OPEN_SPAN, HasIds, Recorder, open_span
from lakelog.values import from_micros

_LAKE = "lake"
INTERNAL, CLIENT = 1, 3
"""Kinds of spans (OpenTelemetry, SpanKind)."""
_FAILED = 2
_RECORDERS: dict[tuple[str, str], Recorder] = {}
"""By directory, and the branch of an open lake."""


class SpanScope(ABC):
    """What has a beginning and an end, and is what is open in between: a span or an operation."""

    def __init__(self, parent: tuple[str, str] | None) -> None:
        self.trace_id = parent[0] if parent else os.urandom(16).hex()
        self.span_id, self._parent = os.urandom(8).hex(), parent
        self._outer: HasIds | None = None
        self._started = self._clock = 0

    @property
    def ids(self) -> tuple[str, str]:
        """Trace id and span id, for `parent=` of a span in another thread or process."""
        return self.trace_id, self.span_id

    def start(self) -> None:
        """Begin, without being what is open here: for what ends elsewhere, by `end`."""
        # Durations by the monotonic clock: the other one may be set while the span is open.
        self._started, self._clock = time.time_ns(), time.monotonic_ns()

    @abstractmethod
    def end(self, error: Exception | None = None) -> None:
        """Record it, as failed if there is an error. Raises nothing."""

    def elapsed_ns(self) -> int:
        """Nanoseconds since it began."""
        return time.monotonic_ns() - self._clock

    def __enter__(self) -> Self:
        self._outer = OPEN_SPAN.get()
        OPEN_SPAN.set(self)
        self.start()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Not by a token, which fails in a generator that is closed in another context.
        OPEN_SPAN.set(self._outer)
        # The exit of a generator or a task that is cancelled is no failure.
        self.end(error if isinstance(error, Exception) else None)


class Span(SpanScope):
    """An operation from `with` to its end, or from `start` to `end`."""

    kind = INTERNAL
    source: str | None = None

    def __init__(self, name: str, recorder: Recorder, parent: tuple[str, str] | None) -> None:
        super().__init__(parent)
        self.name, self.recorder = name, recorder
        self.attributes: dict[str, object] = {}
        self._events: list[dict[str, object]] = []
        self._status: dict[str, object] = {}

    def set(self, **attributes: object) -> None:
        """Set attributes; values are stored by the rules of `values`."""
        self.attributes.update(attributes)

    def event(self, name: str, **attributes: object) -> None:
        """Note what happened within the span, and when."""
        moment = {"timeUnixNano": str(time.time_ns()), "name": name}
        self._events.append(moment | ({"attributes": attributes} if attributes else {}))

    def fail(self, reason: str | BaseException) -> None:
        """Mark the span as failed; an exception is stored with its stack."""
        message = str(reason)
        if isinstance(reason, BaseException):
            message = text_of(reason)
            self.attributes["exception"] = exception_data(reason)
        self._status = {"code": _FAILED, "message": message}

    def end(self, error: Exception | None = None) -> None:
        """Record the span, as failed if there is an error. Raises nothing."""
        if error is not None:
            self.fail(error)
        self.recorder.record(self._ended())

    def _ended(self) -> dict[str, object]:
        end = self._started + self.elapsed_ns()
        data: dict[str, object] = {"traceId": self.trace_id, "spanId": self.span_id}
        if self._parent is not None:
            data["parentSpanId"] = self._parent[1]
        data |= {
            "name": self.name,
            "kind": self.kind,
            "startTimeUnixNano": str(self._started),
            "endTimeUnixNano": str(end),
        }
        if self.attributes:
            data["attributes"] = self.attributes
        if self._events:
            data["events"] = self._events
        data["status"] = self._status
        return {
            "time": from_micros(self._started // 1000),
            "type": "span",
            "source": self.source,
            "level": "ERROR" if self._status else None,
            "message": self.name,
            "data": data,
        }


def span(
    name: str,
    /,
    *,
    lake: LakeOrPath | None = None,
    parent: Span | tuple[str, str] | None = None,
    **attributes: object,
) -> Span:
    """Return a span to be used in `with`.

    `lake` is needed once: spans within another are stored beside it. Without one it is
    LAKELOG_LAKE, else ./lake, as for the command line. `parent` continues a span of another thread
    or process: a span, or its `ids`. Raises what `lakelog.open` does.
    """
    outer = OPEN_SPAN.get() if parent is None else parent
    ids = outer if isinstance(outer, tuple) else outer.ids if outer is not None else open_span()
    # Within another span, the lake of that one.
    inherited = outer.recorder if isinstance(outer, Span) and lake is None else None
    scope_span = Span(name, inherited or recorder_of(lake), ids)
    scope_span.attributes.update(attributes)
    return scope_span


def recorder_of(lake: LakeOrPath | None) -> Recorder:
    """Return the recorder of a lake, without one of that which `span` would take."""
    target = lake if lake is not None else os.environ.get("LAKELOG_LAKE") or _LAKE
    if isinstance(target, (str, os.PathLike)):
        key = os.path.realpath(target), ""
    else:
        key = os.path.realpath(target.path), target.branch_name
    if key not in _RECORDERS:
        _RECORDERS[key] = Recorder(target)
    return _RECORDERS[key]
