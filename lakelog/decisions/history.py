"""What the recorded decisions of a lake teach: rates, calibration, estimates, recommendations.

The decision points of a state, each in a row: what is decided, how often, how well.
"""

from __future__ import annotations

import datetime
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lakelog.decisions import logged, recommendation, tuning
from lakelog.decisions.calibration import (
    BIN_COUNT,
    ConfidenceCalibration,
    ConfidenceSums,
    calibration,
)
from lakelog.decisions.decision_rows import REWARD, DecisionRows, DecisionScope, decided, member
from lakelog.decisions.intervals import Interval, JsonFinding, share
from lakelog.decisions.logged import NoDecisions, PointColumns, PointLog
from lakelog.decisions.offpolicy import METHODS, PolicyValue, best_options, evaluate
from lakelog.decisions.recommendation import Recommendation
from lakelog.decisions.report import PointReport, notes, point_report
from lakelog.decisions.tuning import SettingProposal
from lakelog.errors import InvalidSetting
from lakelog.lake import Lake
from lakelog.libraries import Integers, np
from lakelog.sql import identifier

_DECISION = "decision"
RECOMMENDATION = "RECOMMENDATION"
"""The type of the events that recommendations and proposals are recorded as."""
UNIFORM, BEST, MAJORITY = "uniform", "best", "majority"
_ASSUMED_PROPENSITIES = (
    "Assumed: the recorded propensities are those that were used, and no decision changes the"
    " outcome of another subject."
)
_ASSUMED_CONTEXT = (
    "Assumed: in one context, what was chosen did not depend on anything else that matters for the"
    " outcome, and no decision changes the outcome of another subject."
)


@dataclass(frozen=True)
class PolicyEstimate(JsonFinding):
    """What a policy would have been worth at a point. `recorded` is the mean of what was."""

    point: str
    snapshot: str
    policy: str
    recorded: float | None
    methods: tuple[PolicyValue, ...]
    has_propensities: bool
    members: tuple[str, ...]
    notes: tuple[str, ...]
    query: str

    @property
    def verdict(self) -> str:
        """`win`, `loss`, `undecided` where the interval of the gain holds 0, or `not enough
        overlap`; by the doubly robust estimate."""
        gain = self.methods[-1].gain
        return gain.verdict if gain else recommendation.NO_OVERLAP

    @property
    def assumption(self) -> str:
        """What has to be true for the estimate to be, in plain words."""
        return _ASSUMED_PROPENSITIES if self.has_propensities else _ASSUMED_CONTEXT

    def record(self) -> dict[str, Any]:
        """The estimate as JSON has it."""
        record, doubly = super().record(), self.methods[-1]
        return record | {
            "verdict": self.verdict,
            "decisions": doubly.decisions,
            "left_out": doubly.left_out,
            "effective": round(doubly.effective, 1),
            "propensities": record.pop("has_propensities"),
            "context": record.pop("members"),
            "assumption": self.assumption,
            "notes": [*self.notes, *doubly.cautions],
        }


