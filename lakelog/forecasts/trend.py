"""When a series that grows reaches a limit: a disk that fills, a budget that is used up.

The trend is the median of slopes between pairs of values (Theil, 1950; Sen, 1968), which single
jumps do not change. Of the whole series, its last half and its last quarter, it is that of the part
that would have told best what came last.
"""

from __future__ import annotations

from dataclasses import dataclass

from lakelog.errors import InvalidSetting
from lakelog.forecasts.models import LARGEST, check_numbers
from lakelog.libraries import Floats, np

# Some hundred points give tens of thousands of pairs.
_VALUES_MIN, _POINTS = 8, 300
_SHARES = (1.0, 0.5, 0.25)
_HELD_OUT = 0.1
_QUANTILES = (5, 95)


@dataclass(frozen=True)
class TimeToLimit:
    """How many steps from the last value a limit is reached, and an interval; None for never.

    `slope` is the growth of a step."""

    steps: float | None
    low: float | None
    high: float | None
    slope: float


def time_to_limit(series: Floats, limit: float) -> TimeToLimit:
    """Return when a series reaches a limit, from below or above, if it goes on as it does.

    Raises InvalidSetting for fewer than eight values, or one or a limit that is no number."""
    if len(series) < _VALUES_MIN:
        raise InvalidSetting(f"a trend needs at least {_VALUES_MIN} numbers")
    check_numbers(series)
    if not abs(limit) <= LARGEST:
        raise InvalidSetting(f"a limit is a number, not {limit:g}")
    # The part whose trend would have told the last tenth best.
    count = min((_window(series, share) for share in _SHARES), key=lambda n: _miss(series, n))
    window = series[-count:]
    slopes = _slopes(window)
    slope = float(np.median(slopes))
    level = _level(window, slope)
    spread = np.percentile(_slopes_of_blocks(window), _QUANTILES)
    edges = (_steps(level, float(edge), limit) for edge in spread)
    # 0 steps are an answer: the limit is reached now.
    ends = sorted(steps for steps in edges if steps is not None)
    is_open = len(ends) < len(spread)
    # One edge that never reaches the limit leaves the interval open.
    low, high = (ends[0] if ends else None), (None if is_open else ends[-1])
    return TimeToLimit(_steps(level, slope, limit), low, high, slope)


def _window(series: Floats, share: float) -> int:
    return max(_VALUES_MIN, int(len(series) * share))


def _miss(series: Floats, count: int) -> float:
    """How far off the trend of a window is that ends before the last values."""
    held_out = max(1, int(len(series) * _HELD_OUT))
    earlier = series[:-held_out][-count:]
    # Too few values for a trend: the window is no choice.
    if len(earlier) < _VALUES_MIN // 2:
        return float("inf")
    slope = float(np.median(_slopes(earlier)))
    expected = _level(earlier, slope) + slope * np.arange(1, held_out + 1)
    return float(np.abs(series[-held_out:] - expected).mean())


def _slopes(window: Floats) -> Floats:
    """Slopes between pairs of values, of some hundred points at most."""
    places = np.unique(np.linspace(0, len(window) - 1, min(len(window), _POINTS)).astype(int))
    starts, ends = np.triu_indices(len(places), 1)
    rise = window[places[ends]] - window[places[starts]]
    slopes: Floats = rise / (places[ends] - places[starts])
    return slopes


def _slopes_of_blocks(window: Floats) -> Floats:
    """The trends of eight parts of a window: how much the trend varies."""
    blocks = np.array_split(window, max(2, min(8, len(window) // 4)))
    trends = np.array([float(np.median(_slopes(block))) for block in blocks if len(block) > 1])
    # The standard error of the trends of the parts.
    spread = trends.std() / np.sqrt(len(trends))
    trend: Floats = np.median(_slopes(window)) + spread * np.linspace(-2, 2, 21)
    return trend


def _level(window: Floats, slope: float) -> float:
    """Where the trend is at the last value."""
    # The median of what is left without the trend.
    return float(np.median(window - slope * np.arange(len(window)))) + slope * (len(window) - 1)


def _steps(level: float, slope: float, limit: float) -> float | None:
    distance = limit - level
    if distance == 0:
        return 0.0
    # It moves away from the limit, or not at all.
    return None if slope * distance <= 0 else distance / slope
