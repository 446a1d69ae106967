"""Every way in which a process ends or forks, so that no queue is left with events.

end                                    what stores the events
normal exit, exception, `sys.exit`     `atexit`, after the non-daemon threads have ended
SIGTERM                                a handler, which then calls that of the application, or
                                       ends the process as the signal would have done
a process of multiprocessing           its finalizers, as it skips `atexit` (fork, forkserver)
a worker of billiard (Celery)          the handler of SIGTERM, by which its parent ends it: it skips
                                       finalizers, too
`fork`                                 the parent; the child starts with empty queues, also that
                                       of a server in C which does not tell Python of it
`os.exec*`                             an audit hook: a server that restarts itself (Celery at
                                       SIGHUP) may call it before our `atexit` is
`os._exit`, `kill -9`, a crash         nothing: see queue.py for what may be lost

A handler in Python has a price: the interpreter notes the signal and calls it in the main thread,
once that is back from what it calls in C. A signal can so go unnoticed by a thread that is about to
wait, and multiprocessing waits without end for a process that it sent one. Hence SIGTERM is held
back while a process forks, is left alone in a process of multiprocessing until something is logged
there, and is from then on seen by a thread of its own if the main one does not see it. One
that comes while the main thread forks, or holds what storing needs, comes again a little later.

A handler that the application sets later replaces ours, except in a process of multiprocessing or
billiard, where it is the pool's: the next event puts ours before it. With gevent a signal may come
in the event loop itself, which must not wait: a green thread then does what the handler does. With
eventlet SIGTERM is left alone, for a handler that returns does not wake its loop.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any, Protocol

from lakelog.runtime import forks

_FLUSH = 5.0
"""So many seconds a signal waits for what is being stored, for each queue."""
_AGAIN = 0.002
"""Seconds until a signal comes again that came at a wrong moment."""
_UNSEEN = 0.05
"""Seconds that the main thread has to see a signal."""


class Ending(Protocol):
    """What has to be told that the process ends or was forked."""

    def finish(self) -> None:
        """Store all that waits; store directly from now on."""

    def flush(self, timeout: float | None = None) -> bool:
        """Store all that waits, and go on as before."""

    def is_in_use(self) -> bool:
        """Whether this thread is in the middle of it, so that no other can store now."""

    def after_fork(self) -> None:
        """Forget, in a child, what is the parent's."""


_WATCHED: list[Ending] = []
_is_registered = _is_prepared = _is_armed = _is_handled = _is_seen = False
is_in_pool = False
"""Whether this is a process of multiprocessing or billiard, which sets handlers of its own."""
_late_since = 0.0
_turn = 0
"""How often the handler was called."""


class _Masks(threading.local):
    """The signal masks of this thread from before the forks that it is in."""

    def __init__(self) -> None:
        self.before: list[set[signal.Signals | int]] = []


_masks = _Masks()
_pipe: tuple[int, int] | None = None
"""What the interpreter writes signals to, and `_attend` reads."""


def watch(ending: Ending) -> None:
    """From now on tell `ending` of the end of the process, and of forks."""
    global _is_registered
    _WATCHED.append(ending)
    if not _is_registered:
        _is_registered = True
        atexit.register(_finish)
        sys.addaudithook(_before_exec)
        os.register_at_fork(before=_before_fork, after_in_parent=_unmask)
        forks.after_in_child(_after_fork)
    _prepare_for_multiprocessing()
    _handle_sigterm()


def unwatch(ending: Ending) -> None:
    """Forget `ending`, which was closed."""
    with contextlib.suppress(ValueError):
        _WATCHED.remove(ending)


def arm() -> None:
    """From now on there is something to store when the process ends."""
    global _is_armed
    if not _is_armed:
        _is_armed = True
        _finish_with_multiprocessing()
    _handle_sigterm()


class _Token:
    """What multiprocessing holds by a weak reference: it has to live as long as the process."""


