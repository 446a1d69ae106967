"""Every way in which a process ends or forks, so that no queue is left with events.

end                                    what stores the events
normal exit, exception, `sys.exit`     `atexit`, after the non-daemon threads have ended
SIGTERM                                a handler, which then calls that of the application, or
                                       ends the process as the signal would have done
a process of multiprocessing           its finalizers, as it skips `atexit` (fork, forkserver)
`fork`                                 the parent; the child starts with empty queues
`os._exit`, `kill -9`, a crash         nothing: see queue.py for what may be lost

A handler in Python has a price: the interpreter notes the signal and calls it in the main thread,
once that is back from what it calls in C. A signal can so go unnoticed by a thread that is about to
wait, and multiprocessing waits without end for a process that it sent one. Hence SIGTERM is held
back while a process forks, is left alone in a process of multiprocessing until something is logged
there, and is from then on seen by a thread of its own.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import signal
import sys
import threading
from contextlib import AbstractContextManager
from typing import Any, Protocol

_FLUSH = 5.0
"""So many seconds a signal waits for what is being stored, for each queue."""


class Ending(Protocol):
    """What has to be told that the process ends or was forked."""

    def finish(self) -> None:
        """Store all that waits; store directly from now on."""

    def flush(self, timeout: float | None = None) -> bool:
        """Store all that waits, and go on as before."""

    def let_go(self) -> AbstractContextManager[None]:
        """Meanwhile leave to other threads the locks that this one holds where a signal came."""

    def after_fork(self) -> None:
        """Forget, in a child, what is the parent's."""


_WATCHED: list[Ending] = []
_is_registered = _is_prepared = _is_armed = False
_previous: Any = signal.SIG_DFL
_masks = threading.local()
_pipe: tuple[int, int] | None = None
"""What the interpreter writes signals to, and `_attend` reads."""


def watch(ending: Ending) -> None:
    """From now on tell `ending` of the end of the process, and of forks."""
    global _is_registered
    _WATCHED.append(ending)
    if not _is_registered:
        _is_registered = True
        atexit.register(_finish)
        os.register_at_fork(
            before=_before_fork, after_in_parent=_unmask, after_in_child=_after_fork
        )
    _prepare_for_multiprocessing()
    _handle_sigterm()


def unwatch(ending: Ending) -> None:
    """Forget `ending`, which was closed."""
    with contextlib.suppress(ValueError):
        _WATCHED.remove(ending)


def arm() -> None:
    """From now on there is something to store when the process ends."""
    global _is_armed
    _is_armed = True
    _handle_sigterm()
    _finish_with_multiprocessing()


class _Token:
    """What multiprocessing holds by a weak reference: it has to live as long as the process."""


_TOKEN = _Token()


def _finish() -> None:
    for ending in list(_WATCHED):
        ending.finish()


def _before_fork() -> None:
    # The interpreter of a child forgets the signals that came before it was ready. What a handler
    # of the application raised when they are let in would be lost in `_unmask`.
    if signal.getsignal(signal.SIGTERM) is _on_sigterm and not callable(_previous):
        _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))


def _unmask() -> None:
    if hasattr(_masks, "before"):
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)
        del _masks.before


def _after_fork() -> None:
    global _is_armed
    _is_armed = False
    _forget_pipe()
    for ending in list(_WATCHED):
        ending.after_fork()
    _prepare_for_multiprocessing()
    _unmask()


def _prepare_for_multiprocessing() -> None:
    """If this becomes a process of multiprocessing, `_begin_process` is called when it begins."""
    global _is_prepared
    util = sys.modules.get("multiprocessing.util")
    if util is not None and not _is_prepared:
        _is_prepared = True
        util.register_after_fork(_TOKEN, _begin_process)


def _begin_process(_: _Token) -> None:
    if signal.getsignal(signal.SIGTERM) is _on_sigterm:
        signal.signal(signal.SIGTERM, _previous)
    if _is_armed:  # its main module has logged
        _handle_sigterm()
    _finish_with_multiprocessing()


def _finish_with_multiprocessing() -> None:
    """Ask multiprocessing, if it is in use, to tell us of the end of one of its processes."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        # Below every priority that others use: their finalizers may log.
        util.Finalize(None, _finish, exitpriority=-1000)


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
        if current == signal.SIG_DFL and _is_of_multiprocessing():
            _start_attending()


def _is_of_multiprocessing() -> bool:
    process = sys.modules.get("multiprocessing.process")
    # One that is spawned imports the main module, and its loggers, before it knows its parent.
    is_spawned = "--multiprocessing-fork" in sys.orig_argv
    return process is not None and (is_spawned or process.parent_process() is not None)


def _start_attending() -> None:
    global _pipe
    if _pipe is None:
        reading, writing = os.pipe()
        os.set_blocking(writing, False)  # the interpreter must never wait for us
        _pipe = reading, writing
        thread = threading.Thread(
            target=_attend, args=(reading,), name="lakelog-signals", daemon=True
        )
        with contextlib.suppress(RuntimeError):  # the interpreter is shutting down
            thread.start()
    before = signal.set_wakeup_fd(_pipe[1], warn_on_full_buffer=False)
    if before not in (-1, _pipe[1]):
        signal.set_wakeup_fd(before)  # of an event loop, which sees to signals itself


def _attend(reading: int) -> None:
    """Do at SIGTERM what the handler does, wherever the main thread is."""
    import ctypes  # here: most processes never need it

    while signal.SIGTERM not in os.read(reading, 512):
        pass
    if signal.getsignal(signal.SIGTERM) is not _on_sigterm:
        return  # the application has its own by now
    _flush()
    # `signal.signal` is for the main thread alone.
    ctypes.pythonapi.PyOS_setsig(signal.SIGTERM, None)
    os.kill(os.getpid(), signal.SIGTERM)


def _forget_pipe() -> None:
    """In a child: the thread is the parent's, and so is what the interpreter tells it."""
    global _pipe
    if _pipe is not None:
        before = signal.set_wakeup_fd(-1)
        if before != _pipe[1]:
            signal.set_wakeup_fd(before)
        for fd in _pipe:
            os.close(fd)
        _pipe = None


def _flush() -> None:
    for ending in list(_WATCHED):
        ending.flush(_FLUSH)


def _flush_aside() -> None:
    """The same in another thread, for this one may hold any lock where the signal came: those of
    the queues it lets go, and for others it does not wait for ever."""
    stored = _thread.allocate_lock()
    stored.acquire()

    def work() -> None:
        try:
            _flush()
        finally:
            stored.release()

    is_aside = not sys.is_finalizing()  # from then on no other thread runs
    if is_aside:
        try:
            _thread.start_new_thread(work, ())  # `threading` has locks of its own
        except RuntimeError:  # no more threads
            is_aside = False
    if not is_aside:
        _flush()
        return
    with contextlib.ExitStack() as stack:
        for ending in list(_WATCHED):
            stack.enter_context(ending.let_go())
        stored.acquire(timeout=_FLUSH * max(len(_WATCHED), 1))


def _on_sigterm(number: int, frame: Any) -> None:
    _flush_aside()
    if callable(_previous):
        _previous(number, frame)
    else:
        # As without us: the exit status says which signal it was.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
