"""Shapes of events: most events of a program have one of a few, and those that are plain are
encoded as they are.

A shape is the keys of an event in their order. Where each key is a known spelling, each column
once, with time and type, and the payload last, a plain event is its own line; and a batch of one
shape is encoded by one call and validated column by column, in loops that are not Python's.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime
from operator import itemgetter
from typing import Any

import orjson

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
_iso = datetime.fromisoformat
_SHAPES: dict[tuple[Any, ...], _Shape | None] = {}
# Events whose keys are data, not names, would otherwise fill the memory with shapes.
_SHAPES_MAX = 512
_MARKS = frozenset(("--T::Z", "--T::."))
"""Every third character of ISO text from the fifth on."""
_MARKS_OF, _LAST_OF, _TIME_MAX = itemgetter(slice(4, 20, 3)), itemgetter(-1), 27


class EncodedBatch:
    """A batch as WAL lines: `text` (lines of JSON with newlines between them), `ids` given (or
    None), `keyed`."""

    __slots__ = ("ids", "keyed", "text")

    def __init__(self, text: bytes, ids: list[str | None], keyed: bool) -> None:
        self.text, self.ids, self.keyed = text, ids, keyed

    @property
    def lines(self) -> list[bytes]:
        """The line of each event, without newline."""
        return self.text.split(b"\n") if self.ids else []


def encode_one(event: Any) -> EncodedBatch | None:
    """Encode one event as `encode` does, or None where that takes the full rule."""
    shape = shape_of(event)
    line = None if shape is None else shape.line(event)
    if shape is None or line is None or b"null" in line or b"\\u" in line or b"\n" in line:
        return None
    given = event["id"] or None if shape.has_id else None
    return EncodedBatch(line, [given], given is not None)


def encode_alike(events: list[Any]) -> EncodedBatch | None:
    """Encode events of one shape by one call, as `encode` does one by one; None where they differ,
    or one of them is for the full rule."""
    first = events[0]
    shape = shape_of(first)
    if shape is None or set(map(type, events)) != {dict}:
        return None
    try:
        if not shape.fits(events):
            return None
        text = orjson.dumps(events)
    except (ValueError, TypeError, KeyError):
        return None
    # Quotes within texts are escaped, so this stands between two events that begin alike, or in a
    # list of a payload: then there are too many.
    start = b"{" + orjson.dumps(next(iter(first))) + b":"
    between = b"}," + start
    is_odd = text.count(between) != len(events) - 1 or b"\n" in text or b"null" in text
    # One character is found much faster than two.
    if is_odd or (b"\\" in text and b"\\u" in text):
        return None
    ids: list[str | None] = [None] * len(events)
    if shape.has_id:
        ids = [event["id"] or None for event in events]
    return EncodedBatch(text[1:-1].replace(between, b"}\n" + start), ids, any(ids))


class _Shape:
    """Events with these keys can be encoded as they are, if their values are plain.

    Most events of a program have one of a few shapes: known spellings only, each column once, with
    time and type, and the payload last. That costs half as much as building a row.
    """

    __slots__ = ("has_data", "has_id", "members", "texts", "types")

    def __init__(self, keys: tuple[str, ...], names: list[str]) -> None:
        key_of = dict(zip(names, keys, strict=True))
        data = key_of.pop("data", None)
        texts = (key_of.pop("time"), key_of.pop("type"), *key_of.values())
        self.texts = itemgetter(*texts)
        self.types = (str,) * len(texts)
        self.has_data = data is not None
        self.members = itemgetter(*texts, data) if self.has_data else self.texts
        self.has_id = "id" in key_of

    def line(self, event: dict[str, Any]) -> bytes | None:
        """Return the event's line, or None where the full rule has to be applied."""
        values = self.texts(event)
        if tuple(map(type, values)) != self.types:
            return None
        time = values[0]
        # The form that the WAL has anyway; `fromisoformat` also takes others, such as week dates.
        if not values[1] or time[4:20:3] not in _MARKS or time[-1] != "Z" or len(time) > _TIME_MAX:
            return None
        try:
            _iso(time)
            return orjson.dumps(event)
        except (ValueError, TypeError):
            return None

    def fits(self, events: list[dict[str, Any]]) -> bool:
        """Whether `line` would give each of these events as orjson writes it. Raises ValueError for
        a time that is none, KeyError for other keys."""
        if set(map(len, events)) != {len(self.types) + self.has_data}:
            return False
        columns = list(zip(*map(self.members, events), strict=True))
        if self.has_data:
            del columns[-1]
            if set(map(next, map(reversed, events))) != {"data"}:
                return False
        if any(set(map(type, column)) != {str} for column in columns) or not all(columns[1]):
            return False
        times = columns[0]
        if not _MARKS.issuperset(map(_MARKS_OF, times)) or set(map(_LAST_OF, times)) != {"Z"}:
            return False
        deque(map(_iso, times), 0)
        return max(map(len, times)) <= _TIME_MAX


def shape_of(event: Any) -> _Shape | None:
    """Return the shape of an event, or None where the full rule is needed."""
    if type(event) is not dict:
        return None
    keys = tuple(event)
    return _SHAPES[keys] if keys in _SHAPES else _learn(keys)


def _learn(keys: tuple[Any, ...]) -> _Shape | None:
    """Return how to encode events with these keys, or None if the full rule is needed."""
    names = [NAMES.get(k, "") for k in keys]
    fits = "" not in names and len(set(names)) == len(names) and {"time", "type"} <= set(names)
    # A level has to be normalized, and data is cut out by its place at the end of the line.
    last = "data" not in names[:-1] and "level" not in names
    shape = _Shape(keys, names) if fits and last else None
    if len(_SHAPES) >= _SHAPES_MAX:
        _SHAPES.clear()
    _SHAPES[keys] = shape
    return shape
