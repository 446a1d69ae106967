"""Rows of a tail are those of the frames that were asked for, whatever other threads ask for."""

from __future__ import annotations

import itertools

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
