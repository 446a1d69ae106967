"""The encodings of a segment follow what its columns hold; its rows are the same with each."""

from __future__ import annotations

import io
import itertools
from collections import Counter
from random import Random

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lakelog
from lakelog import column_encodings
from lakelog.segments import segment
from tests.support.requirements import need_module


def _encode(messages: list[str | None], layout: str) -> bytes:
    schema = segment.segment_schema("events", layout)
    count = len(messages)
    columns = {name: pa.nulls(count, schema.field(name).type) for name in schema.names}
    table = pa.table({**columns, "message": pa.array(messages, pa.string())})
    encoder = segment.SegmentEncoder("events", layout, "00" * 16, is_short=len(table) <= 500)
    encoder.add(table)
    return encoder.finish()


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
    names, schema = segment.EVENT_COLUMNS, segment.segment_schema()
    for part in (messages, [f"late {n}" for n in range(5_000)]):
        nulls = {name: pa.nulls(len(part), schema.field(name).type) for name in names}
        encoder.add(pa.table({**nulls, "message": pa.array(part, pa.string())}))
    read = pq.read_table(io.BytesIO(encoder.finish()))["message"].to_pylist()
    assert read == [*messages, *(f"late {n}" for n in range(5_000))]


def test_the_smallest_encoding_is_chosen() -> None:
    """Values that come again get a dictionary, whatever their type; those that do not get none."""
    random = Random(7)
    agents = [random.randbytes(60).hex() for _ in range(600)]
    sizes = [random.randrange(1 << 40) for _ in range(600)]
    again = [random.randrange(600) for _ in range(4_000)]
    dictionary = column_encodings.DICTIONARY
    assert column_encodings.choose(pa.array([agents[n] for n in again])) == dictionary
    assert column_encodings.choose(pa.array([sizes[n] for n in again])) == dictionary
    assert column_encodings.choose(pa.array([sizes[n] / 1e3 for n in again])) == dictionary
    assert column_encodings.choose(pa.array(range(4_000))) == "DELTA_BINARY_PACKED"
    distinct = [f"{n} {agents[n % 600]}" for n in range(4_000)]
    assert column_encodings.choose(pa.array(distinct)) != dictionary
    nothing = pa.array([], pa.string())
    assert column_encodings.choose(nothing) == "DELTA_LENGTH_BYTE_ARRAY"


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 1_000, 100_000])
def test_a_sample_is_even_and_of_neighbours(length: int) -> None:
    """Rows of a sample are distinct, ascend, and come from every part of the column."""
    rows = column_encodings.sample(length, 640).to_pylist()
    assert rows == sorted(set(rows))
    assert len(rows) == (length if length <= 640 else 640)
    gaps = [b - a for a, b in itertools.pairwise([-1, *rows, length])]
    assert max(gaps) <= length / 10 + 1


