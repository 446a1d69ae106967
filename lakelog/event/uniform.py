"""Shapes of events: most events of a program have one of a few, and those that are plain are
encoded as they are.

A shape is the keys of an event in their order. Where each key is a known spelling, each column
once, with time and type, and the payload last, a plain event is its own line; and a batch of one
shape is encoded by one call. Whether events are plain is read off what was written: by one regular
expression over all lines, in a third of the time that a look at each value takes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from lakelog.event.levels import Severity
from lakelog.values import JsonObject

TEXT_COLUMNS = ("category", "source", "subject", "level", "message", "id")
ALIASES = {
    "timestamp": "time",
    "ts": "time",
    "@timestamp": "time",
    "event_type": "type",
    "content_type": "category",
    "item_id": "subject",
}
PLAIN = frozenset(("time", "type", "data", *TEXT_COLUMNS))
NAMES = {**{name: name for name in PLAIN}, **ALIASES}
Encoded = tuple[bytes, list[str | None]]
"""Lines with newlines between them, and the ids that were given."""
SIZED = orjson.OPT_APPEND_NEWLINE
"""For lines that wait: all but the newline is a copy, of its size. What orjson returns keeps the
memory that it was written in, four kilobytes for an event of a hundred bytes."""
_SPELLED = 500
# The form that the WAL has anyway. The last day of February is left to who knows leap years.
_TIME = (
    rb"[1-9]\d{3}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)"
    rb"|(?:0[13578]|1[02])-31)T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6}+)?+Z"
)
_TEXTS = frozenset((str, type(None)))
_LEVEL = b"(?:" + "|".join(Severity.ALL).encode() + b")"
_PADDED = re.compile(rb"(?<=\de-)0(?=\d[,}\]])")
"""How Python writes exponents of one digit."""
# Half of a surrogate pair is written by its code, which is why no text with a code is plain.
_TEXT, _ESCAPED_TEXT = rb'[^"]*+', rb'[^"\\]*+(?:\\[^u][^"\\]*+)*+'


def encode_alike(events: list[Any]) -> Encoded | None:
    """Encode events of one shape by one call, as `EncodedBatch.of` does one by one; None where they
    differ, or one of them is for the full rule."""
    shape = shape_of(events[0])
    if shape is None or set(map(type, events)) != {dict} or set(map(len, events)) != {shape.size}:
        return None
    try:
        encoded = orjson.dumps(events)
    except TypeError:
        return None
    # Quotes within texts are escaped, so this stands between two events that begin alike, or in a
    # list of a payload: then there are too many.
    between = b"}," + shape.start
    is_odd = encoded.count(between) != len(events) - 1 or b"\n" in encoded or b"null" in encoded
    # One character is found much faster than two.
    if is_odd or (b"\\" in encoded and b"\\u" in encoded):
        return None
    lines = encoded[1:-1].replace(between, b"}\n" + shape.start)
    if not shape.fits(lines):
        return None
    ids: list[str | None] = [None] * len(events)
    if shape.has_id:
        ids = [event["id"] or None for event in events]
        if not _TEXTS.issuperset(map(type, ids)):
            return None
    return lines, ids


def encode_lines(text: bytes, defaults: Mapping[str, str]) -> Encoded | None:
    """Encode lines of JSON that are written as `EncodedBatch.of` would write them, or None.

    But for spaces their text is the one that orjson makes of them, so nothing of them is lost when
    that is stored. `defaults` are columns for events that have none; where the first event has
    none, no other may have one.
    """
    try:
        events = orjson.loads(b"[" + text.replace(b"\n", b",") + b"]")
    except orjson.JSONDecodeError:
        return None
    # Line by line, so that a newline within an event is seen.
    try:
        spelled = dump_lines(events)
    except TypeError:  # nested more deeply than orjson writes, though it reads it
        return None
    bare = text if spelled == text else _without_spaces(text)
    if spelled != bare and spelled != _PADDED.sub(b"", bare):
        return None
    if set(map(type, events)) != {dict}:
        return None
    shape, lines = shape_of(events[0]), spelled
    missing = {} if shape is not None and shape.has(defaults) else _missing(events[0], defaults)
    if missing:
        start = orjson.dumps(missing)[:-1] + b","
        lines = start + spelled[1:].replace(b"\n{", b"\n" + start)
        shape = shape_of({**missing, **events[0]})
    # A NUL would separate the parts of an identity key.
    if shape is None or b"\\u0000" in spelled:
        return None
    if shape.fits(lines):
        has_ids = shape.has_id
    else:
        shapes = (shape_of({**missing, **event}) for event in events)
        pairs = zip(shapes, lines.split(b"\n"), strict=True)
        if not all(shape is not None and shape.fits(line) for shape, line in pairs):
            return None
        has_ids = True
    ids: list[str | None] = [None] * len(events)
    if has_ids:
        ids = [event.get("id") or None for event in events]
    return lines, ids


def dump_lines(values: list[Any]) -> bytes:
    """Values as lines of JSON. Each that orjson writes takes kilobytes until it is freed: so few at
    a time are there."""
    if len(values) == 1:
        return orjson.dumps(values[0])
    starts = range(0, len(values), _SPELLED)
    return b"\n".join([b"\n".join(map(orjson.dumps, values[s : s + _SPELLED])) for s in starts])


def _without_spaces(lines: bytes) -> bytes:
    """Lines without the spaces that Python's json writes before names and values. Quotes within
    texts are escaped: where they are taken for others, the lines are not those of their events."""
    return lines.replace(b'": ', b'":').replace(b', "', b',"')


def _missing(event: JsonObject, defaults: Mapping[str, str]) -> dict[str, str]:
    """The defaults of columns that an event does not have."""
    present = {NAMES.get(key) for key in event}
    return {name: value for name, value in defaults.items() if name not in present}


class _Shape:
    """Events with these keys can be encoded as they are, if their values are plain.

    Most events of a program have one of a few shapes: known spellings only, each column once, with
    time and type, and the payload last. That costs a third of building a row.
    """

    __slots__ = ("_escaped", "_keys", "_names", "_plain", "has_id", "size", "start")

    def __init__(self, keys: tuple[str, ...], names: list[str]) -> None:
        self.size, self.has_id = len(keys), "id" in names
        self.start = b'{"' + keys[0].encode() + b'":'
        self._keys, self._names = keys, names
        self._plain = self._pattern(_TEXT)
        self._escaped: re.Pattern[bytes] | None = None

    def has(self, names: Iterable[str]) -> bool:
        """Whether its events have all of these columns."""
        return all(name in self._names for name in names)

    def line(self, event: JsonObject) -> bytes | None:
        """Return the event's line, or None where the full rule has to be applied."""
        if self.has_id and type(event["id"]) is not str:
            return None
        try:
            line = orjson.dumps(event, option=SIZED)[:-1]
        except TypeError:
            return None
        return line if self.fits(line) else None

    def fits(self, lines: bytes) -> bool:
        """Whether lines that orjson wrote of such events are those of plain ones."""
        if b"\\" not in lines:
            return self._plain.fullmatch(lines) is not None
        if self._escaped is None:
            self._escaped = self._pattern(_ESCAPED_TEXT)
        return self._escaped.fullmatch(lines) is not None

    def _pattern(self, encoded: bytes) -> re.Pattern[bytes]:
        """What lines are that have such a text between quotes."""
        # Another level has to be normalized.
        values = {"time": _TIME, "type": b'(?!")' + encoded, "data": rb"[^\n]*+", "level": _LEVEL}
        members = [
            b'"%s":' % re.escape(key.encode())
            + (b'"%s"' if name != "data" else b"%s") % values.get(name, encoded)
            for key, name in zip(self._keys, self._names, strict=True)
        ]
        end = b"" if "data" in self._names else rb"\}"
        # Possessive, so that what does not match is not tried in other ways.
        return re.compile(rb"(?:\{" + b",".join(members) + end + rb"\n?)*+")


def shape_of(event: object) -> _Shape | None:
    """Return the shape of an event, or None where the full rule is needed."""
    return _learn(tuple(event)) if type(event) is dict else None


# Events whose keys are data, not names, would otherwise fill the memory with shapes.
@functools.lru_cache(maxsize=512)
def _learn(keys: tuple[str, ...]) -> _Shape | None:
    """Return how to encode events with these keys, or None if the full rule is needed."""
    names = [NAMES.get(k, "") for k in keys]
    fits = "" not in names and len(set(names)) == len(names) and {"time", "type"} <= set(names)
    # Data is cut out by its place at the end of the line.
    is_last_data = "data" not in names[:-1]
    return _Shape(keys, names) if fits and is_last_data else None
