"""What becomes of values that JSON has no form for: each has a rule, and none an exception."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakelog.loggers.values import CYCLE, DEPTH_MAX, encode_event, encode_members
from lakelog.values import parse_line, parse_value
from tests.support.peak_memory import growth


class Colour(Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: float
    y: Any


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Shy:
    def __repr__(self) -> str:
        return "Shy()"


def circle() -> list[Any]:
    ring: list[Any] = [1]
    ring.append(ring)
    return ring


def stored(value: Any) -> Any:
    """What a reader finds for a value in `data`."""
    line = encode_event({"time": datetime.now(UTC), "type": "log", "data": {"v": value}})
    assert b"\n" not in line
    return parse_line(line)["data"]["v"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, "NaN"),
        ([1.5, -math.inf], [1.5, "-Infinity"]),
        (Point(math.inf, None), {"x": "Infinity", "y": None}),
        ({math.nan}, ["NaN"]),
        (2**64 - 1, 2**64 - 1),
        (b"caf\xc3\xa9 \xff", "café \\xff"),
        (bytearray(b"ab"), "ab"),
        (memoryview(b"ab"), "ab"),
        (datetime(2026, 1, 2, 3, 4, 5, 600), "2026-01-02T03:04:05.000600"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
        (datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=2))), "2026-01-02T00:00:00+02:00"),
        ([date(2026, 1, 2), time(3, 4)], ["2026-01-02", "03:04:00"]),
        ({timedelta(seconds=90)}, [90.0]),
        (timedelta(seconds=90), 90.0),
        (Path("/a/b"), "/a/b"),
        (Colour.RED, "red"),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (Decimal("1.50"), 1.5),
        (np.float64(1.5), 1.5),
        (np.array([1, 2]), [1, 2]),
        (type("Tensor", (), {"tolist": lambda _: [1, 2], "dtype": object(), "ndim": 1})(), [1, 2]),
        ({1: "a", None: "b", (2, 3): "c"}, {"1": "a", "None": "b", "(2, 3)": "c"}),
        ({2**70: 1, Decimal("1.5"): 2}, {str(2**70): 1, "1.5": 2}),
        (Shy(), "Shy()"),
        ({"inner": [Broken()]}, {"inner": ["<Broken>"]}),
        (ValueError("x"), "ValueError('x')"),
        (circle(), [1, CYCLE]),
        (None, None),
        ("null NaN \x1b[31m \0", "null NaN \x1b[31m \0"),
    ],
)
def test_a_value_is_stored_by_its_rule(value: Any, expected: Any) -> None:
    """The rule of `values`, seen by who parses the line."""
    assert stored(value) == expected


def test_a_long_integer_keeps_its_digits() -> None:
    """Beyond 64 bits the text of the number stays; beyond what Python writes it is hex."""
    assert f'"v":{10**40}'.encode() in encode_members({"v": 10**40, "o": object()})
    assert stored(10**9999) == hex(10**9999)


def test_half_of_a_surrogate_pair_is_kept_as_text() -> None:
    """What is no Unicode does not refuse the event (F3.13)."""
    line = encode_event({"time": datetime.now(UTC), "type": "log", "data": {"v": "a\ud83d"}})
    assert b"\\ufffd" in line
    assert b"lakelog_exact" in line


def test_deep_nesting_ends_in_text() -> None:
    """A value that is nested without end is stored down to a depth."""
    deep: Any = "end"
    for _ in range(5 * DEPTH_MAX):
        deep = [deep]
    inner = stored(deep)
    for _ in range(DEPTH_MAX - 2):
        inner = inner[0]
    assert "[" in str(inner)


def test_a_payload_of_ten_megabytes_is_whole() -> None:
    """No value is cut for its length."""
    assert stored("x" * 10_000_000) == "x" * 10_000_000


_ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.datetimes()
    | st.builds(object),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@settings(max_examples=50)
@given(_ANY)
def test_anything_is_one_line_of_json(value: Any) -> None:
    """Whatever is logged gives one valid line, and `encode_members` the same payload."""
    line = encode_event({"time": "2026-01-01T00:00:00Z", "type": "log", "data": {"v": value}})
    payload = line[line.index(b',"data":') + 8 : -1]
    assert isinstance(parse_value(payload), dict) or payload.startswith(b"{")
    assert b"\n" not in line
    if b"object object" not in payload:
        assert encode_members({"v": value}) == payload


_QUEUED = """
from datetime import UTC, datetime
from lakelog.loggers.values import encode_event, encode_members
encode_event({"time": datetime.now(UTC), "type": "log"})
begin()
lines = [encode_event({"time": datetime.now(UTC), "type": "log"}) for _ in range(20_000)]
lines += [encode_members({"n": n}) for n in range(20_000)]
"""


def test_lines_in_a_queue_take_memory_of_their_size() -> None:
    """A queue counts the bytes of its lines, and is full of so many."""
    assert growth(_QUEUED) < 12_000_000
