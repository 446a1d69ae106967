"""Whether confidences are right: of decisions that are 80 % sure, 80 % should be won.

Confidences are put into ten bins of equal width. The Brier score is their mean squared distance
from what came of it, and has parts (Murphy, Journal of Applied Meteorology 1973; the part within
bins: Stephenson et al., Weather and Forecasting 2008):

    brier = reliability - resolution + uncertainty + within

`reliability` is what better calibration could save, `resolution` how far confidences tell decisions
apart, `uncertainty` what stating the win rate each time would have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lakelog.decisions.intervals import Interval, JsonFinding, share

BIN_COUNT = 10


@dataclass(frozen=True)
class ConfidenceSums:
    """The decisions of one bin, from 0 on: their number, how many were won, and the sums of their
    confidences and of their squared distances from 1 where won and from 0 where not."""

    bin: int
    count: int
    wins: int
    confidence: float
    square: float


@dataclass(frozen=True)
class ReliabilityBin(JsonFinding):
    """Decisions of about the same confidence: between which, on average, and the share won."""

    low: float
    high: float
    count: int
    confidence: float
    won: Interval


@dataclass(frozen=True)
class ConfidenceCalibration(JsonFinding):
    """How right confidences were. `error` is the expected calibration error: how far they are from
    the share that was won, on average; `error_by_chance` what it would be if they were right."""

    count: int
    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within: float
    error: float
    error_by_chance: float
    bins: tuple[ReliabilityBin, ...]


def calibration(sums: Iterable[ConfidenceSums]) -> ConfidenceCalibration | None:
    """Return how right confidences were; None of none."""
    cells = sorted((cell for cell in sums if cell.count), key=lambda cell: cell.bin)
    total = sum(cell.count for cell in cells)
    if not total:
        return None
    base = sum(cell.wins for cell in cells) / total
    brier = sum(cell.square for cell in cells) / total
    reliability = resolution = error = by_chance = 0.0
    for cell in cells:
        weight, mean = cell.count / total, cell.confidence / cell.count
        won = cell.wins / cell.count
        reliability += weight * (mean - won) ** 2
        resolution += weight * (won - base) ** 2
        error += weight * abs(mean - won)
        # The mean distance of a normal variable from its mean.
        spread = max(mean * (1 - mean), 0.0) / cell.count
        by_chance += weight * math.sqrt(2 / math.pi * spread)
    uncertainty = base * (1 - base)
    within = brier - (reliability - resolution + uncertainty)
    bins = tuple(
        ReliabilityBin(
            cell.bin / BIN_COUNT,
            (cell.bin + 1) / BIN_COUNT,
            cell.count,
            cell.confidence / cell.count,
            share(cell.wins, cell.count),
        )
        for cell in cells
    )
    figures = (brier, reliability, resolution, uncertainty, within, error, by_chance)
    return ConfidenceCalibration(total, *figures, bins)
