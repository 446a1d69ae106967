"""Estimates of other policies: known values, intervals that hold the truth, and refusals."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from lakelog.decisions import EFFECTIVE_MIN, Interval
from lakelog.decisions.offpolicy import (
    DR,
    IPS,
    METHODS,
    SNIPS,
    LoggedChoices,
    best_options,
    evaluate,
    scale_of,
)
from tests.support.decision_logs import HEAVY, REWARDS, SETTINGS, coverage, generate
from tests.support.effort import share
from tests.support.requirements import need_module

LOGS = share(1000)


def choices(
    contexts: list[int],
    options: list[int],
    rewards: list[float],
    propensities: list[float] | None = None,
    clusters: list[int] | None = None,
) -> LoggedChoices:
    values = np.array(rewards, float)
    return LoggedChoices(
        np.array(contexts),
        np.array(options),
        values,
        np.arange(len(rewards)) if clusters is None else np.array(clusters),
        None if propensities is None else np.array(propensities),
        max(options) + 1,
        scale_of(values),
    )


@pytest.mark.parametrize("known", [True, False], ids=["recorded", "by-context"])
@pytest.mark.parametrize("reward", REWARDS)
def test_intervals_hold_the_truth_in_93_to_97_of_100_logs(reward: str, known: bool) -> None:
    """Over good and bad overlap and logs of 50 to 5,000 decisions, for each method."""
    held = defaultdict[str, list[bool]](list)
    for overlap in (True, False):
        for size, policy in SETTINGS[: 6 if LOGS >= 1000 else 5]:
            logs = max(LOGS // len(SETTINGS), 25)
            for method, is_held in coverage(
                logs, reward, size, policy, overlap=overlap, known=known
            ):
                held[method].append(is_held)
    for method in METHODS:
        # Of few logs chance allows more: three standard errors.
        error = 100 * 3 * np.sqrt(0.95 * 0.05 / len(held[method]))
        assert abs(100 * np.mean(held[method]) - 95) <= max(2, error), method


def test_a_few_large_outcomes_are_said_to_decide() -> None:
    """With log-normal outcomes intervals may be too narrow, and the estimate says so."""
    rng = np.random.default_rng(5)
    logs = [generate(rng, 200, HEAVY, "usual", overlap=True, known=True) for _ in range(40)]
    cautions = [evaluate(log.choices, log.targets)[DR].cautions for log in logs]
    assert sum("a few outcomes decide" in str(caution) for caution in cautions) >= 20


def test_known_values_of_each_method() -> None:
    """The estimates are those of the formulas, computed by hand."""
    rng = np.random.default_rng(1)
    log = generate(rng, 400, "normal", "other", overlap=True, known=True)
    data, targets = log.choices, log.targets
    weights = (data.options == targets) / data.propensities
    values = evaluate(data, targets)
    assert values[IPS].value
    assert values[SNIPS].value
    assert values[IPS].value.mean == pytest.approx((weights * data.rewards).mean())
    assert values[SNIPS].value.mean == pytest.approx((weights * data.rewards).sum() / weights.sum())
    # Doubly robust: with outcomes that depend on nothing but the cell, nearly the truth.
    exact = LoggedChoices(
        data.contexts,
        data.options,
        log.means[data.contexts, data.options],
        data.clusters,
        data.propensities,
        data.option_count,
        None,
    )
    answer = evaluate(exact, targets)[DR].value
    assert answer
    assert answer.mean == pytest.approx(log.means[data.contexts, targets].mean(), abs=0.1)


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_equal_outcomes_leave_the_gain_of_another_policy_open(reward: float) -> None:
    """Of a hundred of each option none was another: the next may be. Of the recorded policy nothing
    is open."""
    log = choices([0] * 200, [0, 1] * 100, [reward] * 200)
    gain = evaluate(log, np.zeros(200, np.int64))[DR].gain
    assert gain
    assert (gain.mean, gain.verdict) == (0.0, "undecided")
    assert 0.005 < gain.high == -gain.low < 0.05
    assert evaluate(log, log.options)[DR].gain == Interval(0.0, 0.0, 0.0)


@pytest.mark.filterwarnings("ignore")
def test_coba_agrees_on_inverse_propensities() -> None:
    """An independent implementation gives the same estimate."""
    filters = need_module("coba.environments.filters")
    rng = np.random.default_rng(3)
    log = generate(rng, 1000, "binary", "other", overlap=True, known=True)
    data = log.choices
    assert data.propensities is not None
    interactions = [
        {"context": int(x), "action": int(a), "reward": float(r), "probability": float(p)}
        for x, a, r, p in zip(
            data.contexts, data.options, data.rewards, data.propensities, strict=True
        )
    ]
    rewards = [
        interaction["rewards"](int(target))
        for interaction, target in zip(
            filters.OpeRewards("IPS").filter(interactions), log.targets, strict=True
        )
    ]
    value = evaluate(data, log.targets)[IPS].value
    assert value
    assert value.mean == pytest.approx(np.mean(rewards))


@pytest.mark.parametrize("known", [True, False], ids=["recorded", "by-context"])
def test_below_30_effective_samples_there_is_not_enough_overlap(known: bool) -> None:
    """One of ten decisions matches: of 290 there are 29, of 300 there are 30."""
    for size, is_enough in ((290, False), (300, True)):
        options = [int(number % 10 > 0) for number in range(size)]
        data = choices([0] * size, options, [1.0, 0.0] * (size // 2), None)
        propensities = np.where(np.array(options) == 0, 0.1, 0.9) if known else None
        data = LoggedChoices(
            data.contexts, data.options, data.rewards, data.clusters, propensities, 2, data.scale
        )
        for value in evaluate(data, np.zeros(size, int)).values():
            assert round(value.effective) == size // 10
            assert (value.value is not None) == is_enough == (value.effective >= EFFECTIVE_MIN)


def test_outcomes_that_are_all_the_same_leave_room_for_others() -> None:
    """Forty of forty that were won are no certainty."""
    for outcome in (1.0, 0.0):
        data = choices([0] * 40, [0] * 40, [outcome] * 40)
        value = evaluate(data, np.zeros(40, int))[DR].value
        assert value
        assert value.high - value.low > 0.05
        assert value.low <= outcome <= value.high


def test_decisions_of_one_subject_count_as_one() -> None:
    """The same decisions of few subjects have a wider interval than those of many."""
    rng = np.random.default_rng(7)
    subjects = np.repeat(np.arange(50), 20)
    levels = rng.normal(0, 1, 50)[subjects] + rng.normal(0, 0.1, 1000)
    for rewards in (levels, (levels > 0).astype(float)):
        widths = []
        for clusters in (np.arange(1000), subjects):
            data = choices([0] * 1000, [0] * 1000, list(rewards), None, list(clusters))
            value = evaluate(data, np.zeros(1000, int))[DR].value
            assert value
            widths.append(value.high - value.low)
        assert widths[1] > 3 * widths[0]


def test_propensities_that_cannot_be_right_are_reported() -> None:
    """Weights average one if they are right."""
    size = 2000
    options = [number % 2 for number in range(size)]
    rewards = [float(number % 3 == 0) for number in range(size)]
    right = evaluate(choices([0] * size, options, rewards, [0.5] * size), np.zeros(size, int))
    wrong = evaluate(choices([0] * size, options, rewards, [0.9] * size), np.zeros(size, int))
    assert not right[DR].cautions
    assert "do not fit" in wrong[DR].cautions[0]


def test_contexts_without_known_outcomes_are_left_out_and_counted() -> None:
    """What is not known of a context is not made up."""
    contexts = [0] * 200 + [1] * 100
    options = [number % 2 for number in range(200)] + [1] * 100
    data = choices(contexts, options, [float(n % 4 == 0) for n in range(300)])
    value = evaluate(data, np.zeros(300, int))[DR]
    assert (value.decisions, value.left_out) == (200, 100)


def test_the_best_options_are_learnt_from_other_subjects() -> None:
    """Where options are equal, choosing the best ones by chance gains nothing."""
    rng = np.random.default_rng(9)
    gains = []
    for _ in range(60):
        data = choices(
            list(rng.integers(0, 20, 600)),
            list(rng.integers(0, 3, 600)),
            list((rng.random(600) < 0.5).astype(float)),
            [1 / 3] * 600,
        )
        gain = evaluate(data, best_options(data))[DR].gain
        assert gain
        gains.append(gain.mean)
    assert abs(np.mean(gains)) < 3 * np.std(gains) / np.sqrt(len(gains))


@pytest.mark.parametrize("reward", ["normal", "skewed", "binary"])
def test_contexts_that_the_policy_hardly_saw_widen_the_interval(reward: str) -> None:
    """With 200 decisions and bad overlap a context may have no outcome of the policy at all."""
    held = defaultdict[str, list[bool]](list)
    for method, is_held in coverage(
        max(LOGS // 2, 200), reward, 200, "other", overlap=False, known=True
    ):
        held[method].append(is_held)
    for method in METHODS:
        error = 100 * np.sqrt(0.95 * 0.05 / len(held[method]))
        assert 100 * np.mean(held[method]) >= 95 - 1.5 * error, method
