"""A better value for a numeric setting, from what came of the values that were used.

Values are put into bins. Each bin's mean outcome is that of always using it, adjusted for context
(offpolicy.py). A Gaussian process through these means, with their own variances as noise, says how
the outcome depends on the setting (Rasmussen and Williams, "Gaussian processes for machine
learning", 2006, chapter 2), averaged over how smooth and how high it may be by their likelihood.
The value with the highest certain gain over the present one is proposed, if that is above 0, the
bin's own mean is higher, too, and so it was in the later decisions. Only values that were used are
proposed.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

from lakelog.decisions.intervals import LEVEL, Interval, JsonFinding, difference
from lakelog.decisions.logged import PointLog
from lakelog.decisions.offpolicy import DR, LoggedChoices, evaluate
from lakelog.decisions.recommendation import CERTAIN, NO_EVIDENCE, early
from lakelog.libraries import Floats, Integers, np

PROPOSED = "proposed"
_BINS_MAX, _BINS_MIN = 12, 3
_LEFT_OUT_MAX = 0.1
"""Share of decisions in contexts where a value was used too little: with more, the bins would be
means of different contexts."""
_NEWEST = 200
"""Decisions whose most frequent value is the one that is used now."""
_WIDE = 20.0
"""Ratio of the highest value to the lowest from which a setting is compared by its logarithm, as
timeouts and batch sizes are chosen."""
_LENGTHS = (0.1, 0.2, 0.4, 0.8, 1.6)
_HEIGHTS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Length scales, in the range of the setting, and heights, in the variance of the means, over which
the curve is averaged."""


@dataclass(frozen=True)
class SettingValue(JsonFinding):
    """A value of a setting, the outcomes that it had, their mean by itself, and the curve's."""

    value: float
    rated: int
    reward: Interval
    curve: Interval


@dataclass(frozen=True, kw_only=True)
class SettingProposal(JsonFinding):
    """What to set in a context: `proposed` if `verdict` is so, else None, and why. `gain` is how
    much more the best value would bring than `current`, which is used now. `as_of` is the time of
    the newest decision."""

    point: str
    snapshot: str
    as_of: datetime.datetime
    context: dict[str, str]
    setting: str
    verdict: str = NO_EVIDENCE
    reason: str = ""
    proposed: float | None = None
    current: float | None = None
    gain: Interval | None = None
    values: tuple[SettingValue, ...] = ()
    members: tuple[str, ...]
    notes: tuple[str, ...]
    query: str

    def record(self) -> dict[str, Any]:
        """The proposal as JSON has it."""
        record = super().record()
        return record | {"adjusted_for": record.pop("members")}


def proposal(log: PointLog, finding: SettingProposal) -> SettingProposal:
    """Complete a proposal, of which point, setting and evidence are known."""
    assert log.settings is not None
    usable = log.rated & ~np.isnan(log.settings)
    values = log.settings[usable]
    distinct = np.unique(values)
    if len(distinct) < _BINS_MIN:
        return replace(
            finding, reason=f"{len(distinct)} values have outcomes; it takes {_BINS_MIN}"
        )
    bins, centres = _bins(values, distinct)
    # The mode of the newest ones: a single trial of another value is no change.
    current = int(np.bincount(bins[-_NEWEST:]).argmax())
    finding = replace(finding, current=float(centres[current]))
    choices = replace(
        log.choices().among(usable[log.rated]),
        options=bins,
        propensities=None,
        option_count=len(centres),
    )
    curve = _curve(choices, centres)
    if curve is None or current not in curve.numbers or len(curve.numbers) < _BINS_MIN:
        return replace(finding, reason="too few values have 30 effective outcomes in all contexts")
    best, gain = curve.best(current)
    finding = replace(finding, values=tuple(curve.values(centres, choices)))
    if best == current or gain.low <= 0:
        return replace(finding, reason="no value is better for certain")
    finding = replace(finding, gain=gain)
    # A smooth curve can lift a bin above its own outcomes by what its neighbours brought.
    if curve.raw_gain(best, current) <= 0:
        return replace(finding, reason="the curve says so, and the outcomes of the value do not")
    # The best of several bins looks better than it is: what the earlier decisions alone would have
    # led to has to be better in those that followed.
    is_early = early(len(choices))
    before = _curve(choices.among(is_early), centres)
    after = _curve(choices.among(~is_early), centres)
    tried = before.best(current)[0] if before and current in before.numbers else best
    tried = best if tried == current else tried
    if after is None or not {tried, current} <= set(after.numbers):
        return replace(finding, reason="too few later decisions to try it on")
    if after.raw_gain(tried, current) <= 0:
        return replace(finding, reason="it was not better in the later decisions")
    reason = "better than the value that is used now, also in later decisions"
    return replace(finding, verdict=PROPOSED, proposed=float(centres[best]), reason=reason)


