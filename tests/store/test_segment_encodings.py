"""The encodings of a segment follow what its columns hold; its rows are the same with each."""

from __future__ import annotations

import io
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakelog.store import segment


def _encode(messages: list[str | None], layout: str) -> bytes:
    schema = segment.schema("events", layout)
    count = len(messages)
    columns = {name: pa.nulls(count, schema.field(name).type) for name in schema.names}
    table = pa.table({**columns, "message": pa.array(messages, pa.string())})
    return segment.encode(table, "events", layout, "00" * 16, 3, {})


@pytest.mark.parametrize("layout", ["arrival", "sorted"])
def test_a_message_that_repeats_is_stored_once(layout: str) -> None:
    """A repeated message costs less than two bytes, wherever in the segment it was before."""
    random = Random(7)
    few: list[str | None] = [random.randbytes(100).hex() for _ in range(100)]
    messages = [random.choice(few) for _ in range(20_000)]
    more = len(_encode(messages, layout)) - len(_encode(few, layout))
    assert more < 2 * len(messages)


@pytest.mark.parametrize("layout", ["arrival", "sorted"])
@pytest.mark.parametrize("distinct", [0, 1, 7, 5_000])
def test_messages_are_read_back_as_they_were(layout: str, distinct: int) -> None:
    """Whatever the encoding, also where rows added later are unlike the first ones."""
    messages = [f"request {n % distinct}" if distinct and n % 3 else None for n in range(5_000)]
    assert pq.read_table(io.BytesIO(_encode(messages, layout)))["message"].to_pylist() == messages
    encoder = segment.SegmentEncoder("events", "arrival", "00" * 16)
    names, schema = segment.EVENT_COLUMNS, segment.schema()
    for part in (messages, [f"late {n}" for n in range(5_000)]):
        nulls = {name: pa.nulls(len(part), schema.field(name).type) for name in names}
        encoder.add(pa.table({**nulls, "message": pa.array(part, pa.string())}))
    read = pq.read_table(io.BytesIO(encoder.finish()))["message"].to_pylist()
    assert read == [*messages, *(f"late {n}" for n in range(5_000))]


def test_a_segment_without_rows_is_whole() -> None:
    """An encoder that got no rows gives a file with its columns and notes."""
    encoded = segment.SegmentEncoder("quarantine", "arrival", "00" * 16).finish()
    file = pq.ParquetFile(io.BytesIO(encoded))
    assert (file.metadata.num_rows, tuple(file.schema.names)) == (0, segment.QUARANTINE_COLUMNS)
