"""FORMAT.md, section 19: stream entries, and where rows of messages say that they are from."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import lakelog
from lakelog.ingest.batch import CursorMoved, Job
from lakelog.ingest.message_events import Message
from lakelog.ingest.messages import MessageBatch
from lakelog.ingest.stream_cursor import Mark, StreamCursor
from lakelog.lake import Lake
from tests.support.lakes import opened

KEY = "kafka:c1/orders/0"
TIME = 1_800_000_000_000_000


def store(lake: Lake, *messages: Message, cursor: StreamCursor | None = None) -> MessageBatch:
    """Publish messages of one stream; return the batch, which is closed."""
    batch = MessageBatch(Job(lake.store, lake.branch_name, lake.engine, label="orders"))
    try:
        batch.move(cursor or batch.cursor(KEY) or StreamCursor(KEY, "orders/0", "0"))
        batch.add(messages, "orders")
        batch.publish("orders")
    finally:
        batch.close()
    return batch


def message(offset: int, value: bytes = b'{"type":"a"}', era: str = "") -> Message:
    return Message(KEY, str(offset + 1), offset, value, None, TIME, b"{}", "m", era)


def entries(lake: Lake) -> list[tuple[str, dict[str, object]]]:
    state = lake.store.state(lake.branch_name)
    return [(e.key, e.members) for e in lake.store.manifests.records(state, "stream")]


def test_members(home: Path) -> None:
    """F6.17, F19.1: exactly these, and no reader of rows minds them."""
    with opened(str(home / "lake")) as lake:
        store(lake, message(0), message(1))
        assert entries(lake) == [
            (
                KEY,
                {
                    "name": "orders/0",
                    "position": "2",
                    "incarnation": "",
                    "messages": 2,
                    "skipped": 0,
                    "missing": 0,
                    "bytes": 24,
                    "form": "jsonl",
                    "time": 1_800_000_000_000_000,
                    "host": os.uname().nodename,
                },
            )
        ]
        assert lake.count() == 2
        assert not lake.verify().problems


def test_marks_by_which_a_stream_is_known_again(home: Path) -> None:
    """F19.1: of few messages near the end of what was read, ever fewer before it."""
    marks = StreamCursor.thinned([Mark(f"{n}-0", f"{n:012x}", n) for n in range(1, 1001)])
    distances = [1000 - mark.number for mark in marks]
    assert (distances[0], distances[-1]) == (999, 0)
    assert len(marks) == 11
    cursor = StreamCursor(KEY, "orders/0", "0", skipped=-3, marks=marks, seen="2000-0")
    with opened(str(home / "lake")) as lake:
        store(lake, message(0), cursor=cursor)
        ((_, members),) = entries(lake)
        assert members["marks"][-1] == ["1000-0", f"{1000:012x}", 1000]  # type: ignore[index]
        assert members["seen"] == "2000-0"
        (found,) = StreamCursor.of_state(lake.store, lake.store.state("main")).values()
        assert found == replace(cursor, position="1", messages=1, bytes=12, form="jsonl", time=TIME)


def test_rows_that_are_read_again(home: Path) -> None:
    """F19.3: the same place in another incarnation, and the same content, is one message."""
    with opened(str(home / "lake")) as lake:
        values = [b'{"type":"a","n":1}', b'{"type":"a","n":2}', b"\0", b'{"type":"a","n":3}']
        store(lake, *(message(n, value) for n, value in enumerate(values)))
        lake.compact()
        batch = MessageBatch(Job(lake.store, lake.branch_name, lake.engine, label="orders"))
        try:
            batch.move(StreamCursor(KEY, "orders/0", "0", "f00d", form="jsonl"))
            other = [*values[:1], b'{"type":"a","n":20}', *values[2:]]
            batch.add([message(n, value) for n, value in enumerate(other)], "orders", is_retry=True)
            batch.publish("orders")
            assert (batch.rows, batch.known, batch.bad) == (1, 3, [])
        finally:
            batch.close()
        found = lake.sql("SELECT data->>'n', origin FROM events ORDER BY 1").fetchall()
        assert found == [("1", KEY), ("2", KEY), ("20", f"{KEY}#f00d"), ("3", KEY)]


def test_only_after_the_entries_that_were_read(home: Path) -> None:
    """F19.2: what another consumer published meanwhile is not stored twice."""
    with opened(str(home / "lake")) as lake, opened(str(home / "lake")) as other:
        store(lake, message(0))
        batch = MessageBatch(Job(lake.store, lake.branch_name, lake.engine, label="orders"))
        try:
            cursor = batch.cursor(KEY)
            assert cursor is not None
            batch.move(cursor)
            batch.add([message(1)], "orders")
            store(other, message(1))
            try:
                batch.publish("orders")
            except CursorMoved:
                pass
            else:
                raise AssertionError("published twice")
        finally:
            batch.close()
        assert lake.count() == 2


def test_origin_and_position(home: Path) -> None:
    """F19.3, F19.4: both follow from the message alone."""
    with opened(str(home / "lake")) as lake:
        many = b"\n".join([b'{"type":"b"}'] * 4097)
        store(lake, message(7, b'{"type":"a"}\n{"bad\n{"type":"a"}'), message(8, many))
        again = StreamCursor(KEY, "orders/0", "0", "f00d")
        store(lake, message(1, era="/836.2"), cursor=again)
        rows = lake.sql(
            "SELECT type, origin, min(position), max(position) FROM events GROUP BY ALL ORDER BY 2"
        ).fetchall()
        assert sorted(rows) == [
            ("a", KEY, 7 * 4096, 7 * 4096 + 1),
            ("a", f"{KEY}#f00d/836.2", 4096, 4096),
            ("b", f"{KEY}/9", 0, 4096),
        ]
        lines = lake.sql("SELECT origin, position FROM quarantine").fetchall()
        assert lines == [(KEY, 7 * 4096 + 2)]


def test_lake_without_streams_is_consumed_into(home: Path) -> None:
    """F6.17: a state of an earlier version has no such entry, which means the beginning."""
    with lakelog.open(str(home / "lake")) as lake:
        lake.append([{"type": "own"}])
        lake.settle()
        assert entries(lake) == []
        store(lake, message(0))
        assert lake.count() == 2
