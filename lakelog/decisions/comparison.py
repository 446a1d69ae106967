"""A challenger beside what was recorded: where they differ, and what that would have been worth."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

import lakelog.export as exports
from lakelog.decisions.challengers import Challenger
from lakelog.decisions.decision_rows import REWARD
from lakelog.decisions.intervals import Interval, ranks, share
from lakelog.decisions.offpolicy import DR, EFFECTIVE_MIN, LoggedChoices, evaluate, scale_of
from lakelog.decisions.recorded_answers import Recorded, RecordedAnswer, read
from lakelog.errors import InvalidSetting
from lakelog.lake import Lake
from lakelog.libraries import Booleans, Integers, np, pa
from lakelog.pinned import PinnedLake

INTERVAL = "95 %, by subject, corrected for skewness (Hall 1992); of shares: Wilson (1927)"
_PAIR_COLUMNS = tuple(
    "prompt chosen rejected chosen_score rejected_score event_id seq recorded".split()
)


@dataclass(frozen=True)
class Question:
    """What is compared: which records of a state, "" for the present one; what an outcome is worth,
    in SQL over the columns of the view `decisions`; and the members of the input by which contexts
    are matched, all of `context` if none is named."""

    recorded: Recorded = Recorded.DECISIONS
    conditions: tuple[str, ...] = ()
    ref: str = ""
    reward: str = REWARD
    by: tuple[str, ...] = ()


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


def _estimate(log: LoggedChoices, targets: Integers) -> GainEstimate:
    """The gain of new answers over the recorded ones."""
    changed = log.options != targets
    if log.propensities is None:
        # Of a context and a new answer where nothing changes nothing has to be estimated.
        strata = ranks(log.contexts * log.option_count + targets)
        changed = (np.bincount(strata, changed) > 0)[strata]
    elif changed.any():
        changed = np.ones(len(log), dtype=bool)
    unchanged = len(log) - int(changed.sum())
    recorded = float(log.rewards.mean()) if len(log) else math.nan
    if unchanged == len(log):
        gain = Interval(0.0, 0.0, 0.0) if unchanged else None
        return GainEstimate(unchanged, 0, float(unchanged), recorded, gain)
    value = evaluate(log.among(changed), targets[changed])[DR]
    decisions = value.decisions + unchanged
    gain = None
    if value.gain is not None:
        portion = value.decisions / decisions
        gain = Interval(*(portion * x for x in (value.gain.mean, value.gain.low, value.gain.high)))
    return GainEstimate(decisions, value.left_out, value.effective, recorded, gain)


@dataclass(frozen=True)
class ContextGain:
    """What is known in one context."""

    context: str
    decisions: int
    changes: int
    estimate: GainEstimate


@dataclass(frozen=True)
class DecisionComparison:
    """A challenger's answers beside those that were recorded."""

    snapshot: str
    agreements: Interval
    decisions: int
    changes: int
    rated: int
    has_propensities: bool
    overall: GainEstimate
    contexts: tuple[ContextGain, ...]
    pairs: tuple[dict[str, object], ...] = field(repr=False)

    @property
    def wins(self) -> int:
        """Changes in contexts where the new answers are better for certain."""
        return sum(gain.changes for gain in self.contexts if gain.estimate.verdict == "win")

    @property
    def losses(self) -> int:
        """Changes in contexts where they are worse for certain."""
        return sum(gain.changes for gain in self.contexts if gain.estimate.verdict == "loss")

    @property
    def assumption(self) -> str:
        """What has to be true for the gain to be, in plain words."""
        if self.has_propensities:
            return (
                "An outcome is known only where the new answer is the recorded one, and weighs 1 /"
                " propensity. Assumed: the recorded propensities are those that were used, and no"
                " decision changes the outcome of another subject."
            )
        return (
            "An outcome is known only where the new answer is the recorded one. It stands for the"
            " other decisions of its context. Assumed: in one context, what was chosen did not"
            " depend on anything else that matters for the outcome, and no decision changes the"
            " outcome of another subject."
        )

    def record(self) -> dict[str, object]:
        """The comparison as JSON has it, without its pairs."""
        return {
            "snapshot": self.snapshot,
            "decisions": self.decisions,
            "rated": self.rated,
            "agreements": self.decisions - self.changes,
            "agreement": _interval(self.agreements) if self.decisions else None,
            "changes": self.changes,
            "wins": self.wins,
            "losses": self.losses,
            "pairs": len(self.pairs),
            "propensities": self.has_propensities,
            **_facts(self.overall),
            "contexts": [
                {
                    "context": gain.context,
                    "decisions": gain.decisions,
                    "changes": gain.changes,
                    **_facts(gain.estimate),
                }
                for gain in self.contexts
            ],
            "assumption": self.assumption,
            "interval": INTERVAL,
        }


