"""OpenTelemetry in JSON: export requests for logs and traces, and files of the collector.

Each log record is an event of type `log` (or its eventName), each span one of type `span`, each
metric one of type `metric`. `data` holds the record with its attributes as plain JSON, beside it
the `resource` (its attributes, by name) and the `scope`. A body that is text is the message; any
other stays in `data`. The time is that of the event, else when it was observed; `source` is the
service's name. Nanoseconds stay in `data`, as do ids. There is no SQL for requests: taking them
apart in the engine, level by level, needs up to three times the processor.
"""

from __future__ import annotations

import re
from typing import Any

from lakelog.errors import InvalidEvent
from lakelog.event import Severity
from lakelog.formats import documents
from lakelog.formats.dialect import SCALES
from lakelog.formats.format import EventMembers, Format, Traits
from lakelog.values import JsonObject, parse_time, parse_value

_KINDS = {
    "resourceLogs": ("scopeLogs", "logRecords"),
    "resourceSpans": ("scopeSpans", "spans"),
    "resourceMetrics": ("scopeMetrics", "metrics"),
}
_REQUEST = re.compile(rb'\s*\[?\s*\{\s*"resource(?:Logs|Spans|Metrics)"\s*:\s*\[')
_POINTS = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")
_PLAIN = ("stringValue", "boolValue", "bytesValue")
_DIGITS = r"-?[0-9]{1,19}"


class OtlpRequests(Format):
    """The format of export requests."""

    NAME = "otlp"
    traits = Traits(begins=r"^[{\[]", whole=True, many=True, surest=1.08)

    def sniff(self, lines: list[bytes]) -> float:
        """Return how likely it is (0 to 1) that these are requests of OpenTelemetry."""
        return self.traits.surest if _REQUEST.match(b"\n".join(lines)) else 0.0

    def complete(self, record: bytes) -> bool:
        """Whether a record that nothing follows yet has its end."""
        return documents.FORM.complete(record)

    def parse(self, record: bytes) -> list[EventMembers]:
        """Return the events of a request. Raises InvalidEvent."""
        value = parse_value(record)
        requests = value if isinstance(value, list) else [value]
        if not all(isinstance(r, dict) and r.keys() & _KINDS.keys() for r in requests):
            raise InvalidEvent(
                "not an OpenTelemetry request: it has no resourceLogs or resourceSpans"
            )
        return [event for request in requests for event in self.events_of(request)]

    @classmethod
    def events_of(cls, request: JsonObject) -> list[EventMembers]:
        """Return the events of an export request. Raises InvalidEvent."""
        result = []
        for signal, (scopes, records) in _KINDS.items():
            for resource_records in _listed(request.get(signal)):
                resource = cls.described(
                    resource_records.get("resource"), resource_records.get("schemaUrl"), flat=True
                )
                for inner in _members(resource_records, scopes):
                    scope = cls.described(inner.get("scope"), inner.get("schemaUrl"), flat=False)
                    events_ = (_event(signal, r, resource, scope) for r in _members(inner, records))
                    result += [_with_valid_time(event) for event in events_]
        return result

    @staticmethod
    def described(value: object, schema: object, *, flat: bool) -> JsonObject:
        """A resource by its attributes, or a scope with them."""
        value = value if isinstance(value, dict) else {}
        result = {k: v for k, v in value.items() if k != "attributes"}
        if value.get("attributes"):
            members = attributes(value["attributes"])
            result = (
                {**members, **result}
                if flat and isinstance(members, dict)
                else result | {"attributes": members}
            )
        return result | ({"schemaUrl": schema} if schema else {})


FORM = OtlpRequests(__doc__)


def plain(value: object) -> Any:
    """Return what an AnyValue holds as plain JSON; what is none comes back as it is."""
    if not isinstance(value, dict) or len(value) != 1:
        return None if value == {} else value
    # The protobuf spelling of JSON: one member, which names the type of its value.
    (value_type, inner), *_ = value.items()
    if value_type in _PLAIN:
        return inner
    if value_type in ("intValue", "doubleValue"):
        return _number(inner)
    values = inner.get("values", []) if isinstance(inner, dict) else None
    if value_type == "arrayValue" and isinstance(values, list):
        return [plain(v) for v in values]
    if value_type == "kvlistValue" and isinstance(values, list):
        return attributes(values)
    return value


