"""Batches of one shape: one call gives the lines that the events have one by one."""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
import random
import uuid
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import orjson
import pytest

import lakelog
from lakelog.errors import InvalidEvent
from lakelog.event import EncodedBatch, payload_of, uniform
from lakelog.formats import jsonl
from lakelog.values import parse_line
from tests.support.peak_memory import growth

TIME = "2026-01-02T03:04:05.678901Z"
Event = dict[str, Any]


class Colour(enum.Enum):
    """An enumeration whose members are texts for JSON."""

    RED = "red"


class Point(enum.Enum):
    """An enumeration whose members are none."""

    HERE = (1, 2)


class Name(str):
    """A subclass of text, as numpy has one."""


def plain(number: int) -> Event:
    """An event of the shape that all here begin with."""
    return {
        "timestamp": TIME,
        "type": f"T{number}",
        "source": "s",
        "id": f"i{number}",
        "data": {"n": number},
    }


def swapped(one: Event) -> Event:
    """The same members, the payload not last."""
    return {"timestamp": one["timestamp"], "data": one["data"], **one}


ODD: dict[str, Callable[[Event], Any]] = {
    "plain": lambda one: one,
    "no fraction": lambda one: one | {"timestamp": "2026-01-02T03:04:05Z"},
    "a zone": lambda one: one | {"timestamp": "2026-01-02T03:04:05+02:00"},
    "a week date": lambda one: one | {"timestamp": "2026-W01-5T03:04:05Z"},
    "too many digits": lambda one: one | {"timestamp": "2026-01-02T03:04:05.678901234Z"},
    "a number as time": lambda one: one | {"timestamp": 1_770_000_000},
    "a lower-case zone": lambda one: one | {"timestamp": TIME[:-1] + "z"},
    "a number as source": lambda one: one | {"source": 7},
    "a member as source": lambda one: one | {"source": Colour.RED},
    "a member as type": lambda one: one | {"type": Colour.RED},
    "a subclass of text": lambda one: one | {"timestamp": Name(TIME), "source": Name("s")},
    "a UUID as id": lambda one: one | {"id": uuid.UUID(int=7)},
    "a date as source": lambda one: one | {"source": dt.date(2026, 1, 2)},
    "ready JSON as source": lambda one: one | {"source": orjson.Fragment('"\\ud83d"')},
    "an escape in a text": lambda one: one | {"source": 'a"b\\c'},
    "an early year": lambda one: one | {"timestamp": "0026-01-02T03:04:05Z"},
    "the last of April": lambda one: one | {"timestamp": "2026-04-30T23:59:59Z"},
    "the last of a leap February": lambda one: one | {"timestamp": "2028-02-29T03:04:05Z"},
    "a key after the payload": lambda one: {k: one[k] for k in one if k != "id"} | {"subject": "x"},
    "a list as source": lambda one: one | {"source": ["a"]},
    "no source": lambda one: one | {"source": None},
    "an empty id": lambda one: one | {"id": ""},
    "no id": lambda one: {k: v for k, v in one.items() if k != "id"},
    "a level": lambda one: {"level": "warn", **one},
    "another order": lambda one: {"type": one["type"], **one},
    "data not last": swapped,
    "another key": lambda one: {**{k: v for k, v in one.items() if k != "source"}, "x": 1},
    "data null": lambda one: one | {"data": None},
    "NaN": lambda one: one | {"data": [math.nan, {"a": math.inf}]},
    "null as text": lambda one: one | {"data": "null"},
    "the separator in a list": lambda one: one | {"data": [{"timestamp": 1}, {"timestamp": 2}]},
    "the separator as text": lambda one: one | {"data": '},{"timestamp":"'},
    "the separator in another type": lambda one: one | {"type": '},{"timestamp":'},
    "half a pair": lambda one: one | {"data": "\ud83d"},
    "control characters": lambda one: one | {"data": "a\u0001\n\\u", "source": "\\"},
    "ready JSON": lambda one: one | {"data": orjson.Fragment('{"x":1.10,"u":"\\ud83d"}')},
    "a long integer": lambda one: one | {"data": 10**30},
    "a mapping": lambda one: OrderedDict(one),
    "keys that are no text": lambda one: one | {"data": {1: 2}},
}
WRONG: dict[str, Callable[[Event], Any]] = {
    "no type": lambda one: one | {"type": ""},
    "a type that is a list": lambda one: one | {"type": []},
    "a time that is none": lambda one: one | {"timestamp": "2026-13-02T03:04:05Z"},
    "a date that is none": lambda one: one | {"timestamp": "2026-02-30T03:04:05Z"},
    "a newline in ready JSON": lambda one: one | {"data": orjson.Fragment("[1,\n2]")},
    "ready JSON that ends an event": lambda one: one | {"data": orjson.Fragment("1}\n{")},
    "a day that is none": lambda one: one | {"timestamp": "2026-04-31T03:04:05Z"},
    "an hour that is none": lambda one: one | {"timestamp": "2026-04-30T25:04:05Z"},
    "a member without text as type": lambda one: one | {"type": Point.HERE},
    "NUL in an id": lambda one: one | {"id": "a\0b"},
    "no event": lambda one: 5,
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("at", [0, 2, 4])
def test_a_batch_has_the_lines_of_its_events(odd: str, at: int) -> None:
    """Wherever an odd event stands, each event has the line and the id that it has alone."""
    events = [plain(n) for n in range(5)]
    events[at] = ODD[odd](events[at])
    batch = EncodedBatch.of(events)
    alone = [EncodedBatch.of([one]) for one in events]
    assert batch.lines == [line for one in alone for line in one.lines]
    assert batch.ids == [given for one in alone for given in one.ids]
    assert {type(given) for given in batch.ids} <= {str, type(None)}
    assert batch.keyed == any(one.keyed for one in alone)


@pytest.mark.parametrize("odd", ODD)
def test_events_that_are_all_odd_have_their_lines(odd: str) -> None:
    """The same of a batch of which every event is odd in the same way."""
    events = [ODD[odd](plain(n)) for n in range(4)]
    batch = EncodedBatch.of(events)
    assert batch.lines == [line for one in events for line in EncodedBatch.of([one]).lines]
    for line in batch.lines:
        orjson.loads(line)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("at", [0, 3])
def test_an_event_at_fault_is_named_by_its_place(wrong: str, at: int) -> None:
    """A batch with an invalid event is refused with the place and the reason that it has alone."""
    events = [plain(n) for n in range(4)]
    events[at] = WRONG[wrong](events[at])
    with pytest.raises(InvalidEvent) as alone:
        EncodedBatch.of([events[at]])
    with pytest.raises(InvalidEvent) as found:
        EncodedBatch.of(events)
    assert str(found.value) == str(alone.value).replace("event 0", f"event {at}")
    assert f"event {at}" in str(found.value)


def test_plain_batches_take_one_call() -> None:
    """Batches of plain events are encoded as one; others are not."""
    assert uniform.encode_alike([plain(n) for n in range(9)]) is not None
    assert uniform.encode_alike([{"time": TIME, "type": "A"}] * 3) is not None
    assert uniform.encode_alike([plain(1), swapped(plain(2))]) is None


def test_a_batch_of_one_shape_is_stored(lake: lakelog.Lake) -> None:
    """Its events come back, with ids and payloads."""
    lake.append([plain(n) for n in range(100)])
    lake.append([plain(n) for n in range(90, 110)])
    found = lake.sql("SELECT id, data FROM events").fetchall()
    assert sorted(found) == sorted((f"i{n}", f'{{"n":{n}}}') for n in range(110))


_VALUES: dict[str, list[Any]] = {
    "time": [TIME, "2026-01-02T03:04:05Z", "2026-01-02 03:04:05", "", None, 1_770_000_000, "x"],
    "ts": [TIME, 1_770_000_000],
    "type": ["a", "b", "", None, 7],
    "event_type": ["a"],
    "source": ["s", "", None, "a\u0000", 'q"\\'],
    "level": ["INFO", "info", "ERROR", "warning", None, 3],
    "message": ["plain", 'a": "b", "c', ', "', "tab\t", "\u00e9\u2028", None, "\u0001"],
    "id": ["i", "", None, 5, "\u0000"],
    "data": [{"n": 1}, None, {"a": None}, [1.5, 2**63, 10**30], "t", {"d": '"},{"time":'}],
    "other": [1, "x"],
}


def _random_line(rng: random.Random, keys: list[str]) -> bytes:
    event = {key: rng.choice(_VALUES[key][: rng.choice([1, 1, 2, 9])]) for key in keys}
    spaces = rng.choice([(",", ":"), (", ", ": ")])
    line = json.dumps(event, ensure_ascii=rng.random() < 0.3, separators=spaces)
    odd = rng.random()
    if odd < 0.02:
        line = line.replace(":", ": ", 1)
    elif odd < 0.04:
        line += "," + line
    elif odd < 0.06:
        line = line.replace('"n":1', '"n":1.0,"n":2')
    elif odd < 0.08:
        line = line[: rng.randrange(len(line))]
    return line.encode()


def test_lines_are_taken_as_they_are_only_where_that_is_what_they_become() -> None:
    """Random lines, beside the rule for single ones; a good part of them is plain."""
    defaults = {"time": "2026-05-06T07:08:09Z", "source": "given"}
    rng, taken, spaced = random.Random(5), 0, 0
    for _ in range(3_000):
        keys = ["type", *rng.sample(sorted(_VALUES), rng.randrange(5))]
        keys = [*dict.fromkeys(key for key in keys if key != "data"), "data"]
        text = b"\n".join(_random_line(rng, keys) for _ in range(rng.randrange(1, 4)))
        batch = EncodedBatch.of_lines(text, defaults)
        if batch is None:
            continue
        taken += 1
        spaced += b'": ' in text
        events = []
        for line in text.split(b"\n"):
            event = jsonl.FORM.typed(parse_line(line))
            event.setdefault("source", "given")
            if not {"time", "ts"} & event.keys():
                event = {"time": defaults["time"], **event}
            events.append(event)
        expected = EncodedBatch.of(events)
        assert batch.ids == expected.ids
        assert batch.keyed == expected.keyed
        for line, other in zip(batch.lines, expected.lines, strict=True):
            assert _columns(line) == _columns(other)
            assert payload_of(line) in (payload_of(other), b"null")
    assert taken > 300
    assert spaced > 100


def _columns(line: bytes) -> dict[str, Any]:
    members = {uniform.NAMES[key]: value for key, value in orjson.loads(line).items()}
    return {key: value for key, value in members.items() if value is not None and key != "data"}


_WAITING = """
import sys
from lakelog.event import EncodedBatch
events = [{"type": "a", "data": 1}, {"type": "b", "source": "s"}] * 20_000
begin()
if sys.argv[1] == "one batch":
    EncodedBatch.of(events)
else:
    waiting = [EncodedBatch.of([event]) for event in events]
"""


@pytest.mark.parametrize("how", ["one batch", "a batch each"])
def test_lines_that_wait_take_memory_of_their_size(how: str) -> None:
    """Events of several shapes, and those of a program that come one by one, hold no more."""
    assert growth(_WAITING, how) < 45_000_000
