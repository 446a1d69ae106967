"""Writing to the cache beside the thread that answers: one thread, while there is work.

It begins once the answer is given that the work came from: on the same cores that would be later.
"""

from __future__ import annotations

import collections
import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from lakelog.runtime.locks import OrderedLock, Rank

Task = Callable[[], None]
# Tasks hold tables of the engine, and with them the memory of states.
_WAITING_MAX = 8
"""More tasks than these do not wait, so that threads which always answer cannot hold up all."""


class BackgroundWriter:
    """Tasks done one after another; what fails is only not kept."""

    def __init__(self) -> None:
        self._tasks: collections.deque[Task] = collections.deque()
        self._mutex = OrderedLock(Rank.BACKGROUND)
        self._answering, self._is_draining = 0, False
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def put(self, task: Task) -> None:
        """Have a task done soon."""
        with self._mutex.hold_once():
            self._tasks.append(task)
            self._start()

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Have tasks wait, but for the one that is running, while an answer is computed."""
        with self._mutex.hold_once():
            self._answering += 1
        try:
            yield
        finally:
            with self._mutex.hold_once():
                self._answering -= 1
                # What waited for this answer may begin.
                self._start()

    def drain(self) -> None:
        """Wait until everything put so far is done."""
        if not self.is_ours:
            return
        with self._mutex.hold_once():
            self._is_draining = True
            self._start()
        while (thread := self._thread) is not None:
            # Outside of the mutex, which the thread itself needs to end.
            thread.join()
        self._is_draining = False

    @property
    def is_ours(self) -> bool:
        """Whether this process made the thread; a forked child has none."""
        return self._pid == os.getpid()

    def _start(self) -> None:
        """Start the thread if there is work that need not wait; the mutex is held."""
        if self._thread is None and not self._is_waiting():
            self._thread = threading.Thread(target=self._run, name="lakelog-views")
            self._thread.start()

    def _is_waiting(self) -> bool:
        """Whether there is no work, or it has to wait."""
        is_held = self._answering and not self._is_draining
        return not self._tasks or bool(is_held and len(self._tasks) <= _WAITING_MAX)

    def _run(self) -> None:
        while True:
            with self._mutex.hold_once():
                if self._is_waiting():
                    # Set under the mutex: a task put from now on starts another thread.
                    self._thread = None
                    return
                task = self._tasks.popleft()
            # Nobody waits for the cache: a full disk costs the next reader time, and nothing else.
            with contextlib.suppress(Exception):
                task()
            # A task holds a layer: a thread that waits for the mutex must not keep it in memory.
            del task
