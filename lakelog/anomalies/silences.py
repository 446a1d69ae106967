"""Silence of a source: the time since its last event, by the rate of this time of day.

How many events were due in a gap is, where they come by chance, exponentially distributed at any
rate (the time change of a point process): so gaps by night and by day are one sample, and a source
that is slow by night may be silent for longer then. The scale of the distribution is learnt from
the gaps before. An alarm is raised at the moment from which such gaps are too rare, not at the end
of a span. Nothing looks ahead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from lakelog.anomalies import baseline
from lakelog.anomalies.limits import (
    BEATS,
    USUAL,
    Alarm,
    Budget,
    SeriesBaseline,
    counts_of,
    roots_of,
)
from lakelog.anomalies.series import GAP_US, Gaps, Spans
from lakelog.libraries import Floats, np

_TAIL, _EXCESS_MAX = 3.0, 50.0
"""Events due from which on a gap teaches, and at most so many: one incident must not teach."""
_PRIOR = 20.0
"""Gaps that the variance of the series counts for."""
_BEYOND = 1.2
_SHARE = 14.0
"""So many times as often as a span of one series may be off by chance: few series have silences
that are chance, and spans are looked at in several ways."""


def silences(
    usual: SeriesBaseline, gaps: Gaps, spans: Spans, budget: Budget, since_us: int
) -> Iterator[Alarm]:
    """Yield the gaps of a series that were too long, raised since a time."""
    edges = spans.start_us + np.arange(spans.count + 1) * spans.length_us
    # From here on time is counted in events that were due. No rate is 0, as `raised_us` is looked
    # up backwards, for which what is due has to rise with time.
    rates = np.maximum(usual.counts(), 1e-9)
    due, due_usually = (
        np.concatenate([[0.0], np.cumsum(counts)]) for counts in (rates, counts_of(usual.usual))
    )
    begins = np.interp(gaps.begins_us, edges, due)
    lengths = np.interp(gaps.ends_us, edges, due) - begins
    # Shorter gaps are not in the sample, so that their distribution begins at this length.
    floors = np.interp(gaps.begins_us + GAP_US, edges, due) - begins
    places = np.clip((gaps.begins_us - spans.start_us) // spans.length_us, 0, spans.count - 1)
    variance = np.maximum(usual.deviation[places] ** 2, baseline.COUNT_VARIANCE)
    scale = _scales(lengths, np.maximum(floors, _TAIL), np.maximum(variance, 1.0))
    tests = np.maximum(rates[places], 1.0) * 10**budget.digits / _SHARE
    rare = scale * np.log(np.maximum(tests, 1.0))
    # What comes by the clock is no matter of chance.
    least = budget.digits * math.log(10) * np.minimum(variance, 1.0)
    least_due = np.maximum.reduce([rare, least, _BEYOND * _third_longest(lengths)])
    least_due = np.maximum(least_due, BEATS)
    is_warm = usual.is_warm(spans)
    for index in np.flatnonzero(lengths >= least_due).tolist():
        begin_us, missing = int(gaps.begins_us[index]), float(least_due[index])
        raised_us = int(np.interp(begins[index] + missing, due, edges)) + 1
        place = min((raised_us - spans.start_us) // spans.length_us, spans.count - 1)
        deviation = float(usual.deviation[place])
        seasonal = np.diff(np.interp([begin_us, raised_us], edges, due_usually))[0]
        none, expected, usually = roots_of(np.array([0.0, missing, seasonal])).tolist()
        strength = (none - expected) / deviation
        is_unusual = usually - none > USUAL * deviation
        if raised_us >= since_us and is_warm[place] and is_unusual:
            # Behind the last event, which the query of the finding must not show.
            yield Alarm(begin_us + 1, raised_us, raised_us, strength, missing, 0.0)


def _scales(lengths: Floats, floors: Floats, variance: Floats) -> Floats:
    """The mean by which gaps that are longer than their floors exceeded these, before each gap."""
    is_long = lengths > floors
    excess = np.where(is_long, np.minimum(lengths - floors, _EXCESS_MAX), 0.0)
    # Sums less the gap itself: of those before it alone.
    total = _PRIOR * variance + np.cumsum(excess) - excess
    return np.asarray(total / (_PRIOR + np.cumsum(is_long) - is_long))


def _third_longest(lengths: Floats) -> Floats:
    """The third longest gap before each one: longer ones may have been incidents."""
    triples = itertools.accumulate(
        lengths.tolist(), lambda three, gap: sorted([*three, gap])[1:], initial=[0.0] * 3
    )
    return np.array([three[0] for three in triples])[:-1]
