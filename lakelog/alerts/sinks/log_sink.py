"""The log of the process that evaluates: standard error of `alerts run`, the log of a server."""

from __future__ import annotations

from collections.abc import Callable

from lakelog.alerts.notices import Notice


class LogSink:
    """Writes a line."""

    address = "log"

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def deliver(self, notice: Notice) -> None:
        """Write it."""
        self._say(f"alert {notice.line}")
