"""Alert rules of a server's lake, evaluated in a thread of the server."""

from __future__ import annotations

import logging
import threading

from lakelog.alerts import evaluate_when_free
from lakelog.lake import Lake

_STOP_SECONDS = 12.0
"""A delivery that was begun ends within ten: without its outcome it would be sent twice."""
_LOG = logging.getLogger("lakelog.alerts")


class AlertThread:
    """Evaluates the rules of a lake from `start` on, unless another process does."""

    def __init__(self, lake: Lake) -> None:
        self._lake, self._stop = lake, threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, site: str) -> None:
        """Begin; `site` is the server's address, for links."""
        self._thread = threading.Thread(target=self._run, args=(site,), name="lakelog-alerts")
        self._thread.start()

    def close(self) -> None:
        """End it, and wait until what was begun is recorded."""
        self._stop.set()
        # Without a bound a receiver that does not answer would keep the server from ending.
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)

    def _run(self, site: str) -> None:
        try:
            evaluate_when_free(self._lake, _LOG.warning, self._stop, site=site)
        except Exception:  # a fault of ours: the server has other work, too
            _LOG.exception("alerts are not evaluated any more")
