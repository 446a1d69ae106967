"""Log records of OpenTelemetry straight from protobuf: the same events that their JSON gives.

Most senders send nothing else, and a record costs a fifth of the way by its JSON. What is not plain
is left to that way: a time before 1973, attributes of one name, and what is no number.
"""

from __future__ import annotations

import base64
import functools
import math
from binascii import hexlify
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from lakelog import formats
from lakelog.event import EncodedBatch, Severity
from lakelog.runtime.lazy import Lazy
from lakelog.values import JsonObject

_PROTO, _PACKAGE = "google.protobuf", "opentelemetry.proto"
descriptor_pb2 = Lazy(f"{_PROTO}.descriptor_pb2")
descriptor_pool = Lazy(f"{_PROTO}.descriptor_pool")
message_factory = Lazy(f"{_PROTO}.message_factory")
common_pb2 = Lazy(f"{_PACKAGE}.common.v1.common_pb2")
resource_pb2 = Lazy(f"{_PACKAGE}.resource.v1.resource_pb2")
logs_pb2 = Lazy(f"{_PACKAGE}.logs.v1.logs_pb2")
logs_service_pb2 = Lazy(f"{_PACKAGE}.collector.logs.v1.logs_service_pb2")

_EARLIEST, _LATEST = 10**17, 9 * 10**18
"""Nanoseconds that are no other unit."""
_LEVELS = ("", *("TRACE",) * 4, *("DEBUG",) * 4, *("INFO",) * 4, *("WARN",) * 4, *("ERROR",) * 4)
_LEVEL_OF = dict(enumerate((*_LEVELS, *("FATAL",) * 4)))


class NotPlain(Exception):
    """A record has to take the way by its JSON."""


