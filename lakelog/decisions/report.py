"""One decision point: how often each option wins, in all and by context, whether confidences are
right, what better choices would have brought, and which options are worth another try."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lakelog.decisions.calibration import (
    BIN_COUNT,
    ConfidenceCalibration,
    ConfidenceSums,
    calibration,
)
from lakelog.decisions.intervals import Interval, JsonFinding, ends, ranks, share, skewed
from lakelog.decisions.logged import UNSAID, PointLog
from lakelog.decisions.offpolicy import DR, PolicyValue, best_options, evaluate
from lakelog.libraries import Booleans, Integers, np

_EXPLORE_MAX = 20


@dataclass(frozen=True)
class OptionRate(JsonFinding):
    """How an option does: `won` is the share of outcomes above 0, `reward` their mean; None where
    no outcome is known. `context` is empty for all contexts together."""

    context: dict[str, str]
    option: str
    decisions: int
    rated: int
    won: Interval | None
    reward: Interval | None


@dataclass(frozen=True)
class Exploration(JsonFinding):
    """An option that may be better than the best one known: its mean reward, which may be as high
    as `high`, that of the best one, and the share of decisions that are made in this context."""

    rate: OptionRate
    best: str
    best_reward: float
    high: float
    share: float

    @property
    def hope(self) -> float:
        """What it would bring per decision of the point, at the most."""
        return (self.high - self.best_reward) * self.share

    def record(self) -> dict[str, Any]:
        """The option as JSON has it."""
        record = super().record()
        rate, high = record.pop("rate"), record.pop("high")
        tried = {name: rate[name] for name in ("context", "option", "rated", "reward")}
        return {**tried, "reward_high": high, **record, "hope": self.hope}


@dataclass(frozen=True)
class PointReport(JsonFinding):
    """What is known of a decision point. `regret` is what the best option of each context, learnt
    from other subjects, would have brought more than what was chosen."""

    point: str
    snapshot: str
    decisions: int
    rated: int
    members: tuple[str, ...]
    options: tuple[OptionRate, ...]
    contexts: tuple[OptionRate, ...]
    calibration: ConfidenceCalibration | None
    regret: PolicyValue
    exploration: tuple[Exploration, ...]
    notes: tuple[str, ...]
    query: str

    def record(self) -> dict[str, Any]:
        """The report as JSON has it."""
        record = super().record()
        renamed = {"context": record.pop("members"), "explore": record.pop("exploration")}
        return record | renamed | ends("regret", self.regret.gain)


def point_report(log: PointLog, point: str, snapshot: str, query: str) -> PointReport:
    """Return what is known of a decision point from its decisions."""
    count, choices = len(log.option_names), log.choices()
    options = [
        _rate(log, option, rows, {}, choices.scale)
        for option, rows in enumerate(_groups(log.options, count))
    ]
    cells = _groups(log.contexts * count + log.options, count * len(log.context_values))
    contexts = [
        _rate(log, cell % count, rows, log.context(cell // count), choices.scale)
        for cell, rows in enumerate(cells)
        if log.members
    ]
    regret = evaluate(choices, best_options(choices))[DR]
    return PointReport(
        point,
        snapshot,
        len(log),
        len(choices),
        log.members,
        tuple(sorted(options, key=lambda rate: -rate.decisions)),
        tuple(rate for rate in contexts if rate.decisions),
        _calibration(log),
        regret,
        tuple(_exploration(log, contexts or options)),
        tuple(notes(log)),
        query,
    )


def notes(log: PointLog) -> list[str]:
    """Return sentences on what to beware of."""
    sentences = []
    if log.left_out:
        sentences.append(f"{log.left_out:,} older decisions are left out")
    for name, values in zip(log.members, zip(*log.context_values, strict=True), strict=True):
        if set(values) == {UNSAID}:
            sentences.append(f"no decision has {name!r}: it tells no contexts apart")
    unsound = int((~np.isnan(log.confidences)).sum() - _is_share(log).sum())
    if unsound:
        sentences.append(f"{unsound:,} confidences are not from 0 to 1, and left out")
    rated = log.rated
    missing = 1 - rated.mean()
    if missing == 1:
        sentences.append(
            "no outcome says what it is worth: --reward \"(outcome = '...')::INT\" does"
        )
    elif missing > 0:
        shares = np.bincount(log.options, rated) / np.maximum(np.bincount(log.options), 1)
        sizes = np.bincount(log.options)
        # Of four standard errors: so many options are compared that fewer come by chance.
        off = np.abs(shares - rated.mean()) > 4 * np.sqrt(missing * (1 - missing) / sizes)
        if off.any():
            name = log.option_names[int(np.argmax(np.abs(shares - rated.mean()) * off))]
            rate = shares[log.option_names.index(name)]
            sentences.append(
                f"outcomes are known of {rate:.0%} of {name!r}, {rated.mean():.0%} of all: if that"
                " depends on the outcome, figures mislead"
            )
    propensities = log.propensities[rated]
    if not log.has_propensities and (~np.isnan(propensities)).any():
        sentences.append("some propensities are missing or not from 0 to 1: none is used")
    return sentences


def _groups(numbers: Integers, count: int) -> list[Integers]:
    """The places of each number from 0 on."""
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.searchsorted(numbers[order], np.arange(1, count)))


def _rate(
    log: PointLog,
    option: int,
    rows: Integers,
    context: dict[str, str],
    scale: tuple[float, float] | None,
) -> OptionRate:
    decisions, name = len(rows), log.option_names[option]
    rows = rows[log.rated[rows]]
    rewards = log.rewards[rows]
    if not len(rewards):
        return OptionRate(context, name, decisions, 0, None, None)
    clusters = ranks(log.clusters[rows])
    won, mean, reward = _clustered_share(rewards > 0, clusters), float(rewards.mean()), None
    deviations = np.bincount(clusters, rewards - mean) / len(rewards)
    if len(deviations) > 1:
        reward = skewed(mean, deviations, len(deviations) - 1)
    if reward and scale and reward.low == reward.high:
        # Few outcomes may all have one of the two values, and say little then.
        (low, high), unit = scale, _clustered_share(rewards == scale[1], clusters)
        reward = Interval(mean, low + (high - low) * unit.low, low + (high - low) * unit.high)
    return OptionRate(context, name, decisions, len(rewards), won, reward)


def _clustered_share(mask: Booleans, clusters: Integers) -> Interval:
    """The share that is true; decisions of one subject say less than as many of several."""
    hits = mask.astype(float)
    errors = hits - hits.mean()
    square = float((errors**2).sum())
    factor = max(float((np.bincount(clusters, errors) ** 2).sum()) / square, 1.0) if square else 1.0
    return share(float(hits.sum()) / factor, len(hits) / factor)


def _is_share(log: PointLog) -> Booleans:
    inside: Booleans = (log.confidences >= 0) & (log.confidences <= 1)
    return inside


def _calibration(log: PointLog) -> ConfidenceCalibration | None:
    usable = log.rated & _is_share(log)
    confidences, wins = log.confidences[usable], (log.rewards[usable] > 0).astype(float)
    bins = np.minimum((confidences * BIN_COUNT).astype(np.int64), BIN_COUNT - 1)
    sums = [
        np.bincount(bins, weights, BIN_COUNT)
        for weights in (np.ones(len(wins)), wins, confidences, (confidences - wins) ** 2)
    ]
    return calibration(
        ConfidenceSums(number, int(count), int(won), float(confidence), float(square))
        for number, (count, won, confidence, square) in enumerate(zip(*sums, strict=True))
    )


def _exploration(log: PointLog, rates: list[OptionRate]) -> list[Exploration]:
    """Options that may be better than the best one of their context, the greatest hope first."""
    rewards = log.rewards[log.rated]
    if not len(rewards):
        return []
    highest, candidates = float(rewards.max()), list[Exploration]()
    by_context: dict[tuple[str, ...], list[OptionRate]] = {}
    for rate in rates:
        by_context.setdefault(tuple(rate.context.values()), []).append(rate)
    for cells in by_context.values():
        tried = [rate for rate in cells if rate.reward]
        if not tried:
            continue
        best = max(tried, key=lambda rate: rate.reward.mean if rate.reward else -math.inf)
        assert best.reward
        size = sum(rate.decisions for rate in cells)
        for rate in cells:
            # An option that was never rated may be as good as the best outcome that ever came.
            high = min(rate.reward.high, highest) if rate.reward else highest
            # Optimism in the face of uncertainty: worth a try is what could be better than what is
            # known.
            if rate is not best and high > best.reward.mean:
                candidates.append(
                    Exploration(rate, best.option, best.reward.mean, high, size / len(log))
                )
    return sorted(candidates, key=lambda option: -option.hope)[:_EXPLORE_MAX]
