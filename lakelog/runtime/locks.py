"""The locks of a lake's threads, in the one order in which a thread may take them.

Whoever holds a lock takes only locks of a higher rank. Two threads that took two locks the other
way round would wait for each other for ever, if only now and then: so the order is checked when
locks are taken, and not when threads happen to meet. Programs do not pay for that: the tests turn
it on. A lock that belongs to a single module, which calls nothing of ours while it holds it, needs
no rank.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from lakelog.errors import ReentrantQuery
from lakelog.runtime import forks
from lakelog.runtime.living import Living

_INTERRUPTS = (
    "a query interrupts another of its own thread: ask after the signal handler has returned"
)


class Rank(enum.IntEnum):
    """Who takes a lock before whom: the order of the locks."""

    FORK = 1
    """A fork: it stops all writers, the only locks of which one thread takes several."""
    LAKE = 2
    """The parts of a lake that are made when they are needed."""
    WRITER = 3
    """The queue of the appends of a lake."""
    SESSION = 4
    """Planning one query: its views, and the schemas of refs."""
    PROJECTOR = 5
    """Computing views."""
    LAYERS = 6
    """The tables of what was computed."""
    BACKGROUND = 7
    """What waits to be written to the cache of views."""
    TAIL_ROWS = 8
    """Making rows of the frames of a tail."""
    TAIL = 9
    """Reading WAL files."""
    FILTERS = 10
    """The Bloom filters in memory."""
    DATABASE = 11
    """The database of a session, its tails and their rows, each made when it is needed."""


_LOCKS: Living[OrderedLock] = Living()


class OrderedLock:
    """A lock of a rank, which its thread may take again: `with lock.hold():`.

    A forked child finds it free: it has none of the threads that may have held it.
    """

    __slots__ = ("__weakref__", "_lock", "rank")

    def __init__(self, rank: Rank) -> None:
        self.rank, self._lock = rank, threading.RLock()
        _LOCKS.add(self)

    # Neither method is a context manager of its own: Ctrl-C between the two steps of `__enter__`
    # would leave the lock taken for ever. The interpreter's locks are entered in one.
    def hold(self) -> AbstractContextManager[object]:
        """Return what takes the lock in a `with`."""
        if _report is not None:
            _require_order(self)
        return self._lock

    def hold_once(self) -> AbstractContextManager[object]:
        """The same where the thread must not have it: what it guards is half done then.

        Raises ReentrantQuery in a handler of signals that interrupts it.
        """
        if self.is_held():
            raise ReentrantQuery(_INTERRUPTS)
        return self.hold()

    def acquire(self) -> None:
        """Take the lock."""
        if _report is not None:
            _require_order(self)
        self._lock.acquire()

    def release(self) -> None:
        """Let go of the lock."""
        self._lock.release()

    def is_held(self) -> bool:
        """Whether this thread has the lock."""
        return self._lock._is_owned()  # type: ignore[attr-defined,no-any-return]


def require_before(rank: Rank) -> None:
    """Refuse a query in a handler of signals whose thread holds a lock above this rank: another
    thread may hold one below and wait for that. Raises ReentrantQuery."""
    if threading.current_thread() is threading.main_thread() and any(
        lock.rank > rank and lock.is_held() for lock in _LOCKS
    ):
        raise ReentrantQuery(_INTERRUPTS)


class _Taken(threading.local):
    """The locks that a thread took, those among them that it has let go included."""

    def __init__(self) -> None:
        self.locks: list[OrderedLock] = []


_taken = _Taken()
_report: Callable[[str], object] | None = None


def report_breaches(report: Callable[[str], object] | None) -> None:
    """Have each lock that is taken against the order reported before it is taken, by whoever takes
    it; what `report` raises, the caller gets. None ends it."""
    global _report
    _report = report


def _require_order(lock: OrderedLock) -> None:
    held = _taken.locks = [each for each in _taken.locks if each.is_held()]
    if lock in held:
        return
    last = max(held, key=lambda each: each.rank, default=None)
    # A fork of several lakes' writers is the only thread that ever has two of one rank.
    is_fork = lock.rank is Rank.WRITER and any(each.rank is Rank.FORK for each in held)
    is_above = last is None or last.rank < lock.rank or (is_fork and last.rank == lock.rank)
    if last is not None and not is_above and _report is not None:
        _report(f"a thread that holds {last.rank.name} takes {lock.rank.name}, which comes first")
    held.append(lock)


def _after_fork() -> None:
    _taken.locks.clear()
    for lock in _LOCKS:
        lock._lock = threading.RLock()


forks.after_in_child(_after_fork)
