"""Batches written a column at a time are, byte for byte, what values written one by one are."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lakelog.render import QueryResult
from lakelog.render.vectors import ColumnBatch

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    [
        "",
        '"',
        "a,b",
        "\r",
        "\n",
        "\\",
        "\x00",
        "\x1f",
        "\x7f",
        "\u2028",
        '{"a":1}',
        "[1",
        "null",
        "1.50",
        '{"a": [1, {"b": null}]}',
        '{"a":1,}',
        '{"a":NaN}',
        '"\\ud800"',
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda items: st.lists(items, max_size=3) | st.dictionaries(TEXTS, items, max_size=3),
    max_leaves=8,
)
MOMENTS = st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31))
KINDS: list[tuple[pa.DataType, Any]] = [
    (pa.string(), TEXTS),
    (pa.large_string(), TEXTS),
    (pa.timestamp("us", "UTC"), MOMENTS),
    (pa.timestamp("us"), MOMENTS),
    (pa.timestamp("s"), MOMENTS),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.int8(), st.integers(-128, 127)),
    (pa.bool_(), st.booleans()),
    (pa.float64(), st.floats()),
    (pa.decimal128(38, 4), st.integers(-(10**20), 10**20).map(lambda n: Decimal(n).scaleb(-4))),
    (pa.date32(), st.dates()),
    (pa.binary(), st.binary(max_size=5)),
    (pa.list_(pa.int32()), st.lists(st.integers(-9, 9), max_size=3)),
]


@st.composite
def batches(draw: st.DrawFn) -> pa.RecordBatch:
    """A batch of two to five columns of any kinds, sometimes a part of a larger one."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=2, max_size=5))
    count = draw(st.integers(0, 6))
    columns = [pa.array([draw(st.none() | of) for _ in range(count)], kind) for kind, of in kinds]
    batch = pa.record_batch(columns, [f"c{i}" for i in range(len(columns))])
    return batch.slice(draw(st.integers(0, 2)))


@pytest.mark.parametrize("form", ["csv", "ndjson"])
@given(batch=batches(), nested=st.sets(st.integers(0, 1)))
def test_lines_are_those_of_single_values(
    form: str, batch: pa.RecordBatch, nested: set[int]
) -> None:
    """Whatever the columns hold, nulls, quotes, long numbers or JSON, both ways write the same."""
    names = batch.schema.names
    fast = QueryResult(names, [ColumnBatch(batch)], tuple(nested))
    slow = QueryResult(names, [list(ColumnBatch(batch))], tuple(nested))
    assert b"".join(fast.encode(form)) == b"".join(slow.encode(form))


@st.composite
def almost_json(draw: st.DrawFn) -> str:
    """JSON text of any spelling, or one character away from it."""
    spaces = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "  :")]))
    plain = json.dumps(draw(JSON), separators=spaces, ensure_ascii=draw(st.booleans()))
    at = draw(st.integers(0, len(plain)))
    new = draw(
        st.sampled_from(["", "", ",", "]", '"', "\\", "0", "-", ".", "e", " ", "NaN", "\x00"])
    )
    return plain[:at] + new + plain[at + draw(st.integers(0, 1)) :]