def attributes(pairs: object) -> Any:
    """Return a list of keys with AnyValues as an object; what is none comes back as it is."""
    if not isinstance(pairs, list) or not all(_is_pair(pair) for pair in pairs):
        return pairs
    members = {pair["key"]: plain(pair.get("value", {})) for pair in pairs}
    # Doubled keys would lose a value: then the list is kept as it is.
    return members if len(members) == len(pairs) else pairs


def _is_pair(pair: object) -> bool:
    return isinstance(pair, dict) and isinstance(pair.get("key"), str)


def _number(value: object) -> Any:
    if isinstance(value, str) and re.fullmatch(_DIGITS, value, re.ASCII):
        return int(value)
    return value


def _members(outer: JsonObject, name: str) -> list[JsonObject]:
    """The objects of a list by its name. Raises InvalidEvent where only one of another name is
    there, as older senders have it: its records would be lost without a word."""
    listed = _listed(outer.get(name))
    other = next((key for key, value in outer.items() if isinstance(value, list) and value), name)
    if not listed and other != name:
        raise InvalidEvent(f"not an OpenTelemetry request: it has {other!r:.40} and no {name}")
    return listed


def _listed(value: object) -> list[JsonObject]:
    """The objects of a list. Raises InvalidEvent for anything else that is given."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise InvalidEvent("not an OpenTelemetry request: a list of objects is needed")
    return value


def _event(
    signal: str, record: JsonObject, resource: JsonObject, scope: JsonObject
) -> EventMembers:
    data = dict(record)
    if "attributes" in data:
        data["attributes"] = attributes(data["attributes"])
    event: EventMembers = {"type": "log"}
    # A body of text is the message; structure stays in the payload.
    if signal == "resourceLogs":
        body = plain(data.pop("body", None))
        if isinstance(body, str):
            event["message"] = body
        elif body is not None:
            data["body"] = body
        if isinstance(data.get("eventName"), str) and data["eventName"]:
            event["type"] = data["eventName"]
    else:
        event["type"] = "span" if signal == "resourceSpans" else "metric"
        if isinstance(data.get("name"), str):
            event["message"] = data["name"]
    moment = _moment(data, signal)
    if moment is not None:
        event["time"] = moment
    # Metrics have no severity, and no status that would mean one.
    level = _level(data) if signal != "resourceMetrics" else None
    if level:
        event["level"] = level
    if isinstance(resource.get("service.name"), str):
        event["source"] = resource["service.name"]
    # Last, so that a record's own member cannot hide its resource.
    data |= {"resource": resource} if resource else {}
    return event | {"data": data | ({"scope": scope} if scope else {})}


def _moment(data: JsonObject, signal: str) -> Any:
    names = ("timeUnixNano", "observedTimeUnixNano", "startTimeUnixNano")
    moments = [data.get(name) for name in names]
    if signal == "resourceMetrics":
        points_of: JsonObject = next(
            (data[k] for k in _POINTS if isinstance(data.get(k), dict)), {}
        )
        points = points_of.get("dataPoints")
        point = points[0] if isinstance(points, list) and points else None
        moments = [point.get("timeUnixNano")] if isinstance(point, dict) else []
    return next((m for m in moments if not _is_none(m)), None)


def _is_none(moment: object) -> bool:
    return moment in (None, "", "0") or (type(moment) is int and moment == 0)


def _level(data: JsonObject) -> str | None:
    number, severity_text, status = (
        data.get("severityNumber"),
        data.get("severityText"),
        data.get("status"),
    )
    # The JSON of protobuf allows a number, its digits as text and the name of an enumerator.
    if isinstance(number, str) and re.fullmatch(r"[0-9]{1,2}", number, re.ASCII):
        number = int(number)
    elif isinstance(number, str):
        severity_text = (
            Severity.of(re.sub(r"SEVERITY_NUMBER_([A-Z]+)[2-4]?$", r"\1", number)) or severity_text
        )
    if isinstance(number, int) and not isinstance(number, bool) and 0 < number < 25:
        return next(name for minimum, name in reversed(SCALES["otel"]) if number >= minimum)
    if isinstance(severity_text, str) and Severity.of(severity_text):
        return Severity.of(severity_text)
    # A span has no severity: a status of ERROR is the only thing that says so.
    failed = isinstance(status, dict) and status.get("code") in (2, "STATUS_CODE_ERROR")
    return "ERROR" if failed else None


def _with_valid_time(event: EventMembers) -> EventMembers:
    """An event, without its time where that is none: the payload has what was sent."""
    try:
        parse_time(event.get("time", 0))
    except InvalidEvent:
        return {name: value for name, value in event.items() if name != "time"}
    return event
