"""Log records of OpenTelemetry straight from protobuf: the same events that their JSON gives.

Most senders send nothing else, and a record costs a fifth of the way by its JSON. What is not plain
is left to that way: a time before 1973, and attributes of one name.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import orjson

from lakelog.event.levels import severity
from lakelog.event.types import JsonObject
from lakelog.formats import otlp
from lakelog.formats.format import EventMembers

_EARLIEST, _LATEST = 10**17, 9 * 10**18
"""Nanoseconds that are no other unit."""
_WIDE = 10**18
_LEVELS = ("", *("TRACE",) * 4, *("DEBUG",) * 4, *("INFO",) * 4, *("WARN",) * 4, *("ERROR",) * 4)
_LEVEL_OF = dict(enumerate((*_LEVELS, *("FATAL",) * 4)))


class NotPlain(Exception):
    """A record has to take the way by its JSON."""


def log_events(request: Any, as_object: Any) -> list[EventMembers]:
    """Return the events of an ExportLogsServiceRequest; `as_object` makes JSON of a message.

    Raises NotPlain, InvalidEvent.
    """
    events, seconds = list[EventMembers](), dict[int, str]()
    for resource_logs in request.resource_logs:
        resource = otlp.described(
            as_object(resource_logs.resource), resource_logs.schema_url, flat=True
        )
        source = resource.get("service.name")
        for scope_logs in resource_logs.scope_logs:
            scope = otlp.described(as_object(scope_logs.scope), scope_logs.schema_url, flat=False)
            # Written once for all records.
            named = {"resource": resource, "scope": scope}
            shared = {k: orjson.Fragment(orjson.dumps(v)) for k, v in named.items() if v}
            for record in scope_logs.log_records:
                event = _event(record, shared, seconds)
                if isinstance(source, str):
                    event["source"] = source
                event["data"] = event.pop("data")
                events.append(event)
    return events


def _event(record: Any, shared: JsonObject, seconds: dict[int, str]) -> EventMembers:
    time, observed = record.time_unix_nano, record.observed_time_unix_nano
    data: JsonObject = {"timeUnixNano": str(time)} if time else {}
    event: EventMembers = {"time": _iso(time or observed, seconds), "type": "log"}
    number, text = record.severity_number, record.severity_text
    if number:
        data["severityNumber"] = number
    if text:
        data["severityText"] = text
    level = _LEVEL_OF.get(number) or severity(text)
    if level:
        event["level"] = level
    body = _plain(record.body)
    if record.attributes:
        data["attributes"] = _attributes(record.attributes)
    if record.dropped_attributes_count:
        data["droppedAttributesCount"] = record.dropped_attributes_count
    if record.flags:
        data["flags"] = record.flags
    if record.trace_id:
        data["traceId"] = record.trace_id.hex()
    if record.span_id:
        data["spanId"] = record.span_id.hex()
    if observed:
        data["observedTimeUnixNano"] = str(observed)
    if name := record.event_name:
        data["eventName"] = event["type"] = name
    if isinstance(body, str):
        event["message"] = body
    elif body is not None:
        data["body"] = body
    event["data"] = data | shared if shared else data
    return event


def _plain(value: Any) -> Any:
    """What an AnyValue holds, as `otlp.plain` gives it for its JSON."""
    member = value.WhichOneof("value")
    if member == "string_value":
        return value.string_value
    if member == "int_value":
        number = value.int_value
        return number if -_WIDE < number < _WIDE else str(number)
    if member in ("bool_value", "double_value"):
        return getattr(value, member)
    if member is None:
        return None
    if member == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    if member == "array_value":
        return [_plain(item) for item in value.array_value.values]
    if member == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    raise NotPlain


def _attributes(pairs: Any) -> JsonObject:
    members = {pair.key: _plain(pair.value) for pair in pairs}
    if len(members) < len(pairs) or "" in members:
        raise NotPlain
    return members


def _iso(nanoseconds: int, seconds: dict[int, str]) -> str:
    """A time as the WAL has it; `seconds` remembers those of the request."""
    if not _EARLIEST <= nanoseconds < _LATEST:
        raise NotPlain
    second, micros = divmod(nanoseconds // 1_000, 1_000_000)
    text = seconds.get(second)
    if text is None:
        text = seconds[second] = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{micros:06d}Z"
