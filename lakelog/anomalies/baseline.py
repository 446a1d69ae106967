"""What a series is expected to be at each moment, and how far from that it is.

Three models run beside one another: a short mean, a long mean, and a mean by time of day. The one
with the least error so far says what is expected. What is far off is learnt only in part, so that
an incident does not become the norm at once. Nothing looks ahead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from lakelog.libraries import Booleans, Floats, np

COUNT_VARIANCE, VALUE_VARIANCE = 0.02, 1e-4
"""The least variance that a series is taken to have, of roots of counts and of logarithms."""
_SHORT, _SEASON_GAIN = 4, 0.4
_CLIP, _USUAL = 3.0, 2.0
_DIGITS_MAX = 300.0


@dataclass(frozen=True)
class Deviations:
    """Of each value of each series: how many standard deviations it is `off`, what was `expected`,
    and the `deviation` of a value of weight 1; and the same of the two models that do not follow
    what goes up by and by: what is `usual` at this time of day, and what the last days had."""

    off: Floats
    expected: Floats
    deviation: Floats
    usual: Floats
    usual_deviation: Floats
    lately: Floats
    lately_deviation: Floats


ROWS = tuple(field.name for field in fields(Deviations))
"""The fields of Deviations, each of which has a row for each series."""


def deviations(values: Floats, weights: Floats, period: int, least_variance: float) -> Deviations:
    """Return how far values are from what was expected of each before it came.

    `values` has a row for each series and a column for each span of time, on a scale of constant
    variance, NaN where there is none; a value of weight w has the variance of a mean of w.
    `period` is the number of spans in a day. Until half a day is known, nothing is off.
    """
    models = _Models(values.shape[0], period, least_variance)
    steps = np.zeros((len(ROWS), *values.shape))
    for column in range(values.shape[1]):
        steps[:, :, column] = models.step(values[:, column], weights[:, column], column % period)
    return Deviations(*steps)


class _Models:
    """The three models of all series."""

    def __init__(self, series: int, period: int, least_variance: float) -> None:
        self._period, self._least = period, least_variance
        self._short, self._long, self._seen = np.zeros(series), np.zeros(series), np.zeros(series)
        self._season = np.full((series, period), np.nan)
        self._variance = np.full((3, series), least_variance)
        self._gain_short = 1 - 0.5 ** (1 / _SHORT)
        self._gain_long = 1 - 0.5 ** (1 / (2 * period))
        self._gain_variance = 1 - 0.5 ** (1 / period)

    def step(self, values: Floats, weights: Floats, slot: int) -> Floats:
        """Compare values with what is expected, then learn them; return the rows of Deviations."""
        present = ~np.isnan(values)
        values, weights = np.where(present, values, 0.0), np.where(present, weights, 1.0)
        means = np.stack([self._short, self._long, self._seasonal(slot)])
        # Chosen by the errors up to the value before: this one is learnt below, so that nothing
        # looks ahead.
        best = np.argmin(self._variance, axis=0)[None]
        expected = np.take_along_axis(means, best, 0)[0]
        variance = np.take_along_axis(np.maximum(self._variance, self._least), best, 0)[0]
        deviation = np.sqrt(variance / weights)
        is_warm = self._seen >= self._period / 2
        # A return to what is usual at this time of day is nothing unusual.
        usual = np.abs(values - means[2]) <= _USUAL * np.sqrt(self._variance[2] / weights)
        off = np.where(present & is_warm & ~usual, (values - expected) / deviation, 0.0)
        slow = np.sqrt(np.maximum(self._variance[1:], self._least))
        self._learn_variance(values, weights, means, present, is_warm)
        low, high = expected - _CLIP * deviation, expected + _CLIP * deviation
        self._learn_means(
            values, np.where(is_warm, np.clip(values, low, high), values), present, slot
        )
        return np.stack([off, expected, np.sqrt(variance), means[2], slow[1], means[1], slow[0]])

    def _seasonal(self, slot: int) -> Floats:
        """The mean of this time of day and its neighbours; the long mean where there is none."""
        slots = self._season[:, [(slot - 1) % self._period, slot, (slot + 1) % self._period]]
        filled = ~np.isnan(slots)
        sums = np.where(filled, slots, 0.0).sum(axis=1)
        count = filled.sum(axis=1)
        return np.where(count > 0, sums / np.maximum(count, 1), self._long)

    def _learn_variance(
        self, values: Floats, weights: Floats, means: Floats, present: Booleans, is_warm: Booleans
    ) -> None:
        # One incident must not widen the limits for those after it. Before half a day is known
        # there is no deviation to clip by, and all is learnt.
        limit = np.where(is_warm, _CLIP**2 * np.maximum(self._variance, self._least), np.inf)
        squares = np.minimum((values - means) ** 2 * weights, limit)
        # A plain mean in the first day, in which the least variance counts as one value; from then
        # on an exponential one, which a day later has forgotten half.
        gain = np.where(self._seen < self._period, 1 / (self._seen + 2), self._gain_variance)
        learnt = self._variance + gain * (squares - self._variance)
        self._variance = np.where(present, learnt, self._variance)

    def _learn_means(self, values: Floats, clipped: Floats, present: Booleans, slot: int) -> None:
        # Of the first values a plain mean: with the gain of later ones, means would hold on to the
        # zero that they begin with.
        young = 1 / (self._seen + 1)
        # The short mean follows a new level at once, as it learns all of a value. The slow ones
        # learn what is within `_CLIP` deviations, so that an incident does not become the norm.
        short = self._short + np.maximum(self._gain_short, young) * (values - self._short)
        long = self._long + np.maximum(self._gain_long, young) * (clipped - self._long)
        season = self._season[:, slot]
        season_mean = np.where(np.isnan(season), values, season + _SEASON_GAIN * (clipped - season))
        self._short = np.where(present, short, self._short)
        self._long = np.where(present, long, self._long)
        self._season[:, slot] = np.where(present, season_mean, season)
        self._seen += present


def poisson_digits(count: float, mean: float) -> float:
    """Return -log10 of the probability that a Poisson variable of this mean is as far off as a
    count, to the side where the count is."""
    # In logarithms, as exp(-mean) alone is 0 from a mean of 746 on.
    if count > mean:
        term = total = 1.0
        step = count
        # P(X >= count) is its first term times a series in which each term is the one before times
        # mean / step: it falls faster than a geometric series.
        while term > 1e-9 * total:
            step += 1
            term *= mean / step
            total += term
        logarithm = count * math.log(mean) - mean - math.lgamma(count + 1) + math.log(total)
    else:
        # P(X <= count): the largest terms are those next to the count, and 200 of them bound
        # the work where counts are in the millions.
        logarithms = [
            k * math.log(mean) - mean - math.lgamma(k + 1)
            for k in range(max(0, int(count) - 200), int(count) + 1)
        ]
        largest = max(logarithms)
        logarithm = largest + math.log(sum(math.exp(value - largest) for value in logarithms))
    return min(-logarithm / math.log(10), _DIGITS_MAX)
