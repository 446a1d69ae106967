"""Verbs that work in rounds: once, or again and again until a signal."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

import click

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


class Round(Protocol):
    """What a round did."""

    @property
    def commits(self) -> int:
        """How many transactions or moves it made."""
        ...


Result = TypeVar("Result", bound=Round)


def repeat(
    work: Callable[[threading.Event], Result],
    report: Callable[[Result, float], None],
    every: float | None,
) -> Result:
    """Work once, or every so many seconds until a signal; return the last round's result.

    `work` ends early once its event is set. `report` gets each result that did something, and the
    seconds it took.
    """
    stop = threading.Event()
    previous = {number: signal.signal(number, lambda *_: stop.set()) for number in _SIGNALS}
    try:
        while True:
            started = time.monotonic()
            result = work(stop)
            if result.commits or every is None:
                report(result, time.monotonic() - started)
            if every is None or stop.wait(every):
                return result
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Span(click.ParamType[float]):
    """A time such as 500ms, 1s or 5m, as seconds."""

    name = "span"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds that a text names."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", str(value).strip())
        seconds = float(match[1]) * _UNITS[match[2] or "s"] if match else 0.0
        if seconds < 0.01:
            self.fail(f"{value!r} is no time from 10ms on, such as 500ms, 1s or 5m", param, ctx)
        return seconds
