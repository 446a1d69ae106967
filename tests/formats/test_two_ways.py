"""The two ways of reading a line, by SQL and one by one, give the same events."""

from __future__ import annotations

import itertools
import json
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lakelog.formats import bulk, jsonl, oos, sqltext
from lakelog.formats.registry import FORMATS
from lakelog.ingest import records, transform
from lakelog.ingest.transform import Transformer
from lakelog.lines.pieces import Chunk
from tests.support.effort import share
from tests.support.two_ways import (
    ENVELOPE,
    EPOCHS,
    HAZARDS,
    ISO,
    OTHERS,
    SPACES,
    SPOILT,
    VALUES,
    compare,
    one_by_one,
    shown,
    written,
)

# --- lines of every kind --------------------------------------------------------------------------


@st.composite
def files(draw: st.DrawFn, shaped: bool) -> list[bytes]:
    """A few lines of one file, which mostly share their keys; `shaped` spells each column once."""
    if shaped:
        keys = [
            draw(st.sampled_from(sqltext.TIMES)),
            *draw(st.sampled_from([["type"], [], ["event_type"]])),
        ]
        more = ["category", "source", "item_id", "level", "message", "id"]
        more += ["details", "x", "d.a", "event"] if draw(st.booleans()) else ["data"]
        keys += draw(st.lists(st.sampled_from(more), max_size=5, unique=True))
    else:
        names = st.sampled_from(ENVELOPE + OTHERS)
        keys = draw(st.lists(names, min_size=1, max_size=7, unique=True))
        keys = list(dict.fromkeys([*draw(st.sampled_from([["ts"], []])), *keys]))
    lines = draw(st.lists(written(keys), min_size=4, max_size=12))
    return [line.encode("utf-8", "surrogatepass").replace(b"\n", b" ") for line in lines]


FIELDS = st.text(st.characters(exclude_characters="|\n", codec="utf-8"), max_size=6)


@st.composite
def bars(draw: st.DrawFn) -> list[bytes]:
    """A few OOS lines; most have a time, a type and JSON, some end early or hold more bars."""
    lines = []
    for _ in range(draw(st.integers(4, 12))):
        time = draw(ISO | EPOCHS | ISO | FIELDS)
        fields = [time, *(draw(FIELDS | st.sampled_from(["T", "podcast", ""])) for _ in range(4))]
        data = draw(st.integers(0, 19).flatmap(lambda n: SPOILT if n == 0 else VALUES))
        fields.append(draw(SPACES) + draw(st.sampled_from([data, data, data, "", "null", '""'])))
        line = "|".join(fields[: draw(st.sampled_from([6, 6, 6, 6, 5, 1]))])
        lines.append((line + draw(st.sampled_from(["", "", " ", "\r"]))).encode("utf-8", "replace"))
    return [line.replace(b"\n", b" ") for line in lines]


# --- comparing ------------------------------------------------------------------------------------


def has_time(line: bytes) -> bool:
    """Whether a line says when it happened."""
    found = jsonl.FORM.parse(line)
    return any(found.get(k) is not None for k in sqltext.TIMES)


@settings(max_examples=share(60))
@example(lines=HAZARDS)
@given(lines=files(shaped=False))
def test_json_lines_by_sql_are_those_of_the_exact_rule(engine: Any, lines: list[bytes]) -> None:
    """Whatever the full query decides, it decides as the exact rule does."""
    compare(engine, jsonl.FORM, jsonl.FORM.QUERY, lines, has_time)


@settings(max_examples=share(60))
@given(lines=files(shaped=True))
def test_json_lines_by_the_cheaper_query_are_too(engine: Any, lines: list[bytes]) -> None:
    """Whatever the queries for files of one shape decide, they decide as the exact rule does."""
    for query in jsonl.FORM.cheaper(lines):
        compare(engine, jsonl.FORM, query, lines, has_time)


MOMENTS = (5, 1.5, "2024-05-01T10:00:00Z", "2024-05-01 10:00:00.25")
WRITTEN = [
    pytest.param(separators, moment, marks=[pytest.mark.matrix] if (at + turn) % 2 else [])
    for turn, separators in enumerate([(",", ":"), (", ", ": ")])
    for at, moment in enumerate(MOMENTS)
]
"""Each way to write a line and a moment is always played, and each pair of them in the matrix."""


@pytest.mark.matrix
@pytest.mark.parametrize(("separators", "moment"), WRITTEN)
def test_the_cheaper_queries_on_all_hazards(
    engine: Any, separators: tuple[str, str], moment: float | str
) -> None:
    """Hazards of every kind are decided right, or left, whatever columns the query is for."""
    more = ["source", "message", "id", "level", "data"]
    assert jsonl.FORM.cheaper([b'{"ts":1,"x":2,"X":3}']) == []
    for time in ("ts", "time"):
        for taken in itertools.chain.from_iterable(itertools.combinations(more, n) for n in (1, 5)):
            sample = {time: moment, "type": "A", **dict.fromkeys(taken, "info")}
            queries = jsonl.FORM.cheaper([json.dumps(sample, separators=separators).encode()])
            filled = json.dumps(dict.fromkeys(taken, "info"))[1:].encode()
            lines = [line[:-1] + b"," + filled for line in HAZARDS if len(line) > 2]
            for query in queries:
                compare(engine, jsonl.FORM, query, HAZARDS + lines, has_time)
            assert len(queries) == 1


