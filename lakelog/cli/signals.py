"""Signals that are heard wherever the main thread is.

Inside the engine, or where a request stands still, Python cannot run a signal handler, but it
writes a byte to a pipe all the same, which a second thread reads.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator

import click

from lakelog.cli.exits import INTERRUPTED

END = b"\0"
"""What a listener reads at the end of its context."""
_GRACE_MS = 5_000


@contextlib.contextmanager
def listening(listen: Callable[[int], None]) -> Iterator[None]:
    """Run `listen` in a thread, with a descriptor from which it reads the numbers of signals until
    END. Outside the main thread no signal is heard."""
    reading, writing = os.pipe()
    # The signal handler of CPython writes to it and must never wait; set_wakeup_fd refuses a
    # blocking one.
    os.set_blocking(writing, False)
    listener = threading.Thread(target=listen, args=(reading,), daemon=True)
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False) if is_main else -1
    listener.start()
    try:
        yield
    finally:
        if is_main:
            # Before the pipe is closed: a signal in between would be written to a descriptor that
            # is used again.
            signal.set_wakeup_fd(before)
        os.write(writing, END)
        listener.join()
        os.close(writing)
        os.close(reading)


@contextlib.contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """End the process a few seconds after Ctrl-C, or where it is pressed again, whatever the verb
    waits for: a request to a remote that stands still hears nothing. What the verb changes is then
    as after a kill."""
    # Who ignores Ctrl-C, or sees to it otherwise, is not ended by it.
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    listen = functools.partial(_end_late, _GRACE_MS)
    with listening(listen) if is_default else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def ended_by_second_interrupt() -> Iterator[None]:
    """End the process where Ctrl-C is pressed again: a verb that stops in order at the first one
    may be in the library of a server that stands still."""
    with listening(functools.partial(_end_late, None)):
        yield


def end_soon() -> None:
    """End the interrupted process in a few seconds, if it has not ended by itself: Python waits for
    threads, whose server may stand still."""
    timer = threading.Timer(_GRACE_MS / 1_000, os._exit, (INTERRUPTED,))
    timer.daemon = True
    timer.start()


def _end_late(grace_ms: int | None, reading: int) -> None:
    # poll and not select: select fails for descriptors from 1,024 on.
    poll, presses = select.poll(), 0
    poll.register(reading, select.POLLIN)
    while presses < 2 and poll.poll(grace_ms if presses else None):
        signals = os.read(reading, 64)
        presses += signals.count(signal.SIGINT)
        # Behind a second Ctrl-C it says only that the verb was interrupted in what it cleaned up,
        # and threads that Python would wait for may go on.
        if END in signals and presses < 2:
            return
    click.echo("lakelog: interrupted", err=True)
    os._exit(INTERRUPTED)
