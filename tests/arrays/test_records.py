"""Rows of Arrow tables as dicts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from lakelog import arrays

TIMES = st.datetimes(timezones=st.just(UTC))


@given(times=st.lists(st.none() | TIMES, max_size=9), start=st.integers(0, 9))
def test_rows_are_those_that_arrow_makes(times: list[datetime | None], start: int) -> None:
    """Times of any year and none, in chunks and slices, beside columns of other types."""
    chunk = pa.table(
        {
            "time": pa.array(times, pa.timestamp("us", "UTC")),
            "local": pa.array([n and n.replace(tzinfo=None) for n in times], pa.timestamp("us")),
            "text": pa.array([None if n is None else f"{n}" for n in times], pa.string()),
            "several": pa.array([[n] for n in times], pa.list_(pa.timestamp("us", "UTC"))),
        }
    )
    for table in (chunk, chunk.slice(start), pa.concat_tables([chunk, chunk]), chunk.select([])):
        rows = arrays.records(table)
        assert rows == table.to_pylist()[: len(rows)]
        assert len(rows) == (table.num_rows if table.num_columns else 0)
        assert all(r["time"].utcoffset() == timedelta(0) for r in rows if r["time"])
