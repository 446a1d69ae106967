"""Batches written a column at a time are, byte for byte, what values written one by one are."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakelog.export import formats
from lakelog.export.formats import Result
from lakelog.export.vectors import Columns

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
    ]
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
    fast = Result(names, [Columns(batch)], tuple(nested))
    slow = Result(names, [list(Columns(batch))], tuple(nested))
    assert b"".join(formats.encode(fast, form)) == b"".join(formats.encode(slow, form))


@given(batch=batches())
def test_a_batch_is_a_sequence_of_rows(batch: pa.RecordBatch) -> None:
    """Rows are counted, iterated, indexed and sliced alike."""
    rows = Columns(batch)
    whole = [list(row) for row in rows]
    assert len(rows) == len(whole) == batch.num_rows
    assert repr([list(row) for row in rows[1:]]) == repr(whole[1:])
    assert repr([list(rows[at]) for at in range(-len(rows), len(rows))]) == repr(whole * 2)
