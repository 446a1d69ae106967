"""The event: one immutable fact, and its JSON line in a WAL (F3.13).

A line has, where present: time, type, category, source, subject, level, message, id, key,
and last data. A column may have any of its spellings (`ALIASES`), each column once. All but `data`
are JSON strings; `data` is any JSON, and null is none. So the first `,"data":` of a line always
starts the payload, and its text can be cut out of the line without parsing it: that is how numbers
keep their digits.

`key` is the content key, written only when the caller asked for content dedupe.
Identity keys are the first 12 bytes of SHA-256(source NUL id), or of the canonical event.
"""

from __future__ import annotations

import hashlib
from binascii import hexlify
from collections.abc import Container, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from lakelog.errors import InvalidEvent
from lakelog.event.exported import as_event, assigned_columns
from lakelog.event.levels import Severity
from lakelog.event.uniform import (
    ALIASES,
    NAMES,
    PLAIN,
    SIZED,
    TEXT_COLUMNS,
    Encoded,
    dump_lines,
    encode_alike,
    encode_lines,
    shape_of,
)
from lakelog.values import (
    JsonObject,
    kind,
    parse_time,
    parse_value,
    replace_surrogates,
    spell_numbers,
    text_of,
    to_json,
)

_COLUMNS = PLAIN - {"data"} | ALIASES.keys()
"""Keys of an envelope, in which NaN stands for a value that is missing, as in pandas."""
_OPTIONS = orjson.OPT_UTC_Z | SIZED


class EncodedBatch:
    """A batch as WAL lines: `text` (lines of JSON with newlines between them), `ids` given (or
    None), `keyed`."""

    TYPE_HINTS = ("event", "eventName", "event_name", "eventType", "EventType")
    """Keys that name the type of an event without one; they stay in `data` too."""
    __slots__ = ("ids", "keyed", "text")

    def __init__(self, lines: bytes, ids: list[str | None], keyed: bool) -> None:
        self.text, self.ids, self.keyed = lines, ids, keyed

    @classmethod
    def of(cls, events: list[Any], dedupe: str | None = None) -> EncodedBatch:
        """Turn events into WAL lines, filling in the arrival time where one has none. With `dedupe`
        "content" each gets a key of its content.

        Raises InvalidEvent, naming the first event at fault by its place in the batch.
        """
        if dedupe not in (None, "content"):
            raise InvalidEvent(f"dedupe is None or 'content', not {dedupe!r}")
        lines, ids = _encode(events, dedupe is not None)
        return cls(lines, ids, dedupe is not None or any(ids))

    @classmethod
    def of_lines(cls, lines: bytes, defaults: Mapping[str, str]) -> EncodedBatch | None:
        """Encode lines of JSON that are written as `of` would write them, or None.

        `defaults` are columns for events that have none; where the first event has none, no other
        may have one.
        """
        encoded = encode_lines(lines, defaults)
        return None if encoded is None else cls(*encoded, any(encoded[1]))

    @classmethod
    def plain(cls, objects: list[dict[str, object]]) -> EncodedBatch:
        """Encode objects that are not events (quarantined lines) as they are."""
        return cls(dump_lines(objects), [None] * len(objects), False)

    @property
    def lines(self) -> list[bytes]:
        """The line of each event, without newline."""
        return self.text.split(b"\n") if self.ids else []

    def without(self, numbers: Container[int]) -> EncodedBatch:
        """The batch without the events of these numbers, counted from 0."""
        chosen = [number for number in range(len(self.ids)) if number not in numbers]
        lines, ids = self.lines, self.ids
        text = b"\n".join(lines[number] for number in chosen)
        return EncodedBatch(text, [ids[number] for number in chosen], self.keyed)

    def of_request(self, digest: bytes) -> EncodedBatch:
        """The batch as a request brings it that the digest names: each event without an id has a
        key of its place there (F13.9), so whoever stores the request again stores no event twice.
        """
        # No NUL and no brace: so no given id and no content has the same text.
        start, lines = hashlib.sha256(b"request:%s:" % digest.hex().encode()), self.lines
        for number, event_id in enumerate(self.ids):
            if not event_id:
                hashed = start.copy()
                hashed.update(b"%d" % number)
                key = hexlify(hashed.digest()[:12])
                lines[number] = b'{"key":"%s",%s' % (key, lines[number][1:])
        return EncodedBatch(b"\n".join(lines), self.ids, True)


