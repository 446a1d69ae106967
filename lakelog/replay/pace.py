"""When each event of a replay is due: the pauses of the recording, faster or slower, and a rate."""

from __future__ import annotations

import re
import threading
import time

from lakelog.errors import InvalidSetting

AT_ONCE = 0.0
"""The speed of a replay without pauses."""
_SPEED = re.compile(r"(\d+(?:\.\d+)?)x?")
_RATE = re.compile(r"(\d+(?:\.\d+)?)(?:/(s|m|h))?")
# Short slices, so that Ctrl-C and a pause are noticed.
_STEP, _SLICE, _STOPPED = 0.02, 0.2, 1.0
"""Seconds: between two looks while paused, of one wait, and that a wait may be late."""
_UNITS = {None: 1, "s": 1, "m": 60, "h": 3600}


def parse_speed(setting: str) -> float:
    """Read `10x`, `0.5x` or `max` as a factor, AT_ONCE for the latter. Raises InvalidSetting."""
    if setting == "max":
        return AT_ONCE
    match = _SPEED.fullmatch(setting)
    if not match or not float(match[1]):
        raise InvalidSetting(
            f"a speed is max, or a factor such as 1x, 10x or 0.5x: not {setting!r}"
        )
    return float(match[1])


def parse_rate(setting: str) -> float:
    """Read `1000/s`, `60/m` or `2/h` as events a second. Raises InvalidSetting."""
    match = _RATE.fullmatch(setting)
    if not match or not float(match[1]):
        raise InvalidSetting(
            f"a rate is a number of events such as 1000/s or 60/m: not {setting!r}"
        )
    return float(match[1]) / _UNITS[match[2]]


class ReplayPace:
    """The clock of a replay. It stands still while the replay is paused."""

    def __init__(self, speed: float, rate: float | None, stop: threading.Event) -> None:
        """`speed` is a factor of the recorded pauses, AT_ONCE for none; `rate` is the most events a
        second, None for any number."""
        self._speed, self._rate, self._stop = speed, rate, stop
        self._started: float | None = None
        self._origin = 0
        self._is_paused = threading.Event()

    @property
    def is_free(self) -> bool:
        """Whether events are given out as fast as they are read."""
        return self._speed == AT_ONCE and self._rate is None

    def due(self, recorded: int, number: int) -> float:
        """Return when an event is due, by `time.monotonic`: its recorded time is in microseconds,
        and it is the `number`-th of the replay, the first being 0."""
        # The first event is due at once, and all others are counted from it.
        if self._started is None:
            self._started, self._origin = time.monotonic(), recorded
        delay = (recorded - self._origin) / 1e6 / self._speed if self._speed else 0.0
        # The later of both: a rate slows down, and never speeds up.
        return self._started + max(delay, number / self._rate if self._rate else 0.0)

    def wait_for(self, recorded: int, number: int) -> bool:
        """Wait until an event is due, and while the replay is paused; False if it was stopped."""
        while not self._stop.is_set():
            began = time.monotonic()
            if self._is_paused.is_set():
                self._stop.wait(_STEP)
                # The clock stands still: what was due stays as far away.
                self._shift(time.monotonic() - began)
                continue
            pause = min(self.due(recorded, number) - began, _SLICE)
            if pause <= 0:
                return True
            self._stop.wait(pause)
            # A process that was stopped, by Ctrl-Z or with its machine, goes on where it stood.
            late = time.monotonic() - began - pause
            # More than scheduling takes: the process itself was stopped.
            if late > _STOPPED:
                self._shift(late)
        return False

    def toggle(self) -> None:
        """Pause, or go on."""
        if self._is_paused.is_set():
            self._is_paused.clear()
        else:
            self._is_paused.set()

    def _shift(self, seconds: float) -> None:
        if self._started is not None:
            self._started += seconds
