"""Calls on several threads give their results in the order of the calls."""

from __future__ import annotations

import threading
from itertools import chain

import pytest

from lakelog.render.formats import OrderedCalls


def test_results_of_concurrent_calls_keep_their_order() -> None:
    """The first result comes first, even if the second call ends before it."""
    second_ended = threading.Event()

    def make(item: int) -> int:
        if item == 0:
            second_ended.wait(1)  # a machine of one core never has a second call meanwhile
        elif item == 1:
            second_ended.set()
        return item

    calls = OrderedCalls(make)
    due = [list(calls.add(item, is_large=True)) for item in range(20)]
    assert list(chain(*due, calls.rest())) == list(range(20))


def test_a_small_item_is_due_at_once() -> None:
    """A live stream of single rows never waits for the next one."""
    calls = OrderedCalls(str)
    assert [list(calls.add(item, is_large=False)) for item in (1, 2)] == [["1"], ["2"]]


def test_an_exception_is_raised_where_its_result_would_be() -> None:
    """What was made before a failure is still given."""

    def make(item: int) -> float:
        return 1 / item

    calls = OrderedCalls(make)
    results = chain.from_iterable([calls.add(n, is_large=True) for n in (1, 0)])
    with pytest.raises(ZeroDivisionError):
        assert [next(chain(results, calls.rest())) for _ in range(2)] == [1.0]
    calls.cancel()
