"""Subscribers that are told to stop, or whose branch is rewound meanwhile: what comes next."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

import lakelog
from lakelog.errors import SubscriptionRewound
from tests.conftest import MakeLake

COUNT = 20


def numbered(*numbers: int) -> list[dict[str, Any]]:
    return [{"type": "IN", "data": {"n": n}} for n in numbers]


def number(event: dict[str, Any]) -> int:
    return int(json.loads(event["data"])["n"])


def wait_for(condition: Callable[[], bool], thread: threading.Thread) -> None:
    while not condition():
        assert thread.is_alive()
        time.sleep(0.01)


@pytest.mark.parametrize("is_one_by_one", [False, True])
def test_each_event_is_handled_once_wherever_a_batch_is_stopped(
    make_lake: MakeLake, is_one_by_one: bool
) -> None:
    """What it returned is appended once, too, also of a batch that failed together, and of which a
    part was handed out one by one."""
    lake, seen = make_lake(), list[int]()
    lake.append(numbered(*range(COUNT)))
    lake.settle()

    def run_until(limit: int) -> None:
        stop = threading.Event()

        def handle(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
            if is_one_by_one and len(events) > 1:
                raise ValueError("one of them")
            numbers = [number(event) for event in events]
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


def test_batches_of_a_branch_that_is_rewound_end_where_it_was(make_lake: MakeLake) -> None:
    """Who goes on from the position that is said gets nothing again that the branch still has."""
    lake = make_lake()
    lake.append(numbered(0, 1, 2))
    lake.tag("v1")
    lake.append(numbered(3, 4))
    with lake.subscribe(None) as subscription:
        batches = subscription.batches(timeout=5)
        assert [number(event) for event in next(batches).events] == [0, 1, 2, 3, 4]
        lake.rollback("v1")
        lake.append(numbered(90))
        with pytest.raises(SubscriptionRewound) as caught:
            next(batches)
    with lake.subscribe(None, from_=caught.value.position) as subscription:
        (batch,) = subscription.batches(timeout=0.05)
        assert [number(event) for event in batch.events] == [90]


@pytest.mark.parametrize("is_older", [True, False])
def test_a_live_subscriber_follows_a_rollback(make_lake: MakeLake, is_older: bool) -> None:
    """To where it had handled some, or to where it was not yet, and handles all."""
    lake, seen, stop = make_lake(), list[int](), threading.Event()
    lake.append(numbered(0, 1, 2))
    if is_older:
        with lake.subscribe("test") as subscription:
            subscription.run(lambda event: seen.append(number(event)), once=True)
    lake.tag("v1")

    def follow() -> None:
        with lakelog.open(lake.path) as other, other.subscribe("test") as subscription:
            subscription.run(lambda event: seen.append(number(event)), stop=stop)

    thread = threading.Thread(target=follow)
    thread.start()
    lake.append(numbered(3, 4))
    wait_for(lambda: len(seen) == 5, thread)
    lake.rollback("v1")
    lake.append(numbered(90))
    wait_for(lambda: 90 in seen, thread)
    stop.set()
    thread.join()
    assert seen == [0, 1, 2, 3, 4, *([] if is_older else [0, 1, 2]), 90]
