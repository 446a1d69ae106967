"""Objects that live are listed while other threads make and free some."""

from __future__ import annotations

import threading

from lakelog.runtime.living import Living


class Thing:
    """Something to live."""


def test_what_lives_is_listed_while_threads_make_more() -> None:
    """None is missed that lives all the time, and no change by another thread is an error."""
    living: Living[Thing] = Living()
    kept = [Thing() for _ in range(200)]
    for thing in kept:
        living.add(thing)
    done = threading.Event()

    def churn() -> None:
        while not done.is_set():
            living.add(Thing())

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(200):
            assert {*kept} <= {*living}
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert {*living} == {*kept}