@functools.cache
def request_class() -> Any:
    """The class of ExportLogsServiceRequest in which attributes of records are bytes: equal ones,
    as most are, are read once. Raises ImportError."""
    # A pool of its own: the messages of the package stay as they are for everybody else.
    pool = descriptor_pool.DescriptorPool()
    for module in (common_pb2, resource_pb2, logs_pb2, logs_service_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type:
            if message.name == "LogRecord":
                field = next(field for field in message.field if field.name == "attributes")
                field.ClearField("type_name")
                field.type = field.TYPE_BYTES
        pool.Add(file)
    name = logs_service_pb2.ExportLogsServiceRequest.DESCRIPTOR.full_name
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def encoded_logs(request: Any, as_object: Any) -> EncodedBatch:
    """Return the events of a request of `request_class`; `as_object` makes JSON of a message.

    Raises NotPlain, and DecodeError of protobuf for attributes that are none.
    """
    lines, seconds = list[bytes](), _Seconds()
    # Records of one sender repeat the same few attributes, so that most look-ups need no decoding.
    pairs = _AttributeTexts(common_pb2.KeyValue.FromString)
    for resource_logs in request.resource_logs:
        resource = formats.OtlpRequests.described(
            as_object(resource_logs.resource), resource_logs.schema_url, flat=True
        )
        source = resource.get("service.name")
        severities = _Severities(source if isinstance(source, str) else None)
        for scope_logs in resource_logs.scope_logs:
            scope = formats.OtlpRequests.described(
                as_object(scope_logs.scope), scope_logs.schema_url, flat=False
            )
            # Written once for all records.
            described = {"resource": resource, "scope": scope}
            shared = [_pair(name, value) for name, value in described.items() if value]
            # Of NaN, perhaps, which would be null here: the way by JSON decides.
            if any(b"null" in member for member in shared):
                raise NotPlain
            lines += [
                _line(record, pairs, seconds, severities, shared)
                for record in scope_logs.log_records
            ]
    return EncodedBatch(b"\n".join(lines), [None] * len(lines), False)


class _AttributeTexts(dict[bytes, tuple[str, bytes]]):
    """Attributes by the bytes of them: their names, and how they are written."""

    def __init__(self, decode: Callable[[bytes], Any]) -> None:
        super().__init__()
        self._decode = decode

    def __missing__(self, encoded: bytes) -> tuple[str, bytes]:
        pair = self._decode(encoded)
        name, value = pair.key, pair.value
        self[encoded] = entry = name, _pair(name, value.string_value or _plain(value))
        return entry


class _Seconds(dict[int, bytes]):
    """Seconds since 1970 as the WAL has them."""

    def __missing__(self, whole: int) -> bytes:
        moment = datetime.fromtimestamp(whole, UTC)
        self[whole] = spelled = moment.strftime("%Y-%m-%dT%H:%M:%S").encode()
        return spelled


class _Severities(dict[tuple[int, str], tuple[bytes, list[bytes]]]):
    """What stands in a line between its time and its message, and the severity in its payload, by
    number and text of the severity."""

    def __init__(self, source: str | None) -> None:
        super().__init__()
        self._source = b"" if source is None else b"," + _pair("source", source)

    def __missing__(self, severity_of: tuple[int, str]) -> tuple[bytes, list[bytes]]:
        number, label = severity_of
        members = [_pair("severityNumber", number)] if number else []
        members += [_pair("severityText", label)] if label else []
        level = _LEVEL_OF.get(number) or Severity.of(label)
        columns = self._source + (b"," + _pair("level", level) if level else b"")
        self[severity_of] = entry = columns, members
        return entry


def _line(
    record: Any,
    pairs: _AttributeTexts,
    seconds: _Seconds,
    severities: _Severities,
    shared: list[bytes],
) -> bytes:
    """The line of a record, its payload in the order of the JSON."""
    time, observed = record.time_unix_nano, record.observed_time_unix_nano
    moment = time or observed
    # Before 1973 a number may as well be of microseconds, which the other way tells apart.
    if not _EARLIEST <= moment < _LATEST:
        raise NotPlain
    whole, micros = divmod(moment // 1_000, 1_000_000)
    members = [b'"timeUnixNano":"%d"' % time] if time else []
    columns, severity_members = severities[record.severity_number, record.severity_text]
    members += severity_members
    if encoded := record.attributes:
        attributes = [pairs[encoded_pair] for encoded_pair in encoded]
        names = {name for name, _ in attributes}
        if len(names) < len(attributes) or "" in names:
            raise NotPlain
        members.append(b'"attributes":{%b}' % b",".join([member for _, member in attributes]))
    if count := record.dropped_attributes_count:
        members.append(b'"droppedAttributesCount":%d' % count)
    if flags := record.flags:
        members.append(b'"flags":%d' % flags)
    if trace_id := record.trace_id:
        members.append(b'"traceId":"%b"' % hexlify(trace_id))
    if span_id := record.span_id:
        members.append(b'"spanId":"%b"' % hexlify(span_id))
    if observed:
        members.append(b'"observedTimeUnixNano":"%d"' % observed)
    name = b'"log"'
    if event_name := record.event_name:
        name = orjson.dumps(event_name)
        members.append(b'"eventName":' + name)
    value = record.body
    body = value.string_value or _plain(value)
    if isinstance(body, str):
        columns += b',"message":' + orjson.dumps(body)
    elif body is not None:
        members.append(_pair("body", body))
    members += shared
    data = b",".join(members)
    head = seconds[whole], micros, name, columns
    return b'{"time":"%b.%06dZ","type":%b%b,"data":{%b}}' % (*head, data)


def _pair(name: str, value: object) -> bytes:
    """A member of an object. Raises NotPlain."""
    try:
        return orjson.dumps({name: value})[1:-1]
    except TypeError:  # nested too deeply
        raise NotPlain from None


def _plain(value: Any) -> Any:
    """What an AnyValue holds, as `otlp.plain` gives it for its JSON."""
    member = value.WhichOneof("value")
    if member == "string_value":
        return value.string_value
    if member == "int_value":
        return value.int_value
    if member == "bool_value":
        return value.bool_value
    if member == "double_value" and math.isfinite(value.double_value):
        return value.double_value
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
