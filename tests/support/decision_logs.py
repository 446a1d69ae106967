"""Generated logs of decisions, of which it is known what any policy would have been worth.

    python -m tests.support.decision_logs [LOGS]

prints how often the intervals of each method hold the truth, by kind of reward, overlap and size.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lakelog.decisions.offpolicy import METHODS, LoggedChoices, evaluate, scale_of

REWARDS = ("binary", "rare", "normal", "skewed")
"""Shares around a half, shares around 0.1, normal values, and a gamma distribution."""
HEAVY = "heavy"
"""Values of a log-normal distribution: a few decide."""
SETTINGS = ((50, "usual"), (100, "usual"), (200, "other"), (500, "uniform"), (1000, "other"))
SETTINGS += ((5000, "other"),)
"""Decisions of a log, and the policy: the options chosen most, others, or all alike."""


@dataclass(frozen=True)
class GeneratedLog:
    """Decisions, the options of a policy, None for all alike, and what the policy is worth: `truth`
    in all contexts, `means` and `shares` by context and option."""

    choices: LoggedChoices
    targets: Any
    means: Any
    shares: Any
    policy: Any

    def truth(self, left_out: int = 0) -> float:
        """What the policy is worth in the contexts that are not left out."""
        shares = self.shares.copy()
        if left_out:
            cells = self.choices.contexts * self.choices.option_count + self.choices.options
            counts = np.bincount(cells, minlength=self.means.size).reshape(self.means.shape)
            shares[((counts < 5) & (self.policy > 0)).any(1)] = 0
        return float((shares[:, None] * self.policy * self.means).sum() / shares.sum())


def generate(
    rng: np.random.Generator, size: int, reward: str, policy: str, *, overlap: bool, known: bool
) -> GeneratedLog:
    """Return a log of one to six contexts and two to four options. Without `overlap` some options
    are chosen once in 40; `known` is whether propensities are recorded."""
    contexts, options = int(rng.integers(1, 7)), int(rng.integers(2, 5))
    shares = rng.dirichlet(np.full(contexts, 3.0))
    spread, floor = (3.0, 0.3) if overlap else (0.4, 0.1)
    chances = rng.dirichlet(np.full(options, spread), contexts) * (1 - floor) + floor / options
    context = rng.choice(contexts, size, p=shares)
    chosen = (
        (rng.random(size)[:, None] > np.cumsum(chances[context], 1)).sum(1).clip(0, options - 1)
    )
    means, rewards = _rewards(rng, reward, (contexts, options), context, chosen)
    usual = chances.argmax(1) if policy == "usual" else rng.integers(0, options, contexts)
    is_uniform = policy == "uniform"
    choices = LoggedChoices(
        context,
        chosen,
        rewards,
        np.arange(size),
        chances[context, chosen] if known else None,
        options,
        scale_of(rewards),
    )
    weights = np.full(means.shape, 1 / options) if is_uniform else np.eye(options)[usual]
    return GeneratedLog(choices, None if is_uniform else usual[context], means, shares, weights)


def _rewards(
    rng: np.random.Generator, reward: str, shape: tuple[int, int], context: Any, chosen: Any
) -> tuple[Any, Any]:
    size = len(context)
    if reward in ("binary", "rare"):
        means = rng.beta(1.5, 1.5, shape) if reward == "binary" else rng.beta(2, 20, shape)
        return means, (rng.random(size) < means[context, chosen]).astype(float)
    if reward == "normal":
        means = rng.normal(1, 1, shape)
        return means, rng.normal(means[context, chosen], 1)
    means = rng.uniform(0.5, 3, shape)
    if reward == HEAVY:
        return means, means[context, chosen] * rng.lognormal(-0.5, 1, size)
    return means, rng.gamma(2, means[context, chosen] / 2)


def coverage(
    logs: int, reward: str, size: int, policy: str, *, overlap: bool, known: bool
) -> Iterator[tuple[str, bool]]:
    """Yield for each log and method whether the interval holds the truth; nothing of logs without
    enough overlap."""
    rng = np.random.default_rng([size, overlap, known, sum(map(ord, reward + policy))])
    for _ in range(logs):
        log = generate(rng, size, reward, policy, overlap=overlap, known=known)
        for method, value in evaluate(log.choices, log.targets).items():
            if value.value is not None:
                truth = log.truth(value.left_out)
                yield method, value.value.low <= truth <= value.value.high


def main(logs: int) -> None:
    """Print a line for each generator, and one for each kind of reward."""
    print(
        "propensities  reward  overlap      n  policy   estimated "
        + "".join(f"{m:>7}" for m in METHODS)
    )
    for known in (True, False):
        for reward in (*REWARDS, HEAVY):
            total = defaultdict[str, list[bool]](list)
            for overlap in (True, False):
                for size, policy in SETTINGS:
                    held = defaultdict[str, list[bool]](list)
                    for method, is_held in coverage(
                        logs, reward, size, policy, overlap=overlap, known=known
                    ):
                        held[method].append(is_held)
                        total[method].append(is_held)
                    _print(reward, f"{size:5} {policy:8}", held, known=known, overlap=overlap)
            _print(reward, f"{'all':>5} {'':8}", total, known=known, overlap=None)


def _print(
    reward: str, label: str, held: dict[str, list[bool]], *, known: bool, overlap: bool | None
) -> None:
    shares = "".join(f"{100 * np.mean(held[m]):7.1f}" if held[m] else "      -" for m in METHODS)
    overlaps = "" if overlap is None else "good" if overlap else "bad"
    origin = "recorded" if known else "by context"
    print(
        f"{origin:12}  {reward:7} {overlaps:7} {label} {len(held[METHODS[0]]):9} {shares}",
        flush=True,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
