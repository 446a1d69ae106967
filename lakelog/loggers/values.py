"""Any Python value as JSON: logging never fails because of what is logged.

value                          is stored as
NaN, infinities                the text that SQL casts back to a double
integers beyond 64 bits        all their digits; in hex where Python refuses to write them
bytes                          text: UTF-8, and `\\xNN` for what is none
datetimes                      ISO 8601; naive ones without an offset, as they are
sets, arrays, dataclasses,     lists and objects
models, mappings, enums
what contains itself           "<cycle>" where it occurs again
nested over DEPTH_MAX deep     its repr
everything else                its repr, REPR_MAX characters at most; "<Type>" where that fails
"""

from __future__ import annotations

import dataclasses
import os
from datetime import date, timedelta
from datetime import time as clock_time
from enum import Enum
from typing import Any

import orjson

from lakelog.errors import InvalidEvent
from lakelog.event import EncodedBatch, payload_of
from lakelog.values import spell_numbers, to_json

DEPTH_MAX = 100
REPR_MAX = 8192
CYCLE = "<cycle>"
# Dataclasses are passed through to `plain`, for orjson would write their NaN as null.
_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_APPEND_NEWLINE


def encode_event(event: dict[str, object]) -> bytes:
    """Return the WAL line of an event (F3.13) whose members are columns, `data` the last.

    `time` is an aware datetime, and the others text. Raises InvalidEvent for a wrong column alone,
    never for a value in `data`.
    """
    return _encoded(event) or EncodedBatch.of([plain(event)]).lines[0]


def encode_unknown(event: dict[str, object]) -> bytes:
    """Return the line of an event that somebody else put together, as `lake.append` would store it,
    with its id, if it has one, in front. Raises InvalidEvent."""
    batch = EncodedBatch.of([plain(event)])
    line, event_id = batch.lines[0], batch.ids[0]
    if not event_id:
        return line
    member = b'"id":' + orjson.dumps(event_id)
    before, _, after = line.partition(b"," + member)
    return b"{" + member + b"," + before[1:] + after


def encode_members(members: dict[str, object]) -> bytes:
    """Return the JSON text of an object. Never raises for what a member is."""
    if encoded := _encoded(members):
        return encoded
    line = EncodedBatch.of([{"type": "log", "data": plain(members)}]).lines[0]
    return payload_of(line)


def _encoded(members: dict[str, object]) -> bytes | None:
    """Return the JSON text of an object; None where it takes the full rule."""
    try:
        # All but the newline, a copy: what orjson returns keeps the kilobytes it was written in.
        encoded = orjson.dumps(members, plain, _OPTIONS)[:-1]
        # orjson writes NaN as null. A null may also be a None, or part of a text, and is right.
        return encoded if b"null" not in encoded or spell_numbers(members) is members else None
    except (TypeError, RecursionError):  # cycles, long integers, keys that are no text, surrogates
        return None


def plain(value: object) -> Any:
    """Return a value that JSON can express, by the rules above. Never raises."""
    return _plain(value, set(), 0)


def _plain(value: Any, inside: set[int], depth: int) -> object:
    cls = type(value)
    if value is None or cls in (str, bool, orjson.Fragment):
        return value
    if cls is float:
        return value if value - value == 0 else spell_numbers(value)
    try:
        if isinstance(value, int):
            return _integer(value)
        return _composite(value, inside, depth)
    except Exception:  # of a property or method of somebody else's class
        return _described(value)


def _composite(value: object, inside: set[int], depth: int) -> object:
    """Return an object or list with plain members, or what a single value stands for."""
    members = _members(value)
    if members is None:
        return _single(value, inside, depth)
    if id(value) in inside:
        return CYCLE
    if depth >= DEPTH_MAX:
        return _described(value)
    inside.add(id(value))
    try:
        if isinstance(members, dict):
            return {_key(k): _plain(v, inside, depth + 1) for k, v in members.items()}
        return [_plain(v, inside, depth + 1) for v in members]
    finally:
        inside.discard(id(value))


def _members(value: Any) -> dict[object, object] | list[object] | None:
    """Return the members of a composite value, None for any other."""
    if isinstance(value, dict):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    # Of the class, as mocks and proxies have every attribute that they are asked for.
    cls = type(value)
    if hasattr(cls, "model_dump"):  # pydantic's models, such as the answers of AI clients
        return dict(value.model_dump())
    if hasattr(cls, "keys") and hasattr(cls, "__getitem__"):
        return {key: value[key] for key in value.keys()}  # noqa: SIM118
    if isinstance(value, memoryview):  # bytes, though it has what arrays have
        return None
    if hasattr(cls, "tolist") and getattr(value, "ndim", False):  # arrays of numpy and pandas
        # Of times it makes integers. A dtype of tensors says no kind.
        is_of_times = getattr(getattr(value, "dtype", None), "kind", None) in ("m", "M")
        return None if is_of_times else list(value.tolist())
    return None


def _single(value: object, inside: set[int], depth: int) -> object:
    if isinstance(value, Enum):
        return _plain(value.value, inside, depth)
    if isinstance(value, (date, clock_time)):  # a datetime is a date
        if value != value:  # pandas' NaT
            return None
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, (memoryview, bytearray)):
        return to_json(bytes(value))
    if isinstance(value, BaseException):
        return _described(value)
    try:
        return to_json(value)
    except InvalidEvent:
        return _described(value)


def _integer(value: int) -> object:
    try:
        return _plain(value.value, set(), 0) if isinstance(value, Enum) else to_json(int(value))
    except InvalidEvent:
        return hex(value)  # Python writes no decimals of so many digits


def _key(key: object) -> str:
    if type(key) is str:
        return key
    spelling = _plain(key, set(), DEPTH_MAX)
    return (
        orjson.dumps(spelling).decode() if isinstance(spelling, orjson.Fragment) else str(spelling)
    )


def _described(value: object) -> str:
    try:
        description = repr(value)
    except Exception:
        return f"<{type(value).__name__}>"
    return description if len(description) <= REPR_MAX else f"{description[:REPR_MAX]}…"
