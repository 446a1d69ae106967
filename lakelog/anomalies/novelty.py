"""How unusual each value of a series is: novel in itself, and novel for its time of day.

A value is novel if no earlier one is near it, by a share of the range that the series had so far.
What counts is how rare such novelty is: in a series that always brings new values, one more says
little. The score is made of the rates of both kinds of novelty so far,

    surprise = -log10(rate of novel values) - log10(rate of values novel for their time of day)
    score    = 1 - 10 ** (-surprise / 2)

each term only where the value is novel in that way. After a score, smaller ones are 0 for QUIET
rows, so that an incident is one finding. Nothing looks ahead; memory is bounded by LEADERS_MAX.
The idea of novelty by context is that of CAD OSE (Smirnov, 2016), without its contexts of bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from lakelog.errors import InvalidEvent, InvalidSetting
from lakelog.libraries import Floats, np
from lakelog.values import parse_time, to_micros

THRESHOLD = 0.868
"""A score that is worth a look: the best one on half of the Numenta Anomaly Benchmark."""
SCORE = "anomaly_score"
"""The column that scores are written to."""
QUIET = 300
LEADERS_MAX = 5_000
_LARGEST = 1e307
"""Differences of larger values would be infinite."""
_NEAR_VALUE, _NEAR_AT_TIME = 0.03, 0.08
_DAY_US = 86_400_000_000
_NEAR_TIME = 1 / 16
"""Times of day that are compared: one and a half hours to both sides."""


class NoveltyDetector:
    """Scores the values of one series in their order."""

    def __init__(self) -> None:
        self._low, self._high = math.inf, -math.inf
        self._values = _Leaders(_NEAR_VALUE)
        self._values_at_times = _Leaders(_NEAR_AT_TIME)
        self._rows_since, self._loudest = QUIET, 0.0

    def score(self, time_us: int, value: float) -> float:
        """Return how unusual a value is, from 0 to 1, and learn it. A value that is no number, or
        infinite, is neither scored nor learnt."""
        if not math.isfinite(value):
            return 0.0
        value = min(max(value, -_LARGEST), _LARGEST)
        self._low, self._high = min(value, self._low), max(value, self._high)
        # A constant series has no range: the least one keeps the distance from being 0 / 0.
        extent = max(self._high - self._low, 1e-9 * (1 + abs(value)))
        time_of_day = time_us % _DAY_US / _DAY_US
        surprise = self._values.surprise(value, time_of_day, extent, None)
        surprise += self._values_at_times.surprise(value, time_of_day, extent, _NEAR_TIME)
        return self._first_of_its_incident(1 - 10 ** (-surprise / 2))

    def _first_of_its_incident(self, score: float) -> float:
        self._rows_since += 1
        if score <= (self._loudest if self._rows_since < QUIET else 0.0):
            return 0.0
        self._rows_since, self._loudest = 0, score
        return score


def score_rows(
    rows: Iterable[dict[str, str]], time_column: str, value_column: str
) -> Iterator[dict[str, str]]:
    """Yield the rows of a series with a column `anomaly_score`, each as soon as it is read. Where
    there is no value, the score is 0. Raises InvalidSetting for a row without a time, whose value
    is no number, or with more cells than there are columns."""
    detector = NoveltyDetector()
    number = 1
    for row in rows:
        # As an editor numbers them: a reader knows of blank lines, which are no rows.
        number = getattr(rows, "line_num", number + 1)
        try:
            if any(row.get(None, ())):  # type: ignore[call-overload]
                raise ValueError("more cells than columns")
            time_us = to_micros(parse_time(row[time_column]))
            value = float(row[value_column] or "nan")
        except (InvalidEvent, TypeError, ValueError) as error:
            raise InvalidSetting(f"line {number}: {error}") from None
        yield row | {SCORE: f"{detector.score(time_us, value):.6g}"}


class _Leaders:
    """Values that were novel when they came, and how often a value is."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._leaders: Floats = np.empty(64)
        self._times: Floats = np.empty(64)
        self._size = 0
        # As if one of two values had been novel: a rate of 0 has no logarithm.
        self._novel, self._rows = 1.0, 2.0

    def surprise(
        self, value: float, time_of_day: float, extent: float, near_time: float | None
    ) -> float:
        """Return -log10 of the rate of novel values before a novel one, else 0; then learn it."""
        distances = np.abs(self._leaders[: self._size] - value)
        if near_time is not None:
            gaps = np.abs(self._times[: self._size] - time_of_day)
            distances = distances[np.minimum(gaps, 1 - gaps) < near_time]
        is_novel = not len(distances) or distances.min() / extent > self._share
        # Of a time of which nothing is known, no value is unusual.
        is_comparable = len(distances) > 0
        surprise = -math.log10(self._novel / self._rows) if is_novel and is_comparable else 0.0
        self._novel += is_novel
        self._rows += 1
        # A bound for memory, and for the time of each score, which looks at all of them.
        if is_novel and self._size < LEADERS_MAX:
            self._learn(value, time_of_day)
        return surprise

    def _learn(self, value: float, time_of_day: float) -> None:
        if self._size == len(self._leaders):
            self._leaders = np.concatenate([self._leaders, np.empty(self._size)])
            self._times = np.concatenate([self._times, np.empty(self._size)])
        self._leaders[self._size], self._times[self._size] = value, time_of_day
        self._size += 1
