"""Writing to the cache beside the thread that answers: one thread, while there is work."""

from __future__ import annotations

import collections
import contextlib
import os
import threading
from collections.abc import Callable

Task = Callable[[], None]


class BackgroundWriter:
    """Tasks done one after another; what fails is only not kept."""

    def __init__(self) -> None:
        self._tasks: collections.deque[Task] = collections.deque()
        self._mutex = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def put(self, task: Task) -> None:
        """Have a task done soon."""
        with self._mutex:
            self._tasks.append(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lakelog-views")
                self._thread.start()

    def drain(self) -> None:
        """Wait until everything put so far is done."""
        while (thread := self._thread) is not None and self.is_ours:
            thread.join()

    @property
    def is_ours(self) -> bool:
        """Whether this process made the thread; a forked child has none."""
        return self._pid == os.getpid()

    def _run(self) -> None:
        while True:
            with self._mutex:
                if not self._tasks:
                    self._thread = None
                    return
                task = self._tasks.popleft()
            with contextlib.suppress(Exception):
                task()
            del task