class DecisionHistory:
    """The recorded decisions of a state of a lake; what is asked reads them in bounded memory."""

    def __init__(
        self,
        lake: Lake,
        ref: str = "",
        *,
        conditions: tuple[str, ...] = (),
        reward: str = REWARD,
        keeps_sealed: bool = False,
    ) -> None:
        """`ref` is a tag, branch, snapshot or time, "" for the present state; `conditions` are SQL
        that holds for the decisions that count; `reward` says what an outcome is worth, in SQL over
        the columns of the view `decisions`: by default its reward, or 1 and 0 for words like
        `success` and `failure`. With `keeps_sealed` no answer has protected fields, so that it may
        be recorded."""
        self._lake = lake
        self._scope = DecisionScope(ref, None, (), conditions, reward, keeps_sealed)

    def points(self, limit: int = 20) -> tuple[list[DecisionPoint], int]:
        """Return the points with most decisions, and how many points there are.

        Raises UnknownRef, QueryFailed."""
        return decision_points(DecisionRows(self._lake, self._scope), limit)

    def report(
        self, point: str, context: Mapping[str, str] | None = None, members: tuple[str, ...] = ()
    ) -> PointReport:
        """Return what is known of a point, in a context, and by `members`: without them, by
        up to three that say most of what was chosen or came of it.

        Raises InvalidSetting if there are no such decisions, UnknownRef, QueryFailed."""
        rows, log = self._read(point, context, members)
        return point_report(log, point, rows.snapshot, _evidence(rows, log.members))

    def recommend(
        self, point: str, context: Mapping[str, str] | None = None, members: tuple[str, ...] = ()
    ) -> Recommendation:
        """Return which option to choose in a context, adjusted for `members`, or that there
        is not enough evidence, as in a context of which there was no decision. Raises as `report`
        does."""
        is_known = True
        try:
            rows, log = self._read(point, context, members)
        except NoDecisions:
            if not context:
                raise
            # Of the point without the context: where that is unknown, too, it is a mistake.
            rows, log = self._read(point, None, members)
            is_known = False
        empty = Recommendation(
            point=point,
            snapshot=rows.snapshot,
            as_of=_newest(log),
            context=dict(context or {}),
            members=log.members,
            notes=tuple(notes(log)),
            query=_evidence(rows, log.members),
        )
        if not is_known:
            return replace(
                empty,
                verdict=recommendation.NO_EVIDENCE,
                reason="no decision was made in this context",
                majority=log.option_names[int(np.bincount(log.options).argmax())],
            )
        return recommendation.recommendation(log, empty)

    def estimate(
        self,
        point: str,
        policy: str,
        context: Mapping[str, str] | None = None,
        members: tuple[str, ...] = (),
    ) -> PolicyEstimate:
        """Return what a policy would have been worth. It is an option that is always chosen,
        `majority`, `uniform` (each option with the same chance), `best` (the best one of each
        context, learnt from other subjects), or SQL for an option, over `context` (JSON),
        `options`, `subject`, `source` and `time`. Raises as `report` does."""
        rows, log = self._read(point, context, members)
        targets: Integers | None
        sentences = notes(log)
        if policy in log.option_names:
            targets = np.full(len(log), log.option_names.index(policy))
        elif policy == MAJORITY:
            targets = np.full(len(log), int(np.bincount(log.options).argmax()))
        elif policy in (UNIFORM, BEST):
            targets = None
        else:
            # Read again: a policy in SQL is evaluated by the engine, over what was known before a
            # decision.
            rows, log = self._read(point, context, log.members, policy=policy)
            assert log.targets is not None
            targets = log.targets
        choices = log.choices()
        if policy == BEST and policy not in log.option_names:
            targets = best_options(choices)
        elif targets is not None:
            targets = targets[log.rated]
            unknown = int((targets < 0).sum())
            if unknown:
                sentences.append(
                    f"{unknown:,} decisions are left out: their option was never chosen"
                )
                # Nothing is known of what an option brings that nobody chose.
                choices, targets = choices.among(targets >= 0), targets[targets >= 0]
        values = evaluate(choices, targets)
        return PolicyEstimate(
            *(point, rows.snapshot, policy),
            float(choices.rewards.mean()) if len(choices) else None,
            tuple(values[method] for method in METHODS),
            choices.propensities is not None,
            log.members,
            tuple(sentences),
            _evidence(rows, log.members),
        )

    def tune(
        self,
        point: str,
        setting: str,
        context: Mapping[str, str] | None = None,
        members: tuple[str, ...] = (),
    ) -> SettingProposal:
        """Return a better value for a numeric setting, a member of the decisions or `chosen`, or
        that there is not enough evidence. Raises as `report` does."""
        rows, log = self._read(point, context, members, setting=setting)
        column = "chosen" if setting == "chosen" else member(setting)
        empty = SettingProposal(
            point=point,
            snapshot=rows.snapshot,
            as_of=_newest(log),
            context=dict(context or {}),
            setting=setting,
            members=log.members,
            notes=tuple(notes(log)),
            query=_evidence(rows, log.members, column),
        )
        return tuning.proposal(log, empty)

    def _read(
        self,
        point: str,
        context: Mapping[str, str] | None,
        members: tuple[str, ...],
        setting: str | None = None,
        policy: str | None = None,
    ) -> tuple[DecisionRows, PointLog]:
        if self._scope.keeps_sealed:
            self._require_plain(("chosen", *(context or ()), *members, setting or ""))
        scope = replace(self._scope, point=point, context=tuple((context or {}).items()))
        rows = DecisionRows(self._lake, scope)
        # A setting is no context of itself.
        members = members or tuple(n for n in logged.choose_members(rows) if n != setting)
        return rows, logged.read(rows, PointColumns(members, setting, policy))

    def _require_plain(self, names: Iterable[str]) -> None:
        protection = self._lake.store.paths.protection
        for name in names:
            if protection is not None and protection.covers(_DECISION, name):
                raise InvalidSetting(
                    f"{name} is a protected field, and what is recorded has none of them: leave it"
                    " out, or look without recording"
                )


def _newest(log: PointLog) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(log.times.max()) / 1e6, datetime.UTC)


def _evidence(rows: DecisionRows, members: tuple[str, ...], column: str = "chosen") -> str:
    """SQL that shows the decisions behind a finding, by context and option."""
    names = {name: member(name) for name in members}
    select = "".join(f"{value} AS {identifier(name)}, " for name, value in names.items())
    return (
        f"WITH {decided(rows.scope)}\nSELECT {select}{column} AS option, count(*) AS decisions,"
        " count(worth) AS rated, avg(worth) AS reward FROM decided GROUP BY ALL ORDER BY ALL"
    )


