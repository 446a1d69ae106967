"""Group commit: callers queue their lines, and one of them, the leader, writes for all of them."""

from __future__ import annotations

import errno
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from lakelog.errors import ReentrantAppend, WriterClosed
from lakelog.runtime import forks
from lakelog.runtime.locks import OrderedLock, Rank
from lakelog.wal import Frame

_T = TypeVar("_T")


class AppendBatch:
    """Lines of a caller that waits for a leader; `lock` is released once it is served or leads."""

    __slots__ = (
        "done",
        "error",
        "events",
        "flags",
        "leads",
        "lock",
        "position",
        "refusal",
        "retries",
        "size",
        "text",
    )

    def __init__(self, payload: bytes, events: int, flags: int, retries: bool = False) -> None:
        self.text, self.events, self.flags = payload, events, flags
        self.retries = retries
        self.size = len(payload) + 1
        self.lock: Any = None
        self.done, self.leads, self.position = False, False, 0
        self.error: BaseException | None = None
        self.refusal: Exception | None = None


class GroupCommit(ABC):
    """The callers of a writer, threads of one process, which its subclass writes for."""

    def __init__(self) -> None:
        # Reentrant: a signal handler may run in the thread that holds it.
        self._mutex = OrderedLock(Rank.WRITER)
        self._inside: set[int] = set()
        self._queue: list[AppendBatch] = []
        self._leader, self._busy, self._forking = 0, False, False
        self._closed, self._closing = False, 0

    @abstractmethod
    def _write(self, group: list[AppendBatch]) -> None:
        """Make the lines of a group durable. Raises OSError."""

    @abstractmethod
    def _let_go(self) -> None:
        """Let go of what is open: no append comes any more."""

    def _as_caller(self, work: Callable[..., _T], *args: object) -> _T:
        """Do what appends of this thread. Raises ReentrantAppend where it appends already: it would
        wait for the append that it interrupts, for ever."""
        me = threading.get_ident()
        if me in self._inside:
            raise ReentrantAppend(
                "append interrupts another append of its own thread: try it later"
            )
        try:
            self._inside.add(me)
            return work(*args)
        finally:
            self._inside.discard(me)
            if self._closing == me:  # a signal handler closed the lake, and could not wait for us
                self.close()

    def close(self) -> None:
        """Let running appends end, refuse others, and finish the newest file.

        In a signal handler that interrupts an append of its own thread, that append does the rest.
        """
        self._closed, me = True, threading.get_ident()
        if me in self._inside:
            self._closing = me
            return
        with self._mutex.hold():
            self._wait_while(lambda: self._busy and self._leader != me)
            self._let_go()

    def _commit(self, batch: AppendBatch) -> None:
        """Lead if nobody does, else wait until another leader served us, or until we lead. Raises
        WriterClosed, and what became of the batch."""
        forks.notice()
        try:
            with self._mutex.hold():
                # Under the mutex, with the queueing: after `close` nothing may be queued any more.
                if self._closed:
                    raise WriterClosed("the lake is closed: open it again to append")
                if self._busy:
                    # One lock a caller, so that only those that were served are woken.
                    batch.lock = threading.Lock()
                    batch.lock.acquire()
                else:
                    batch.leads = self._busy = True
                if batch.lock is not None or self._forking:
                    self._queue.append(batch)
                else:  # nobody else waits, so ours is a group
                    self._leader = threading.get_ident()
            if batch.lock is not None:
                batch.lock.acquire()
            if not batch.done:
                self._lead(batch)
        except BaseException:
            self._leave(batch)
            raise
        if batch.error is not None:
            raise batch.error

    def _leave(self, batch: AppendBatch) -> None:
        """Take an interrupted caller out, so that the others do not wait for it."""
        with self._mutex.hold():
            if batch in self._queue:
                self._queue.remove(batch)
            if batch.leads:
                self._call_next(batch)

    def _call_next(self, leader: AppendBatch) -> None:
        """Make the longest waiting caller the leader; the mutex is held."""
        self._leader, leader.leads = 0, False
        if self._queue:
            self._queue[0].leads = True
            self._queue[0].lock.release()
        else:
            self._busy = False

    def _lead(self, batch: AppendBatch) -> None:
        """Commit a group (ours is in it), let the next leader start, then wake the group."""
        # If this fails before a group is taken, our own caller gets the error.
        group = [batch]
        failed: BaseException | None = None
        try:
            if not self._leader:
                with self._mutex.hold():
                    self._wait_while(lambda: self._forking)
                    self._leader = threading.get_ident()
                    group = []
                    self._take_group(group)
            self._write(group)
        except BaseException as error:
            failed = error
        try:
            # Before the group is woken: the next frame can be written while these callers return.
            with self._mutex.hold():
                self._call_next(batch)
            self._wake(group, batch, failed)
        except BaseException:
            self._wake(group, batch, failed)  # an interrupt must not leave the others asleep
            raise

    def _wake(
        self, group: list[AppendBatch], leader: AppendBatch, failed: BaseException | None
    ) -> None:
        """Let the callers of a group go on, each with its outcome; may be done twice."""
        for batch in group:
            # Who was refused is told so only once the version that won is durable.
            batch.error = _own_error(failed, batch is leader) if failed else batch.refusal
            batch.done = True
            if batch is not leader and batch.lock.locked():
                batch.lock.release()

    def _take_group(self, group: list[AppendBatch]) -> None:
        """Add waiting callers with equal flags to a group, up to a frame's size."""
        queue, count = self._queue, 0
        size, events = sum(b.size for b in group), sum(b.events for b in group)
        for batch in queue:
            size, events = size + batch.size, events + batch.events
            full = size > Frame.RAW_MAX or events > Frame.EVENTS_MAX
            # Flags are those of a whole frame; order is kept, so nobody is passed over.
            if (group or count) and (full or batch.flags != (*group, queue[0])[0].flags):
                break
            count += 1
        group += queue[:count]
        del queue[:count]

    def _wait_while(self, holds: Callable[[], bool]) -> None:
        """Wait while a condition holds, the mutex released meanwhile; the caller holds it."""
        while holds():
            self._mutex.release()
            time.sleep(0.0002)
            self._mutex.acquire()

    def before_fork(self) -> None:
        """Wait for the group that is being written; the next one waits for the fork."""
        me = threading.get_ident()
        nested = me in self._inside
        self._mutex.acquire()
        self._forking = True
        if not nested:  # a handler within an append may hold what the leader needs
            self._wait_while(lambda: self._leader not in (0, me))

    def after_fork_in_parent(self) -> None:
        """Let the next group be written."""
        self._forking = False
        self._mutex.release()

    def _forget_callers(self) -> None:
        """Drop those of a parent process: its threads are not here."""
        self._inside, self._queue, self._busy = set(), [], False
        self._leader, self._forking = 0, False


def _own_error(failed: BaseException, is_leader: bool) -> BaseException:
    """What one caller of a failed group gets: an interrupt is its leader's alone."""
    if isinstance(failed, Exception) or is_leader:
        return failed
    return OSError(errno.EINTR, "the append was interrupted: try it again")
