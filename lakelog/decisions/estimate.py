"""What other answers would have gained, estimated from the outcomes of those that were given.

An outcome is known only where the new answer is the recorded one. Decisions are compared within
cells, in which what was recorded is taken to be independent of what would have come of it:

    with propensities      one cell; an outcome that is known weighs 1 / propensity, and weights are
                           normalised: Swaminathan and Joachims, "The self-normalized estimator for
                           counterfactual learning", NIPS 2015
    without                a cell is a context and a new answer, an outcome that is known weighs as
                           all decisions of its cell together: post-stratification

The gain is the mean of `q + w (r - q) - r`: q is the weighted mean of the cell's known outcomes, w
the weight of a decision, r its reward. Its interval has 95 %: the cluster-robust variance of these
terms (Liang and Zeger, Biometrika 1986), by subject, with Student's t. Shares have the interval of
Wilson (JASA 1927).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakelog.decisions.intervals import Interval, effective_count, ranks, student
from lakelog.libraries import np

if TYPE_CHECKING:
    from lakelog.decisions.intervals import Mask, Numbers, Places
EFFECTIVE_MIN = 30
"""Effective samples below which nothing is said of the gain."""
CELL_MIN = 5
"""Known outcomes below which a cell is left out."""


@dataclass(frozen=True)
class RatedDecisions:
    """Decisions whose outcome is known, as columns. `weights` are 1 / propensity, or ones."""

    rewards: Numbers
    matches: Mask
    weights: Numbers
    cells: Places
    clusters: Places

    def among(self, mask: Mask) -> RatedDecisions:
        """The decisions of a mask."""
        return RatedDecisions(
            self.rewards[mask],
            self.matches[mask],
            self.weights[mask],
            ranks(self.cells[mask]),
            ranks(self.clusters[mask]),
        )


@dataclass(frozen=True)
class GainEstimate:
    """What is known of the gain: decisions that it is about, how many of them are left out for want
    of known outcomes, effective samples, mean reward as recorded, and the gain, None without enough
    overlap."""

    decisions: int
    left_out: int
    effective: float
    recorded: float
    gain: Interval | None

    @property
    def verdict(self) -> str:
        """`win`, `loss`, `undecided` where the interval holds 0, or `not enough overlap`."""
        return self.gain.verdict if self.gain else "not enough overlap"


def estimate(sample: RatedDecisions) -> GainEstimate:
    """Return the gain of the new answers over the recorded ones."""
    total = len(sample.rewards)
    covered, has_changes = _covered(sample), not sample.matches.all()
    # Cells where too little is known are left out and counted: they say nothing either way.
    sample = sample.among(covered)
    decisions = len(sample.rewards)
    recorded = float(sample.rewards.mean()) if decisions else math.nan
    weights = np.where(sample.matches, sample.weights, 0.0)
    effective = _effective(sample, weights) if has_changes else float(decisions)
    clusters = int(sample.clusters.max()) + 1 if decisions else 0
    gain = None
    if effective >= EFFECTIVE_MIN and clusters > 1:
        gain = _gain(sample, weights, clusters, effective)
    return GainEstimate(decisions, total - decisions, effective, recorded, gain)


def _covered(sample: RatedDecisions) -> Mask:
    if not len(sample.cells):
        return np.zeros(0, dtype=bool)
    matches = np.bincount(sample.cells, sample.matches)
    # Where nothing changes nothing has to be estimated.
    unchanged = matches == np.bincount(sample.cells)
    covered: Mask = ((matches >= CELL_MIN) | unchanged)[sample.cells]
    return covered


def _effective(sample: RatedDecisions, weights: Numbers) -> float:
    """Kish's number of samples, of cells in which something changes: others say nothing of it."""
    if not len(sample.cells):
        return 0.0
    changes = np.bincount(sample.cells, ~sample.matches) > 0
    return effective_count(weights[changes[sample.cells]])


def _gain(sample: RatedDecisions, weights: Numbers, clusters: int, effective: float) -> Interval:
    cells, rewards = sample.cells, sample.rewards
    sums, sizes = np.bincount(cells, weights), np.bincount(cells)
    matches = np.bincount(cells, sample.matches)
    outcomes = (np.bincount(cells, weights * rewards) / sums)[cells]
    # Normalised, so that the weights of a cell add up to its decisions.
    weights = weights * (sizes / sums)[cells]
    residuals = weights * (rewards - outcomes)
    terms = residuals + outcomes - rewards
    mean = float(terms.mean())
    # A mean of few outcomes fits them better than those that are not known; where all are known
    # there are no others.
    correction = np.sqrt(matches / np.maximum(matches - 1, 1))
    residuals = residuals * np.where(matches < sizes, correction, 1.0)[cells]
    deviations = np.bincount(sample.clusters, residuals + outcomes - rewards - mean)
    variance = float((deviations**2).sum()) * clusters / (clusters - 1) / len(rewards) ** 2
    reach = student(min(clusters, effective) - 1) * math.sqrt(variance)
    return Interval(mean, mean - reach, mean + reach)