def _encode(events: list[Any], content: bool) -> Encoded:
    if len(events) > 1 and not content:
        batch = encode_alike(events)
        if batch is not None:
            return batch
    arrived = datetime.now(UTC)
    lines: list[bytes] = []
    ids: list[str | None] = []
    for index, event in enumerate(events):
        shape = None if content else shape_of(event)
        line = None if shape is None else shape.line(event)
        if shape is not None and line is not None:
            lines.append(line)
            ids.append(event["id"] or None if shape.has_id else None)
            continue
        try:
            row = _row(event, arrived)
            if content and not row.get("id"):
                _add_content_key(row, event)
            lines.append(_dump(row))
        except InvalidEvent as error:
            raise InvalidEvent(error.reason, index) from None
        ids.append(row.get("id") or None)
    # Three rare cases are looked for in all lines at once: a search each, instead of three a line.
    whole = b"\n".join(lines)
    if whole.count(b"\n") >= max(len(lines), 1):
        index = next(i for i, line in enumerate(lines) if b"\n" in line)
        raise InvalidEvent("data holds a piece of JSON text with a newline in it", index)
    # JSON has no NaN, and orjson makes it null.
    is_odd = b"null" in whole or (b"\\" in whole and b"\\u" in whole)
    return _settled(events, lines, ids, arrived, content) if is_odd else whole, ids


def _settled(
    events: list[object],
    lines: list[bytes],
    ids: list[str | None],
    arrived: datetime,
    content: bool,
) -> bytes:
    """Return lines some of which have a null or an escape, settled."""
    whole = b"\n".join(lines)
    if b"null" in whole:
        _spell(events, lines, arrived, content)
    if b"\\u" in whole:
        _settle_escapes(lines, ids)
    return b"\n".join(lines)


def _settle_escapes(lines: list[bytes], ids: list[str | None]) -> None:
    """Refuse ids with a NUL, which separates the parts of an identity key; write payloads with
    half of a surrogate pair so that the SQL engine reads them."""
    for index, line in enumerate(lines):
        event_id = ids[index]
        if event_id is not None and "\0" in event_id:
            raise InvalidEvent("id holds a NUL character: write it without", index)
        start = line.find(b',"data":') + 8
        if start >= 8 and (b"\\ud" in line or b"\\uD" in line):
            lines[index] = line[:start] + replace_surrogates(line[start:-1]) + b"}"


def _spell(events: list[object], lines: list[bytes], arrived: datetime, content: bool) -> None:
    """Encode events with NaN or infinities in their payload again, with these as text."""
    for index, line in enumerate(lines):
        event = events[index] if b"null" in line else None
        if not isinstance(event, dict):
            continue
        # The null may be a None, or part of a text: then nothing has to be spelled.
        spelled = {k: v if k in _COLUMNS else spell_numbers(v) for k, v in event.items()}
        if any(spelled[k] is not v for k, v in event.items()):
            row = _row(spelled, arrived)
            if content and not row.get("id"):
                _add_content_key(row, spelled)
            lines[index] = _dump(row)


def payload_of(line: bytes) -> bytes:
    """Return the JSON text of `data` in a line that `EncodedBatch` made; b"" if it has none."""
    return line.partition(b',"data":')[2][:-1]


def identity_key(source: str | None, event_id: str) -> str:
    """Return the 24 hex digits that identify an event with a given id."""
    return hashlib.sha256(f"{source or ''}\0{event_id}".encode()).hexdigest()[:24]


def _row(event: object, arrived: datetime) -> JsonObject:
    """Return the columns of one event, `data` last."""
    # Mappings such as a row of a database; and keys that are neither columns nor spellings of one.
    if type(event) is not dict:
        event = _as_dict(event)
    if not event.keys() <= PLAIN:
        event = gather(event)
    get = event.get
    name = get("type")
    if type(name) is not str or not name:
        name = _type_of(event)
    time = get("time")
    # `data` is set last, for it has to end the line; so texts that are not plain wait in between.
    row = {"time": arrived if time is None else parse_time(time), "type": name}
    has_odd = False
    for column in TEXT_COLUMNS:
        value = get(column)
        if value is not None:
            if type(value) is str and column != "level":
                row[column] = value
            else:
                has_odd = True
    data = get("data")
    if has_odd:
        data = _odd_columns(event, row, data)
    if data is not None:
        row["data"] = data
    return row


def _odd_columns(event: dict[str, object], row: dict[str, object], data: object) -> object:
    """Fill in columns that are not plain text; what a column cannot hold goes into data."""
    strays = {}
    for column in TEXT_COLUMNS:
        value = event.get(column)
        if value is None or column in row:
            continue
        spelled, stray = _text(column, value)
        if stray:
            strays[column] = value
        if spelled is not None:
            row[column] = spelled
    return merge(data, strays) if strays else data