def _bins(values: Floats, distinct: Floats) -> tuple[Integers, Floats]:
    """The bin of each value, and a value that was used in the middle of each bin."""
    if len(distinct) <= _BINS_MAX:
        return np.searchsorted(distinct, values), distinct
    # Quantiles, for settings crowd; `lower`, so that an edge is a value that was used.
    shares = np.linspace(0, 1, _BINS_MAX + 1)[1:-1]
    edges = np.unique(np.quantile(values, shares, method="lower"))
    bins = np.searchsorted(edges, values, side="right")
    bins = np.unique(bins, return_inverse=True)[1]
    centres = [
        np.quantile(values[bins == number], 0.5, method="lower") for number in range(bins.max() + 1)
    ]
    return bins, np.array(centres)


def _curve(choices: LoggedChoices, centres: Floats) -> _Curve | None:
    """The curve through the bins of which enough is known, in nearly all contexts."""
    intervals: dict[int, Interval] = {}
    for number in range(len(centres)):
        targets = np.full(len(choices), number)
        worth = evaluate(choices, targets)[DR]
        if worth.value and worth.left_out <= _LEFT_OUT_MAX * len(choices):
            intervals[number] = worth.value
    if len(intervals) < _BINS_MIN:
        return None
    # A range of several powers of ten is no distance on a line.
    positions = np.log(centres) if centres[0] > 0 and centres[-1] > _WIDE * centres[0] else centres
    return _Curve(intervals, np.array([positions[number] for number in intervals]))


class _Curve:
    """A Gaussian process through the means of bins."""

    def __init__(self, intervals: dict[int, Interval], positions: Floats) -> None:
        self.numbers, self._intervals = list(intervals), intervals
        means = np.array([interval.mean for interval in intervals.values()])
        widths = np.array([interval.high - interval.low for interval in intervals.values()])
        # The variance that the width of an interval came from; at 0 the matrix would have no
        # inverse.
        noise = np.maximum((widths / 2 / NormalDist().inv_cdf((1 + LEVEL) / 2)) ** 2, 1e-12)
        self._posteriors(means, noise, (positions - positions.min()) / np.ptp(positions))

    def _posteriors(self, means: Floats, noise: Floats, positions: Floats) -> None:
        """Means and covariances under each length and height, with their likelihoods."""
        distances = (positions[:, None] - positions[None, :]) ** 2
        spread = max(float(means.var()), float(noise.mean()))
        self._fits: list[tuple[float, Floats, Floats]] = []
        for length in _LENGTHS:
            for height in _HEIGHTS:
                prior = height * spread * np.exp(-distances / 2 / length**2)
                # The level is not known: a constant of a wide prior.
                prior += 100 * spread
                total = prior + np.diag(noise)
                inverse = np.linalg.inv(total)
                centred = means - means.mean()
                posterior = means.mean() + prior @ inverse @ centred
                covariance = prior - prior @ inverse @ prior
                likelihood = -0.5 * (
                    centred @ inverse @ centred + float(np.linalg.slogdet(total)[1])
                )
                self._fits.append((likelihood, posterior, covariance))
        # Likelihoods underflow: only their ratios are computed.
        highest = max(fit[0] for fit in self._fits)
        weights = np.exp(np.array([fit[0] - highest for fit in self._fits]))
        self._weights = weights / weights.sum()

    def _mixture(self, direction: Floats) -> tuple[float, float]:
        """The mean and standard deviation of a combination of the bins."""
        means = np.array([direction @ posterior for _, posterior, _ in self._fits])
        variances = np.array([direction @ covariance @ direction for *_, covariance in self._fits])
        mean = float(self._weights @ means)
        variance = float(self._weights @ (np.maximum(variances, 0) + (means - mean) ** 2))
        return mean, variance**0.5

    def best(self, current: int) -> tuple[int, Interval]:
        """The bin with the highest certain gain over another, and that gain."""
        # Bonferroni: each other bin is a test that may be won by chance.
        tests = max(len(self.numbers) - 1, 1)
        reach = NormalDist().inv_cdf(1 - (1 - CERTAIN) / 2 / tests)
        gains = {current: Interval(0.0, 0.0, 0.0)}
        for place, number in enumerate(self.numbers):
            if number == current:
                continue
            direction = np.zeros(len(self.numbers))
            direction[place] = 1.0
            # As one combination, for the errors of neighbouring bins are correlated.
            direction[self.numbers.index(current)] = -1.0
            mean, deviation = self._mixture(direction)
            gains[number] = Interval(mean, mean - reach * deviation, mean + reach * deviation)
        best = max(gains, key=lambda number: gains[number].low)
        return best, gains[best]

    def raw_gain(self, number: int, current: int) -> float:
        """How much more a bin brought than another, by their own means."""
        return difference(self._intervals[number], self._intervals[current]).mean

    def values(self, centres: Floats, choices: LoggedChoices) -> list[SettingValue]:
        """Each bin with its mean and the curve's."""
        counts = np.bincount(choices.options, minlength=len(centres))
        reach = NormalDist().inv_cdf((1 + LEVEL) / 2)
        entries = []
        for place, number in enumerate(self.numbers):
            direction = np.zeros(len(self.numbers))
            direction[place] = 1.0
            mean, deviation = self._mixture(direction)
            curve = Interval(mean, mean - reach * deviation, mean + reach * deviation)
            value, rated = float(centres[number]), int(counts[number])
            entries.append(SettingValue(value, rated, self._intervals[number], curve))
        return entries