def recommendation_event(finding: Recommendation | SettingProposal) -> dict[str, Any]:
    """Return a finding as an event of type RECOMMENDATION. It is stored once, however often the
    same is asked and found in the same decisions."""
    record = finding.record()
    about = " ".join(str(n) for n in (record.get("setting"), record["context"]) if n) or "{}"
    name = (
        f"{finding.point} {about} {finding.verdict} {record.get('option')} {record.get('proposed')}"
    )
    # By the newest decision and not by the clock: the same evidence is the same event. What was
    # asked is part of it: another condition or reward may find the same option.
    name += f" {finding.as_of.isoformat()} {finding.query}"
    message = ", ".join([finding.point, *(f"{n}={v}" for n, v in finding.context.items())])
    if isinstance(finding, Recommendation):
        message += f": {finding.option or finding.verdict}, {finding.reason}"
    else:
        proposed = finding.verdict if finding.proposed is None else f"{finding.proposed:g}"
        message += f": {finding.setting} {proposed}, {finding.reason}"
    return {
        "type": RECOMMENDATION,
        "source": "lakelog decisions",
        "id": hashlib.blake2b(name.encode(), digest_size=12).hexdigest(),
        "time": finding.as_of,
        "message": message,
        "data": {**record, "as_of": finding.as_of.isoformat()},
    }


@dataclass(frozen=True)
class DecisionPoint(JsonFinding):
    """A point at which is decided. `rated` decisions have an outcome that is worth something;
    a win is one that is worth more than 0: `won` is the share of them, None where no outcome is
    known. `majority` is the option that is chosen most."""

    point: str
    decisions: int
    rated: int
    options: int
    majority: str
    majority_share: float
    won: Interval | None
    reward: float | None
    calibration: ConfidenceCalibration | None
    first: datetime.datetime
    last: datetime.datetime

    def record(self) -> dict[str, Any]:
        """The row as JSON has it."""
        record = super().record()
        calibrated = record.pop("calibration")
        error, brier = (calibrated and calibrated[name] for name in ("error", "brier"))
        # The times stay the last members of a row.
        times = {name: record.pop(name) for name in ("first", "last")}
        return record | {"calibration_error": error, "brier": brier} | times


def decision_points(rows: DecisionRows, limit: int) -> tuple[list[DecisionPoint], int]:
    """Return the points with most decisions, and how many points there are. Raises QueryFailed."""
    cells = defaultdict[str, list[tuple[Any, ...]]](list)
    answer = rows.ask(_POINTS.format(limit=int(limit))).fetchall()
    for point, _, *sums in answer:
        cells[point].append(tuple(sums))
    points = [_sum_up(name, sums) for name, sums in cells.items()]
    return points, answer[0][1] if answer else 0


# Confidences outside of 0 to 1 have no bin, and NaN compares as the highest number.
_POINTS = f"""SELECT point, total, chosen, bin, decisions, rated, wins, value, confidence, square,
    first, last
FROM (
    SELECT coalesce(point, '') AS point, chosen,
        CASE WHEN worth IS NOT NULL AND confidence BETWEEN 0 AND 1
            THEN least(floor(confidence * {BIN_COUNT}), {BIN_COUNT - 1})::INT END AS bin,
        count(*) AS decisions, count(worth) AS rated,
        count(*) FILTER (worth > 0) AS wins, sum(worth) AS value, sum(confidence) AS confidence,
        sum((confidence - (worth > 0)::INT) ** 2) AS square, min(time) AS first, max(time) AS last
    FROM decided GROUP BY ALL
) JOIN (
    SELECT point, decisions AS size, count(*) OVER () AS total
    FROM (SELECT coalesce(point, '') AS point, count(*) AS decisions FROM made GROUP BY 1)
    ORDER BY size DESC, point LIMIT {{limit}}
) USING (point) ORDER BY size DESC, point, chosen, bin"""


def _sum_up(name: str, sums: list[tuple[Any, ...]]) -> DecisionPoint:
    """Add up the rows of a point, one for each option and bin of confidence."""
    # One query counts by both, so the figures of an option and those of a bin are sums of rows.
    options = defaultdict[str, int](int)
    bins = defaultdict[int, list[float]](lambda: [0, 0, 0.0, 0.0])
    decisions = rated = wins = 0
    value = 0.0
    for option, number, count, rated_count, won, worth, confidence, square, _, _ in sums:
        options[option] += count
        decisions, rated, wins = decisions + count, rated + rated_count, wins + won
        value += worth or 0.0
        if number is not None:
            for place, figure in enumerate((count, won, confidence, square)):
                bins[number][place] += figure
    majority = min(options, key=lambda option: (-options[option], option))
    return DecisionPoint(
        name,
        decisions,
        rated,
        len(options),
        majority,
        options[majority] / decisions,
        share(wins, rated) if rated else None,
        value / rated if rated else None,
        calibration(
            ConfidenceSums(number, int(figures[0]), int(figures[1]), figures[2], figures[3])
            for number, figures in bins.items()
        ),
        min(row[-2] for row in sums),
        max(row[-1] for row in sums),
    )