_TOKEN = _Token()


def _finish() -> None:
    interrupted: BaseException | None = None
    for ending in list(_WATCHED):
        for _ in range(2):  # after Ctrl-C once more, for nobody stores it later
            try:
                ending.finish()
                break
            except BaseException as error:
                interrupted = error
    if interrupted is not None:
        raise interrupted


def _before_exec(event: str, _: tuple[object, ...]) -> None:
    """Store what waits before another program replaces this one; it goes on where that fails."""
    # Only exec: other events of the hook come thousands of times.
    if event == "os.exec":
        _flush()


def _before_fork() -> None:
    # The interpreter of a child forgets the signals that came before it was ready. Noted first, so
    # that Ctrl-C between the two leaves nothing blocked.
    _masks.before.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    if _is_ours():
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))


def _unmask() -> None:
    if _masks.before:
        # Nested forks each have a mask of their own.
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before[-1])
        _masks.before.pop()


def _after_fork() -> None:
    global _is_armed
    try:
        _is_armed = False
        _forget_pipe()
        for ending in list(_WATCHED):
            ending.after_fork()
        _prepare_for_multiprocessing()
    finally:
        _unmask()


def _prepare_for_multiprocessing() -> None:
    """If this becomes a process of multiprocessing, `_begin_process` is called when it begins."""
    # Not imported for it: most programs have no processes of multiprocessing.
    global _is_prepared
    util = sys.modules.get("multiprocessing.util")
    if util is not None and not _is_prepared:
        _is_prepared = True
        util.register_after_fork(_TOKEN, _begin_process)


def _begin_process(_: _Token) -> None:
    global _is_handled, is_in_pool
    is_in_pool = True
    current = signal.getsignal(signal.SIGTERM)
    if isinstance(current, _Handler):
        # The handler of the parent's program is not the child's.
        signal.signal(signal.SIGTERM, current.previous)
        _is_handled = False
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
    """Put our handler before the application's: once, in a pool each time that it is replaced."""
    global _is_handled
    if _is_handled and not is_in_pool:
        return
    # Only the main thread may set one. Not by its object, which green threads have of their own.
    is_eventlet = _has_green_threads() and "gevent" not in sys.modules
    if threading.get_native_id() != os.getpid() or is_eventlet:
        return
    current = signal.getsignal(signal.SIGTERM)
    # A handler of C code cannot be called; one that ignores the signal has nothing to store.
    if isinstance(current, _Handler) or current in (None, signal.SIG_IGN):
        return
    if current == signal.SIG_DFL and _is_caught():
        return
    with contextlib.suppress(ValueError):  # in a subinterpreter
        signal.signal(signal.SIGTERM, _Handler(current))
        _is_handled = True
        if current == signal.SIG_DFL and _is_of_multiprocessing():
            _start_attending()


def _is_ours() -> bool:
    return isinstance(signal.getsignal(signal.SIGTERM), _Handler)


def _is_caught() -> bool:
    """Whether C code catches SIGTERM, such as libev for `gevent.signal_handler`: to Python that is
    the default."""
    # Bits of the kernel's mask are numbered from 1.
    with contextlib.suppress(OSError, IndexError, ValueError), open("/proc/self/status") as status:
        caught = int(status.read().split("SigCgt:")[1].split()[0], 16)
        return bool(caught >> (signal.SIGTERM - 1) & 1)
    return False


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
        # A daemon: nobody waits for a thread that waits for signals.
        thread = threading.Thread(
            target=_attend, args=(reading,), name="lakelog-signals", daemon=True
        )
        with contextlib.suppress(RuntimeError):  # the interpreter is shutting down
            thread.start()
    before = signal.set_wakeup_fd(_pipe[1], warn_on_full_buffer=False)
    if before not in (-1, _pipe[1]):
        signal.set_wakeup_fd(before)  # of an event loop, which sees to signals itself


