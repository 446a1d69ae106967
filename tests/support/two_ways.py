"""What several tests use: a line read in two ways, by SQL and one by one, gives the same events."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from lakelog import arrays
from lakelog.errors import InvalidEvent
from lakelog.event import EncodedBatch
from lakelog.formats import sqltext
from lakelog.ingest.transform import Transformer

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
COLUMNS = ("time", "type", "category", "source", "subject", "level", "message", "data", "id", "key")
ENVELOPE = [
    "time",
    "timestamp",
    "ts",
    "@timestamp",
    "type",
    "event_type",
    "category",
    "content_type",
    "source",
    "subject",
    "item_id",
    "level",
    "message",
    "id",
    "data",
]
OTHERS = [
    "event",
    "eventName",
    "event_name",
    "eventType",
    "EventType",
    "details",
    "x",
    "Type",
    "TIME",
    "key",
    "",
    " id",
    "d.a",
    "$",
    'q"',
    "č",
]
NUMBERS = st.one_of(
    st.integers(-(10**22), 10**22).map(str),
    st.integers(-1000, 1000).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(allow_nan=False, allow_infinity=False, places=8).map(str),
    st.from_regex(r"-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,19})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.sampled_from(
        [
            "-0",
            "-0.0",
            "1e3",
            "1E25",
            "0.1e-7",
            "1e-400",
            "1e400",
            "123456789012345678",
            "0.30000000000000001",
            "9007199254740993e1",
            "18446744073709551615",
        ]
    ),
)
SPOILT = st.sampled_from(
    [
        "NaN",
        "nan",
        "Infinity",
        "-inf",
        "nAn",
        "[1,]",
        '{"a":1,}',
        "01",
        "+1",
        ".5",
        "'a'",
        "",
        "[",
        '"\\ud800"',
        '"a\tb"',
        "tru",
        "undefined",
        '"\\x41"',
        "[1 2]",
    ]
)
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        [
            "",
            "info",
            "WARN",
            " error ",
            "x",
            "[a]",
            "{b}",
            "1.5",
            "1e5",
            "nan",
            "null",
            "é\u2028😀",
            '"',
            "\\",
            "\0",
            "2024-05-01T10:00:00Z",
            "0.30000000000000001",
        ]
    ),
)


@st.composite
def string(draw: st.DrawFn, content: st.SearchStrategy[str] = TEXTS) -> str:
    """A JSON string, escaped in one of the ways there are."""
    text = draw(content)
    written = json.dumps(text, ensure_ascii=draw(st.booleans()))
    style = draw(st.integers(0, 5))
    if style == 0:
        written = written.replace("/", "\\/").replace("a", "\\u0061")
    return written


SPACES = st.sampled_from(["", "", "", " ", "  ", "\t"])


@st.composite
def members(draw: st.DrawFn, pairs: list[tuple[str, str]]) -> str:
    """An object of written keys and values, with some whitespace or none."""
    style = draw(st.integers(0, 3))
    if style == 0:
        return "{" + ", ".join(f"{k}: {v}" for k, v in pairs) + "}"
    if style == 1:
        space = [draw(SPACES) for _ in range(4)]
        comma, colon = f"{space[0]},{space[1]}", f"{space[2]}:{space[3]}"
        return "{" + comma.join(f"{k}{colon}{v}" for k, v in pairs) + draw(SPACES) + "}"
    return "{" + ",".join(f"{k}:{v}" for k, v in pairs) + "}"


def nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Lists and objects of what is given; keys may repeat."""
    keys = st.sampled_from(["a", "b", "data", "type", "x", "a b"]).map(json.dumps)
    lists = st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]")
    return lists | st.lists(st.tuples(keys, inner), max_size=3).flatmap(members)


