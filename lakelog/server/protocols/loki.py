"""Loki's push API: streams of labels with lines, as JSON or as protobuf in raw snappy.

A line is an event of the type `log` with the line as its message; its labels and its structured
metadata are in `data`, and the label that names a service is the source. Clients send the protobuf
without saying that it is compressed; raw snappy has its length in front, so that a bomb is refused
before it is opened (grafana.com/docs/loki, reference of the HTTP API; snappy's format_description).
"""

from __future__ import annotations

import re
from typing import Any

from lakelog.errors import InvalidEvent
from lakelog.event import Severity
from lakelog.formats.format import EventMembers
from lakelog.libraries import pa
from lakelog.server.arrivals import Arrivals, Reject, RequestRefused, arrivals_of, as_text
from lakelog.server.protocols.protocol import JSON, Answer, IngestProtocol, IngestRequest
from lakelog.values import parse_value

_SERVICES = ("service_name", "service", "app", "application", "job", "container", "host")
_LEVELS = ("level", "detected_level", "severity")
_LABEL = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_.]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')
_TEXT_MAX = 128 << 20
_VARINT_BYTES = 10


class LokiPush(IngestProtocol):
    """The protocol, at /loki/api/v1/push."""

    name = "loki"
    routes = ("/loki/api/v1/push",)

    def receive(self, request: IngestRequest, body: bytes) -> Arrivals:
        """Return the lines of a body."""
        if not body.strip():
            raise RequestRefused(400, "the body is empty")
        is_json = request.media_type == JSON or body.lstrip()[:1] == b"{"
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
    events, rejects, number = list[EventMembers](), list[Reject](), 0
    for stream in streams:
        labels = stream.get("stream") if isinstance(stream, dict) else None
        values = stream.get("values") if isinstance(stream, dict) else None
        if not isinstance(labels, dict) or not isinstance(values, list):
            rejects.append(Reject(number, "a stream has labels and values", as_text(stream)))
            number += 1
            continue
        for entry in values:
            if _is_entry(entry):
                metadata = entry[2] if len(entry) > 2 else {}
                events.append(_event(int(entry[0]), entry[1], labels, metadata))
            else:
                rejects.append(Reject(number, "a value is [nanoseconds, line]", as_text(entry)))
            number += 1
    return arrivals_of(events, rejects)


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) in (2, 3)
        and re.fullmatch(r"[0-9]{1,19}", str(entry[0]), re.ASCII) is not None
        and isinstance(entry[1], str)
        and (len(entry) == 2 or isinstance(entry[2], dict))
    )


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


def _of_protobuf(body: bytes) -> Arrivals:
    try:
        size, _ = _varint(body, 0)
        if size > _TEXT_MAX:
            raise RequestRefused(
                413, f"the body has more than {_TEXT_MAX:,} bytes: send it in parts"
            )
        push = pa.Codec("snappy").decompress(body, decompressed_size=size).to_pybytes()
        events = [
            _event(time, line, labels, metadata)
            for labels_text, entries in _streams(push)
            for labels in (_labels(labels_text),)
            for time, line, metadata in entries
        ]
    except (OSError, pa.ArrowException, ValueError, IndexError):  # the codec raises OSError
        raise RequestRefused(400, "the body is neither JSON nor protobuf in snappy") from None
    return arrivals_of(events)


def _varint(data: bytes, start: int) -> tuple[int, int]:
    """Return a number and where it ends. Raises ValueError where it does not."""
    number = 0
    for index, byte in enumerate(data[start : start + _VARINT_BYTES]):
        number |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            return number, start + index + 1
    raise ValueError("a number without an end")


def _numbers(data: bytes) -> list[tuple[int, int]]:
    """The fields of a protobuf message that are numbers, each with its own."""
    return [(field, value) for field, value in _fields(data) if isinstance(value, int)]


def _texts(data: bytes) -> list[tuple[int, bytes]]:
    """The same of its fields with a length. One of another type than it should have is unknown, as
    it is to protobuf's own readers."""
    return [(field, value) for field, value in _fields(data) if isinstance(value, bytes)]


def _fields(data: bytes) -> list[tuple[int, int | bytes]]:
    fields, place = list[tuple[int, int | bytes]](), 0
    while place < len(data):
        tag, place = _varint(data, place)
        if tag & 7 == 0:
            value, place = _varint(data, place)
            fields.append((tag >> 3, value))
        elif tag & 7 == 2:
            size, place = _varint(data, place)
            if place + size > len(data):
                raise ValueError("a field that is longer than its message")
            fields.append((tag >> 3, data[place : place + size]))
            place += size
        else:
            # Wire types with a fixed width, which no field of a push has: they are skipped.
            place += {1: 8, 5: 4}[tag & 7] if tag & 7 in (1, 5) else len(data) + 1
            if place > len(data):
                raise ValueError("a field of no known kind")
    return fields


def _streams(push: bytes) -> list[tuple[str, list[tuple[int, str, dict[str, str]]]]]:
    """PushRequest{streams=1}, Stream{labels=1, entries=2}, Entry{timestamp=1, line=2,
    structuredMetadata=3}, Timestamp{seconds=1, nanos=2}, Label{name=1, value=2}."""
    streams = []
    for number, stream in _texts(push):
        if number != 1:
            continue
        labels, entries = "", []
        for field, value in _texts(stream):
            if field == 1:
                labels = value.decode()
            elif field == 2:
                entries.append(_entry(value))
        streams.append((labels, entries))
    return streams


def _entry(data: bytes) -> tuple[int, str, dict[str, str]]:
    time, line, metadata = 0, "", {}
    for number, value in _texts(data):
        if number == 1:
            stamp = dict(_numbers(value))
            time = stamp.get(1, 0) * 1_000_000_000 + stamp.get(2, 0)
        elif number == 2:
            line = value.decode("utf-8", "replace")
        elif number == 3:
            pair = dict(_texts(value))
            metadata[pair.get(1, b"").decode()] = pair.get(2, b"").decode("utf-8", "replace")
    return time, line, metadata


def _labels(selector: str) -> dict[str, str]:
    """The labels of `{name="value", …}`."""
    inner = selector.strip().removeprefix("{").removesuffix("}")
    return {
        match[1]: re.sub(r'\\(["\\n])', lambda m: "\n" if m[1] == "n" else m[1], match[2])
        for match in _LABEL.finditer(inner)
    }
