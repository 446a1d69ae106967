"""Values that move by and by: the sum of what they are off by more than a slack (CUSUM: Page,
Biometrika 1954), against the means that do not follow them. Nothing looks ahead.

Spans teach how high such sums are by themselves. Where minutes are looked at, spans that end at
each minute are summed, so that a drift is known at once, and is of means of as many values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from lakelog.anomalies.limits import (
    MINUTE_US,
    STILL_OFF,
    THRESHOLD,
    VALUES_MIN,
    Alarm,
    SeriesBaseline,
    own_limits,
    sums_of,
)
from lakelog.anomalies.series import Series, Spans
from lakelog.libraries import Floats, Integers, np

_SLACK, _SUM, _BEYOND = 0.75, 5.0, 1.8
_OFF_MAX, _END = 3.5, 1e4


def drifts(
    usual: SeriesBaseline, minutes: Series | None, spans: Spans, since_us: int
) -> Iterator[Alarm]:
    """Values that went up or down by and by: known by the minute, where these are looked at."""
    series = usual.series
    # Limits are learnt from spans even where minutes are looked at: minutes reach no further back
    # than the time that was asked for.
    off, _ = _off_slowly(usual, series, np.arange(spans.count), 1, spans)
    step, latest, places = 1, series, np.arange(spans.count)
    if minutes is not None:
        step, latest = spans.length_us // MINUTE_US, minutes
        # Minutes end with the last span, and are counted back from there.
        ends_us = spans.end_us - np.arange(len(minutes.values))[::-1] * MINUTE_US
        places = (ends_us - 1 - spans.start_us) // spans.length_us
    by_step, counts = _off_slowly(usual, latest, places, step, spans)
    first, padding = int(places[0]), -len(places) % step
    # Spans that end at each minute are as many series, each of spans that follow one another.
    rows, blocks, weights = (
        np.concatenate([np.zeros(padding), values]).reshape(-1, step)
        for values in (places, by_step, counts)
    )
    at = rows.astype(np.int64)
    for sign in (1, -1):
        sums, _ = _sums(sign * off)
        limits = own_limits(sums, spans.length_us, _SUM, _BEYOND)
        # A drift may have begun before the first minute: the sum of the spans up to there goes on.
        before = float(sums[first - 1]) if first else 0.0
        sums, starts = _sums(sign * blocks, before)
        is_over = (sums >= limits[at]) & (sign * blocks >= STILL_OFF)
        for row, phase in np.argwhere(is_over).tolist():
            index = row * step + phase - padding
            end_us = spans.end_us - (len(places) - 1 - index) * (spans.length_us // step)
            number = weights[max(int(starts[row, phase]), 0) : row + 1, phase].sum()
            # Padding, spans before the time that was asked for, and sums of too few values.
            if index < 0 or end_us - spans.length_us < since_us or number < VALUES_MIN:
                continue
            lately = latest.values[max(index - step + 1, 0) : index + 1]
            observed = math.exp(float(np.nanmean(lately)))
            # A sum is no number of deviations. Half of it orders drifts by size, and none may stand
            # below the threshold that it has passed in its own way.
            strength = sign * max(THRESHOLD, float(sums[row, phase]) / 2)
            # What a drift is off: the model that was best until now may have followed it.
            expected = math.exp(float(usual.usual[at[row, phase]]))
            yield Alarm(end_us - spans.length_us, end_us, end_us, strength, expected, observed)


def _off_slowly(
    usual: SeriesBaseline, latest: Series, places: Integers, step: int, spans: Spans
) -> tuple[Floats, Floats]:
    """How far means of a span are off what does not follow them, for spans that end at each value
    of a series, and how many values they are of; `places` are its spans."""
    present = ~np.isnan(latest.values) & usual.is_warm(spans)[places]
    counts = np.where(present, latest.weights, 0.0)
    totals = _last(np.where(present, latest.values, 0.0) * counts, step)
    counts = _last(counts, step)
    return usual.off_slowly(totals / np.maximum(counts, 1), counts, places), counts


def _last(values: Floats, count: int) -> Floats:
    """Sums of as many values up to each one; of fewer at the beginning."""
    return sums_of(np.concatenate([np.zeros(count - 1), values]), count)


def _sums(off: Floats, before: float = 0.0) -> tuple[Floats, Floats]:
    """Return the sums of what is off by more than the slack, down the rows, never below 0, and the
    row where each began; `before` is what they were before the first row."""
    # One value that is far off is no drift, and one to the other side ends it.
    steps = np.where(off > -_SLACK, np.minimum(off, _OFF_MAX) - _SLACK, -_END)
    # CUSUM without a loop: a sum that is never let below 0 is the total less the lowest total so
    # far, and it began where the total was lowest last.
    totals = np.cumsum(np.concatenate([np.full((1, *off.shape[1:]), before), steps]), axis=0)
    lows = np.minimum.accumulate(np.minimum(totals, 0.0), axis=0)
    rows = np.arange(len(totals)).reshape(-1, *[1] * (off.ndim - 1))
    starts = np.maximum.accumulate(np.where(totals <= lows, rows, 0), axis=0)
    return (totals - lows)[1:], starts[1:]
