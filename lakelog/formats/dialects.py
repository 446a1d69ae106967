"""The dialects of JSON lines that are known: `dialects.toml` declares each by its members.

Audit records have no level; one that failed is an ERROR, any other INFO.
"""

from __future__ import annotations

import functools

from lakelog.event import EncodedBatch
from lakelog.formats import dialect, jsonl
from lakelog.formats.dialect import Dialect
from lakelog.formats.format import EventMembers
from lakelog.runtime.tables import ModuleFiles
from lakelog.values import JsonObject

_BYTE = range(256)


def _with_text(entry: JsonObject) -> JsonObject:
    """An entry of the journal whose message is text where it was written as a list of bytes."""
    message = entry.get("MESSAGE")
    if not isinstance(message, list) or not all(type(b) is int and b in _BYTE for b in message):
        return entry
    try:
        return entry | {"MESSAGE": bytes(message).decode("utf-8")}
    except UnicodeDecodeError:
        return entry


def _with_millis(event: JsonObject) -> JsonObject:
    """An event of log4j2 with its instant as one number of seconds."""
    instant = event.get("instant")
    if not isinstance(instant, dict) or type(instant.get("epochSecond")) is not int:
        return event
    fraction = instant.get("nanoOfSecond")
    nanos = fraction if type(fraction) is int and 0 <= fraction < 10**9 else 0
    return event | {"timeMillis": f"{instant['epochSecond']}.{nanos:09}"}


_PREPARATIONS = {"with_text": _with_text, "with_millis": _with_millis}


def _dialect(name: str, members: JsonObject) -> Dialect:
    """The dialect that a table declares."""
    values: JsonObject = {
        key: tuple(value) if isinstance(value, list) else value for key, value in members.items()
    }
    if "scale" in members:
        scale = members["scale"]
        values["scale"] = (
            dialect.SCALES[scale] if isinstance(scale, str) else tuple(map(tuple, scale))
        )
    if "words" in members:
        values["words"] = tuple(members["words"].items())
    if "prepared" in members:
        values["prepared"] = _PREPARATIONS[members["prepared"]]
    return Dialect(name, **values)


LINES = tuple(
    _dialect(name, members)
    for name, members in ModuleFiles(__file__).tables("dialects.toml").items()
)
"""All of them; of those that fit equally well the first is taken."""
NAMED = {form.NAME: form for form in LINES}
_NAMES = frozenset(name for form in LINES for names in form.needed_names for name in names)


@functools.lru_cache(1024)
def _possible(names: frozenset[str]) -> tuple[Dialect, ...]:
    """The dialects that an object may have which has these of `_NAMES`."""
    return tuple(form for form in LINES if all(map(names.intersection, form.needed_names)))


def event_of(members: JsonObject) -> EventMembers:
    """Return the event of an object by its dialect, or as plain JSON lines are read. Raises
    InvalidEvent."""
    possible = _possible(_NAMES.intersection(members))
    form = next((form for form in possible if form.is_one(members)), None)
    event = form.event(members) if form else jsonl.FORM.typed(members)
    EncodedBatch.of([event])
    return event
