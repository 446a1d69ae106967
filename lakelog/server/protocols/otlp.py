"""OTLP over HTTP: logs, traces and metrics of OpenTelemetry, as protobuf or JSON.

Events are those of the format `otlp` of files. An answer has the encoding of its request, and a
`partialSuccess` only where records were refused: with an empty one clients write a warning for
each request (opentelemetry-proto, docs/specification.md).
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import MutableSequence
from typing import Any

from lakelog import formats
from lakelog.errors import InvalidEvent, MissingPackage
from lakelog.runtime.lazy import Lazy
from lakelog.server.arrivals import Arrivals, RequestRefused, arrivals_of, require_few
from lakelog.server.protocols.otlp_logs import NotPlain, encoded_logs, request_class
from lakelog.server.protocols.protocol import (
    JSON,
    PROTOBUF,
    Answer,
    IngestProtocol,
    IngestRequest,
    has_unknown_fields,
)
from lakelog.values import JsonObject

_PACKAGE = "opentelemetry.proto.collector"
_logs = Lazy(f"{_PACKAGE}.logs.v1.logs_service_pb2")
_traces = Lazy(f"{_PACKAGE}.trace.v1.trace_service_pb2")
_metrics = Lazy(f"{_PACKAGE}.metrics.v1.metrics_service_pb2")
_message = Lazy("google.protobuf.message")
_SIGNALS = {"logs": "LogRecords", "traces": "Spans", "metrics": "DataPoints"}


class OtlpHttp(IngestProtocol):
    """The protocol, at /v1/logs, /v1/traces and /v1/metrics."""

    routes = ("/v1/{signal}",)

    def receive(self, request: IngestRequest, body: bytes) -> Arrivals:
        """Return the records of an export request."""
        if request.path["signal"] not in _SIGNALS:
            raise RequestRefused(404, "the paths are /v1/logs, /v1/traces and /v1/metrics")
        try:
            if request.media_type == JSON:
                return arrivals_of(
                    formats.FORMATS["otlp"].events(body) if body.strip() not in (b"", b"{}") else []
                )
            if request.media_type not in (PROTOBUF, ""):
                raise RequestRefused(415, f"send {PROTOBUF} or {JSON}, not {request.media_type}")
            return _of_protobuf(request.path["signal"], body)
        except InvalidEvent as error:
            raise RequestRefused(400, error.reason) from None

    def answer(self, request: IngestRequest, arrivals: Arrivals) -> Answer:
        """Return an empty success, or how many records were refused."""
        rejects = len(arrivals.rejects)
        if request.media_type == JSON:
            field = f"rejected{_SIGNALS[request.path['signal']]}"
            partial = {field: str(rejects), "errorMessage": _why(arrivals)}
            return Answer(200, {"partialSuccess": partial} if rejects else {})
        if not rejects:
            return Answer(200, b"", media_type=PROTOBUF)
        # ExportPartialSuccess in field 1: the number in field 1, its message in field 2.
        reason = _why(arrivals).encode()
        partial_bytes = b"\x08" + _varint(rejects) + b"\x12" + _varint(len(reason)) + reason
        content = b"\x0a" + _varint(len(partial_bytes)) + partial_bytes
        return Answer(200, content, media_type=PROTOBUF)

    def failure(self, request: IngestRequest, status: int, reason: str) -> Answer:
        """Return google.rpc.Status in the request's encoding."""
        if request.media_type == JSON:
            return Answer(status, {"code": 3, "message": reason})
        # google.rpc.Status: the code in field 1, 3 for INVALID_ARGUMENT, and the message in field
        # 2.
        message = reason.encode()
        content = b"\x08\x03\x12" + _varint(len(message)) + message
        return Answer(status, content, media_type=PROTOBUF)


def _why(arrivals: Arrivals) -> str:
    return "; ".join(dict.fromkeys(record.reason for record in arrivals.rejects[:5]))


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _of_protobuf(signal: str, body: bytes) -> Arrivals:
    """Events of a request in protobuf, by way of the objects that its JSON would be."""
    with MissingPackage.unless("server", "protobuf of OpenTelemetry needs a package"):
        if signal == "logs":
            # Most logs are encoded without objects between. What is not plain, or is broken, goes
            # the long way, which says what is wrong with it.
            with contextlib.suppress(NotPlain, _message.DecodeError):
                arrivals = Arrivals(encoded_logs(request_class().FromString(body), _object))
                if arrivals.stored:
                    return arrivals
        request = {
            "logs": lambda: _logs.ExportLogsServiceRequest(),
            "traces": lambda: _traces.ExportTraceServiceRequest(),
            "metrics": lambda: _metrics.ExportMetricsServiceRequest(),
        }[signal]()
    try:
        request.ParseFromString(body)
    except Exception:  # DecodeError, which another version may call else
        raise RequestRefused(400, "the body is no export request in protobuf") from None
    events = formats.OtlpRequests.events_of(_object(request))
    if not events and has_unknown_fields(request, len(body)):
        raise RequestRefused(400, "the body has no records that are known")
    return arrivals_of(events)


def _object(message: Any) -> JsonObject:
    """A message as the object that OTLP's JSON has for it: ids are hex, 64-bit numbers text. Raises
    RequestRefused."""
    members: JsonObject = {}
    for field, value in message.ListFields():
        name = field.json_name
        # Descriptors say it in other words with each version, their values do not.
        if isinstance(value, MutableSequence):
            require_few(len(value))
            convert = _scalar(field)
            members[name] = [convert(item) for item in value]
        else:
            members[name] = _scalar(field)(value)
    return members


def _scalar(field: Any) -> Any:
    """How a value of a field is spelled."""
    if field.message_type is not None:
        return _object
    if field.type == field.TYPE_BYTES:
        if field.name.endswith("_id"):
            return bytes.hex
        return lambda value: base64.b64encode(value).decode()
    if field.type in _WIDE:
        return str
    return lambda value: value


_WIDE = (3, 4, 6, 16, 18)
"""Types of 64 bits by their numbers in descriptor.proto: int64, uint64, fixed64, sfixed64,
sint64."""
