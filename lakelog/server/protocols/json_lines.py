"""JSON lines, one event each, at /ingest and /ingest/SOURCE; JSON documents and CloudEvents, too.

The type of the body decides little, as clients name the oddest ones: a body is taken for what it
is. A line that is no event is quarantined, and the answer names its number and the reason.
"""

from __future__ import annotations

import base64
from codecs import BOM_UTF8
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from urllib.parse import unquote

from lakelog import formats
from lakelog.errors import InvalidEvent
from lakelog.event import EncodedBatch
from lakelog.formats import EventMembers
from lakelog.server.arrivals import (
    Arrivals,
    RecordReader,
    RequestRefused,
    arrivals_of,
    joined,
    require_few,
)
from lakelog.server.bodies import require_parsable
from lakelog.server.limits import ServerLimits
from lakelog.server.protocols.protocol import Answer, IngestProtocol, IngestRequest, counts
from lakelog.values import parse_lines, parse_value

_HEAD = 4096
"""Bytes that tell lines from a document."""
_SLICE = 4 << 20
"""Bytes that are encoded together."""
_PARSED = 10_000
"""Lines that are parsed together, as each that is no JSON has an error, which is large."""
_STRUCTURED = "application/cloudevents+json"


class JsonIngest(IngestProtocol):
    """The protocol that lakelog documents for itself."""

    is_whole = False
    routes = ("/ingest", "/ingest/{source:path}")

    def receive(self, request: IngestRequest, body: bytes) -> Arrivals:
        """Return the events of a body in any of the forms above."""
        if request.attributes:
            return arrivals_of([_binary_event(request, body)])
        # As at the beginning of a file: Windows' programs write one.
        body = body.removeprefix(BOM_UTF8)
        if not body.strip():
            raise RequestRefused(400, "the body is empty: send one JSON object a line")
        source = request.path.get("source")
        slices, line_count, reject_count = list[tuple[int, Arrivals]](), 0, 0
        for lines in _slices(body):
            is_all = len(lines) == len(body)
            arrivals = _of_slice(lines, source, is_all=is_all)
            reject_count += len(arrivals.rejects)
            require_few(reject_count)
            slices.append((line_count, arrivals))
            line_count += lines.count(b"\n")
        return joined(slices)

    def answer(self, request: IngestRequest, arrivals: Arrivals) -> Answer:
        """Counts; a CloudEvent that is stored is answered with 204, as its senders expect."""
        if (request.attributes or request.media_type == _STRUCTURED) and not arrivals.rejects:
            return Answer(204)
        # What was erased was an event once.
        is_empty = not (arrivals.stored or arrivals.erased)
        status = 400 if arrivals.rejects and is_empty else 200
        return Answer(status, counts(arrivals))


def _slices(body: bytes) -> Iterator[bytes]:
    """Yield whole lines of a body, so many together as are parsed at a time; a document alone."""
    if len(body) <= _SLICE or formats.FORMATS["json"].sniff(body[:_HEAD].splitlines()) > 0:
        yield body
        return
    start = 0
    while start < len(body):
        end = body.find(b"\n", start + _SLICE) + 1 or len(body)
        yield body[start:end]
        start = end


def _of_slice(body: bytes, source: str | None, *, is_all: bool) -> Arrivals:
    """The events of some lines, or of a document. Raises RequestRefused."""
    if (batch := _plain(body, source)) is not None:
        return Arrivals(batch)
    is_document = is_all and formats.FORMATS["json"].sniff(body[:_HEAD].splitlines()) > 0
    arrivals, has_objects = (None, False) if is_document else _of_lines(body, source)
    if is_all and not has_objects:
        # Lines are parsed in slices, but a document as a whole.
        require_parsable(body, ServerLimits())
        arrivals = _of_document(body, source) or arrivals
    if arrivals is None:
        raise RequestRefused(400, "the body is neither JSON lines nor a JSON document")
    return arrivals


def _plain(body: bytes, source: str | None) -> EncodedBatch | None:
    """The events of lines that can be stored as they are, as those of most programs can."""
    defaults = {"time": datetime.now(UTC).isoformat().replace("+00:00", "Z")}
    if source:
        # An empty source counts as a missing one, which only parsed events show.
        if b'"source":""' in body or b'"source": ""' in body:
            return None
        defaults["source"] = source
    return EncodedBatch.of_lines(body.removesuffix(b"\n"), defaults)


def _of_lines(body: bytes, source: str | None) -> tuple[Arrivals, bool]:
    """The events of JSON lines, and lines that are none; whether any is an object. Raises
    RequestRefused."""
    require_few(body.count(b"\n"))
    lines, reader, has_objects = body.split(b"\n"), RecordReader(), False
    event_of = formats.FORMATS.reader_of(body[:_HEAD])
    starts = range(0, len(lines), _PARSED)
    values = chain.from_iterable(parse_lines(lines[start : start + _PARSED]) for start in starts)
    for number, (line, value) in enumerate(zip(lines, values, strict=True)):
        if isinstance(value, dict):
            reader.accept(number, line, _sourced(event_of(value), source))
            has_objects = True
        elif value is not None:
            reader.refuse(number, value.reason, line)
    return reader.arrivals(), has_objects


def _of_document(body: bytes, source: str | None) -> Arrivals | None:
    """The events of a whole JSON document, such as an array; None if it is none. Raises
    RequestRefused."""
    try:
        # Parsed here: the format takes a piece of a document, too, which in a body was cut.
        value = parse_value(body)
        require_few(len(value) if isinstance(value, list) else 1)
        events = formats.FORMATS.DOCUMENTS.specialize(body).events_of(value)
    except InvalidEvent:
        return None
    return arrivals_of([_sourced(event, source) for event in events])


def _sourced(event: EventMembers, source: str | None) -> EventMembers:
    """An event with a source, if it names none."""
    if source and event.get("source") in (None, ""):
        event["source"] = source
    return event


def _binary_event(request: IngestRequest, body: bytes) -> EventMembers:
    """The event of CloudEvents' binary mode: its attributes are headers, percent-encoded."""
    event = {name: unquote(value) for name, value in request.attributes.items()}
    if not all(event.get(name) for name in ("id", "source", "type")):
        raise RequestRefused(400, "a CloudEvent has the headers ce-id, ce-source and ce-type")
    if request.media_type:
        event["datacontenttype"] = request.media_type
    if not body:
        return event
    if request.media_type in ("", "application/json") or request.media_type.endswith("+json"):
        try:
            return event | {"data": parse_value(body)}
        except InvalidEvent as error:
            raise RequestRefused(400, f"the data is {error.reason}") from None
    try:
        return event | {"data": body.decode()}
    except UnicodeDecodeError:
        # As the JSON format of CloudEvents has data that is no text.
        return event | {"data_base64": base64.b64encode(body).decode()}
