"""Waiting for the engine: Ctrl-C interrupts it at once, and seconds are counted on stderr."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from lakelog.cli.render.terminal import ProgressLine
from lakelog.cli.signals import END, listening
from lakelog.engine.messages import EngineMessage

_PAUSE_MS = 200
_SILENT_S = 2.0


class QueryMonitor:
    """A context around a running statement. Outside the main thread it only counts.

    `interrupt` is called repeatedly, from the first Ctrl-C to the end of the context.
    """

    def __init__(self, interrupt: Callable[[], None], progress: ProgressLine) -> None:
        self._interrupt, self._progress = interrupt, progress
        self._counts, self.rows = True, 0
        self._listening = listening(self._watch)

    def over(self, batches: Iterable[Sequence[object]]) -> Iterator[Sequence[Any]]:
        """Yield batches of rows, count them in `rows`, and stop the progress line at the first."""
        for batch in batches:
            self._be_quiet()
            self.rows += len(batch)
            yield batch

    def _be_quiet(self) -> None:
        if self._counts:
            self._counts = False
            self._progress.__exit__()

    def __enter__(self) -> QueryMonitor:
        self._listening.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.__exit__(None, None, None)
        self._be_quiet()

    def _watch(self, reading: int) -> None:
        start, cancelled = time.monotonic(), False
        # poll and not select: select fails for descriptors from 1,024 on.
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        while True:
            signals = os.read(reading, 64) if poll.poll(_PAUSE_MS) else b""
            if END in signals:
                return
            cancelled = cancelled or signal.SIGINT in signals
            seconds = time.monotonic() - start
            if cancelled:
                # Again at each turn: an interrupt that comes between two steps of the engine is
                # lost.
                self._interrupt()
            elif self._counts and seconds >= _SILENT_S:
                self._progress(int(seconds), note="Ctrl-C stops it")


def is_cancelled(error: BaseException) -> bool:
    """Whether an error is Ctrl-C, or the engine's error for it."""
    return isinstance(error, KeyboardInterrupt) or EngineMessage.is_interrupt(error)
