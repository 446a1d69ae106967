"""Forks beside writers: each writer is stopped before one, and its child is a writer of its own."""

from __future__ import annotations

import os
from typing import Protocol

from lakelog.runtime import forks
from lakelog.runtime.lazy import wait_for_imports
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
    wait_for_imports()


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


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)
forks.after_in_child(_after_fork_in_child)