def _interval(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def _facts(gain: GainEstimate) -> dict[str, object]:
    return {
        "estimated": gain.decisions,
        "left_out": gain.left_out,
        "effective": round(gain.effective, 1),
        "recorded": gain.recorded if gain.decisions else None,
        "gain": gain.gain and _interval(gain.gain),
        "verdict": gain.verdict,
    }


def compare(
    lake: Lake, challenger: Challenger, question: Question | None = None
) -> DecisionComparison:
    """Ask a challenger about recorded inputs and compare its answers with the recorded ones.

    Raises InvalidSetting if there are none, or none has a member that contexts are matched by,
    QueryFailed, and what the challenger raises.
    """
    question = question or Question()
    state = lake.at(question.ref or lake.settle().move.snapshot)
    recorded = list(read(state, question.recorded, question.conditions, question.reward))
    if not recorded:
        raise InvalidSetting(f"no {question.recorded.value} are recorded that could be compared")
    for name in question.by:
        # Before the challenger is asked, which may cost: a mistyped name makes all one context.
        if all(record.value(name) is None for record in recorded):
            raise InvalidSetting(
                f"none of the {question.recorded.value} has {name!r}, by which contexts would be"
                " matched: name a member that they have"
            )
    inputs = [record.recorded for record in recorded]
    answers = [chosen_of(answer) for answer in challenger.answers(inputs)]
    return _Comparer(recorded, answers, question.by).comparison(state.id)


def chosen_of(answer: object) -> object:
    """Return what was chosen: `chosen` or `answer` of an object, else the value itself."""
    if isinstance(answer, dict):
        return answer.get("chosen", answer.get("answer", answer))
    return answer


class _Comparer:
    """Groups decisions by their context and estimates the gain in each."""

    def __init__(
        self, records: Sequence[RecordedAnswer], answers: Sequence[object], by: tuple[str, ...]
    ) -> None:
        self._records, self._by = records, by
        self._recorded = [_spelled(record.answer) for record in records]
        self._answers = [_spelled(answer) for answer in answers]
        self._new = answers
        self._contexts = [self._context(record) for record in records]
        # Of those whose outcome is known, as by the estimate of a policy: others weigh nothing.
        propensities = [record.propensity for record in records if record.reward is not None]
        self._has_propensities = bool(propensities) and None not in propensities

    def _context(self, record: RecordedAnswer) -> str:
        if not self._by:
            return _spelled(record.recorded["context"])
        return _spelled([record.value(name) for name in self._by])

    def _label(self, context: str) -> str:
        # Only shown so: with commas in them, values of two contexts may read alike.
        values = orjson.loads(context) if self._by else [context]
        return ", ".join(v if isinstance(v, str) else _spelled(v) for v in values)

    def comparison(self, snapshot: str) -> DecisionComparison:
        changed = np.array(
            [new != old for new, old in zip(self._answers, self._recorded, strict=True)]
        )
        rated = np.array([record.reward is not None for record in self._records])
        names, numbers = np.unique(np.array(self._contexts, dtype=object), return_inverse=True)
        log, targets = self._log(rated, numbers)
        contexts = []
        for number in _by_size(numbers):
            inside = numbers == number
            gain = _estimate(log.among(inside[rated]), targets[inside[rated]])
            counts = int(inside.sum()), int(changed[inside].sum())
            contexts.append(ContextGain(self._label(names[number]), *counts, gain))
        total, changes = len(self._records), int(changed.sum())
        return DecisionComparison(
            snapshot,
            share(total - changes, total),
            total,
            changes,
            int(rated.sum()),
            self._has_propensities,
            _estimate(log, targets),
            tuple(contexts),
            tuple(self._pairs()),
        )

    def _log(self, rated: Booleans, contexts: Integers) -> tuple[LoggedChoices, Integers]:
        """The decisions whose outcome is known, and the new answers to them."""
        records = [record for record in self._records if record.reward is not None]
        options, targets = np.split(_text_ranks([*self._recorded, *self._answers]), 2)
        # A propensity may depend on more than the context, so that it is not looked at with one.
        propensities = np.array([r.propensity for r in records]) if self._has_propensities else None
        rewards = np.array([r.reward for r in records], dtype=float)
        log = LoggedChoices(
            contexts[rated] if propensities is None else np.zeros(len(records), dtype=np.int64),
            options[rated],
            rewards,
            _text_ranks([r.cluster for r in records]),
            propensities,
            int(max(options.max(), targets.max())) + 1,
            scale_of(rewards),
        )
        return log, targets[rated]

    def _pairs(self) -> list[dict[str, object]]:
        """A pair for each change between two answers of which one is better for certain.

        What is better is decided for all decisions of a context, never by the outcome of the one
        at hand: chance would then have a say in every pair.
        """
        rewards: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
        for record, context, answer in zip(
            self._records, self._contexts, self._recorded, strict=True
        ):
            if record.reward is not None:
                rewards[context, answer].append((record.reward, record.cluster))
        orders: dict[tuple[str, str, str], bool | None] = {}
        pairs = []
        for index, record in enumerate(self._records):
            context, new, old = self._contexts[index], self._answers[index], self._recorded[index]
            if new == old:
                continue
            key = context, new, old
            if key not in orders:
                # Once for all decisions of a context, so that pairs cannot contradict one another.
                orders[key] = _is_better(rewards[context, new], rewards[context, old])
            if (is_better := orders[key]) is None:
                continue
            scores = [_mean(rewards[context, answer]) for answer in (new, old)]
            spelled = [_text(self._new[index]), _text(record.answer)]
            order = (0, 1) if is_better else (1, 0)
            values = (
                _spelled(record.recorded),
                spelled[order[0]],
                spelled[order[1]],
                scores[order[0]],
                scores[order[1]],
                record.event_id,
                record.seq,
                spelled[1],
            )
            pairs.append(dict(zip(_PAIR_COLUMNS, values, strict=True)))
        return pairs


def _text_ranks(texts: list[str]) -> Integers:
    # As objects: NumPy gives all texts the room of the longest one, and drops NULs at their ends.
    return ranks(np.array(texts, dtype=object))


def _by_size(numbers: Integers) -> list[int]:
    sizes = np.bincount(numbers)
    return [int(number) for number in np.argsort(-sizes, kind="stable")]


def _is_better(new: list[tuple[float, str]], old: list[tuple[float, str]]) -> bool | None:
    """Whether one answer's outcomes are better than another's; None if that is not certain."""
    if min(len(new), len(old)) < EFFECTIVE_MIN:
        return None
    rewards = np.array([reward for reward, _ in (*new, *old)])
    clusters = _text_ranks([cluster for _, cluster in (*new, *old)])
    options = (np.arange(len(rewards)) < len(new)).astype(np.int64)
    contexts, scale = np.zeros_like(options), scale_of(rewards)
    log = LoggedChoices(contexts, options, rewards, clusters, None, 2, scale)
    gain = _estimate(log, np.ones_like(options)).verdict
    return {"win": True, "loss": False}.get(gain)


def _mean(rewards: list[tuple[float, str]]) -> float:
    return sum(reward for reward, _ in rewards) / len(rewards)


def _spelled(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS, default=str).decode()


def _text(answer: object) -> str:
    return answer if isinstance(answer, str) else _spelled(answer)


def export_pairs(
    lake: Lake, comparison: DecisionComparison, path: str | os.PathLike[str]
) -> exports.ExportResult:
    """Write the pairs of a comparison, as a file or directory of what its name says; columns as in
    a training set of shape `preference`, and the event. Raises ExportRefused, OSError."""
    state: PinnedLake = lake.at(comparison.snapshot)
    schema = pa.schema(
        [
            *((name, pa.string()) for name in _PAIR_COLUMNS[:3]),
            *((name, pa.float64()) for name in _PAIR_COLUMNS[3:5]),
            *((_PAIR_COLUMNS[5], pa.string()), (_PAIR_COLUMNS[6], pa.int64())),
            (_PAIR_COLUMNS[7], pa.string()),
        ]
    )
    pairs = pa.Table.from_pylist(list(comparison.pairs), schema)
    assert pairs is not None  # the query names it
    return state.export("SELECT * FROM pairs", path)
