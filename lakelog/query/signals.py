"""Ctrl-C while the engine works in the main thread.

Python runs the handlers of signals between two bytecodes, so during a native call none runs, and
Ctrl-C would be heard when the call is over. Here a thread waits for what the interpreter writes to
the wakeup descriptor (signal.set_wakeup_fd) and interrupts the engine. It is kept for the next
call, for starting one each time takes longer than a short query.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

AGAIN = 0.02
"""Seconds between two interrupts of one call: one that comes between two steps of the engine is
lost."""
HEARD = 0.1
"""Seconds until a signal is heard that does not end a wait."""
_SIGNALS = tuple(signal.valid_signals())


class _Watch:
    """The thread that waits for Ctrl-C, and how it interrupts the call of now."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._interrupt: Callable[[], None] | None = None
        self._call = 0
        self._reading, self._writing = os.pipe()
        # The interpreter's signal handler writes to it and must never wait.
        os.set_blocking(self._writing, False)
        threading.Thread(target=self._run, name="lakelog-signals", daemon=True).start()

    @contextlib.contextmanager
    def over(self, interrupt: Callable[[], None]) -> Iterator[bool]:
        before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        try:
            self._call += 1
            self._interrupt = interrupt
            # An event loop has a descriptor of its own, and gets it back at once.
            yield before == -1
        finally:
            # Under the lock: an interrupt after the call would hit the next statement.
            with self._lock:
                self._interrupt = None
            signal.set_wakeup_fd(before)

    def close(self) -> None:
        """Close the descriptors, in a child that has no such thread."""
        os.close(self._reading)
        os.close(self._writing)

    def _run(self) -> None:
        while True:
            os.read(self._reading, 64)
            call = self._call
            while self._interrupted(call):
                time.sleep(AGAIN)

    def _interrupted(self, call: int) -> bool:
        """Interrupt the engine if it is still at that call, which this thread must not keep alive
        while it sleeps: at the end of the process the engine complains of what is left."""
        with self._lock:
            if self._call != call or self._interrupt is None:
                return False
            with contextlib.suppress(Exception):  # the cursor may be closed already
                self._interrupt()
            return True


_watch: _Watch | None = None


@contextlib.contextmanager
def interrupting(interrupt: Callable[[], None]) -> Iterator[bool]:
    """Call `interrupt` at Ctrl-C during the context. Yields False where that cannot be done:
    outside the main thread, and in a program that has signal handlers of its own.

    The engine looks for signals now and then, runs their handlers, and loses what they raise: that
    is harmless for KeyboardInterrupt alone, which its own error is turned into.
    """
    global _watch
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not all(map(_is_default, _SIGNALS)):
        yield False
        return
    if _watch is None or _watch.pid != os.getpid():
        # A child has no thread that its parent had started.
        if _watch is not None:
            _watch.close()
        _watch = _Watch()
    with _watch.over(interrupt) as is_ours:
        yield is_ours


def _is_default(number: int) -> bool:
    handler = signal.getsignal(number)
    return handler is signal.default_int_handler or not callable(handler)
