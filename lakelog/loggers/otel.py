"""Exporters for the SDK of OpenTelemetry: spans and log records as events of a lake.

The events are those that an OTLP file gives (`lakelog ingest`): type `span` or `log` (else the name
of the event), the record in `data` under the names of OTLP, attributes as plain objects, beside
them `resource` and `scope`. Nothing is cut: limits of attributes are those of the SDK.

An export returns once the events are durable; the SDK's batch processors call it in a thread of
theirs. It fails, and says so, where the lake cannot be written, and never raises. A record that
cannot be one of an event is left out, which it says, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Event as SpanEvent
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link

import contextlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

from lakelog.errors import LakelogError
from lakelog.event import Severity
from lakelog.loggers.destination import LakeDestination, LakeOrPath, opened_lake
from lakelog.loggers.values import encode_event
from lakelog.runtime.lazy import Lazy
from lakelog.values import JsonObject, from_micros
from lakelog.wal import Frame

_FAILED = 2
_EVEN_EMPTY = ("status", "body")
"""Members that mean something even if they are empty, 0 or false."""
_traces, _logs = Lazy("opentelemetry.sdk.trace.export"), Lazy("opentelemetry.sdk._logs.export")


class _Exporter:
    """What both exporters share: a lake of their own, and durable exports."""

    def __init__(self, lake: LakeOrPath) -> None:
        if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
            raise LakelogError("OpenTelemetry is not installed: pip install 'lakelog[otel]'")
        self._lake = LakeDestination(opened_lake(lake))
        self._reported: set[str] = set()

    def _store(self, records: Iterable[object], event_of: Callable[[Any], JsonObject]) -> bool:
        encoded = list[bytes]()
        for record in records:
            # One with values of other types than the API says keeps none of its batch away.
            try:
                encoded.append(encode_event(event_of(record)))
            except Exception as error:
                self._report("a record was refused: ", error)
        try:
            for lines in Frame.split_lines(encoded):
                self._lake.store(lines)
        except (OSError, LakelogError) as error:
            self._report("", error)
            return False
        return True

    def _report(self, prefix: str, error: Exception) -> None:
        """Say what went wrong, the first time."""
        if prefix not in self._reported:
            self._reported.add(prefix)
            sys.stderr.write(f"lakelog: {prefix}{type(error).__name__}: {error}\n")

    def shutdown(self) -> None:
        """Close the lake; a later export opens it again."""
        self._lake.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """True: what was exported is durable."""
        return True


class LakeSpanExporter(_Exporter):
    """A SpanExporter: `BatchSpanProcessor(lakelog.LakeSpanExporter("lake"))`."""

    def export(self, spans: Sequence[object]) -> object:
        """Store finished spans durably; SUCCESS or FAILURE."""
        is_stored = self._store(spans, span_event)
        return getattr(_traces.SpanExportResult, "SUCCESS" if is_stored else "FAILURE")


class LakeLogExporter(_Exporter):
    """A log exporter: `BatchLogRecordProcessor(lakelog.LakeLogExporter("lake"))`."""

    def export(self, batch: Sequence[object]) -> object:
        """Store log records durably; SUCCESS or FAILURE."""
        is_stored = self._store(batch, log_event)
        # Older SDKs have the same result under a shorter name.
        results = getattr(_logs, "LogRecordExportResult", None) or _logs.LogExportResult
        return getattr(results, "SUCCESS" if is_stored else "FAILURE")


def span_event(span: Any) -> JsonObject:
    """Return a finished span of the SDK as an event."""
    context, parent = span.get_span_context(), span.parent
    data: dict[str, object] = {**_ids(context.trace_id, context.span_id)}
    if parent is not None:
        data["parentSpanId"] = f"{parent.span_id:016x}"
    data |= {
        "flags": int(context.trace_flags),
        "name": span.name,
        "kind": span.kind.value + 1,  # OTLP has 0 for "unspecified"
        "startTimeUnixNano": _nanos(span.start_time),
        "endTimeUnixNano": _nanos(span.end_time),
        "attributes": dict(span.attributes or {}),
        "droppedAttributesCount": span.dropped_attributes,
        "events": [_span_event(event) for event in span.events],
        "droppedEventsCount": span.dropped_events,
        "links": [_link(link) for link in span.links],
        "droppedLinksCount": span.dropped_links,
        "status": {"code": span.status.status_code.value, "message": span.status.description},
    }
    if context.trace_state:
        data["traceState"] = context.trace_state.to_header()
    level = "ERROR" if span.status.status_code.value == _FAILED else None
    return _event("span", span.start_time, level, span.name, data, span, span.instrumentation_scope)


def log_event(readable: Any) -> JsonObject:
    """Return a log record of the SDK as an event."""
    record = readable.log_record
    # Some bridges from other loggers give the number itself.
    number = getattr(record.severity_number, "value", record.severity_number) or 0
    data: JsonObject = {
        "timeUnixNano": _nanos(record.timestamp),
        "observedTimeUnixNano": _nanos(record.observed_timestamp),
        "severityNumber": number or None,
        "severityText": record.severity_text,
        "attributes": dict(record.attributes or {}),
        "eventName": getattr(record, "event_name", None),
    }
    if record.trace_id:
        data |= _ids(record.trace_id, record.span_id or 0)
        data["flags"] = int(record.trace_flags or 0)
    is_text = isinstance(record.body, str)
    if not is_text and record.body is not None:
        data["body"] = record.body
    if readable.dropped_attributes if hasattr(readable, "dropped_attributes") else 0:
        data["droppedAttributesCount"] = readable.dropped_attributes
    # Each has four numbers (OpenTelemetry, SeverityNumber).
    level = Severity.ALL[min(number - 1, 23) // 4] if number > 0 else None
    moment = record.timestamp or record.observed_timestamp
    message = record.body if is_text else None
    scope = readable.instrumentation_scope
    return _event(data["eventName"] or "log", moment, level, message, data, readable, scope)


def _event(
    name: str,
    moment: int | None,
    level: str | None,
    message: str | None,
    data: JsonObject,
    attributes_of: Any,
    scope: InstrumentationScope | None,
) -> dict[str, object]:
    """Return an event with its resource and scope; empty members are left out, as OTLP does."""
    data = {k: v for k, v in data.items() if k in _EVEN_EMPTY or v not in (None, "", 0, [], {})}
    resource = dict(attributes_of.resource.attributes) if attributes_of.resource is not None else {}
    if resource:
        schema = attributes_of.resource.schema_url
        data["resource"] = resource | ({"schemaUrl": schema} if schema else {})
    if scope is not None and scope.name:
        data["scope"] = _scope(scope)
    # An empty one is kept, unlike other members: it says that none was set.
    if "status" in data:
        data["status"] = {k: v for k, v in data["status"].items() if v}
    service = resource.get("service.name")
    return {
        "time": _time(moment),
        "type": name,
        "source": service if isinstance(service, str) else None,
        "level": level,
        "message": message,
        "data": data,
    }


def _scope(scope: InstrumentationScope) -> dict[str, object]:
    members: dict[str, object] = {
        "name": scope.name,
        "version": scope.version,
        "schemaUrl": scope.schema_url,
    }
    members["attributes"] = dict(getattr(scope, "attributes", None) or {})
    return {k: v for k, v in members.items() if v}


def _span_event(event: SpanEvent) -> dict[str, object]:
    attributes: Mapping[str, object] = event.attributes or {}
    return {
        "timeUnixNano": _nanos(event.timestamp),
        "name": event.name,
        "attributes": dict(attributes),
    }


def _link(link: Link) -> dict[str, object]:
    ids = _ids(link.context.trace_id, link.context.span_id)
    return {**ids, "attributes": dict(link.attributes or {})}


def _ids(trace: int, span: int) -> dict[str, str]:
    return {"traceId": f"{trace:032x}", "spanId": f"{span:016x}"}


def _time(moment: int | None) -> datetime:
    """A moment in nanoseconds; now where there is none, or one that no event can have: in `data` it
    is as it was given."""
    # One span with a time in another unit must not keep its whole batch from being stored.
    with contextlib.suppress(OverflowError, TypeError, ValueError):
        if moment:
            return from_micros(moment // 1000)
    return datetime.now(UTC)


def _nanos(moment: int | None) -> str | None:
    return str(moment) if moment else None  # as OTLP writes 64-bit integers in JSON