def _attend(reading: int) -> None:
    """Do at SIGTERM what the handler does, if the main thread does not come to it."""
    import ctypes  # here: most processes never need it

    while True:
        if signal.SIGTERM not in os.read(reading, 512):
            continue
        until = time.monotonic() + _UNSEEN
        while not _is_seen and time.monotonic() < until:
            time.sleep(_AGAIN)
        if not _is_seen and _is_ours():  # the application may have its own by now
            break
    _finish()
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


def _store_aside(store: Callable[[], None]) -> None:
    """Flush or finish in another thread, for this one may hold any lock where the signal came."""
    # A bare lock: those of `threading` may be held where the signal came.
    barrier = _thread.allocate_lock()
    barrier.acquire()

    def work() -> None:
        try:
            store()
        finally:
            barrier.release()

    if _started(work):
        barrier.acquire(timeout=_FLUSH * max(len(_WATCHED), 1))
    else:
        store()


def _started(work: Callable[[], None]) -> bool:
    """Start a thread, without the locks of `threading`; False where none can run any more."""
    # A new thread would never run at the end of the interpreter.
    if sys.is_finalizing():
        return False
    try:
        _thread.start_new_thread(work, ())
    except RuntimeError:
        return False
    return True


def _comes_again() -> bool:
    """Have the signal come again if this is a wrong moment; but not for longer than a flush."""
    global _late_since
    if not _masks.before and not any(ending.is_in_use() for ending in list(_WATCHED)):
        return False
    clock = time.monotonic()
    _late_since = _late_since or clock
    # Bounded: something that holds a lock for ever must not keep the process alive.
    return clock < _late_since + _FLUSH and _started(_send_again)


def _send_again() -> None:
    """Send the signal until the handler is called: one that the main thread gets just before it
    waits in C does not wake it, the next one does."""
    turn, pause = _turn, _AGAIN
    time.sleep(pause)
    os.kill(os.getpid(), signal.SIGTERM)
    while True:
        time.sleep(pause)
        if turn != _turn or not _is_ours():
            return
        os.kill(os.getpid(), signal.SIGTERM)
        pause = min(2 * pause, _UNSEEN)


class _Handler:
    """Takes the place of a handler of SIGTERM: stores what waits, then does what that one does.

    Each has its own: one that was replaced may be called by what replaced it.
    """

    def __init__(self, previous: Any) -> None:
        self.previous = previous
        # If the signal ends the process, other threads may log until it does.
        self._store = _flush if callable(previous) else _finish

    def __call__(self, number: int, frame: object) -> None:
        global _is_seen, _late_since, _turn
        # So that whoever sends it again knows that it came.
        _turn += 1
        if _comes_again():
            return
        _is_seen, _late_since = True, 0.0
        if _is_in_loop() and _started(lambda: self._store_in_green_thread(number, frame)):
            return
        _store_aside(self._store)
        self._pass_on(number, frame)

    def _pass_on(self, number: int, frame: object) -> None:
        global _is_seen
        if callable(self.previous):
            self.previous(number, frame)
            # The program goes on: the next signal has to be seen anew.
            _is_seen = False
        else:
            # As without us: the exit status says which signal it was.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _store_in_green_thread(self, number: int, frame: object) -> None:
        self._store()
        try:
            self._pass_on(number, frame)
        except BaseException:
            # Of the handler, as without us: the program ends by it, and not this green thread.
            hub: Any = sys.modules["gevent"].get_hub()
            hub.handle_error(None, *sys.exc_info())


def _has_green_threads() -> bool:
    """Whether a library has put its own threads in place of those of the interpreter."""
    return not isinstance(_thread.start_new_thread, types.BuiltinFunctionType)


def _is_in_loop() -> bool:
    """Whether this is the event loop of gevent, which runs all green threads."""
    gevent: Any = sys.modules.get("gevent")
    return _has_green_threads() and gevent.getcurrent() is gevent.get_hub()
