"""Whether a model is worth anything, on rows that came after those it has learnt from.

The measure is the Brier score: the mean of (probability - outcome) squared, 0 at best. A model is
compared, row by row, with the majority (the same probability for all) and with a single rule (one
threshold or name, whichever told most in training). Rows of a group belong together: intervals are
those of resampled groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lakelog.libraries import Booleans, Floats, Integers, np
from lakelog.outcomes.features import Feature

_RESAMPLES, _BUCKETS = 2_000, 2_000
_PERCENTILES = (2.5, 97.5)
_SHUFFLES = 5
_THRESHOLDS = np.arange(1, 20) / 20
_SMOOTH = 1.0
"""Outcomes, half of them of each kind, that a share of few rows leans on: none is 0 or 1."""


@dataclass(frozen=True)
class BaselineGain:
    """A simpler way beside a model: its Brier score, and by how much the model's is lower, with an
    interval that holds the truth in 95 of 100."""

    name: str
    brier: float
    gain: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `not shown` to be either."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not shown"


@dataclass(frozen=True)
class OutcomeEvaluation:
    """A model on the rows of test: how many, how many of them have the outcome, the Brier score,
    and how probable it is that of two rows the one with the outcome gets more (AUC)."""

    rows: int
    positives: int
    brier: float
    auc: float | None
    majority: BaselineGain
    rule: BaselineGain

    @property
    def is_better(self) -> bool:
        """Whether it is shown to be better than both."""
        return self.majority.low > 0 and self.rule.low > 0


@dataclass(frozen=True)
class SingleRule:
    """The best single test of training rows: one probability where it holds, else another one.
    Names are equal to a value, numbers above it."""

    place: int
    value: float
    is_name: bool
    description: str
    inside: float
    outside: float

    def probabilities(self, columns: Sequence[Floats]) -> Floats:
        """Return a probability for each row."""
        column = columns[self.place]
        holds = (
            column == self.value
            if self.is_name
            else np.nan_to_num(column, nan=-np.inf) > self.value
        )
        return np.where(holds, self.inside, self.outside)


def single_rule(
    features: Sequence[Feature], columns: Sequence[Floats], outcomes: Booleans
) -> SingleRule:
    """Return the rule with the least Brier score on training rows."""
    best: tuple[float, SingleRule] | None = None
    for place, (feature, column) in enumerate(zip(features, columns, strict=True)):
        present = column[~np.isnan(column)]
        values = (
            np.arange(feature.width, dtype=np.float64)
            if feature.values
            else np.unique(np.quantile(present, _THRESHOLDS))
            if len(present)
            else np.empty(0)
        )
        for value in values.tolist():
            holds = (
                column == value if feature.values else np.nan_to_num(column, nan=-np.inf) > value
            )
            inside, outside = _share(outcomes[holds]), _share(outcomes[~holds])
            rule = SingleRule(
                place, value, bool(feature.values), _words(feature, value), inside, outside
            )
            brier = float(((np.where(holds, inside, outside) - outcomes) ** 2).mean())
            # Beyond rounding, so that of equal rules the first is chosen on every machine.
            if best is None or brier < best[0] - 1e-12:
                best = brier, rule
    assert best is not None
    return best[1]


def _words(feature: Feature, value: float) -> str:
    if not feature.values:
        return f"{feature.name} > {value:.4g}"
    names = (*feature.values, "another name")
    return f"{feature.name} = {names[int(value)]}"


def _share(outcomes: Booleans) -> float:
    return (float(outcomes.sum()) + _SMOOTH / 2) / (len(outcomes) + _SMOOTH)


def evaluate(
    probabilities: Floats,
    outcomes: Booleans,
    groups: Integers,
    majority: float,
    rule: Floats,
    rule_description: str,
) -> OutcomeEvaluation:
    """Compare a model on rows of test, whose groups are numbers from 0 on. `majority` is the share
    of training rows with the outcome, `rule` the probabilities of the single rule."""
    loss = (probabilities - outcomes) ** 2
    compared = [
        _compared(name, (simpler - outcomes) ** 2, loss, groups)
        for name, simpler in (
            ("the majority", np.full(len(loss), majority)),
            (rule_description, rule),
        )
    ]
    return OutcomeEvaluation(
        len(loss), int(outcomes.sum()), float(loss.mean()), auc(probabilities, outcomes), *compared
    )


def _compared(name: str, baseline: Floats, loss: Floats, groups: Integers) -> BaselineGain:
    gains = baseline - loss
    # Groups that share a bucket are drawn together, which changes no expectation.
    buckets = groups % _BUCKETS
    sums, sizes = np.bincount(buckets, gains), np.bincount(buckets)
    sums, sizes = sums[sizes > 0], sizes[sizes > 0]
    # Of a fixed seed: the same rows have the same verdict.
    dice = np.random.Generator(np.random.PCG64(1))
    drawn = dice.integers(0, len(sums), (_RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(means, _PERCENTILES).tolist()
    return BaselineGain(name, float(baseline.mean()), float(gains.mean()), low, high)


def auc(probabilities: Floats, outcomes: Booleans) -> float | None:
    """Return the area under the ROC curve; None where all outcomes are equal."""
    positives = int(outcomes.sum())
    negatives = len(outcomes) - positives
    if not positives or not negatives:
        return None
    _, places, counts = np.unique(probabilities, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return float((ranks[outcomes].sum() - positives * (positives + 1) / 2) / positives / negatives)


def importance(
    score: Callable[[Sequence[Floats]], Floats], columns: Sequence[Floats], outcomes: Booleans
) -> list[float]:
    """Return for each column how much the Brier score grows where its values are shuffled among the
    rows (permutation importance; Breiman, 2001), the mean of five times."""
    dice = np.random.Generator(np.random.PCG64(1))
    whole = float(((score(columns) - outcomes) ** 2).mean())
    growths = []
    for place, column in enumerate(columns):
        shuffled = list(columns)
        losses = []
        for _ in range(_SHUFFLES):
            shuffled[place] = dice.permutation(column)
            losses.append(float(((score(shuffled) - outcomes) ** 2).mean()))
        growths.append(float(np.mean(losses)) - whole)
    return growths
