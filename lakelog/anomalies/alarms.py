"""When a series is so far off that it is an alarm: in a span, in several, or in a few minutes.

Spans teach what is usual; minutes tell sooner that it is not. Nothing looks ahead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from lakelog.anomalies import baseline
from lakelog.anomalies.drifts import drifts
from lakelog.anomalies.limits import (
    BEATS,
    MINUTE_US,
    STILL_OFF,
    USUAL,
    VALUES_MIN,
    Alarm,
    Budget,
    SeriesBaseline,
    counts_of,
    roots_of,
    sums_of,
)
from lakelog.anomalies.series import Gaps, Series, Spans
from lakelog.anomalies.silences import silences
from lakelog.libraries import Floats, np

_RUNS, _WINDOWS, _VALUE_WINDOWS = (1, 3, 6), (1, 2, 3, 5, 8), (3, 5, 8)
"""Spans, and minutes, that are looked at together."""
_STEADY, _REGULAR = 0.3, 0.5


def alarms_of(
    usual: SeriesBaseline,
    minutes: Series | None,
    gaps: Gaps | None,
    spans: Spans,
    since_us: int,
    budget: Budget,
) -> list[Alarm]:
    """Return the alarms of a series since a time, those that follow one another within a span as
    one, in the order in which they were raised.

    `minutes` are its numbers since `since_us` (microseconds), by the minute, and `gaps` the longer
    times without an event; None where they are not looked at. `limits` follow from `budget`, which
    is shared by all series of a run.
    """
    limits = usual.limits(budget, spans)
    every = [*_of_spans(usual, spans, limits, budget, since_us)]
    if usual.series.field:
        every += drifts(usual, minutes, spans, since_us)
    if minutes is not None:
        every += _of_minutes(usual, minutes, spans, limits, budget, since_us)
    if gaps is not None:
        every += silences(usual, gaps, spans, budget, since_us)
    # In the order in which they were raised: an alarm can be joined to earlier ones only, so that a
    # later run reports what an earlier one did. A rise and a fall stay apart, even where they
    # touch.
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
            expected = before.expected
            if not usual.series.field:
                # As many as were expected when it began, for all the time that it goes on: later
                # expectations have learnt from it.
                expected *= (end - before.start_us) / (before.end_us - before.start_us)
            joined[-1] = replace(before, end_us=end, strength=stronger, expected=expected)
        else:
            joined.append(alarm)
    return joined


def _of_spans(
    usual: SeriesBaseline, spans: Spans, limits: Floats, budget: Budget, since_us: int
) -> Iterator[Alarm]:
    """Spans that are off, alone or together with those before them."""
    off, series = usual.off, usual.series
    for run in _RUNS:
        # The sum of n independent deviations has a standard deviation of sqrt(n).
        together = sums_of(off, run) / np.sqrt(run)
        far = np.where(together > 0, limits[0][run - 1 :], limits[1][run - 1 :])
        for index in np.flatnonzero(np.abs(together) >= far).tolist():
            end, strength = index + run, float(together[index])
            # Only while the last span is off to the same side: the spans after an incident, whose
            # sums still hold it, must not raise it again.
            is_over = off[end - 1] * strength <= 0 or abs(off[end - 1]) < STILL_OFF
            if is_over or spans.begin_us(end - 1) < since_us:
                continue
            if series.field:
                is_alarm = _value_count(series, index, end) >= VALUES_MIN
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
    # A mean of 0 would make any event infinitely improbable, and has no logarithm.
    mean = max(float(counts_of(usual.expected[start:end]).sum()), 0.02)
    earlier = usual.series.values[:start]
    # A series that comes by the clock is no matter of chance.
    if len(earlier) and earlier.mean() >= _REGULAR and earlier.var() <= _STEADY * earlier.mean():
        return True
    count = float(usual.series.values[start:end].sum())
    return baseline.poisson_digits(count, mean) >= budget.digits


def _of_minutes(
    usual: SeriesBaseline,
    minutes: Series,
    spans: Spans,
    limits: Floats,
    budget: Budget,
    since_us: int,
) -> Iterator[Alarm]:
    """Minutes that are off together, up to the last one."""
    # Each minute is compared with what was expected of the span that it is in, and of counts with
    # the share of a minute in it.
    first_us = since_us // MINUTE_US * MINUTE_US
    index = first_us - spans.start_us + np.arange(len(minutes.values)) * MINUTE_US
    places = np.clip(index // spans.length_us, 0, spans.count - 1)
    deviation, expected = usual.deviation[places], usual.expected[places]
    share = MINUTE_US / spans.length_us
    is_warm = usual.is_warm(spans)[places]
    if usual.series.field:
        weights = np.where(np.isnan(minutes.values), 0.0, minutes.weights)
        residuals = weights * (np.nan_to_num(minutes.values) - expected)
    else:
        residuals = minutes.values - counts_of(expected) * share
    for window in _VALUE_WINDOWS if usual.series.field else _WINDOWS:
        if window > len(places):
            return
        if usual.series.field:
            weight = sums_of(weights, window)
            mean = sums_of(residuals, window) / np.maximum(weight, 1)
            z = mean * np.sqrt(weight) / deviation[window - 1 :]
            # One slow request in a minute is no change of the mean.
            z = np.where(weight >= VALUES_MIN, z, 0.0)
            off_usual = (mean + (expected - usual.usual[places])[window - 1 :]) * np.sqrt(weight)
        else:
            mean = sums_of(counts_of(expected) * share, window)
            weight = sums_of(minutes.values, window)
            z = (roots_of(weight) - roots_of(mean)) / deviation[window - 1 :]
            seasonal = sums_of(counts_of(usual.usual[places]) * share, window)
            off_usual = roots_of(weight) - roots_of(seasonal)
        # As in the baseline: what is usual at this time of day is no alarm, though the model that
        # was best until now expected something else.
        ends_in = places[window - 1 :]
        far = np.where(z > 0, limits[0][ends_in], limits[1][ends_in])
        is_unusual = np.abs(off_usual) > USUAL * deviation[window - 1 :]
        is_far = (np.abs(z) >= far) & is_unusual & is_warm[window - 1 :]
        for row in np.flatnonzero(is_far).tolist():
            if usual.series.field:
                centre = float(expected[row + window - 1])
                # Fields are compared by their logarithms; a finding shows them as they are.
                pair = math.exp(centre), math.exp(centre + float(mean[row]))
            else:
                pair = float(mean[row]), float(weight[row])
                # What comes by the clock, and twice in the window, is no matter of chance.
                is_steady = z[row] < 0 and pair[0] >= BEATS
                spread = float(deviation[row + window - 1]) ** 2 if is_steady else 1.0
                # Count and mean are divided by the variance, so that the Poisson tail is that of a
                # series which varies less than chance would.
                spread = min(max(spread, baseline.COUNT_VARIANCE), 1.0)
                digits = baseline.poisson_digits(pair[1] / spread, max(pair[0], 0.02) / spread)
                if digits < budget.digits:
                    continue
            # It began where what follows in the window is off most.
            ends = np.cumsum((np.sign(z[row]) * residuals[row : row + window])[::-1])
            count = int(ends.argmax()) + 1
            start = first_us + (row + window - count) * MINUTE_US
            end = first_us + (row + window) * MINUTE_US
            if not usual.series.field:
                pair = pair[0] * count / window, pair[1]
            yield Alarm(start, end, end, float(z[row]), *pair)
