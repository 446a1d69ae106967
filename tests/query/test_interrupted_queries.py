"""A query that is interrupted by Ctrl-C takes nothing from the answers of later ones."""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import lakelog
from lakelog.query import tail_rows
from lakelog.wal import tail

_FILES = {tail.__file__, tail_rows.__file__}


@contextmanager
def interrupted_at(number: int) -> Iterator[list[int]]:
    """Interrupt what reads a tail when it calls a function, where Python looks for signals: at the
    call of this number, counted from 1. Gives the number of calls so far."""
    calls = [0]

    def trace(frame: FrameType, event: str, _: object) -> None:
        # What ends a generator that nobody has any more has no caller to tell.
        if frame.f_code.co_flags & inspect.CO_GENERATOR:
            return
        callers = (frame, frame.f_back)
        if any(caller and caller.f_code.co_filename in _FILES for caller in callers):
            calls[0] += 1
            if calls[0] == number:
                raise KeyboardInterrupt

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield calls
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)


def test_each_event_is_there_after_an_interrupt_at_any_call(lake: lakelog.Lake) -> None:
    """Events, and ids that come twice, in a file that is new and grows."""
    query = "SELECT count(*), count(DISTINCT data->>'n') FROM events WHERE type = 't'"
    for number in itertools.count(1):
        lake.append([{"type": "t", "id": str(number - number % 2), "n": number}])
        lake.append({"type": "t", "n": -number})
        with interrupted_at(number) as calls:
            lake.sql(query).fetchall()
        count = number + number // 2 + 1
        assert lake.sql(query).fetchall() == [(count, count)], f"interrupted at call {number}"
        if number > calls[0]:
            break
        if number % 16 == 0:
            lake.settle()
    assert calls[0] > 50
