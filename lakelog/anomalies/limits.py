"""How far a series is off what was expected of it, and from how far on that is an alarm.

That depends on how often a false alarm may be, on how many series are looked at, and on the series
itself: of one that often is far off, only more than that is unusual. Nothing looks ahead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from lakelog.anomalies.baseline import Deviations
from lakelog.anomalies.series import Series, Spans
from lakelog.libraries import Booleans, Floats, Integers, np

THRESHOLD = 4.3
STILL_OFF = 1.5
VALUES_MIN, USUAL, BEATS = 5, 2.0, 2.5
"""Values that a mean is of, deviations from this time of day that are usual, and beats of what
comes by the clock that are missing."""
_USUAL_SERIES = 20
_PEAK, _BEYOND, _VALUES_BEYOND = 3.5, 1.5, 2.6
_APART, _WEEK_US = 12, 604_800_000_000
MINUTE_US, DAY_US = 60_000_000, 86_400_000_000


@dataclass(frozen=True)
class Budget:
    """How far off is an alarm: in standard deviations, and by the improbability of a count."""

    deviations: float
    digits: float

    @staticmethod
    def of(false_alarms: float, series: int, spans: Spans) -> Budget:
        """For so many false alarms a day of so many series."""
        # `THRESHOLD` is for `_USUAL_SERIES` series and one false alarm a day. With more series or
        # fewer alarms it moves by as much as the quantile of the normal distribution does.
        tests = max(series, 1) * DAY_US / spans.length_us / false_alarms
        usual = _USUAL_SERIES * DAY_US / spans.length_us
        quantile = NormalDist().inv_cdf
        # Bounded, as a generous budget over few spans would ask for a quantile of 0 or less.
        stricter = quantile(1 - min(0.2 / tests, 0.4)) - quantile(1 - 0.2 / usual)
        return Budget(THRESHOLD + stricter, max(math.log10(2.5 * tests), 2.0))


@dataclass(frozen=True)
class Alarm:
    """What is off from `start_us` to `end_us`, known at `raised_us`, by `strength` deviations."""

    start_us: int
    raised_us: int
    end_us: int
    strength: float
    expected: float
    observed: float


@dataclass(frozen=True)
class SeriesBaseline(Deviations):
    """A series with what was expected of it: its row of each matrix."""

    series: Series

    def off_slowly(self, values: Floats, weights: Floats, places: Integers) -> Floats:
        """How far values of some spans are off the nearer one of the means that do not follow
        what goes up by and by, to the side of both; 0 where there is none."""
        # The nearer of the two, and only where both agree on the side: what is usual at this time
        # of day, or was so in the last days, is no drift.
        root = np.sqrt(weights)
        usual = (values - self.usual[places]) / self.usual_deviation[places] * root
        lately = (values - self.lately[places]) / self.lately_deviation[places] * root
        nearer = np.where(np.abs(usual) < np.abs(lately), usual, lately)
        off: Floats = np.where(usual * lately > 0, nearer, 0.0)
        return off

    def is_warm(self, spans: Spans) -> Booleans:
        """Before which spans half a day of values was known."""
        # The count before each span: a span does not warm itself.
        counts = np.cumsum(~np.isnan(self.series.values))
        warm: Booleans = np.concatenate([[0], counts[:-1]]) >= DAY_US // spans.length_us / 2
        return warm

    def limits(self, budget: Budget, spans: Spans) -> Floats:
        """From how many deviations on a span is an alarm, upwards and downwards."""
        off, series = self.off, self.series
        if not series.field:
            # What is seen in minutes may be of two spans.
            pairs = [np.convolve(v, (1, 1))[: len(off)] for v in (series.values, self.counts())]
            two = (roots_of(pairs[0]) - roots_of(pairs[1])) / self.deviation
            off = np.where(np.abs(two) > np.abs(off), two, off)
        beyond = _VALUES_BEYOND if series.field else _BEYOND
        least = budget.deviations
        return np.stack(
            [own_limits(sign * off, spans.length_us, least, beyond) for sign in (1, -1)]
        )

    def counts(self) -> Floats:
        """How many events were expected in each span."""
        return counts_of(self.expected)


def own_limits(off: Floats, length_us: int, least: float, beyond: float) -> Floats:
    """From how far on a series is off beyond what it often was in the week before: the `least`, and
    `beyond` times as much as the second highest of what stands an hour apart is above a peak."""
    limits = np.full(len(off), least)
    peaks: list[tuple[int, float]] = []
    for index in np.flatnonzero(off >= _PEAK).tolist():
        if peaks and index - peaks[-1][0] <= _APART:
            peaks[-1] = index, max(peaks[-1][1], float(off[index]))
        else:
            peaks.append((index, float(off[index])))
        # What goes on is no peak yet: it must not hide itself.
        begin = index + _APART + 1
        recent = sorted(
            height for place, height in peaks if (index - place) * length_us <= _WEEK_US
        )
        # The second highest: the highest may have been an incident, which must not hide the next
        # one. Later peaks write over this from where they end.
        limits[begin:] = least + beyond * (recent[-2] - _PEAK) if len(recent) > 1 else least
    return limits


def counts_of(roots: Floats) -> Floats:
    """Return counts for what `roots_of` gave."""
    # Means begin at 0, which is below the root of no event.
    return np.maximum((roots / 2) ** 2 - 0.375, 0.0)


def roots_of(counts: Floats) -> Floats:
    """Return counts on a scale where the variance of chance is about 1, whatever their mean: the
    transform of Anscombe (Biometrika 1948)."""
    return 2 * np.sqrt(counts + 0.375)


def sums_of(values: Floats, window: int) -> Floats:
    """Return the sums of `window` values that follow one another: of n values n - window + 1."""
    totals = np.concatenate([[0.0], np.cumsum(values)])
    sums: Floats = totals[window:] - totals[:-window]
    return sums
