"""Figures of a program as events: every so many seconds, and once more when the process ends."""

from __future__ import annotations

import threading
from collections.abc import Callable

from lakelog.loggers import exits
from lakelog.loggers.destination import LakeOrPath
from lakelog.loggers.recorder import LoggedEvent, Recorder


class FigureRecorder:
    """Records what `figures` returns, an event, if there is a lake; safe for threads and forks.

    `release` is called at the end of the process, or by `close`, behind the last figures.
    """

    def __init__(
        self,
        lake: LakeOrPath | None,
        seconds: float,
        figures: Callable[[], LoggedEvent],
        release: Callable[[], None],
    ) -> None:
        """Raises what `lakelog.open` does."""
        self._recorder = Recorder(lake) if lake is not None else None
        self._seconds, self._figures, self._release = seconds, figures, release
        self._stopped = threading.Event()
        self.after_fork()
        exits.watch(self)

    def close(self) -> None:
        """Record the last figures, and release what they are of; may be repeated."""
        if not self._stopped.is_set():
            self.finish()
            exits.unwatch(self)

    def finish(self) -> None:
        """At the end of the process: as `close`."""
        self._stopped.set()
        self.flush()
        self._release()

    def flush(self, timeout: float | None = None) -> bool:
        """Record the figures of now, if there is a lake; whether it has them."""
        if self._recorder is None:
            return True
        self._recorder.record(self._figures())
        return self._recorder.flush(timeout)

    def is_in_use(self) -> bool:
        """Never: figures may be read at any time."""
        return False

    def after_fork(self) -> None:
        """A child has a thread of its own."""
        if self._recorder is not None:
            threading.Thread(target=self._run, name="lakelog-figures", daemon=True).start()

    def _run(self) -> None:
        assert self._recorder is not None
        while not self._stopped.wait(self._seconds):
            self._recorder.record(self._figures())
