"""Which saved states to delete: a pure decision by number, day, week, month and year."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar


@dataclass(frozen=True)
class Retention:
    """How many states to keep: the newest `last`, and the newest of each of so many days, weeks,
    months and years (UTC) that have one."""

    LAST: ClassVar = 24
    """This many states with names of their own making are kept, unless told otherwise."""

    last: int
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0

    @property
    def is_all(self) -> bool:
        """Whether nothing is to be kept."""
        return not any((self.last, self.daily, self.weekly, self.monthly, self.yearly))


class Dated(Protocol):
    """What has a time (us)."""

    @property
    def time(self) -> int:
        """Microseconds since 1970."""


_T = TypeVar("_T", bound=Dated)


def select_expired(states: Iterable[_T], keep: Retention) -> list[_T]:
    """Return what to delete of states in the order of their saves, newest first.

    The order decides which is the newest of a day, and not the clock, which may have been set back
    in between."""
    periods = [
        _Periods(keep.daily, lambda day: day.toordinal()),
        _Periods(keep.weekly, lambda day: day.isocalendar()[:2]),
        _Periods(keep.monthly, lambda day: (day.year, day.month)),
        _Periods(keep.yearly, lambda day: day.year),
    ]
    expired = []
    for number, state in enumerate(states):
        day = _day(state.time)
        # Each counts it, whichever keeps it.
        is_kept = [period.keeps(day) for period in periods]
        if number >= keep.last and not any(is_kept):
            expired.append(state)
    return expired


class _Periods:
    """The days, weeks, months or years of which a state is kept."""

    def __init__(self, count: int, period_of: Callable[[datetime.date], object]) -> None:
        self._left, self._of = count, period_of
        self._seen: set[object] = set()

    def keeps(self, day: datetime.date) -> bool:
        """Count a state of a day, newest first; whether it is the one to keep."""
        period = self._of(day)
        # The newest of a period comes first, and stays.
        if self._left <= len(self._seen) or period in self._seen:
            return False
        self._seen.add(period)
        return True


def _day(time: int) -> datetime.date:
    # Any clock: dates end with the year 9999.
    seconds = min(max(time // 1_000_000, -62_135_596_800), 253_402_300_799)
    return (datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)).date()
