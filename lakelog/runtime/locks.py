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

    SESSION = 1
    """Planning one query: its views, and the schemas of refs."""
    PROJECTOR = 2
    """Computing views."""
    LAYERS = 3
    """The tables of what was computed."""
    BACKGROUND = 4
    """What waits to be written to the cache of views."""
    TAIL_ROWS = 5
    """Making rows of the frames of a tail."""
    TAIL = 6
    """Reading WAL files."""
    FILTERS = 7
    """The Bloom filters in memory."""
    DATABASE = 8
    """The database of a session, its tails and their rows, each made when it is needed."""
    # Last, for a handler of signals may append in the middle of a query.
    LAKE = 9
    """The parts of a lake that are made when they are needed."""
    FORK = 10
    """A fork, which stops all writers."""
    WRITER = 11
    """The queue of the appends of a lake."""

    def require_reachable(self) -> None:
        """Refuse a query in a handler of signals that must not take a lock of this rank. Raises
        ReentrantQuery."""
        if self.is_past():
            raise ReentrantQuery(_INTERRUPTS)

    def is_past(self) -> bool:
        """Whether this is a handler of signals whose thread holds a lock above this rank: another
        thread may hold one of the rank and wait for that."""
        return threading.current_thread() is threading.main_thread() and any(
            lock.rank > self and lock.is_held() for lock in _LOCKS
        )


_SEVERAL = (Rank.LAKE, Rank.WRITER)
"""Those of several lakes: a fork stops all writers, and a handler of signals may append to another
lake than the one that it interrupts. Whoever waits for one of these holds up nobody else."""


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


class _ThreadLocks(threading.local):
    """The locks that a thread took, those among them that it has let go included."""

    def __init__(self) -> None:
        self.locks: list[OrderedLock] = []


_thread_locks = _ThreadLocks()
_report: Callable[[str], object] | None = None


def report_breaches(report: Callable[[str], object] | None) -> None:
    """Have each lock that is taken against the order reported before it is taken, by whoever takes
    it; what `report` raises, the caller gets. None ends it."""
    global _report
    _report = report


def _require_order(lock: OrderedLock) -> None:
    held_locks = _thread_locks.locks = [entry for entry in _thread_locks.locks if entry.is_held()]
    if lock in held_locks:
        return
    latest = max(held_locks, key=lambda entry: entry.rank, default=None)
    is_other = latest is not None and latest.rank == lock.rank and lock.rank in _SEVERAL
    is_above = latest is None or latest.rank < lock.rank or is_other
    if latest is not None and not is_above and _report is not None:
        _report(f"a thread that holds {latest.rank.name} takes {lock.rank.name}, which comes first")
    held_locks.append(lock)


def _after_fork() -> None:
    _thread_locks.locks.clear()
    for lock in _LOCKS:
        lock._lock = threading.RLock()


forks.after_in_child(_after_fork)