@pytest.mark.parametrize("end", ["", "\r"])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_plain_lines_are_decided_by_the_cheaper_query(
    engine: Any, separators: tuple[str, str], end: str
) -> None:
    """Lines with the keys of the first one take the cheaper way, whatever keys they lack."""
    events: list[dict[str, Any]] = [
        {"ts": "2024-05-01T10:00:00Z", "type": "A", "source": "sé", "level": "info"},
        {"ts": "2024-05-01T10:00:01Z", "type": "A", "source": "", "level": "info", "id": "7"},
        {"ts": "2024-05-01T10:00:01.5+02:00", "type": "B", "source": "s", "level": "warn"},
    ]
    lines = [
        json.dumps(event, separators=separators, ensure_ascii=False).encode() + end.encode()
        for event in events
    ]
    (query,) = jsonl.FORM.cheaper(lines)
    assert compare(engine, jsonl.FORM, query, lines, has_time) == 3


@settings(max_examples=share(60))
@given(lines=bars())
def test_oos_lines_by_sql_are_those_of_the_exact_rule(engine: Any, lines: list[bytes]) -> None:
    """Whatever the query for OOS lines decides, it decides as the exact rule does."""
    for query in (oos.FORM.QUERY, *oos.FORM.cheaper(lines)):
        compare(engine, oos.FORM, query, lines, lambda _: True)


def test_plain_oos_lines_take_the_cheap_way(engine: Any) -> None:
    """Lines whose JSON is written without spaces need only the first query."""
    line = '2026-05-01T12:00:0%d.5Z|A|b|sé|i|{"n":1.5,"s":"nan","l":[1,2]}'
    lines = [(line % n).encode() for n in range(9)]
    (query,) = oos.FORM.cheaper(lines)
    assert compare(engine, oos.FORM, query, lines, lambda _: True) == 9
    spoilt = [line.replace(b"1.5,", b"NaN,") for line in lines]
    assert compare(engine, oos.FORM, query, spoilt, lambda _: True) == 0


# --- whole files ----------------------------------------------------------------------------------


@settings(max_examples=share(40))
@given(lines=files(shaped=True) | files(shaped=False), few=st.sampled_from([0, 100]))
def test_a_chunk_holds_its_lines_in_order(engine: Any, lines: list[bytes], few: int) -> None:
    """However its lines are decided, a chunk gives their rows in order, and the bad lines."""
    exact = one_by_one(engine, jsonl.FORM, lines)
    with mock.patch.object(transform, "FEW", few):
        made = Transformer(lambda: engine, jsonl.FORM, "o").run(
            Chunk(b"".join(x + b"\n" for x in lines), 0)
        )
    found = shown(made.table) if made.table is not None else {}
    places = list(itertools.accumulate((len(line) + 1 for line in lines), initial=0))
    for row in (*found.values(), *(r for r in exact.values() if isinstance(r, dict))):
        row["time"] = None  # an event without one has that of its arrival
    blank = {at for at, line in zip(places, lines, strict=False) if not line.strip()}
    assert found == {at: row for at, row in exact.items() if isinstance(row, dict)}
    assert list(found) == sorted(found)
    bad = {b.position: b.reason for b in sorted(made.bad, key=lambda b: b.position)}
    assert bad == {at: why for at, why in exact.items() if isinstance(why, str)}
    assert not blank & bad.keys()
    assert (made.lines, made.length) == (len(lines), places[-1])


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        (b'{"a":1}\n{"b":2}\n', "jsonl"),
        (b'  {"a":1}', "jsonl"),
        (b"oops\n{}\n{}\n", "jsonl"),
        (b"2026-05-01T12:00:00|A|||x|{}\n", "oos"),
        (b"2026-05-01 12:00:00|A|b|c|d|\n\n", "oos"),
        (b'{"index":{}}\n{"a":1}\n', "bulk"),
        (b'\n { "update" : {"_id":1} }\n{}', "bulk"),
        (b'POST _bulk\n{"create":{"_index":"x"}}\n{}\n', "bulk"),
        (b'{"index":5}\n', "jsonl"),
        (b'{"index":{},"x":1}\n', "jsonl"),
        (b'{"delete":{"_id":"1"}}\n', "bulk"),
        (b'{"index":"a|b|c|d|e|f"}\n', "jsonl"),
        (b"just text\n", "plain"),
    ],
)
def test_formats_are_told_by_their_lines(lines: bytes, name: str) -> None:
    """The surest format is the right one; text that is nothing known is plain text."""
    assert name == FORMATS.detect(lines, lines, "x.log").NAME


@pytest.mark.parametrize(
    ("text", "form", "cut"),
    [
        (b'{"a":1}', jsonl.FORM, False),
        (b'{"a":1', jsonl.FORM, True),
        (b"", jsonl.FORM, False),
        (b"some text", jsonl.FORM, True),
        (b"\x00\x01", jsonl.FORM, False),
        (b"ab\xff\x02cd", jsonl.FORM, False),
        (b'{"a":"\xc5', jsonl.FORM, True),
        (b"2026-05-01T12:00:00|A|||x|{}", oos.FORM, False),
        (b"2026-05-01T12:00:00|A|||x|12", oos.FORM, True),
        (b"2026-05-01T12:00:00|A|||x|", oos.FORM, True),
        (b"2026-05-01T12:00:00|A|||x", oos.FORM, True),
        (b"2026-05-01T12:00:00|A|||x|true", oos.FORM, False),
        (b'{"index":{', bulk.FORM, True),
        (b'{"index":{}}', bulk.FORM, False),
    ],
)
def test_what_may_go_on(text: bytes, form: Any, cut: bool) -> None:
    """A last line is unfinished if more of it would make it good, or make it another one."""
    assert records.is_cut(text, form) is cut
