"""Which option to choose in a context, from what came of decisions in it.

The options are compared with the one that is chosen most, the majority option: each by its doubly
robust value (offpolicy.py), with 99 % for all comparisons together (Bonferroni). What is better for
certain is then tried on the later decisions: what would have been recommended after the first 70 %
of the time must have been better in the others, too. Else there is not enough evidence.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from typing import Any

from lakelog.decisions.intervals import LEVEL, Interval, JsonFinding, difference, ends
from lakelog.decisions.logged import PointLog
from lakelog.decisions.offpolicy import DR, LoggedChoices, PolicyValue, evaluate
from lakelog.libraries import Booleans, np

RECOMMENDED = "recommended"
NO_EVIDENCE, NO_OVERLAP = "not enough evidence", "not enough overlap"
CERTAIN = 0.99
EARLIER = 0.7
"""The share of decisions that a recommendation is finding of to be tried on the others."""
_OPTIONS_MAX = 20


@dataclass(frozen=True)
class OptionValue(JsonFinding):
    """An option with the decisions that chose it, those with an outcome, and what it is worth if it
    is always chosen."""

    option: str
    decisions: int
    rated: int
    value: PolicyValue

    def record(self) -> dict[str, Any]:
        """The value as JSON has it."""
        effective = round(self.value.effective, 1)
        return super().record() | {"effective": effective} | ends("value", self.value.value)


@dataclass(frozen=True)
class Backtest(JsonFinding):
    """What was recommended earlier, and how much better than the majority option that was later;
    None if too little is known of it."""

    option: str
    gain: Interval | None


@dataclass(frozen=True, kw_only=True)
class Recommendation(JsonFinding):
    """What to choose: an option if `verdict` is `recommended`, else None, and why. `gain` is how
    much more `best`, the option that seems best, is worth than the majority option. `as_of` is the
    time of the newest decision."""

    point: str
    snapshot: str
    as_of: datetime.datetime
    context: dict[str, str]
    verdict: str = ""
    reason: str = ""
    option: str | None = None
    best: str | None = None
    majority: str = ""
    gain: Interval | None = None
    options: tuple[OptionValue, ...] = ()
    backtest: Backtest | None = None
    members: tuple[str, ...]
    notes: tuple[str, ...]
    query: str

    def record(self) -> dict[str, Any]:
        """The recommendation as JSON has it."""
        record = super().record()
        options: list[dict[str, Any]] = record["options"]
        best = next((entry for entry in options if entry["option"] == self.best), {})
        return record | {
            "support": best.get("rated", 0),
            "effective": best.get("effective", 0.0),
            **{name: best.get(name) for name in ends("value", None)},
            "adjusted_for": record.pop("members"),
        }


def recommendation(log: PointLog, finding: Recommendation) -> Recommendation:
    """Complete a recommendation, of which point, context and evidence are known."""
    counts = np.bincount(log.options, minlength=len(log.option_names))
    # What people chose most had reasons that may not be recorded: it has to be beaten.
    majority = int(counts.argmax())
    candidates = [int(number) for number in np.argsort(-counts, kind="stable")[:_OPTIONS_MAX]]
    values = _values(log.choices(), candidates)
    rated = np.bincount(log.options[log.rated], minlength=len(counts))
    names = log.option_names
    options = tuple(
        OptionValue(names[number], int(counts[number]), int(rated[number]), value)
        for number, value in values.items()
    )
    finding = replace(finding, majority=names[majority], options=options)
    best = _best(values)
    if best is None or values[majority].value is None:
        reason = "fewer than 30 effective outcomes of the options that are chosen"
        return replace(finding, verdict=NO_OVERLAP, reason=reason)
    gain = _gain(values, best, majority) if best != majority else None
    finding = replace(finding, best=names[best], gain=gain)
    if best == majority:
        # That it is chosen most is no evidence: it is confirmed only where it beats each of the
        # others.
        rivals = [_gain(values, majority, number) for number in values if number != majority]
        certain = [rival for rival in rivals if rival is not None]
        if not certain or any(rival.low <= 0 for rival in certain):
            reason = "it is chosen most, and no other option is worse for certain"
            reason = reason if certain else "no other option has enough outcomes"
            return replace(finding, verdict=NO_EVIDENCE, reason=reason)
        reason = "it is chosen most, and better than the others"
        return replace(finding, verdict=RECOMMENDED, option=names[best], reason=reason)
    assert gain is not None
    if gain.low <= 0:
        return replace(finding, verdict=NO_EVIDENCE, reason="the difference may be chance")
    return _tested(log, finding, candidates, best, majority)


def _tested(
    log: PointLog, finding: Recommendation, candidates: list[int], best: int, majority: int
) -> Recommendation:
    """A recommendation, if what was known earlier would have led to a better option later."""
    choices = log.choices()
    is_early = early(len(choices))
    before = _best(_values(choices.among(is_early), candidates))
    # What would have been recommended then is what is tried, not what is known by now to be best.
    tried = best if before is None or before == majority else before
    # One comparison that was chosen before: no correction for several.
    later = choices.among(~is_early)
    gain = _gain(_values(later, [tried, majority], LEVEL), tried, majority)
    finding = replace(finding, backtest=Backtest(log.option_names[tried], gain))
    if gain is None:
        reason = "too few later decisions to try it on"
    elif gain.mean <= 0:
        reason = "it was not better in the later decisions"
    else:
        reason = "better than the option that is chosen most, also in later decisions"
        option = log.option_names[best]
        return replace(finding, verdict=RECOMMENDED, option=option, reason=reason)
    return replace(finding, verdict=NO_EVIDENCE, reason=reason)


def early(size: int) -> Booleans:
    """Which of some decisions, in the order of time, are the earlier ones."""
    mask: Booleans = np.arange(size) < EARLIER * size
    return mask


def _values(
    choices: LoggedChoices, candidates: list[int], level: float | None = None
) -> dict[int, PolicyValue]:
    """What each option is worth if it is always chosen."""
    tests = max(len(candidates) - 1, 1)
    level = 1 - (1 - CERTAIN) / tests if level is None else level
    return {
        number: evaluate(choices, np.full(len(choices), number), level)[DR] for number in candidates
    }


def _best(values: dict[int, PolicyValue]) -> int | None:
    means = {number: value.value.mean for number, value in values.items() if value.value}
    return max(means, key=lambda number: means[number]) if means else None


def _gain(values: dict[int, PolicyValue], option: int, majority: int) -> Interval | None:
    value, reference = values[option].value, values[majority].value
    return difference(value, reference) if value and reference else None
