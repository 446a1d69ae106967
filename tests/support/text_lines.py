"""What several tests use: formats of text."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from lakelog.formats import LeadingTime
from tests.support.two_ways import decided, one_by_one

SIGNS = [
    *" \t\r\v\f\"'\\-[]<>:|=#.,/+019aIZ",
    "\ufeff",
    "\u2028",
    "\x85",
    "\xa0",
    "é",
    "€",
    "٣",
    "ſ",
    "K",
    "\0",
    "\x1c",
    "😀",
    "  ",
    '\\"',
    "null",
    "INFO",
    "2024",
    "Feb 29",
]


@st.composite
def edited(draw: st.DrawFn, seeds: list[str]) -> bytes:
    """A line of a format with a few characters changed, put in or left out, or two joined."""
    text = draw(st.sampled_from(seeds))
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 5]))):
        at = draw(st.integers(0, len(text)))
        cut = draw(st.sampled_from([0, 0, 1, 1, 2, 9]))
        text = text[:at] + draw(st.sampled_from(SIGNS) | st.text(max_size=3)) + text[at + cut :]
    if draw(st.integers(0, 9)) == 0:
        other = draw(st.sampled_from(seeds))
        text = text[: draw(st.integers(0, len(text)))] + other[draw(st.integers(0, len(other))) :]
    text += draw(st.sampled_from(["", "", "", "\r", " ", "\v", "\xa0"]))
    return text.encode("utf-8", "replace").replace(b"\n", b" ")


def begins_record(form: Any, line: bytes) -> bool:
    """Whether a line continues no other: by the rule of its format, or with a time of its own."""
    if re.match(form.traits.begins.encode(), line):
        return True
    return bool(form.traits.by_line and len(LeadingTime.beginning(pa.array([line]))))


def has_time(form: Any) -> Any:
    """What says whether a line of a format tells its time."""
    return lambda line: "time" in form.parse(line.strip())


def row(engine: Any, form: Any, line: str) -> dict[str, Any]:
    """The row of one line by the exact rule, without nulls; the query's is the same."""
    return rows_of(engine, form, [line])[0]


def rows_of(engine: Any, form: Any, lines: list[str]) -> list[dict[str, Any]]:
    """The rows of lines by the exact rule, without nulls; the query's are the same."""
    encoded = [line.encode() for line in lines]
    exact = [found for _, found in sorted(one_by_one(engine, form, encoded).items())]
    fast, at = decided(engine, form, form.QUERY, encoded), 0
    for line, found in zip(encoded, exact, strict=True):
        assert isinstance(found, dict), found
        assert fast.get(at, found) == found
        at += len(line) + 1
    return [
        {k: v for k, v in found.items() if v is not None} | {"data": dict(found["data"] or ())}
        for found in exact
    ]
