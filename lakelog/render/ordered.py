"""Calls on the threads of the machine, with their results in the order of the calls.

Arrow's kernels release the interpreter, so text is made on as many threads as there are cores, up
to `WORKERS_MAX`, while the caller reads and writes. At most twice as many calls wait as there are
threads: what they hold is the memory that this takes.
"""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from lakelog.runtime import forks
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    from concurrent import futures
else:
    futures = Lazy("concurrent.futures")

WORKERS_MAX = 4
Input = TypeVar("Input")
Output = TypeVar("Output")


class OrderedCalls(Generic[Input, Output]):
    """Calls of one function; each method yields the results that are due, in order.

    An exception of a call is raised where its result would be.
    """

    def __init__(self, make: Callable[[Input], Output]) -> None:
        self._make = make
        self._pending: deque[futures.Future[Output]] = deque()

    def add(self, item: Input, *, is_large: bool) -> Iterator[Output]:
        """Call the function; for a small item at once, unless others are waiting."""
        workers = _workers()
        # A thread would cost more than a few rows do, and a live stream is not to wait for more.
        if workers == 1 or not (is_large or self._pending):
            yield self._make(item)
            return
        self._pending.append(_pool().submit(self._make, item))
        while self._pending and (self._pending[0].done() or len(self._pending) > 2 * workers):
            yield self._pending.popleft().result()

    def rest(self) -> Iterator[Output]:
        """Yield what is still to come."""
        while self._pending:
            yield self._pending.popleft().result()

    def cancel(self) -> None:
        """Forget the calls that have not begun."""
        while self._pending:
            self._pending.pop().cancel()


@functools.cache
def _workers() -> int:
    return min(len(os.sched_getaffinity(0)), WORKERS_MAX)


@functools.cache
def _pool() -> futures.ThreadPoolExecutor:
    """One pool for the process: an export by partitions has many files open."""
    return futures.ThreadPoolExecutor(_workers(), "lakelog-export")


# A forked process has the pool's object and none of its threads.
forks.after_in_child(_pool.cache_clear)
