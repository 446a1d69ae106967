"""Forks beside writers: each writer is stopped before one, and its child is a writer of its own."""

from __future__ import annotations

import importlib
import os
import threading
import time
from typing import Protocol

from lakelog.runtime import forks
from lakelog.runtime.living import Living
from lakelog.runtime.locks import OrderedLock, Rank


class ForkedWriter(Protocol):
    """What a writer does around a fork."""

    def before_fork(self) -> None:
        """Wait for the group that is being written; the next one waits for the fork."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Drop what belongs to the parent, and be a writer of its own."""


_PATIENCE = 10.0
_WRITERS: Living[ForkedWriter] = Living()
_FORK = OrderedLock(Rank.FORK)
_FORKING: list[list[ForkedWriter]] = []


def register(writer: ForkedWriter) -> None:
    """Stop a writer at every fork from now on, for as long as it lives."""
    _WRITERS.add(writer)


def _before_fork() -> None:
    """Stop every writer. Forks of several threads take turns, as each stops all writers."""
    _FORK.acquire()
    writers = list(_WRITERS)
    _FORKING.append(writers)
    for writer in writers:
        writer.before_fork()
    _wait_for_imports()


def _after_fork_in_parent() -> None:
    # Another thread may have loaded this module after that fork had begun.
    if not _FORKING:
        return
    for writer in reversed(_FORKING.pop()):
        writer.after_fork_in_parent()
    _FORK.release()


def _after_fork_in_child() -> None:
    _FORKING.clear()
    for writer in list(_WRITERS):
        writer.after_fork_in_child()


def _wait_for_imports() -> None:
    """Wait until no other thread imports anything, or _PATIENCE seconds: before a fork.

    CPython (3.11 to 3.13) frees the locks of modules in a child only for the thread that forked.
    What another thread was importing could never be imported there: the child would wait for ever.
    """
    bootstrap = getattr(importlib, "_bootstrap", None)
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        # The list is of weak references to the locks; importlib has no public way to ask.
        locks = [lock() for lock in list(getattr(bootstrap, "_module_locks", {}).values())]
        owners = {getattr(lock, "owner", None) for lock in locks}
        if not owners - {None, threading.get_ident()}:
            return
        time.sleep(0.001)


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)
forks.after_in_child(_after_fork_in_child)
