"""What a policy would have been worth, estimated from decisions that another one made.

A policy gives each decision an option, or all options the same chance. What it would have brought
is known only where its option is the recorded one. With w = chance / propensity, r the outcome and
q what an option usually brings in a context:

    IPS     mean of w r: Horvitz and Thompson, JASA 1952
    SNIPS   the same with normalised weights: Swaminathan and Joachims, NIPS 2015
    DR      mean of q + w (r - q), weights normalised, q learnt from other subjects: Dudik, Langford
            and Li, "Doubly robust policy evaluation and learning", ICML 2011

Without propensities they are how often an option was chosen in its context. Then the three are the
same number, the mean of contexts (post-stratification), and so is their interval. Intervals are of
the influence of each subject (intervals.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lakelog.decisions.intervals import (
    LEVEL,
    Interval,
    JsonFinding,
    WeightedShares,
    effective_count,
    ends,
    ranks,
    scored,
    skewed,
)
from lakelog.libraries import Booleans, Floats, Integers, np

IPS, SNIPS, DR = "IPS", "SNIPS", "DR"
METHODS = (IPS, SNIPS, DR)
EFFECTIVE_MIN = 30
"""Effective samples below which nothing is said of a policy."""
_CELL_MIN = 5
"""Known outcomes below which a context is left out."""
_FOLDS = 5
_PRIOR = 5.0
"""Decisions that what an option brings everywhere counts for in each context."""
_SKEWED = 0.3
"""Skewness of a mean above which its interval may be too narrow."""
_SIGNIFICANT = 4.0
"""Standard errors that the mean of weights may be away from 1."""
_SHRINKING = 4.0
"""Outcomes of usual variance that are added to tell how much a model of outcomes lowers it."""


@dataclass(frozen=True)
class LoggedChoices:
    """Decisions with a known outcome, as columns. `contexts` and `options` are numbers from 0 on,
    `clusters` those of the subjects; `propensities` are from 0 to 1, or None. `scale` has the two
    values of outcomes where there are but two, the lower first."""

    contexts: Integers
    options: Integers
    rewards: Floats
    clusters: Integers
    propensities: Floats | None
    option_count: int
    scale: tuple[float, float] | None

    def __len__(self) -> int:
        return len(self.rewards)

    def among(self, mask: Booleans) -> LoggedChoices:
        """The decisions of a mask."""
        propensities = self.propensities
        return LoggedChoices(
            ranks(self.contexts[mask]),
            self.options[mask],
            self.rewards[mask],
            ranks(self.clusters[mask]),
            None if propensities is None else propensities[mask],
            self.option_count,
            self.scale,
        )


def scale_of(rewards: Floats) -> tuple[float, float] | None:
    """Return the two values that rewards have, the lower first; None if there are more."""
    if not len(rewards):
        return None
    low, high = float(rewards.min()), float(rewards.max())
    if low == high:  # the other value is likely to be 0, or 1 where this one is
        return min(low, 0.0), max(high, 0.0) or 1.0
    return (low, high) if bool(((rewards == low) | (rewards == high)).all()) else None


@dataclass(frozen=True)
class PolicyValue(JsonFinding):
    """What a policy is worth by one method: decisions that it is about, those left out for want of
    known outcomes, effective samples, the value and how much more that is than what was recorded;
    both None without enough overlap. `cautions` are sentences."""

    method: str
    decisions: int
    left_out: int
    effective: float
    value: Interval | None
    gain: Interval | None
    cautions: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """The value and the gain as JSON has them."""
        return {"method": self.method, **ends("value", self.value), **ends("gain", self.gain)}


def usual_outcomes(log: LoggedChoices) -> tuple[Floats, Integers]:
    """Return what each option brings in each context, learnt from the other folds, as an array of
    folds, contexts and options; and the fold of each decision."""
    # Numbers of clusters may follow the order of time: mixed, so that each fold has all times.
    folds = (log.clusters * 2_654_435_761 % 2**32 >> 7) % _FOLDS
    contexts = int(log.contexts.max()) + 1 if len(log) else 1
    shape = (_FOLDS, contexts, log.option_count)
    cells = (folds * contexts + log.contexts) * log.option_count + log.options
    size = math.prod(shape)
    sums = np.bincount(cells, log.rewards, size).reshape(shape)
    counts = np.bincount(cells, minlength=size).reshape(shape).astype(float)
    # Each fold is told by all others: an outcome must not vote for its own option.
    sums, counts = sums.sum(0) - sums, counts.sum(0) - counts
    overall = sums.sum((1, 2)) / np.maximum(counts.sum((1, 2)), 1)
    # Cells of few decisions lean on the option in all contexts, and that on all options.
    by_option = (sums.sum(1) + _PRIOR * overall[:, None]) / (counts.sum(1) + _PRIOR)
    return (sums + _PRIOR * by_option[:, None, :]) / (counts + _PRIOR), folds


def best_options(log: LoggedChoices) -> Integers:
    """Return for each decision the option that brought most in its context, to other subjects."""
    usual, folds = usual_outcomes(log)
    best: Integers = usual.argmax(2)[folds, log.contexts]
    return best


def evaluate(
    log: LoggedChoices, targets: Integers | None, level: float = LEVEL
) -> dict[str, PolicyValue]:
    """Return what a policy is worth by each method. `targets` are its options; None gives all
    options the same chance."""
    if log.propensities is None:
        return _stratified(log, targets, level)
    return _weighted(log, targets, log.propensities, level)


def _weighted(
    log: LoggedChoices, targets: Integers | None, propensities: Floats, level: float
) -> dict[str, PolicyValue]:
    """Each method with recorded propensities."""
    weights = _chances(log, targets) / propensities
    effective = effective_count(weights)
    if not _is_enough(log, effective):
        return {m: PolicyValue(m, len(log), 0, effective, None, None) for m in METHODS}
    usual, folds = usual_outcomes(log)
    rows = usual[folds, log.contexts]
    expected = rows.mean(1) if targets is None else rows[np.arange(len(log)), targets]
    residuals = log.rewards - rows[np.arange(len(log)), log.options]
    # Normalised: with wrong or few propensities the weights do not average 1, and an estimate would
    # be scaled by that.
    normal = weights / weights.mean()
    # A mean of few outcomes fits them better than those that are not known.
    correction = math.sqrt(effective / (effective - 1))
    plain = weights * log.rewards
    snips = float((normal * log.rewards).mean())
    shift = float((normal * residuals).mean())
    base = normal * (log.rewards - snips) * correction
    doubly = expected - expected.mean() + normal * (residuals - shift) * correction
    cautions, doubt = _weight_cautions(weights), _doubt(log, targets)
    estimation = _Estimation(log, effective, level, cautions, doubt=doubt)
    return {
        IPS: estimation.value(IPS, float(plain.mean()), plain - plain.mean(), weights),
        SNIPS: estimation.value(SNIPS, snips, base, normal, base),
        DR: estimation.value(DR, float(expected.mean()) + shift, doubly, normal, base),
    }


def _stratified(
    log: LoggedChoices, targets: Integers | None, level: float
) -> dict[str, PolicyValue]:
    """All methods where propensities are the shares of options in their context."""
    total = len(log)
    matches = _chances(log, targets) > 0
    # What a policy chooses may depend on more than the context.
    strata = log.contexts if targets is None else log.contexts * log.option_count + targets
    cells = strata * log.option_count + log.options
    strata, cells = ranks(strata), ranks(cells)
    covered = _covered(log, strata, cells, matches, is_uniform=targets is None)
    covered_log = log.among(covered)
    strata, cells, matches = ranks(strata[covered]), ranks(cells[covered]), matches[covered]
    left_out = total - len(covered_log)
    if not len(covered_log):
        return {m: PolicyValue(m, 0, left_out, 0.0, None, None) for m in METHODS}
    chances = np.full(len(covered_log), 1 / log.option_count) if targets is None else 1.0 * matches
    # A decision stands for all of its stratum, and shares that with those of the same option.
    counts = np.bincount(cells)[cells]
    weights = chances * np.bincount(strata)[strata] / counts
    effective = effective_count(weights)
    if not _is_enough(covered_log, effective):
        return {
            m: PolicyValue(m, len(covered_log), left_out, effective, None, None) for m in METHODS
        }
    means = (np.bincount(cells, covered_log.rewards) / np.maximum(np.bincount(cells), 1))[cells]
    by_stratum = np.bincount(strata, weights * means) / np.bincount(strata)
    expected = by_stratum[strata]
    value = float(expected.mean())
    correction = np.sqrt(counts / np.maximum(counts - 1, 1))
    influence = expected - value + weights * (covered_log.rewards - means) * correction
    base = weights * (covered_log.rewards - value)
    estimation = _Estimation(covered_log, effective, level, (), left_out)
    return {m: estimation.value(m, value, influence, weights, base) for m in METHODS}


def _covered(
    log: LoggedChoices, strata: Integers, cells: Integers, matches: Booleans, *, is_uniform: bool
) -> Booleans:
    """Decisions of contexts in which enough is known of what the policy would choose there."""
    if not len(log):
        return np.zeros(0, dtype=bool)
    if is_uniform:
        firsts = np.unique(cells[np.bincount(cells)[cells] >= _CELL_MIN], return_index=True)[1]
        places = np.flatnonzero(np.bincount(cells)[cells] >= _CELL_MIN)[firsts]
        enough: Booleans = (
            np.bincount(strata[places], minlength=strata.max() + 1) == log.option_count
        )
        return enough[strata]
    covered: Booleans = (np.bincount(strata, matches) >= _CELL_MIN)[strata]
    return covered


def _doubt(log: LoggedChoices, targets: Integers | None) -> float:
    """The variance of a mean, in that of outcomes, for contexts in which few options are those of
    the policy: few outcomes there differ less from one another than from the truth."""
    strata = log.contexts if targets is None else log.contexts * log.option_count + targets
    sizes, matches = np.bincount(strata), np.bincount(strata, _chances(log, targets) > 0)
    is_little = (sizes > 0) & (matches < _CELL_MIN)
    return float(((sizes[is_little] / len(log)) ** 2 / (matches[is_little] + 1)).sum())


def _chances(log: LoggedChoices, targets: Integers | None) -> Floats:
    if targets is None:
        return np.full(len(log), 1 / max(log.option_count, 1))
    chances: Floats = (log.options == targets).astype(float)
    return chances


def _is_enough(log: LoggedChoices, effective: float) -> bool:
    return effective >= EFFECTIVE_MIN and int(log.clusters.max()) > 0


def _weight_cautions(weights: Floats) -> tuple[str, ...]:
    mean = float(weights.mean())
    error = float(weights.std()) / math.sqrt(len(weights))
    if abs(mean - 1) <= _SIGNIFICANT * error:
        return ()
    return (f"the recorded propensities do not fit: weights average {mean:.2f}, not 1",)


@dataclass(frozen=True)
class _Estimation:
    """What the estimates of one policy have in common."""

    log: LoggedChoices
    effective: float
    level: float
    cautions: tuple[str, ...]
    left_out: int = 0
    doubt: float = 0.0

    def value(
        self,
        method: str,
        mean: float,
        influence: Floats,
        weights: Floats,
        base: Floats | None = None,
    ) -> PolicyValue:
        """`influence` is how far each decision moves the mean, times their number; `base` how far
        it would move that of normalised weights, which is what `weights` are then."""
        log = self.log
        # Of all values, an interval from moments; of two, the score interval, which stays within
        # them and is right for few outcomes.
        deviations = self._clustered(influence)
        scale = log.scale if base is not None or (log.scale or (1,))[0] == 0 else None
        cautions = self.cautions
        if scale is None:
            interval = skewed(mean, deviations, self._freedom, self.level)
            square = float((deviations**2).sum())
            if square and abs(float((deviations**3).sum())) > _SKEWED * square**1.5:
                cautions += ("a few outcomes decide: the interval may be too narrow",)
        else:
            interval = self._scored(scale, mean, influence, weights, base)
        recorded = float(log.rewards.mean())
        # Paired: what is common to the policy and to what was recorded cancels out.
        changes = influence - (log.rewards - recorded)
        gain = self._gain(mean - recorded, changes, weights)
        return PolicyValue(
            method, len(log), self.left_out, self.effective, interval, gain, cautions
        )

    @property
    def _freedom(self) -> float:
        return min(float(self.log.clusters.max()) + 1, self.effective) - 1

    def _clustered(self, influence: Floats) -> Floats:
        sums: Floats = np.bincount(self.log.clusters, influence) / len(influence)
        if not self.doubt:
            return sums
        # As a deviation in either direction, which widens an interval and does not move it.
        reach = math.sqrt(self.doubt / 2) * float(self.log.rewards.std())
        return np.concatenate([sums, [reach, -reach]])

    def _scored(
        self,
        scale: tuple[float, float],
        mean: float,
        influence: Floats,
        weights: Floats,
        base: Floats | None,
    ) -> Interval:
        """The interval of a mean of two values."""
        low, high = scale
        shares = WeightedShares.of(weights, (self.log.rewards - low) / (high - low))
        square = float((influence**2).sum())
        # Decisions of one subject say less than as many of several.
        clustered = float((self._clustered(influence) ** 2).sum()) * len(influence) ** 2
        factor = max(clustered / square, 1.0) if square else 1.0
        variance = shares.plain
        if base is not None:
            variance = shares.normalised
            usual = float((base**2).sum())
            if usual:
                floor = _SHRINKING * usual
                factor *= (square * self.effective + floor) / (usual * self.effective + floor)
        factor /= len(influence)
        unit = scored(
            (mean - low) / (high - low),
            lambda share: factor * variance(share),
            self._freedom,
            self.level,
        )
        ends = (low + (high - low) * end for end in (unit.low, unit.high))
        return Interval(mean, *ends)

    def _gain(self, mean: float, changes: Floats, weights: Floats) -> Interval:
        deviations = self._clustered(changes)
        # Where each weight is 1 as well, the policy is the recorded one, and nothing is open.
        is_open = deviations.any() or not np.allclose(weights, 1)
        if self.log.scale is not None and is_open:
            # An outcome of each value more: few outcomes may all have the same one.
            low, high = self.log.scale
            usual = float((weights**2).sum()) / float(weights.sum())
            reach = usual * (high - low) / 2 / len(changes)
            deviations = np.concatenate([deviations, [reach, -reach]])
        return skewed(mean, deviations, self._freedom, self.level)