@given(st.lists(almost_json(), min_size=1, max_size=8))
@example(["[1,]", '{"a":1,}', '{"a":[1,],"b":2}', "[NaN]", "-Infinity", '{"a":01}', '{"a":[-]}'])
@example(
    ["[1.]", "[.5]", "[+1]", "[1e]", '["\\x41"]', "['a']", "{a:1}", "[1 2]", "{} {}", "", " 1"]
)
@example(['{"a":\n1}', "[\r\n1,\r\n2]\n", '{\n"long": "' + "x" * 5_000 + '"}', "no\nJSON"])
@example(["\ufeff{}", '["\\ud83d\\ude00"]', '["\\ud83d"]', "[" * 9_999, "1" * 9_999, '["\x00"]'])
def test_only_json_is_written_as_it_is(texts: list[str]) -> None:
    """Payload text that is JSON is spliced without its line ends, all else becomes a JSON string;
    each row is one line, and an array of the same rows has these lines."""
    batch = pa.record_batch([pa.array(texts)], ["data"])
    fast = b"".join(QueryResult(["data"], [ColumnBatch(batch)], (0,)).encode("ndjson"))
    rows = QueryResult(["data"], [[[t] for t in texts]], (0,))
    assert fast == b"".join(rows.encode("ndjson"))
    assert fast.count(b"\n") == len(texts)
    array = b"".join(QueryResult(["data"], [ColumnBatch(batch)], (0,)).encode("json"))
    assert array == b"[\n" + fast[:-1].replace(b"\n", b",\n") + b"\n]\n"


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_batches_encoded_concurrently_keep_their_order(form: str) -> None:
    """Large batches are written by several threads, as one thread would: columns of one value,
    of runs, with nulls and with quotes among them."""
    count = 30_000
    start = dt.datetime(2026, 9, 1, tzinfo=dt.UTC)
    columns: dict[str, list[Any]] = {
        "n": list(range(count)),
        "same": ['a "quoted", text'] * count,
        "time": [start + dt.timedelta(milliseconds=n) for n in range(count)],
        "runs": [start + dt.timedelta(microseconds=n // 999 + 1) for n in range(count)],
        "text": [None if n % 7 == 0 else "," * (n % 3) + "\n" * (n % 2) for n in range(count)],
        "data": ['{"a":[1]}' if n % 5 else "{" for n in range(count)],
        "none": [None] * count,
    }
    table = pa.table(columns)
    names, nested = table.column_names, (5,)
    batches = [ColumnBatch(batch) for batch in table.to_batches(6_000)]
    fast = b"".join(QueryResult(names, batches, nested).encode(form))
    slow = QueryResult(names, [list(rows) for rows in batches], nested).encode(form)
    assert fast == b"".join(slow)


@pytest.mark.parametrize("digits", [0, 3, 6, 9])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_times_have_a_fraction_where_they_need_one(digits: int, zone: str | None) -> None:
    """Times of any unit, whole seconds alone and among others, before 1970, and with nulls."""
    second = 10**digits
    moments = [0, second, -second, 5 * second + second // 2, 1, -1, 1_700_000_000 * second]

    def iso(moment: int | None) -> str:
        seconds, rest = divmod(moment or 0, second)
        whole = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=seconds)
        fraction = f".{rest:0{digits}}" if rest else ""
        return "" if moment is None else whole.isoformat() + fraction + ("Z" if zone else "")

    kind = pa.timestamp({0: "s", 3: "ms", 6: "us", 9: "ns"}[digits], zone)
    for some in (moments, moments[:3], [None, *moments], moments[:1] * 20, moments[4:5] * 20):
        batch = pa.record_batch([pa.array(some, kind), pa.nulls(len(some))], ["t", "n"])
        lines = b"".join(QueryResult(["t", "n"], [ColumnBatch(batch)]).encode("csv"))
        assert lines.decode().split("\r\n")[1:-1] == [f"{iso(each)}," for each in some]


@pytest.mark.parametrize(
    ("time", "kind", "written"),
    [
        (2**63 - 1, pa.timestamp("us", "UTC"), "9999-12-31T23:59:59.999999Z"),
        (1 - 2**63, pa.timestamp("us"), "0001-01-01T00:00:00"),
        (2**63 - 1, pa.timestamp("s"), "9999-12-31T23:59:59"),
        (2_069_800_000_000, pa.timestamp("s", "UTC"), "67559-05-09T12:26:40Z"),
        (9_200_000_000_000_000_000, pa.timestamp("us"), "293506-05-25T11:33:20"),
        (-63_515_000_000_500, pa.timestamp("ms"), "-0043-04-16T16:26:39.500"),
        (2**31 - 1, pa.date32(), "9999-12-31"),
        (23_955_000, pa.date32(), "67556-07-25"),
    ],
)
def test_times_beyond_the_years_of_python(time: int, kind: pa.DataType, written: str) -> None:
    """No year becomes another one, and an infinite time is the one that rows of SQL have."""
    batch = pa.record_batch([pa.array([None, 0, time], kind), pa.array([1, 2, 3])], ["a", "n"])
    assert [row[0] for row in ColumnBatch(batch)][2] == written
    lines = b"".join(QueryResult(["a", "n"], [ColumnBatch(batch)]).encode("ndjson")).splitlines()
    assert json.loads(lines[0]) == {"a": None, "n": 1}
    assert json.loads(lines[2]) == {"a": written, "n": 3}


@pytest.mark.parametrize("texts", [['"'] * 9, ['a "b"', None, '""'], ['"\r', '",'], ['"', "\n"]])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_quotes_are_doubled_in_every_column(texts: list[str | None], kind: pa.DataType) -> None:
    """Columns in which every text has a quote are written as single values are, also the last."""
    numbers = pa.array([None, *range(len(texts) - 1)])
    columns = [pa.array(texts, kind), numbers, pa.array(texts, kind).slice(0)]
    for order in ([0, 1, 2], [1, 0], [0, 1]):
        batch = pa.record_batch([columns[n] for n in order], [f"c{n}" for n in order])
        for part in (batch, batch.slice(1)):
            result = QueryResult(part.schema.names, [ColumnBatch(part)])
            slow = QueryResult(part.schema.names, [list(ColumnBatch(part))])
            assert b"".join(result.encode("csv")) == b"".join(slow.encode("csv"))


@given(batch=batches())
def test_a_batch_is_a_sequence_of_rows(batch: pa.RecordBatch) -> None:
    """Rows are counted, iterated, indexed and sliced alike."""
    rows = ColumnBatch(batch)
    whole = [list(row) for row in rows]
    assert len(rows) == len(whole) == batch.num_rows
    assert repr([list(row) for row in rows[1:]]) == repr(whole[1:])
    assert repr([list(rows[at]) for at in range(-len(rows), len(rows))]) == repr(whole * 2)