SCALARS = st.one_of(NUMBERS, string(), st.sampled_from(["true", "false", "null"]))
VALUES = st.recursive(SCALARS, nested, max_leaves=5)
ISO = st.datetimes().map(lambda t: t.isoformat()) | st.from_regex(
    r"(0000|0001|2024|9999)-(02|12)-(0[1-9]|2[89]|3[01])([T ][0-2][0-9]:[0-5][0-9](:[0-6][0-9]"
    r"([.,][0-9]{1,9})?)?(Z|[+-][01][0-9]:?[0-9]{2}| UTC)?)?",
    fullmatch=True,
)
EPOCHS = st.one_of(
    st.integers(-(10**12), 10**20).map(str),
    st.integers(0, 2_000_000_000_000_000_000).map(str),
    st.floats(0, 2e12).map(repr),
    st.integers(0, 4 * 10**15).map(lambda n: f"{n / 1e6:.6f}"),
    st.integers(0, 4 * 10**18).map(lambda n: f"{n // 10**9}.{n % 10**9:09}"),
    st.integers(0, 2 * 10**9).map(lambda n: f"{n}.{5:07}"),
    st.sampled_from(["20240501", "0", "99999999999", "100000000000", "1e9", "1.7e9"]),
)
MOMENTS = st.integers(0, 9).flatmap(
    lambda n: VALUES if n == 0 else EPOCHS | EPOCHS.map(json.dumps) if n < 5 else string(ISO)
)


def value_of(key: str) -> st.SearchStrategy[str]:
    """What may stand under a key."""
    if key in sqltext.TIMES:
        return MOMENTS
    levels = string(
        st.sampled_from(["info", "Warning", " ERR ", "loud", "TRACE", "ﬁne", "", "ınfo"])
    )
    plain = {"level": levels, "data": VALUES}.get(key, string())
    return st.integers(0, 59).flatmap(lambda n: SPOILT if n == 0 else VALUES if n < 6 else plain)


@st.composite
def written(draw: st.DrawFn, keys: list[str]) -> str:
    """A line with these keys, mostly in this order; some left out, some given twice."""
    chosen = [k for k in keys if draw(st.integers(0, 14)) > 0]
    chosen += [k for k in keys if draw(st.integers(0, 49)) == 0]
    if draw(st.integers(0, 14)) == 0:
        chosen.append(draw(st.sampled_from(ENVELOPE + OTHERS)))
    pairs = [(draw(string(st.just(k))), draw(value_of(k))) for k in chosen]
    body = draw(members(pairs))
    return draw(st.sampled_from(["", "", "", "", " ", "\r"])) + body + draw(SPACES)


class Pairs(tuple):  # type: ignore[type-arg]
    """The members of an object, sorted, repeated keys included."""


def parsed(text: str | None) -> Any:
    """JSON text as values with exact numbers."""
    if text is None:
        return None
    return json.loads(
        text,
        parse_int=Decimal,
        parse_float=Decimal,
        object_pairs_hook=lambda pairs: Pairs(sorted(pairs, key=repr)),
    )


def shown(table: Any) -> dict[int, dict[str, Any]]:
    """Rows by position, their data parsed."""
    found = {}
    for row in table.to_pylist():
        found[row["position"]] = {c: row[c] for c in COLUMNS} | {"data": parsed(row["data"])}
    return found


def one_by_one(engine: duckdb.DuckDBPyConnection, form: Any, lines: list[bytes]) -> dict[int, Any]:
    """What the exact rule makes of each line: its row, or the reason it is none."""
    transformer = Transformer(lambda: engine, form, "o")
    found: dict[int, Any] = {}
    good, places, at = [], [], 0
    for line in lines:
        try:
            event = form.parse(line.strip())
            EncodedBatch.of([event])
            good.append(event)
            places.append(at)
        except InvalidEvent as error:
            found[at] = error.reason
        at += len(line) + 1
    table = transformer.rows_of(good, places)
    return found | (shown(table) if table is not None else {})


def decided(
    engine: duckdb.DuckDBPyConnection, form: Any, query: str, lines: list[bytes]
) -> dict[int, Any]:
    """The rows that a query decides, by position."""
    transformer = Transformer(lambda: engine, form, "o")
    data = b"".join(line + b"\n" for line in lines)
    array, starts = arrays.split_lines(data)
    index = np.arange(len(array), dtype=np.int64)
    lone = pa.table({"line": array, "position": index, "more": pa.nulls(len(array), pa.string())})
    table, _ = transformer._run(query, lone, index, starts, NOW)
    return shown(table)