def _dump(row: dict[str, object]) -> bytes:
    # First as it is: nearly all rows have only what orjson writes, and without loss.
    try:
        return orjson.dumps(row, option=_OPTIONS)[:-1]
    except TypeError:
        pass
    try:
        return orjson.dumps(_plain_row(row), option=_OPTIONS)[:-1]
    except RecursionError:
        raise InvalidEvent("data is nested too deeply") from None
    except TypeError as error:
        # All values are plain now: what orjson still does not write is too deep for it.
        raise InvalidEvent("data is nested too deeply") from error


def _plain_row(row: JsonObject) -> JsonObject:
    """Return a row that JSON can express; column text that is not valid Unicode is also in data."""
    columns, strays = {}, {}
    for column, value in row.items():
        plain = to_json(value)
        if column != "data" and isinstance(plain, orjson.Fragment):
            strays[column] = plain
            plain = value.encode("utf-8", "replace").decode()
        columns[column] = plain
    # Replaced characters would make two ids equal, and one of the events a duplicate.
    if row.get("id") and not strays.keys().isdisjoint(("id", "source")):
        raise InvalidEvent("id and source of an event with an id are valid Unicode")
    if strays:
        columns["data"] = merge(columns.pop("data", None), strays)
    return columns


def _add_content_key(row: JsonObject, event: JsonObject) -> None:
    """Put the content key before data (F13.2). A time that the caller did not give is left out."""
    canon = dict(row)
    if not any(event.get(k) is not None for k in ("time", "timestamp", "ts", "@timestamp")):
        del canon["time"]
    # Parsed and written again: equal values in different types then have one spelling.
    canonical = orjson.dumps(parse_value(_dump(canon)), option=orjson.OPT_SORT_KEYS)
    data = row.pop("data", None)
    row["key"] = hashlib.sha256(canonical).hexdigest()[:24]
    if data is not None:
        row["data"] = data


def _as_dict(event: object) -> JsonObject:
    if hasattr(event, "keys") and hasattr(event, "__getitem__"):
        return {k: event[k] for k in event.keys()}  # noqa: SIM118 - mappings need not iterate keys
    raise InvalidEvent(f"an event is a dict with a type, not {kind(event)}")


def gather(event: JsonObject) -> JsonObject:
    """Rename known spellings; everything unknown goes into data, but what a lake had assigned."""
    if "ingested_at" in event and assigned_columns(event):
        return as_event(event)
    columns: JsonObject = {}
    extra: JsonObject = {}
    for key, value in event.items():
        name = NAMES.get(key)
        if name is None:
            extra[key if type(key) is str else str(key)] = value
        elif columns.get(name) is None:
            columns[name] = value
        else:
            return _gather_twice(event)
    return _add_extra(columns, extra)


def _gather_twice(event: JsonObject) -> JsonObject:
    """Like gather where two spellings of one column are given: the plain one wins."""
    columns = {k: v for k, v in event.items() if k in PLAIN and v is not None}
    extra = {}
    for key, value in event.items():
        name = NAMES.get(key)
        if name is None or (name != key and columns.get(name) is not None):
            extra[str(key)] = value
        elif name != key:
            columns[name] = value
    return _add_extra(columns, extra)


def _add_extra(columns: dict[str, object], extra: dict[str, object]) -> JsonObject:
    if columns.get("type") is None:
        columns["type"] = next(
            (extra[k] for k in EncodedBatch.TYPE_HINTS if isinstance(extra.get(k), str)), None
        )
    if extra:
        columns["data"] = merge(columns.get("data"), extra)
    return columns


def merge(data: object, extra: JsonObject) -> object:
    """Add unknown keys to the payload, or wrap the payload where they would collide."""
    if data is None:
        return extra
    if isinstance(data, dict) and not data.keys() & extra.keys():
        return {**data, **extra}
    return {"data": data, **extra}


def _type_of(event: dict[str, object]) -> str:
    value = event.get("type")
    if value is None or value == "" or value != value:
        raise InvalidEvent('no type: give each event a "type"')
    spelled = text_of(value)
    if spelled is None and isinstance(value, (int, float, orjson.Fragment)):
        spelled = orjson.dumps(to_json(value)).decode()
    if not spelled:
        raise InvalidEvent(f"type is text, not {kind(value)}")
    return spelled


def _text(column: str, value: object) -> tuple[str | None, bool]:
    """Return the column's text and whether the original must be kept in data."""
    spelled = text_of(value)
    if spelled is None and isinstance(value, orjson.Fragment):
        spelled = orjson.dumps(value).decode()
    if column == "level":
        level = None if spelled is None else Severity.level_of(spelled)
        return level, level is None
    if spelled is None and isinstance(value, (int, float)):
        missing = value != value  # what pandas gives for a cell without a value
        return None if missing else orjson.dumps(to_json(value)).decode(), False
    return spelled, spelled is None
