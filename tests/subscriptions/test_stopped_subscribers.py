"""Subscribers that are told to stop: the next one goes on where they had come."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from tests.conftest import MakeLake

COUNT = 20


@pytest.mark.parametrize("is_one_by_one", [False, True])
def test_each_event_is_handled_once_wherever_a_batch_is_stopped(
    make_lake: MakeLake, is_one_by_one: bool
) -> None:
    """What it returned is appended once, too, also of a batch that failed together, and of which a
    part was handed out one by one."""
    lake, seen = make_lake(), list[int]()
    lake.append([{"type": "IN", "data": {"n": n}} for n in range(COUNT)])
    lake.settle()

    def run_until(limit: int) -> None:
        stop = threading.Event()

        def handle(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
            if is_one_by_one and len(events) > 1:
                raise ValueError("one of them")
            numbers = [json.loads(event["data"])["n"] for event in events]
            seen.extend(numbers)
            if len(seen) >= limit:
                stop.set()
            return [{"type": "OUT", "data": {"n": n}} for n in numbers]

        with lake.subscribe("test", where="type = 'IN'") as subscription:
            subscription.run_batches(handle, stop=stop, once=True, size=4)

    for limit in (2, 4, 7, 9, 12, COUNT + 1):
        run_until(limit)
    assert seen == list(range(COUNT))
    outputs = lake.sql("SELECT (data->>'n')::INT FROM events WHERE type = 'OUT' ORDER BY 1")
    assert outputs.fetchall() == [(n,) for n in range(COUNT)]
