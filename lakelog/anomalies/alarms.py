"""When a series is so far off that it is an alarm: in a span, in several, or in a few minutes.

Spans teach what is usual; minutes tell sooner that it is not. How far off is far depends on how
often a false alarm may be, on how many series are looked at, and on the series itself: of one that
often is far off, only more than that is unusual. What moves by and by is found by the sum of what
it is off (CUSUM: Page, Biometrika 1954), for values alone. Nothing looks ahead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING

from lakelog.anomalies import baseline
from lakelog.libraries import np

if TYPE_CHECKING:
    from lakelog.anomalies.baseline import Matrix
    from lakelog.anomalies.series import Series, Spans
MINUTE_US = 60_000_000
_RUNS, _WINDOWS, _VALUE_WINDOWS = (1, 3, 6), (1, 2, 3, 5, 8), (3, 5, 8)
"""Spans, and minutes, that are looked at together."""
_STILL_OFF = 1.5
_THRESHOLD, _USUAL_SERIES = 4.4, 20
_STEADY, _REGULAR = 0.3, 0.5
_VALUES_MIN, _USUAL, _BEATS = 5, 2.0, 2.5
_PEAK, _BEYOND, _VALUES_BEYOND = 3.5, 1.2, 1.45
_APART, _WEEK_US = 12, 604_800_000_000
_SLACK, _SUM = 1.0, 4.0
_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Budget:
    """How far off is an alarm: in standard deviations, and by the improbability of a count."""

    deviations: float
    digits: float

    @staticmethod
    def of(false_alarms: float, series: int, spans: Spans) -> Budget:
        """For so many false alarms a day of so many series."""
        tests = max(series, 1) * _DAY_US / spans.length_us / false_alarms
        usual = _USUAL_SERIES * _DAY_US / spans.length_us
        quantile = NormalDist().inv_cdf
        more = quantile(1 - min(0.2 / tests, 0.4)) - quantile(1 - 0.2 / usual)
        return Budget(_THRESHOLD + more, max(math.log10(2.5 * tests), 2.0))


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
class SeriesBaseline:
    """A series with what was expected of it: rows of baseline.Deviations."""

    series: Series
    off: Matrix
    expected: Matrix
    deviation: Matrix
    usual: Matrix
    slow: Matrix

    def limits(self, budget: Budget, spans: Spans) -> Matrix:
        """From how many deviations on a span is an alarm, upwards and downwards."""
        off, series = self.off, self.series
        if not series.field:
            # What is seen in minutes may be of two spans.
            pairs = [np.convolve(v, (1, 1))[: len(off)] for v in (series.values, self.counts())]
            two = (roots_of(pairs[0]) - roots_of(pairs[1])) / self.deviation
            off = np.where(np.abs(two) > np.abs(off), two, off)
        beyond = _VALUES_BEYOND if series.field else _BEYOND
        limits = [own_limits(sign * off, spans.length_us, beyond) for sign in (1, -1)]
        return np.maximum(np.stack(limits), budget.deviations)

    def counts(self) -> Matrix:
        """How many events were expected in each span."""
        return counts_of(self.expected)


def own_limits(off: Matrix, length_us: int, beyond: float = _BEYOND) -> Matrix:
    """From how far on a series is off beyond what it often was in the week before: `beyond` times
    the second highest of what stands an hour apart."""
    limits = np.zeros(len(off))
    peaks: list[tuple[int, float]] = []
    for index in np.flatnonzero(off >= _PEAK).tolist():
        if peaks and index - peaks[-1][0] <= max(_APART, 1):
            peaks[-1] = index, max(peaks[-1][1], float(off[index]))
        else:
            peaks.append((index, float(off[index])))
        # What goes on is no peak yet: it must not hide itself.
        begin = index + _APART + 1
        recent = sorted(
            height for place, height in peaks if (index - place) * length_us <= _WEEK_US
        )
        limits[begin:] = beyond * recent[-2] if len(recent) > 1 else 0.0
    return limits


def counts_of(roots: Matrix) -> Matrix:
    """Return counts for what `roots_of` gave."""
    return np.maximum((roots / 2) ** 2 - 0.375, 0.0)


def roots_of(counts: Matrix) -> Matrix:
    """Return counts on a scale where the variance of chance is 1."""
    return 2 * np.sqrt(counts + 0.375)


def alarms_of(
    usual: SeriesBaseline, minutes: Series | None, spans: Spans, since_us: int, budget: Budget
) -> list[Alarm]:
    """Return the alarms of a series since a time, those that follow one another as one. `minutes`
    are its numbers since then, by the minute, where they are looked at."""
    limits = usual.limits(budget, spans)
    every = [*_of_spans(usual, spans, limits, budget, since_us)]
    if usual.series.field:
        every += _drifts(usual, spans, since_us)
    if minutes is not None:
        every += _of_minutes(usual, minutes, spans, limits, budget, since_us)
    joined: list[Alarm] = []
    for alarm in sorted(every, key=lambda alarm: (alarm.raised_us, alarm.start_us)):
        before = joined[-1] if joined else None
        if (
            before
            and alarm.start_us - before.end_us <= spans.length_us
            and alarm.strength * before.strength > 0
        ):
            stronger = max(before.strength, alarm.strength, key=abs)
            # Its begin stays: what was recorded of it must not be another one later.
            end = max(before.end_us, alarm.end_us)
            joined[-1] = replace(before, end_us=end, strength=stronger)
        else:
            joined.append(alarm)
    return joined


def _of_spans(
    usual: SeriesBaseline, spans: Spans, limits: Matrix, budget: Budget, since_us: int
) -> Iterator[Alarm]:
    """Spans that are off, alone or together with those before them."""
    off, series = usual.off, usual.series
    sums = np.concatenate([[0.0], np.cumsum(off)])
    for run in _RUNS:
        together = (sums[run:] - sums[:-run]) / np.sqrt(run)
        far = np.where(together > 0, limits[0][run - 1 :], limits[1][run - 1 :])
        for index in np.flatnonzero(np.abs(together) >= far).tolist():
            end, strength = index + run, float(together[index])
            is_over = off[end - 1] * strength <= 0 or abs(off[end - 1]) < _STILL_OFF
            if is_over or spans.begin_us(end - 1) < since_us:
                continue
            if series.field:
                is_alarm = _value_count(series, index, end) >= _VALUES_MIN
            else:
                is_alarm = _is_improbable(usual, index, end, budget)
            if is_alarm:
                yield _of_span(usual, spans, end - 1, strength)


def _of_span(usual: SeriesBaseline, spans: Spans, index: int, strength: float) -> Alarm:
    expected, observed = float(usual.expected[index]), float(usual.series.values[index])
    if usual.series.field:
        expected, observed = math.exp(expected), math.exp(observed)
    else:
        expected = float(counts_of(usual.expected[index : index + 1])[0])
    start, end = spans.begin_us(index), spans.begin_us(index + 1)
    return Alarm(start, end, end, strength, expected, observed)


def _value_count(series: Series, start: int, end: int) -> float:
    """How many values the means of some spans are of."""
    present = ~np.isnan(series.values[start:end])
    return float(series.weights[start:end][present].sum())


def _is_improbable(usual: SeriesBaseline, start: int, end: int, budget: Budget) -> bool:
    mean = max(float(counts_of(usual.expected[start:end]).sum()), 0.02)
    earlier = usual.series.values[:start]
    # A series that comes by the clock is no matter of chance.
    if len(earlier) and earlier.mean() >= _REGULAR and earlier.var() <= _STEADY * earlier.mean():
        return True
    count = float(usual.series.values[start:end].sum())
    return baseline.poisson_digits(count, mean) >= budget.digits


def _drifts(usual: SeriesBaseline, spans: Spans, since_us: int) -> Iterator[Alarm]:
    """Values that went up or down by and by."""
    for sign in (1, -1):
        total, start, sums = 0.0, 0, np.zeros(len(usual.slow))
        starts = np.zeros(len(usual.slow), dtype=np.int64)
        for index, off in enumerate((sign * usual.slow).tolist()):
            # One value that is far off is no drift.
            total = max(0.0, total + min(off, 2 * _SLACK + 2) - _SLACK) if off > -_SLACK else 0.0
            start = index if total == 0 else start
            sums[index], starts[index] = total, start
        limits = np.maximum(own_limits(sums, spans.length_us), _SUM)
        for index in np.flatnonzero(sums >= limits).tolist():
            if spans.begin_us(index) < since_us or sign * usual.slow[index] < _STILL_OFF:
                continue
            if _value_count(usual.series, int(starts[index]), index + 1) >= _VALUES_MIN:
                yield _of_span(usual, spans, index, sign * max(_THRESHOLD, sums[index] / 2))


def _of_minutes(
    usual: SeriesBaseline,
    minutes: Series,
    spans: Spans,
    limits: Matrix,
    budget: Budget,
    since_us: int,
) -> Iterator[Alarm]:
    """Minutes that are off together, up to the last one."""
    first_us = since_us // MINUTE_US * MINUTE_US
    index = first_us - spans.start_us + np.arange(len(minutes.values)) * MINUTE_US
    places = np.clip(index // spans.length_us, 0, spans.count - 1)
    deviation, expected = usual.deviation[places], usual.expected[places]
    share = MINUTE_US / spans.length_us
    counts = np.cumsum(~np.isnan(usual.series.values))[np.maximum(places - 1, 0)]
    is_warm = counts >= _DAY_US // spans.length_us // 2
    if usual.series.field:
        weights = np.where(np.isnan(minutes.values), 0.0, minutes.weights)
        residuals = weights * (np.nan_to_num(minutes.values) - expected)
    else:
        residuals = minutes.values - counts_of(expected) * share
    for window in _VALUE_WINDOWS if usual.series.field else _WINDOWS:
        if window > len(places):
            return
        if usual.series.field:
            weight = _sums(weights, window)
            mean = _sums(residuals, window) / np.maximum(weight, 1)
            z = mean * np.sqrt(weight) / deviation[window - 1 :]
            z = np.where(weight >= _VALUES_MIN, z, 0.0)
            aside = (mean + (expected - usual.usual[places])[window - 1 :]) * np.sqrt(weight)
        else:
            mean = _sums(counts_of(expected) * share, window)
            weight = _sums(minutes.values, window)
            z = (roots_of(weight) - roots_of(mean)) / deviation[window - 1 :]
            seasonal = _sums(counts_of(usual.usual[places]) * share, window)
            aside = roots_of(weight) - roots_of(seasonal)
        ends_in = places[window - 1 :]
        far = np.where(z > 0, limits[0][ends_in], limits[1][ends_in])
        is_aside = np.abs(aside) > _USUAL * deviation[window - 1 :]
        is_far = (np.abs(z) >= far) & is_aside & is_warm[window - 1 :]
        for row in np.flatnonzero(is_far).tolist():
            if usual.series.field:
                centre = float(expected[row + window - 1])
                pair = math.exp(centre), math.exp(centre + float(mean[row]))
            else:
                pair = float(mean[row]), float(weight[row])
                # What comes by the clock, and twice in the window, is no matter of chance.
                is_steady = z[row] < 0 and pair[0] >= _BEATS
                spread = float(deviation[row + window - 1]) ** 2 if is_steady else 1.0
                spread = min(max(spread, baseline.COUNT_VARIANCE), 1.0)
                digits = baseline.poisson_digits(pair[1] / spread, max(pair[0], 0.02) / spread)
                if digits < budget.digits:
                    continue
            # It began where what follows in the window is off most.
            ends = np.cumsum((np.sign(z[row]) * residuals[row : row + window])[::-1])
            start = first_us + (row + window - 1 - int(ends.argmax())) * MINUTE_US
            end = first_us + (row + window) * MINUTE_US
            yield Alarm(start, end, end, float(z[row]), *pair)


def _sums(values: Matrix, window: int) -> Matrix:
    """Sums of as many values that follow one another."""
    totals = np.concatenate([[0.0], np.cumsum(values)])
    sums: Matrix = totals[window:] - totals[:-window]
    return sums
