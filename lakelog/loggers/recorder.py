"""From an event to a line in the queue: context, hooks, and the rule that a caller sees no error.

In this order: values of context variables, the span that is open, `sample`, `redact`, JSON. An
event that a hook fails on is refused, not stored unredacted; refused events are counted, and the
first is reported on standard error. `strict` raises instead.
"""

from __future__ import annotations

import random
import sys
import zlib
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Protocol

from lakelog.loggers.destination import LakeOrPath, queue_of
from lakelog.loggers.queue import QueueStats
from lakelog.loggers.values import encode_event, encode_unknown
from lakelog.values import JsonObject

LoggedEvent = JsonObject
Sample = float | Callable[[LoggedEvent], bool]
Redact = Callable[[LoggedEvent], LoggedEvent | None]


class HasIds(Protocol):
    """A span, as far as the events within it are concerned."""

    @property
    def ids(self) -> tuple[str, str]:
        """Trace id and span id."""


OPEN_SPAN: ContextVar[HasIds | None] = ContextVar("lakelog_span", default=None)
"""The span of lakelog that is open here."""


class Recorder:
    """Records events in a lake for a handler or logger.

    `sample` is the part to keep, from 0 to 1, where events of one trace share their lot; or it says
    for each event whether to keep it. `redact` gets each event and returns what is stored of it,
    None for nothing. `context` are variables whose values become members of `data`.
    """

    def __init__(
        self,
        lake: LakeOrPath,
        *,
        full: str = "buffer",
        sample: Sample | None = None,
        redact: Redact | None = None,
        context: Iterable[ContextVar[object]] = (),
        strict: bool = False,
    ) -> None:
        if isinstance(sample, (int, float)) and not 0 <= sample <= 1:
            raise ValueError(f"sample is a part from 0 to 1, not {sample!r}")
        self._queue = queue_of(lake, full)
        self._sample, self._redact, self._context = sample, redact, tuple(context)
        self._strict = strict
        self._has_hooks = sample is not None or redact is not None
        self.needs_events = self._has_hooks or bool(self._context)
        """Whether events are needed as they are, and not as lines."""
        self.put = self._queue.put

    def record(self, event: LoggedEvent) -> None:
        """Queue an event: columns with `time` first, and `data`, a dict of its own, last."""
        try:
            data = event["data"]
            for variable in self._context:
                value = variable.get(None)
                if value is not None:
                    data[variable.name] = value
            if "spanId" not in data and (ids := open_span()) is not None:
                data["traceId"], data["spanId"] = ids
            if self._has_hooks:
                result = self._hooked(event)
                if result is None:
                    return
                # A time or type that is none would keep the lake from being read.
                self._queue.put(encode_unknown(result))
                return
            self._queue.put(encode_event(event))
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Count an event that cannot be recorded; raise the error if the caller asked for that."""
        if self._strict:
            raise error
        self._queue.refuse(f"an event was refused: {type(error).__name__}: {error}")

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything is stored, or so many seconds; whether it is."""
        return self._queue.flush(timeout)

    def stats(self) -> QueueStats:
        """Counts of the queue, which all recorders of one lake in this process share."""
        return self._queue.stats()

    def _hooked(self, event: LoggedEvent) -> LoggedEvent | None:
        """Apply `sample` and `redact`; None if nothing is to be stored."""
        sample = self._sample
        if callable(sample):
            if not sample(event):
                return None
        elif sample is not None and _draw(event["data"].get("traceId")) >= sample:
            return None
        if self._redact is None:
            return event
        return self._redact(event)


def open_span() -> tuple[str, str] | None:
    """Return (trace id, span id) of the innermost open span, of lakelog or OpenTelemetry."""
    span = OPEN_SPAN.get()
    if span is not None:
        return span.ids
    # Only looked for where the program has loaded it; importing it here would cost every program.
    otel = sys.modules.get("opentelemetry.trace")
    if otel is None:
        return None
    context = otel.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def _draw(trace: object) -> float:
    """A number from 0 to 1, the same for all events of a trace in all processes."""
    return zlib.crc32(trace.encode()) / 2**32 if isinstance(trace, str) else random.random()