def test_subjects_of_some_events_are_a_dictionary(lake: lakelog.Lake) -> None:
    """A dictionary is a row group's, of few subjects by the order: they are named once in each."""
    random, count = Random(7), 100_000
    numbers = [random.randrange(count // 25) for _ in range(count)]
    subjects = [f"user-{number}" for number in numbers]
    lake.append(pa.table({"type": ["order"] * count, "subject": subjects}))
    lake.compact()
    state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
    [entry] = lake.store.manifests.segments(state)
    metadata = pq.read_metadata(lake.store.paths.object("segments", entry.key))
    for number in range(metadata.num_row_groups):
        columns = map(metadata.row_group(number).column, range(metadata.num_columns))
        encodings = {column.path_in_schema: column.encodings for column in columns}
        assert "RLE_DICTIONARY" in encodings["subject"]


def test_a_log_whose_agents_repeat_gets_small(lake: lakelog.Lake) -> None:
    """A long text that comes again costs a few bytes in a compacted lake, as in a dictionary."""
    random = Random(7)
    agents = [random.randbytes(100).hex() for _ in range(400)]
    lake.append([{"type": "get", "data": {"agent": random.choice(agents)}} for _ in range(9_000)])
    lake.compact()
    state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
    [entry] = lake.store.manifests.segments(state)
    footer = pq.read_metadata(lake.store.paths.object("segments", entry.key)).row_group(0)
    columns = map(footer.column, range(footer.num_columns))
    sizes = {column.path_in_schema: column.total_compressed_size for column in columns}
    assert sizes["fields.agent"] < 120 * len(agents) + 2 * 9_000


@pytest.mark.parametrize("smallest", [False, True])
def test_plain_readers_see_every_encoding(lake: lakelog.Lake, smallest: bool) -> None:
    """DuckDB, Polars and pandas read each column of a compacted log as pyarrow does, and lakelog
    the payloads as they were."""
    random = Random(7)
    again = [random.randbytes(30).hex() for _ in range(300)]
    payloads = [
        {"agent": random.choice(again), "bytes": random.choice([1 << 40, 7 * n, None])}
        | {"path": f"/{n}", "ms": random.choice([0.5, n / 7]), "ok": n % 3 == 0, "tags": ["a"] * 2}
        for n in range(3_000)
    ]
    events = [
        {
            "type": "access",
            "message": f"GET {random.choice(again)}",
            "subject": f"u{n}",
            "data": data,
        }
        for n, data in enumerate(payloads)
    ]
    lake.append(events)
    lake.compact(smallest=smallest)
    state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
    [entry] = lake.store.manifests.segments(state)
    path = lake.store.paths.object("segments", entry.key)
    table = pq.read_table(path)
    chunks = pq.read_metadata(path).row_group(0)
    used = {name for n in range(chunks.num_columns) for name in chunks.column(n).encodings}
    assert {"RLE_DICTIONARY", "DELTA_BINARY_PACKED", "PLAIN"} <= used
    wanted = [(e["subject"], e["message"], e["data"]) for e in events]
    names = ["subject", "message", "fields"]
    assert [tuple(row[name] for name in names) for row in table.to_pylist()] == wanted
    query = f"SELECT {', '.join(names)} FROM read_parquet(?) ORDER BY seq"
    assert duckdb.execute(query, [path]).fetchall() == wanted
    assert need_module("polars").read_parquet(path)[names].rows() == wanted
    frame = need_module("pandas").read_parquet(path)
    assert list(zip(frame["subject"], frame["message"], strict=True)) == [w[:2] for w in wanted]
    texts = lake.sql("SELECT data FROM events ORDER BY seq").fetchall()
    assert texts == [(orjson.dumps(data).decode(),) for data in payloads]


def test_a_segment_without_rows_is_whole() -> None:
    """An encoder that got no rows gives a file with its columns and notes."""
    encoded = segment.SegmentEncoder("quarantine", "arrival", "00" * 16).finish()
    file = pq.ParquetFile(io.BytesIO(encoded))
    assert (file.metadata.num_rows, tuple(file.schema.names)) == (0, segment.QUARANTINE_COLUMNS)


@pytest.mark.parametrize("rows", [1, 3, 40, 500, 501, 2_000])
@pytest.mark.parametrize("distinct", [1, 32, 33])
def test_an_entry_counts_what_a_segment_holds(rows: int, distinct: int) -> None:
    """Counts and bounds are those of the rows, however few: pruning relies on them."""
    names = [None, "", "é", "\uffff", "\U0001f600", *(f"n{n}" for n in range(28))][:distinct]
    texts = [names[n % distinct] for n in range(rows)]
    schema = segment.segment_schema("events", "arrival")
    columns = {name: pa.nulls(rows, schema.field(name).type) for name in schema.names}
    times = pa.array([1_000_000 - n for n in range(rows)]).cast(pa.timestamp("us", "UTC"))
    given = {"time": times, "type": pa.array(texts, pa.string())}
    table = pa.table({**columns, **given, "subject": given["type"]})
    entry = segment.describe_rows("00" * 32, 1, table, "events", "arrival")
    present = sorted(text.encode() for text in texts if text is not None)
    assert entry.time == (1_000_001 - rows, 1_000_000)
    assert entry.subject == ((present[0].decode(), present[-1].decode()) if present else None)
    counted = Counter(text or "" for text in texts)
    assert entry.types == ("many" if len({*texts}) > 32 else counted)
    assert entry.levels == {"": rows}