def compare(
    engine: Any, form: Any, query: str, lines: list[bytes], timed: Callable[..., bool]
) -> int:
    """Check that a query agrees with the exact rule wherever it decides; count its rows."""
    fast, exact = decided(engine, form, query, lines), one_by_one(engine, form, lines)
    at = 0
    for line in lines:
        if at in fast:
            assert isinstance(exact[at], dict), f"{line!r} is {fast[at]}, but: {exact[at]}"
            if not timed(line):
                fast[at]["time"] = exact[at]["time"] = None
            assert fast[at] == exact[at], line
        at += len(line) + 1
    return len(fast)


HEAD = b'{"ts":5,"type":"A",'
HAZARDS = (
    [
        HEAD + rest
        for rest in (
            b'"type":"B"}',
            b'"data":{"a":1,"a":2}}',
            b'"data":{"a":1,"a":2},"x":1}',
            b'"x":1,"x":2}',
            b'"id":0.30000000000000001}',
            b'"id":1e3}',
            b'"id":1E25}',
            b'"id":-0}',
            b'"id":nan}',
            b'"id":12345678901234567890123}',
            b'"id":[1]}',
            b'"message":"[1]"}',
            b'"message":"1.5"}',
            b'"data":0.30000000000000001}',
            b'"data":[0.30000000000000001]}',
            b'"data":NaN}',
            b'"data":[1,2,]}',
            b'"source":"s",}',
            b'"source":"s" , }',
            b'"data":{"n":-inf}}',
            b'"data":1e-400}',
            b'"data":{"n":1e400}}',
            b'"data":9007199254740993e1}',
            b'"data":""}',
            b'"x":{"y":null},"z":null}',
            b'"data":{},"z":1}',
            b'"data":[],"z":1}',
            b'"level":" warn "}',
            b'"level":"loud"}',
            b'"level":30}',
            b'"id":""}',
            b'"source":"","id":"7"}',
            b'"event":""}',
            b'"data":"' + b"[" * 300 + b'"}',
            b'"data":' + b"[" * 252 + b"]" * 252 + b"}",
            b'"data":' + b"[" * 300 + b"]" * 300 + b"}",
            b'"message":"[0.3]","data":[0.30000000000000001]}',
            b'"message":"\\u0000"}',
            b'"message":"\\ud800"}',
            b'"data":{"n":1763628911.3297732}}',
        )
    ]
    + [
        b'{"type":"A","time":%s}' % time
        for time in (
            b"20240501",
            b'"20240501"',
            b"1763628911.3297732",
            b"1763628911.329773200",
            b"-1.5",
            b"2.5e-6",
            b"-100000000000000001",
            b"1588205198899709999",
            b"9223372036854775808",
            b"99999999999.5",
            b'"2024-05-01T24:00:00Z"',
            b'"2024-05-01T10:00:00+23:59"',
            b'"2024-05-01T10:00:60"',
            b'"9999-12-31T23:59:59.999999-01:00"',
            b'"0001-01-01T00:00:00+00:01"',
            b'"0000-01-01"',
            b'"2024-05-01 10:00:00 Europe/Prague"',
            b'"2024-05-01T10:00:00.123456789-0330"',
            b"1e9",
            b"1763628911.1234567891234",
            b'"1763628911.1234565"',
            b"1763628911.0000005",
            b'""',
        )
    ]
    + [
        b'{"event":"","eventName":"x"}',
        b'{"EventType":"x","eventtype":"y"}',
        b'{"type":"","event":"x"}',
        b'{"type":null,"event_type":"B","ts":null,"time":5}',
        b'{"time":5,"ts":6,"type":"A"}',
        b"{}",
        *(
            b'{"ts":5,"id":%s}' % rest
            for rest in (
                b'"7"',
                b"7",
                b"1.50",
                b"0.30000000000000001",
                b"null",
                b'[1],"data":{"id":2}',
                b'"7","x":1',
                b'{"a":1},"data":{"b":2}',
                b'"7","data":[]',
                b'"7","event":"x"',
                b'"7","type":""',
                b'"7","event_type":"B"',
                b'"7","level":"info","message":"m"',
            )
        ),
        b'[{"type":"A"}]',
        b'"type"',
        b"null",
        b'{"type":"A"} x',
        b'{"Type":"A","type":"B"}',
    ]
)
