"""The next values of a series, by whichever simple model was best in the past.

Each model is asked what it would have said of earlier days, from what was known then. One is taken
in the place of the seasonal naive model, the values of a day before, only if its mean absolute
scaled error (MASE; Hyndman and Koehler, 2006) is less than 0.95 times that one's. Intervals are
conformal: their width is a quantile of the errors that the model made on those days.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lakelog.errors import InvalidSetting
from lakelog.libraries import Floats, np

NAIVE = "seasonal naive"
BETTER = 0.95
_FOLDS, _WIDTH_FOLDS = 7, 14
_SEASONS_MIN = 3
# The model is chosen on the same days, so its errors there are a little smaller than they will be.
_COVERAGE = 0.92
_WEEK = 7
LARGEST = 1e300
"""Sums of larger numbers may be infinite."""


@dataclass(frozen=True)
class Forecast:
    """The next values, and their intervals that hold nine in ten. `error` and `naive_error` are the
    mean absolute scaled errors of the `model` and of the seasonal naive one on `folds` earlier
    seasons."""

    values: Floats
    low: Floats
    high: Floats
    model: str
    error: float
    naive_error: float
    folds: int


def forecast(series: Floats, season: int, horizon: int, lower_bound: float = -math.inf) -> Forecast:
    """Return the next `horizon` values of a series with as many values a day as `season`, none of
    them below `lower_bound`, which is 0 for numbers of events.

    Raises InvalidSetting for fewer than four days, a value that is no number, or no horizon."""
    check_numbers(series)
    if horizon < 1 or season < 1:
        raise InvalidSetting("a forecast has at least one value")
    fold_count = min(_WIDTH_FOLDS, (len(series) - _SEASONS_MIN * season) // horizon)
    if fold_count < 1:
        raise InvalidSetting(
            f"a forecast of {horizon:,} values needs {_SEASONS_MIN * season + horizon:,} values"
            f" before; there are {len(series):,}"
        )
    # A series that never changes has no error to scale by.
    scale = float(np.abs(series[season:] - series[:-season]).mean()) or 1.0
    errors: dict[str, list[Floats]] = {}
    for fold in range(1, fold_count + 1):
        # Each fold ends where the one after it began: the model knows only what was before.
        origin = len(series) - fold * horizon
        actual = series[origin : origin + horizon]
        for name, values in _models(series[:origin], season, horizon).items():
            errors.setdefault(name, []).append(np.abs(actual - np.maximum(values, lower_bound)))
    means = {
        name: float(np.mean(folds[:_FOLDS])) / scale
        for name, folds in errors.items()
        # A model that needs more days than some folds have cannot be compared.
        if len(folds) >= min(fold_count, _FOLDS)
    }
    best = min(means, key=lambda name: means[name])
    # A little better may be chance.
    model = best if means[best] < BETTER * means[NAIVE] else NAIVE
    values = np.maximum(_models(series, season, horizon)[model], lower_bound)
    # From the same folds, as conformal intervals need errors out of sample.
    width = _widths(np.stack(errors[model]))
    folds = min(fold_count, _FOLDS)
    low, high = np.maximum(values - width, lower_bound), values + width
    return Forecast(values, low, high, model, means[model], means[NAIVE], folds)


def check_numbers(series: Floats) -> None:
    """Raise InvalidSetting for a series with values that cannot be added up."""
    if not (np.abs(series) <= LARGEST).all():
        raise InvalidSetting(f"a series has numbers only, up to {LARGEST:g}")


def _models(series: Floats, season: int, horizon: int) -> dict[str, Floats]:
    """What each model says of the next values, by its name."""
    steps = np.arange(horizon)
    last_day = series[-season:]
    models = {
        NAIVE: last_day[steps % season],
        "last value": np.full(horizon, series[-1]),
        "median of a day": np.full(horizon, float(np.median(last_day))),
        "drift": series[-1] + (steps + 1) * _slope(series[-_SEASONS_MIN * season :]),
    }
    for days in (_SEASONS_MIN, _WEEK):
        if len(series) >= days * season:
            by_day = series[-days * season :].reshape(days, season)
            models[f"median of {days} days"] = np.median(by_day, axis=0)[steps % season]
            mean = by_day.mean(axis=0)
            models[f"mean of {days} days"] = mean[steps % season]
            # 0.8 an hour: what is unusual now has passed within a day.
            offset = (series[-1] - mean[-1]) * 0.8 ** (steps * 24 / season)
            models[f"mean of {days} days, from here"] = mean[steps % season] + offset
    if len(series) >= _WEEK * season:
        week = series[-_WEEK * season :][steps % (_WEEK * season)]
        models["a week before"] = week
        models["a week before, and 7 days"] = (week + models["median of 7 days"]) / 2
    # A mean of three models is seldom the best, and seldom bad.
    models["blend"] = (models[NAIVE] + models["mean of 3 days"] + models["last value"]) / 3
    return models


def _slope(series: Floats) -> float:
    return float(series[-1] - series[0]) / max(len(series) - 1, 1)


def _widths(errors: Floats) -> Floats:
    """A quantile of the errors around each step; `errors` has a row for each fold."""
    widths = np.empty(errors.shape[1])
    for step in range(errors.shape[1]):
        # Errors of neighbouring steps are alike: together they give a steadier quantile.
        near = np.sort(errors[:, max(0, step - 2) : step + 3].ravel())
        # The rank of conformal prediction, which holds for finite samples.
        rank = math.ceil((len(near) + 1) * _COVERAGE) - 1
        widths[step] = near[min(rank, len(near) - 1)]
    return widths
