"""The decision points of a state, each in a row: what is decided, how often, how well."""

from __future__ import annotations

import datetime
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from lakelog.decisions.calibration import (
    BIN_COUNT,
    ConfidenceCalibration,
    ConfidenceSums,
    calibration,
)
from lakelog.decisions.decision_rows import DecisionRows
from lakelog.decisions.intervals import Finding, Interval, share


@dataclass(frozen=True)
class DecisionPoint(Finding):
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
        first, last, calibrated = (record.pop(n) for n in ("first", "last", "calibration"))
        error, brier = (calibrated and calibrated[name] for name in ("error", "brier"))
        return record | {"calibration_error": error, "brier": brier, "first": first, "last": last}


def decision_points(rows: DecisionRows, limit: int) -> tuple[list[DecisionPoint], int]:
    """Return the points with most decisions, and how many points there are. Raises QueryFailed."""
    cells = defaultdict[str, list[tuple[Any, ...]]](list)
    answer = rows.ask(_POINTS.format(limit=int(limit))).fetchall()
    for point, _, *sums in answer:
        cells[point].append(tuple(sums))
    points = [_point(name, sums) for name, sums in cells.items()]
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


def _point(name: str, sums: list[tuple[Any, ...]]) -> DecisionPoint:
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
