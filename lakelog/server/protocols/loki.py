"""Loki's push API: streams of labels with lines, as JSON or as protobuf in raw snappy.

A line is an event of the type `log` with the line as its message; its labels and its structured
metadata are in `data`, and the label that names a service is the source. Clients send the protobuf
without saying that it is compressed; raw snappy has its length in front, so that a bomb is refused
before it is opened (grafana.com/docs/loki, reference of the HTTP API; snappy's format_description).
"""

from __future__ import annotations

import contextlib
import functools
import re
from typing import Any

from lakelog.errors import InvalidEvent
from lakelog.event import Severity
from lakelog.formats import EventMembers
from lakelog.libraries import pa
from lakelog.runtime.lazy import Lazy
from lakelog.server.arrivals import Arrivals, RecordReader, RequestRefused, arrivals_of
from lakelog.server.protocols.protocol import (
    JSON,
    PROTOBUF,
    Answer,
    IngestProtocol,
    IngestRequest,
    has_unknown_fields,
)
from lakelog.values import parse_value

descriptor_pb2 = Lazy("google.protobuf.descriptor_pb2")
descriptor_pool = Lazy("google.protobuf.descriptor_pool")
message = Lazy("google.protobuf.message")
message_factory = Lazy("google.protobuf.message_factory")
_SERVICES = ("service_name", "service", "app", "application", "job", "container", "host")
_LEVELS = ("level", "detected_level", "severity")
_OBJECT = re.compile(rb'\s*\{\s*["}]')
_LABEL = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_.]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\\"'`])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))"
)
_CONTROL = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_TEXT_MAX = 128 << 20
_VARINT_BYTES = 10
_LOKI = "logproto"
_MESSAGES = {
    "PushRequest": {"streams": "Stream"},
    "Stream": {"labels": "bytes", "entries": "Entry"},
    "Entry": {"timestamp": "Timestamp", "line": "bytes", "metadata": "Label"},
    "Timestamp": {"seconds": "int64", "nanos": "int64"},
    "Label": {"name": "bytes", "value": "bytes"},
}
"""The messages of a push with their fields, in the order of their numbers. Texts are bytes: one
that is no UTF-8 must not take all others with it."""
_LISTS = ("streams", "entries", "metadata")
_SCALARS = {"int64": 3, "bytes": 12}
"""Numbers of types in descriptor.proto; of its labels 1 is optional, and 3 repeated."""


class LokiPush(IngestProtocol):
    """The protocol, at /loki/api/v1/push."""

    routes = ("/loki/api/v1/push",)

    def receive(self, request: IngestRequest, body: bytes) -> Arrivals:
        """Return the lines of a body."""
        if not body.strip():
            raise RequestRefused(400, "the body is empty")
        # In front of snappy stands its length, which may be the character {; no member follows.
        is_json = request.media_type == JSON or (
            request.media_type != PROTOBUF and _OBJECT.match(body) is not None
        )
        return _of_json(body) if is_json else _of_protobuf(body)

    def answer(self, request: IngestRequest, arrivals: Arrivals) -> Answer:
        """204, or 400 with what was refused: the others are stored all the same."""
        if not arrivals.rejects:
            return Answer(204)
        count = len(arrivals.rejects)
        explanation = (
            f"{count} lines refused, {arrivals.stored} stored: {arrivals.rejects[0].reason}"
        )
        return Answer(400, explanation.encode(), media_type="text/plain")

    def failure(self, request: IngestRequest, status: int, reason: str) -> Answer:
        """Return the reason as text."""
        return Answer(status, reason.encode(), media_type="text/plain")


def _of_json(body: bytes) -> Arrivals:
    try:
        value = parse_value(body)
    except InvalidEvent as error:
        raise RequestRefused(400, error.reason) from None
    streams = value.get("streams") if isinstance(value, dict) else None
    if not isinstance(streams, list):
        raise RequestRefused(400, 'a push is {"streams": [{"stream": {...}, "values": [...]}]}')
    reader, number = RecordReader(), 0
    for stream in streams:
        labels = stream.get("stream") if isinstance(stream, dict) else None
        values = stream.get("values") if isinstance(stream, dict) else None
        if not isinstance(labels, dict) or not isinstance(values, list):
            reader.refuse(number, "a stream has labels and values", stream)
            number += 1
            continue
        for entry in values:
            reader.read(number, entry, functools.partial(_event_of_entry, labels))
            number += 1
    return reader.arrivals()


