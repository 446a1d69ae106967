"""Intervals of shares and of means, of outcomes that are few, skewed or weighted unequally.

shares              Wilson (JASA 1927)
means               Student's t, corrected for skewness by Hall's cubic transformation ("On the
                    removal of skewness by transformation", JRSS B 1992), with the degrees of
                    freedom of a variance of heavy tails (Satterthwaite, Biometrics 1946)
means of two values the score interval: the variance is that of each mean under question, by the
such as 0 and 1     weights of the outcomes (Korn and Graubard, Survey Methodology 1998)
differences         from two such intervals (Zou and Donner, Statistics in Medicine 2008)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import Any

from lakelog.libraries import Floats, Integers, np

LEVEL = 0.95
_BISECTIONS = 60
_FREEDOM_MIN = 4.0
_PSEUDO = 2.0
"""Outcomes of each value that are added to tell how unequal their weights are."""


@dataclass(frozen=True)
class Interval:
    """An estimate, and the ends of its interval, of 95 % where nothing else is said."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Of a gain: `win`, `loss`, or `undecided` where the interval holds 0."""
        if self.low > 0:
            return "win"
        return "loss" if self.high < 0 else "undecided"


class JsonFinding:
    """A dataclass that JSON can hold, by the names of its members."""

    def record(self) -> dict[str, Any]:
        """Return it as JSON has it: an interval is three members, see `ends`."""
        record: dict[str, Any] = {}
        for member in fields(self):  # type: ignore[arg-type]
            value = getattr(self, member.name)
            is_interval = str(member.type).startswith("Interval")
            record |= ends(member.name, value) if is_interval else {member.name: _plain(value)}
        return record


def _plain(value: object) -> object:
    if isinstance(value, JsonFinding):
        return value.record()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def ends(name: str, interval: Interval | None) -> dict[str, float | None]:
    """An interval as three members of JSON."""
    figures = (interval.mean, interval.low, interval.high) if interval else (None,) * 3
    return dict(zip((name, f"{name}_low", f"{name}_high"), figures, strict=True))


def ranks(numbers: np.ndarray) -> Integers:
    """Return numbers from 0 on for those that there are, in their order."""
    return np.unique(numbers, return_inverse=True)[1].astype(np.int64)


def effective_count(weights: Floats) -> float:
    """Kish's number of samples."""
    square = float((weights**2).sum())
    return float(weights.sum()) ** 2 / square if square else 0.0


def student(freedom: float, level: float = LEVEL) -> float:
    """The quantile of Student's t for a level, by its expansion around the normal one (Abramowitz
    and Stegun, 26.7.5); below 1 in 1,000 off from 6 degrees on."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    third = (z**3 + z) / 4
    fifth = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + third / freedom + fifth / freedom**2


def share(count: float, total: float) -> Interval:
    """Return a share with Wilson's interval; it is NaN of none."""
    if not total:
        return Interval(math.nan, math.nan, math.nan)
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    mean, spread = count / total, z * z / total
    centre = (mean + spread / 2) / (1 + spread)
    reach = math.sqrt(spread * (mean * (1 - mean) + spread / 4)) / (1 + spread)
    return Interval(mean, max(centre - reach, 0.0), min(centre + reach, 1.0))


def skewed(mean: float, deviations: Floats, freedom: float, level: float = LEVEL) -> Interval:
    """Return the interval of a mean from how far each cluster moves it."""
    square = float((deviations**2).sum())
    count = len(deviations)
    if not square or count < 2:
        return Interval(mean, mean, mean)
    error = math.sqrt(square * count / (count - 1))
    skewness = float((deviations**3).sum()) / square**1.5
    # Where few deviations are large, the variance is known less well than their number says.
    kurtosis = count * float((deviations**4).sum()) / square**2
    if kurtosis > 1:
        # Bounded from below, as the kurtosis of a handful of deviations says little.
        freedom = min(freedom, max(2 * count / (kurtosis - 1), _FREEDOM_MIN))
    reach = student(freedom, level)
    return Interval(
        mean, mean - _unskewed(reach, skewness) * error, mean - _unskewed(-reach, skewness) * error
    )


def _unskewed(quantile: float, skewness: float) -> float:
    """Hall's transformation, inverted."""
    if abs(skewness) < 1e-9:
        return quantile
    return (float(np.cbrt(1 + skewness * (quantile - skewness / 6))) - 1) / (skewness / 3)


def scored(
    mean: float, variance: Callable[[float], float], freedom: float, level: float = LEVEL
) -> Interval:
    """Return the means from 0 to 1 that are no further off than their own variance allows."""
    reach = student(freedom, level) ** 2
    inside = min(max(mean, 0.0), 1.0)

    def is_excluded(value: float) -> bool:
        return (mean - value) ** 2 > reach * max(variance(value), 0.0)

    return Interval(mean, _edge(is_excluded, inside, 0.0), _edge(is_excluded, inside, 1.0))


def _edge(is_excluded: Callable[[float], bool], inside: float, end: float) -> float:
    """Where an interval ends between a value in it and an end of the range."""
    if not is_excluded(end):
        return end
    # Bisection: the variance may be of any form, and what is excluded is all that is further off.
    outside = end
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        if is_excluded(middle):
            outside = middle
        else:
            inside = middle
    return inside


@dataclass(frozen=True)
class WeightedShares:
    """What the weights of outcomes of 0 and of 1 say of a mean's variance."""

    wins: float
    losses: float

    @staticmethod
    def of(weights: Floats, outcomes: Floats) -> WeightedShares:
        """`wins` and `losses` are the mean weights of a unit of weight, by outcome; few outcomes of
        a value are helped out by the weights of all."""
        total = float(weights.sum())
        usual = float((weights**2).sum()) / total
        won = weights * outcomes
        win_weight, win_square = float(won.sum()), float((weights * won).sum())
        square = usual * total
        extra = _PSEUDO * usual
        return WeightedShares(
            (win_square + extra * usual) / (win_weight + extra),
            (square - win_square + extra * usual) / (total - win_weight + extra),
        )

    def plain(self, mean: float) -> float:
        """The variance of one weighted outcome."""
        return self.wins * mean - mean**2

    def normalised(self, mean: float) -> float:
        """The same of weights that are normalised."""
        return mean * (1 - mean) * (self.wins * (1 - mean) + self.losses * mean)


def difference(estimate: Interval, reference: Interval) -> Interval:
    """Return the interval of how much higher one independent estimate is than another."""
    mean = estimate.mean - reference.mean
    # Each end from the nearer ends of the two, so that skewed intervals stay skewed.
    lower_reach = math.hypot(estimate.mean - estimate.low, reference.high - reference.mean)
    upper_reach = math.hypot(estimate.high - estimate.mean, reference.mean - reference.low)
    return Interval(mean, mean - lower_reach, mean + upper_reach)
