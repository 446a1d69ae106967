"""Whether the rows that a model is asked about are such as it has learnt from.

A profile has the share of training rows in each bin of a feature: a name each, or tenths of the
numbers. The population stability index (PSI) of a feature is the sum over the bins of
(share now - share then) times the logarithm of their ratio. From 0.25 on, a feature is commonly
said to have drifted; what the number of rows alone makes of it is added to that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lakelog.libraries import Floats, np
from lakelog.outcomes.features import CLOCKS, Feature

PSI_MAX = 0.25
ROWS_MIN = 50
"""Of fewer rows, nothing is said of drift."""
_TENTHS = np.arange(1, 10) / 10
_SMOOTH = 0.5


@dataclass(frozen=True)
class FeatureProfile:
    """The rows of a training set in each bin of a feature; `edges` are the upper ends of all bins
    of numbers but the last one. The last bin is for rows without a value."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Drift:
    """A feature that is not as it was in training, and by how much."""

    feature: str
    psi: float


def profile_of(feature: Feature, column: Floats) -> FeatureProfile:
    """Return the profile of a feature's column."""
    edges: tuple[float, ...] = ()
    if not feature.values:
        present = column[~np.isnan(column)]
        edges = tuple(np.unique(np.quantile(present, _TENTHS)).tolist()) if len(present) else ()
    profile = FeatureProfile(edges, ())
    return FeatureProfile(edges, tuple(_counts(feature, profile, column).astype(int).tolist()))


def drifts(
    features: Sequence[Feature], profiles: Sequence[FeatureProfile], columns: Sequence[Floats]
) -> list[Drift]:
    """Return the features of columns that have drifted, the worst first; of clocks none."""
    result = []
    for feature, profile, column in zip(features, profiles, columns, strict=True):
        if feature.source in CLOCKS or len(column) < ROWS_MIN:
            continue
        reference = np.array(profile.counts, np.float64)
        counts = _counts(feature, profile, column)
        psi = _psi(reference, counts)
        if psi > PSI_MAX + _chance(len(counts), reference.sum(), counts.sum()):
            result.append(Drift(feature.name, psi))
    return sorted(result, key=lambda drift: -drift.psi)


def _counts(feature: Feature, profile: FeatureProfile, column: Floats) -> Floats:
    missing = np.isnan(column)
    if feature.values:
        bins, size = column.astype(np.int64), feature.width + 1
    else:
        size = len(profile.edges) + 2
        bins = np.searchsorted(np.array(profile.edges), column, side="left")
        bins = np.where(missing, size - 1, np.minimum(bins, size - 2))
    return np.bincount(bins, minlength=size).astype(np.float64)


def _psi(reference: Floats, counts: Floats) -> float:
    """The index, with half a row more in each bin, so that an empty one has a logarithm."""
    before, after = (
        (smoothed := of_bins + _SMOOTH) / smoothed.sum() for of_bins in (reference, counts)
    )
    return float(((after - before) * np.log(after / before)).sum())


def _chance(bins: int, reference_rows: float, rows: float) -> float:
    """What the index of rows without any drift hardly exceeds."""
    freedom = max(bins - 1, 1)
    return (freedom + 3 * math.sqrt(2 * freedom)) * (1 / reference_rows + 1 / rows)