def _event_of_entry(labels: EventMembers, entry: Any) -> EventMembers:
    """Return the event of a value of a stream. Raises InvalidEvent."""
    is_entry = (
        isinstance(entry, list)
        and len(entry) in (2, 3)
        and re.fullmatch(r"[0-9]{1,19}", str(entry[0]), re.ASCII) is not None
        and isinstance(entry[1], str)
        and (len(entry) == 2 or isinstance(entry[2], dict))
    )
    if not is_entry:
        raise InvalidEvent("a value is [nanoseconds, line]")
    return _event(int(entry[0]), entry[1], labels, entry[2] if len(entry) > 2 else {})


def _event(
    nanoseconds: int, line: str, labels: EventMembers, metadata: EventMembers
) -> EventMembers:
    data = {"labels": labels} | ({"metadata": metadata} if metadata else {})
    both = {**labels, **metadata}
    source = next((both[name] for name in _SERVICES if isinstance(both.get(name), str)), None)
    level_names = (both[name] for name in _LEVELS if isinstance(both.get(name), str))
    level = next((name for word in level_names if (name := Severity.of(word))), None)
    return {
        "time": nanoseconds,
        "type": "log",
        "source": source,
        "level": level,
        "message": line,
        "data": data,
    }


@functools.cache
def _push_class() -> Any:
    """The class of Loki's PushRequest, of which no package has the description. Raises
    ImportError."""
    file = descriptor_pb2.FileDescriptorProto(name="push.proto", package=_LOKI, syntax="proto3")
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for number, (name, type_name) in enumerate(fields.items(), 1):
            field = message.field.add(name=name, number=number, label=1 + 2 * (name in _LISTS))
            if type_name in _SCALARS:
                field.type = _SCALARS[type_name]
            else:
                field.type_name = f".{_LOKI}.{type_name}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_LOKI}.PushRequest"))


def _of_protobuf(body: bytes) -> Arrivals:
    try:
        size = sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(_varint(body)))
        if size > _TEXT_MAX:
            raise RequestRefused(
                413, f"the body has more than {_TEXT_MAX:,} bytes: send it in parts"
            )
        text = pa.Codec("snappy").decompress(body, decompressed_size=size).to_pybytes()
        push = _push_class().FromString(text)
        events = [
            _event(
                entry.timestamp.seconds * 1_000_000_000 + entry.timestamp.nanos,
                entry.line.decode("utf-8", "replace"),
                labels,
                {m.name.decode(): m.value.decode("utf-8", "replace") for m in entry.metadata},
            )
            for stream in push.streams
            for labels in (_labels(stream.labels.decode()),)
            for entry in stream.entries
        ]
        if not events and has_unknown_fields(push, len(text)):
            raise ValueError("no lines, and fields of another message")
    # The codec raises OSError.
    except (OSError, pa.ArrowException, message.DecodeError, ValueError):
        raise RequestRefused(400, "the body is neither JSON nor protobuf in snappy") from None
    return arrivals_of(events)


def _varint(body: bytes) -> bytes:
    """The bytes of the number that a body begins with. Raises ValueError where it has no end."""
    end = next((n for n, byte in enumerate(body[:_VARINT_BYTES], 1) if not byte & 0x80), 0)
    if not end:
        raise ValueError("a number without an end")
    return body[:end]


def unescaped(spelling: str) -> str:
    """A text of Go, as it stands in selectors, without its quotes and escapes. Raises
    ValueError."""

    def replaced(match: re.Match[str]) -> str:
        simple, two, four, eight, octal, unknown = match.groups()
        if simple:
            return _CONTROL.get(simple, simple)
        if unknown:
            raise ValueError(f"\\{unknown} is no escape: write `…` for a regular expression")
        code = int(octal, 8) if octal else int(two or four or eight, 16)
        if code > 0x10FFFF:
            raise ValueError("an escape that is no character")
        return chr(code)

    return _ESCAPE.sub(replaced, spelling)


def _label(spelling: str) -> str:
    # One that Go does not write is left as it came: its lines are told all the same.
    with contextlib.suppress(ValueError):
        return unescaped(spelling)
    return spelling


def _labels(selector: str) -> dict[str, str]:
    """The labels of `{name="value", …}`."""
    inner = selector.strip().removeprefix("{").removesuffix("}")
    return {match[1]: _label(match[2]) for match in _LABEL.finditer(inner)}
