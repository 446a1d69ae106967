"""What a child of fork must forget of its parent: threads, locks, descriptors, databases.

Python calls the hooks in the children that it forks itself. Servers in C, such as uWSGI, fork
without it, and with their default settings tell it nothing: so the ways into lakelog look for a
fork that nobody announced, which costs a tenth of a microsecond.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable

from lakelog.runtime.living import Living

_HOOKS: list[Callable[[], object]] = []
_pid = _calling = os.getpid()
"""The process whose hooks were called, and the one in which that has begun."""
_lock = threading.RLock()
"""Held while hooks are called, for the child may have several threads by then."""
_alive: dict[int, object] = {}
"""What must live while a thread forks, by thread."""


def after_in_child(hook: Callable[[], object]) -> None:
    """Call `hook` in every child, after those that were given before."""
    _HOOKS.append(hook)


def notice() -> None:
    """Call the hooks if this process was forked by something else than Python."""
    if os.getpid() != _pid:
        with _lock:
            _call_hooks()


def _call_hooks() -> None:
    global _pid, _calling
    if os.getpid() == _calling:  # another thread was quicker, or a hook comes here
        return
    _calling = os.getpid()
    # Garbage of the parent may hold results of the engine, which is freed by threads that are not
    # here: a collection would wait for them for ever, or crash. What was there stays, also what
    # something refers to that a hook or the program lets go.
    if "_duckdb" in sys.modules:
        gc.freeze()
        Living.never_free(_living(), *_alive.values())
    _alive.clear()
    for hook in list(_HOOKS):
        hook()
    _pid = _calling


def _living() -> list[list[object]]:
    return [list(living) for living in Living.SETS]


def _before_fork() -> None:
    """Before any hook, Python frees in the child what other threads alone have: their locals, and
    the exception that each handles, with all that the frames of its traceback hold. There a result
    of the engine would wait for ever for threads that only the parent has."""
    if "_duckdb" in sys.modules:
        _alive[threading.get_ident()] = _living(), sys._current_exceptions()


def _after_fork_in_parent() -> None:
    _alive.pop(threading.get_ident(), None)


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    _call_hooks()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork
)
