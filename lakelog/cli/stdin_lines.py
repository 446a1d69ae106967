"""Standard input as lines, as soon as they are there; a pretty-printed document as its events.

Each line carries its number and byte offset. A byte order mark, CRLF and blank lines are no
trouble. If the first line that says something opens a JSON document and does not close it, up to
64 MB are collected: an array gives its elements, {"Records": [...]} its records, any other object
is one event. What turns out to be no document is given line by line after all.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import click
import orjson

from lakelog.errors import InvalidEvent
from lakelog.event import parse_line
from lakelog.exact import parse_value
from lakelog.ingest.source import between_characters

CHUNK = 1 << 16
LINE_MAX = 64 << 20
PART = 16 << 20
"""A line beyond the first is taken in parts of the second, as `ingest` does."""
DOCUMENT_MAX = 64 << 20
LINE, ELEMENT, DOCUMENT = "line", "element", "document at line"
_BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class Line:
    """One line, or one element of a document, whose `value` is then parsed already."""

    number: int
    offset: int
    text: bytes
    fault: str = ""
    value: Any = None
    unit: str = LINE

    @property
    def is_blank(self) -> bool:
        """Whether it says nothing."""
        return self.unit == LINE and not self.text.strip()

    def event(self) -> dict[str, Any]:
        """Return it as a JSON object. Raises InvalidEvent with the reason."""
        if self.fault:
            raise InvalidEvent(self.fault)
        return self.value if isinstance(self.value, dict) else parse_line(self._json())

    def shown(self) -> str:
        """Return its text, for quarantine; bytes that are no UTF-8 as escapes."""
        return self._json().decode("utf-8", "backslashreplace")

    def _json(self) -> bytes:
        return self.text if self.unit == LINE else orjson.dumps(self.value)


Lines = Iterator[Line | None]
"""None stands for: nothing more is waiting now."""


def chunks() -> Iterator[bytes | None]:
    """Yield what standard input has, as it comes, and None whenever no more is waiting."""
    try:
        descriptor = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        yield from _chunks_of_stream()
        return
    while True:
        try:
            chunk = os.read(descriptor, CHUNK)
        except BlockingIOError:
            select.select([descriptor], [], [])
            continue
        if not chunk:
            return
        yield chunk
        if not select.select([descriptor], [], [], 0)[0]:
            yield None


def split(pieces: Iterable[bytes | None]) -> Lines:
    """Cut bytes into lines; one beyond LINE_MAX comes in parts, each with a fault."""
    cutter = _Cutter()
    for piece in pieces:
        if piece is None:
            yield None
            continue
        *whole, rest = piece.split(b"\n")
        for part in whole:
            yield from cutter.add(part)
            yield cutter.line()
        yield from cutter.add(rest)
    if cutter.length:
        yield cutter.line()


def documents(lines: Lines) -> Lines:
    """Give the elements of a document that spans the input, else the lines as they are."""
    for line in lines:
        if line is None or line.is_blank:
            yield line
        elif _opens(line):
            yield from _collected(line, lines)
            break
        else:
            yield line
            break
    yield from lines


class _Cutter:
    """The line under way."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._number, self._offset, self._parts, self.length = 1, 0, 0, 0

    def add(self, piece: bytes) -> Iterator[Line]:
        """Take more of the line; give the parts of one that has become too long."""
        self.length += len(piece)
        self._held += piece
        if self.length > LINE_MAX:
            while len(self._held) > PART:
                yield self._part(between_characters(self._held, PART))

    def line(self) -> Line:
        """Return it, or its last part, and begin the next."""
        if self.length > LINE_MAX:
            made = self._part(len(self._held))
        else:
            made = Line(self._number, self._offset, bytes(self._held))
            if self._number == 1:
                made.text = made.text.removeprefix(_BOM)
            self._offset += self.length
        self._number, self._offset = self._number + 1, self._offset + 1
        self._held, self._parts, self.length = bytearray(), 0, 0
        return made

    def _part(self, stop: int) -> Line:
        self._parts += 1
        reason = f"a line of over {LINE_MAX:,} bytes is too long: part {self._parts:,}"
        made = Line(self._number, self._offset, bytes(self._held[:stop]), reason)
        del self._held[:stop]
        self._offset += stop
        return made


def _chunks_of_stream() -> Iterator[bytes]:
    if sys.stdin is None:
        raise click.UsageError("standard input is closed: pipe JSON lines in")
    while chunk := sys.stdin.buffer.read(CHUNK):
        yield chunk


def _opens(line: Line) -> bool:
    """Whether a first line may begin, or be, a document that is more than one event."""
    if line.fault or line.text.lstrip()[:1] not in (b"{", b"["):
        return False
    try:
        value = orjson.loads(line.text)
    except orjson.JSONDecodeError:
        return True
    return _elements(value) is not None


def _collected(first: Line, lines: Lines) -> Lines:
    """Collect a document; give up as soon as no document can begin like this."""
    held, size = [first], len(first.text)
    whole = closed = _is_json(first.text)
    for line in lines:
        if line is None:
            continue
        held.append(line)
        size += len(line.text)
        start = line.text.lstrip()[:1]
        if not start:
            continue
        if (
            whole
            or line.fault
            or size > DOCUMENT_MAX
            or (closed and start not in (b",", b"]", b"}"))
        ):
            yield from held
            return
        closed = start == b"{" and _is_json(line.text)
    parts = _parts(held)
    yield from held if parts is None else parts


def _parts(held: list[Line]) -> list[Line | None] | None:
    """Return a document's events, or None if the lines are no document."""
    text = b"\n".join(line.text for line in held)
    if not _is_json(text):
        return None
    value = parse_value(text)
    elements = _elements(value)
    first = held[0]
    if elements is None:
        return [Line(first.number, first.offset, b"", "", value, DOCUMENT)]
    return [
        Line(number, first.offset, b"", "", element, ELEMENT)
        for number, element in enumerate(elements, 1)
    ]


def _elements(value: Any) -> list[Any] | None:
    """Return the elements of an array or the records of a `Records` object."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and isinstance(value.get("Records"), list) and "type" not in value:
        return list(value["Records"])
    return None


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
