"""The order of locks: a breach fails the test that made it, before any thread has to wait."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

import lakelog
from lakelog.errors import LakeClosed, ReentrantQuery
from lakelog.runtime.locks import OrderedLock, Rank
from tests.support import lock_order


def in_thread(work: Callable[[], object]) -> list[BaseException]:
    """Run work in a thread; return what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised


def test_an_inversion_is_found_without_a_second_thread() -> None:
    first, second = OrderedLock(Rank.SESSION), OrderedLock(Rank.TAIL)
    with first.hold(), second.hold(), first.hold():
        pass  # in order, and once more
    with (
        lock_order.breaches() as found,
        pytest.raises(AssertionError, match="holds TAIL takes SESSION"),
        second.hold(),
        first.hold(),
    ):
        pass
    assert len(found) == 1
    with lock_order.breaches() as found, first.hold():
        pass  # what was let go is not held
    assert found == []


def test_two_locks_of_one_rank_are_those_of_writers() -> None:
    """A fork stops them all."""
    fork, one, other = (OrderedLock(r) for r in (Rank.FORK, Rank.WRITER, Rank.WRITER))
    with fork.hold(), one.hold(), other.hold():
        pass
    one, other = OrderedLock(Rank.TAIL), OrderedLock(Rank.TAIL)
    with lock_order.breaches() as found, pytest.raises(AssertionError), one.hold(), other.hold():
        pass
    assert len(found) == 1


def test_a_breach_in_another_thread_belongs_to_the_test_that_started_it() -> None:
    go, is_done = threading.Event(), threading.Event()
    low, high = OrderedLock(Rank.TAIL), OrderedLock(Rank.FILTERS)

    def invert() -> None:
        go.wait()
        with pytest.raises(AssertionError), high.hold(), low.hold():
            pass
        is_done.set()

    thread = threading.Thread(target=invert)
    thread.start()
    with lock_order.breaches() as found:  # as a later test, which did not start the thread
        go.set()
        is_done.wait()
    thread.join()
    assert found == []
    with lock_order.breaches() as found:
        is_done.clear()
        assert in_thread(invert) == []
    assert len(found) == 1


def test_an_inversion_in_a_query_is_found_at_its_first_answer(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `count` did: rows of a tail were made in the database, under the lock of the queries."""
    lake.append({"id": f"a{n}", "type": "t"} for n in range(2_000))  # few need no database
    session = lake._session
    connect = session.connect

    def planning() -> object:
        with session.tables.mutex.hold():
            return connect()

    rows = session.tables.rows_of("main")
    monkeypatch.setattr(rows, "_connect", planning)
    said = "holds TAIL_ROWS takes SESSION"
    with lock_order.breaches() as found, pytest.raises(AssertionError, match=said):
        lake.count()
    assert len(found) == 1


def test_a_query_in_a_signal_handler_never_waits_for_the_one_it_interrupts(
    lake: lakelog.Lake,
) -> None:
    lake.append({"id": "a", "type": "t"})
    assert lake.count() == 1
    session = lake._session
    asked = (lake.count, lambda: lake.view("items"), lambda: lake.sql("FROM events"))
    for mutex in (session.tables.rows_of("main")._mutex, session.tail("main")._mutex):
        lake.append({"type": "t"})
        for ask in asked:
            with mutex.hold(), pytest.raises(ReentrantQuery):
                ask()
    with session.tail("main")._mutex.hold(), pytest.raises(ReentrantQuery):
        lake.settle()
    assert lake.count() == 3


def test_a_signal_handler_appends_and_closes_in_the_middle_of_a_query(lake: lakelog.Lake) -> None:
    lake.append({"type": "t"})
    assert lake.sql("FROM events").fetchall()
    session = lake._session
    locks = (
        session.tables.mutex,
        session.tables.rows_of("main")._mutex,
        session.tail("main")._mutex,
    )
    for mutex in locks:
        with mutex.hold():
            lake.append({"type": "t"})
    with session.tail("main")._mutex.hold():
        lake.close()
    with pytest.raises(LakeClosed):
        lake.count()


def test_a_forked_child_finds_each_lock_free() -> None:
    lock, taken, go = OrderedLock(Rank.LAKE), threading.Event(), threading.Event()

    def hold() -> None:
        with lock.hold():
            taken.set()
            go.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    child = os.fork()
    if not child:
        threading.Timer(20, os._exit, (1,)).start()
        with lock.hold():
            os._exit(0)
    _, status = os.waitpid(child, 0)
    go.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0
