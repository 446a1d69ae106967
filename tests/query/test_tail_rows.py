"""Rows of a tail are those of the frames that were asked for, whatever other threads ask for."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

import lakelog
from lakelog.query.tail_rows import TailRows


def test_an_older_tail_after_a_newer_one_is_idempotent(lake: lakelog.Lake) -> None:
    """Threads that share a lake ask in another order than they looked at the tail."""
    pending, numbers = [], []
    for count in (2, 3, 4):
        lake.append([{"type": "t", "id": f"{count} {n}"} for n in range(count)])
        pending.append(lake._session.tail("main").collect())
        numbers.append(pending[-1].events)
    assert numbers == [2, 5, 9]
    for order in itertools.permutations(range(3)):
        rows = TailRows(lake.store, lake._session.connect)
        for nth in (*order, *order):
            table = rows.events(pending[nth], ())
            assert table is not None
            assert table.num_rows == numbers[nth]


def test_a_tail_from_before_a_seal_keeps_its_rows(lake: lakelog.Lake) -> None:
    lake.append([{"type": "t"}] * 3)
    before = lake._session.state(None)
    lake.settle()
    lake.append({"type": "t"})
    assert lake.sql("SELECT count(*) FROM events WHERE type = 't'").fetchall() == [(4,)]
    table = lake._session.tables.numbered_tail(before[1], before[0])
    assert table is not None
    assert table["seq"].to_pylist() == [0, 1, 2]


@pytest.mark.parametrize("count", [1, 7, 30, 1_000])
def test_slices_of_a_tail_are_its_rows(lake: lakelog.Lake, tmp_path: Path, count: int) -> None:
    """Of several writers, with lines that are none: the same rows, with the same numbers."""
    path = tmp_path / "log.jsonl"
    path.write_text('{"type":"file"}\nno event\n{"type":"file"}\n')
    with lakelog.open(lake.path) as other:
        for number in range(12):
            (other if number % 3 else lake).append([{"type": str(number)}] * (number % 5 + 1))
            if number == 6:
                other.ingest(path)
        pending, state = lake._session.tail("main").collect(), lake._session.state(None)[0]
        rows = TailRows(lake.store, lake._session.connect)
        whole = rows.numbered(pending, state)
        marks, tables, is_end = dict[str, int](), [], False
        while not is_end:
            tail_slice = rows.behind(pending, state, marks, count)
            assert tail_slice is not None
            marks |= tail_slice.ends
            is_end = tail_slice.is_end
            tables.append(tail_slice.rows)
    assert whole is not None
    assert len(tables) == 1 if count == 1_000 else len(tables) > 1
    assert rows.behind(pending, state, marks, count) is None
    fields = ["type", "seq", "tail_order", "writer", "sequence", "position"]
    found = [row for table in tables for row in table.select(fields).to_pylist()]
    expected = whole.select(fields).to_pylist()
    assert sorted(found, key=lambda row: row["seq"]) == sorted(expected, key=lambda r: r["seq"])


def test_events_stand_where_they_are_sealed_after_a_writer_went_on_in_a_new_file(
    tmp_path: Path,
) -> None:
    """Writers are sealed by the oldest of their files that is left: one that went on in a new file
    comes behind a writer that it had come before."""
    settings = {"seal": "never", "rotate_events": 4}
    query = "SELECT type FROM events ORDER BY seq"
    with lakelog.open(tmp_path / "lake", settings=settings) as first:
        first.append({"type": "first"})
        with lakelog.open(first.path) as second:
            second.append({"type": "second"})
            found = []
            for _ in range(6):
                found.append(first.sql(query).fetchall())
                first.settle()
                assert first.sql(query).fetchall() == found[-1]
                first.append([{"type": "first"}] * 2)
                second.append({"type": "second"})
