"""Every way in which a process ends or forks, so that no queue is left with events.

end                                    what stores the events
normal exit, exception, `sys.exit`     `atexit`, after the non-daemon threads have ended
SIGTERM                                a handler, which then calls that of the application, or
                                       ends the process as the signal would have done
a process of multiprocessing           its finalizers, as it skips `atexit` (fork, forkserver)
`fork`                                 the parent; the child starts with empty queues
`os._exit`, `kill -9`, a crash         nothing: see queue.py for what may be lost
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from typing import Any, Protocol

_FLUSH = 5.0
"""So many seconds a signal waits for what is being stored."""


class Ending(Protocol):
    """What has to be told that the process ends or was forked."""

    def finish(self) -> None:
        """Store all that waits; store directly from now on."""

    def flush(self, timeout: float | None = None) -> bool:
        """Store all that waits, and go on as before."""

    def after_fork(self) -> None:
        """Forget, in a child, what is the parent's."""


_WATCHED: list[Ending] = []
_is_registered = False
_previous: Any = signal.SIG_DFL


def watch(ending: Ending) -> None:
    """From now on tell `ending` of the end of the process, and of forks."""
    global _is_registered
    _WATCHED.append(ending)
    if not _is_registered:
        _is_registered = True
        atexit.register(_finish)
        os.register_at_fork(after_in_child=_after_fork)
    _handle_sigterm()


def unwatch(ending: Ending) -> None:
    """Forget `ending`, which was closed."""
    with contextlib.suppress(ValueError):
        _WATCHED.remove(ending)


def arm() -> None:
    """Ask multiprocessing, if it is in use, to tell us of the end of one of its processes."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        # Below every priority that others use: their finalizers may log.
        util.Finalize(None, _finish, exitpriority=-1000)
        # A new process clears its finalizers before it begins; this is called after that.
        util.register_after_fork(_TOKEN, lambda _: arm())


class _Token:
    """What multiprocessing holds by a weak reference: it has to live as long as the process."""


_TOKEN = _Token()


def _finish() -> None:
    for ending in list(_WATCHED):
        ending.finish()


def _after_fork() -> None:
    for ending in list(_WATCHED):
        ending.after_fork()


def _handle_sigterm() -> None:
    """Put our handler before that of the application; one that it sets later replaces ours."""
    global _previous
    if threading.current_thread() is not threading.main_thread():
        return  # only the main thread may set one
    current = signal.getsignal(signal.SIGTERM)
    # None is a handler of C code, which cannot be called; one that ignores the signal has nothing
    # to store.
    if current in (_on_sigterm, None, signal.SIG_IGN):
        return
    with contextlib.suppress(ValueError):  # in a subinterpreter
        signal.signal(signal.SIGTERM, _on_sigterm)
        _previous = current


def _on_sigterm(number: int, frame: Any) -> None:
    for ending in list(_WATCHED):
        ending.flush(_FLUSH)
    if callable(_previous):
        _previous(number, frame)
    else:
        # As without us: the exit status says which signal it was.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
