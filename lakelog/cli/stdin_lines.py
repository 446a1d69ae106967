"""Standard input as lines, as soon as they arrive; a pretty-printed document as its events.

Each line carries its number and byte offset. A byte order mark, CRLF and blank lines are accepted.
If the first line that is not blank opens a JSON document and does not close it, up to 64 MB are
buffered: an array yields its elements, {"Records": [...]} its records, any other object is one
event. What turns out not to be a document is yielded line by line.
"""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import click
import orjson

from lakelog.errors import InvalidEvent
from lakelog.lines import Overlong
from lakelog.values import parse_line, parse_value

# What a pipe holds by default on Linux.
CHUNK = 1 << 16
LINE_MAX = 64 << 20
PART = 16 << 20
"""A line longer than the first is split into parts of the second, as `ingest` does."""
DOCUMENT_MAX = 64 << 20
LINE, ELEMENT, DOCUMENT = "line", "element", "document at line"
_BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class InputLine:
    """One line, or one element of a document, whose `value` is then parsed already."""

    number: int
    offset: int
    text: bytes
    fault: str = ""
    value: object = None
    unit: str = LINE

    @property
    def is_blank(self) -> bool:
        """Whether the line is empty or white space."""
        return self.unit == LINE and not self.text.strip()

    def event(self) -> dict[str, object]:
        """Return it as a JSON object. Raises InvalidEvent with the reason."""
        if self.fault:
            raise InvalidEvent(self.fault)
        return self.value if isinstance(self.value, dict) else parse_line(self._json())

    def display(self) -> str:
        """Return its text, for quarantine; bytes that are no UTF-8 as escapes."""
        return self._json().decode("utf-8", "backslashreplace")

    def _json(self) -> bytes:
        if self.unit == LINE:
            return self.text
        try:
            return orjson.dumps(self.value)
        except TypeError:  # nested more deeply than it writes, though it reads it
            return json.dumps(self.value, ensure_ascii=False).encode()


Lines = Iterator[InputLine | None]
"""None means that no more input is waiting."""


def chunks() -> Iterator[bytes | None]:
    """Yield the bytes of standard input as they arrive, and None whenever no more are waiting."""
    try:
        # os.read returns what is there; the buffered stream would wait until its buffer is full.
        descriptor = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        yield from _chunks_of_stream()
        return
    while True:
        try:
            chunk = os.read(descriptor, CHUNK)
        except BlockingIOError:
            # A parent may have set its end of a terminal or pipe to non-blocking, which holds for
            # ours too.
            select.select([descriptor], [], [])
            continue
        if not chunk:
            return
        yield chunk
        # Nothing is waiting, so the caller stores what it has instead of waiting for a full batch.
        if not select.select([descriptor], [], [], 0)[0]:
            yield None


def split(stream: Iterable[bytes | None]) -> Lines:
    """Cut bytes into lines; one beyond LINE_MAX comes in parts, each with a fault."""
    cutter = _LineSplitter()
    for chunk in stream:
        if chunk is None:
            yield None
            continue
        *whole, tail = chunk.split(b"\n")
        for line_part in whole:
            yield from cutter.add(line_part)
            yield cutter.line()
        yield from cutter.add(tail)
    if cutter.length:
        yield cutter.line()


def documents(lines: Lines) -> Lines:
    """Yield the elements of a document that spans the input, else the lines as they are."""
    for line in lines:
        if line is None or line.is_blank:
            yield line
        elif _may_open_document(line):
            yield from _collect_document(line, lines)
            break
        else:
            yield line
            break
    # Only the first line that says something can begin a document.
    yield from lines


class _LineSplitter:
    """The line that is being assembled."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._number, self._offset, self._parts, self.length = 1, 0, 0, 0

    def add(self, chunk: bytes) -> Iterator[InputLine]:
        """Append to the line; yield parts of one that has become too long."""
        self.length += len(chunk)
        self._buffer += chunk
        # Before its newline comes: input without any must not fill the memory.
        if self.length > LINE_MAX:
            while len(self._buffer) > PART:
                yield self._part(Overlong.end(self._buffer, PART))

    def line(self) -> InputLine:
        """Return the line, or its last part, and begin the next."""
        if self.length > LINE_MAX:
            line = self._part(len(self._buffer))
        else:
            line = InputLine(self._number, self._offset, bytes(self._buffer))
            # A byte order mark counts in the offsets, but is no part of the JSON.
            if self._number == 1:
                line.text = line.text.removeprefix(_BOM)
            self._offset += self.length
        # One more for the newline itself.
        self._number, self._offset = self._number + 1, self._offset + 1
        self._buffer, self._parts, self.length = bytearray(), 0, 0
        return line

    def _part(self, stop: int) -> InputLine:
        self._parts += 1
        reason = f"a line of over {LINE_MAX:,} bytes is too long: part {self._parts:,}"
        oversized = InputLine(self._number, self._offset, bytes(self._buffer[:stop]), reason)
        del self._buffer[:stop]
        self._offset += stop
        return oversized


def _chunks_of_stream() -> Iterator[bytes]:
    if sys.stdin is None:
        raise click.UsageError("standard input is closed: pipe JSON lines in")
    while chunk := sys.stdin.buffer.read(CHUNK):
        yield chunk


def _may_open_document(line: InputLine) -> bool:
    """Whether a first line may begin, or be, a document that is more than one event."""
    if line.fault or line.text.lstrip()[:1] not in (b"{", b"["):
        return False
    try:
        value = orjson.loads(line.text)
    except orjson.JSONDecodeError:
        return True
    return _elements(value) is not None


def _collect_document(opening: InputLine, lines: Lines) -> Lines:
    """Buffer a document; give up as soon as no document can begin like this."""
    buffered, size = [opening], len(opening.text)
    is_complete = closed = _is_json(opening.text)
    for line in lines:
        if line is None:
            continue
        buffered.append(line)
        size += len(line.text)
        start = line.text.lstrip()[:1]
        # Blank lines are kept, because a document may hold them, and the line numbers count them.
        if not start:
            continue
        if (
            is_complete
            or line.fault
            or size > DOCUMENT_MAX
            or (closed and start not in (b",", b"]", b"}"))
        ):
            yield from buffered
            return
        closed = start == b"{" and _is_json(line.text)
    events = _document_events(buffered)
    yield from buffered if events is None else events


def _document_events(buffered: list[InputLine]) -> list[InputLine | None] | None:
    """Return a document's events, or None if the lines are no document."""
    document = b"\n".join(line.text for line in buffered)
    if not _is_json(document):
        return None
    value = parse_value(document)
    elements = _elements(value)
    opening = buffered[0]
    if elements is None:
        return [InputLine(opening.number, opening.offset, b"", "", value, DOCUMENT)]
    return [
        InputLine(number, opening.offset, b"", "", element, ELEMENT)
        for number, element in enumerate(elements, 1)
    ]


def _elements(value: object) -> list[Any] | None:
    """Return the elements of an array or the records of a `Records` object."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and isinstance(value.get("Records"), list) and "type" not in value:
        return list(value["Records"])
    return None


def _is_json(document: bytes) -> bool:
    try:
        orjson.loads(document)
    except orjson.JSONDecodeError:
        return False
    return True
