"""Requests that are made several at once."""

from __future__ import annotations

import signal
import threading

import pytest

from lakelog.remotes.remote import in_parallel


@pytest.mark.parametrize("only_reads", [True, False])
def test_an_interrupt_leaves_reads_and_waits_for_writes(only_reads: bool) -> None:
    """A read may stand still for minutes, with its server; whoever goes on behind a write has to
    know that nothing of it comes later."""
    has_begun, may_end = threading.Event(), threading.Event()

    def stand_still(_: int) -> None:
        has_begun.set()
        may_end.wait(60)

    def interrupt() -> None:
        has_begun.wait()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        if not only_reads:
            may_end.set()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        list(in_parallel(stand_still, [1], only_reads=only_reads))
    assert may_end.is_set() != only_reads
    may_end.set()
    thread.join()
