"""Series of a lake's events, by spans of equal length."""

from __future__ import annotations

from dataclasses import dataclass

from lakelog.errors import InvalidSetting
from lakelog.event import BookkeepingEvent
from lakelog.forecasts.models import LARGEST
from lakelog.lake import Lake
from lakelog.libraries import Floats, np
from lakelog.pinned import PinnedLake
from lakelog.sql import literal, member_paths

SPANS_MAX = 50_000
"""Spans that are looked at, the latest ones: a clock that was once in 1970 must hide no others."""
_YEAR_ONE_US = -62_135_596_800 * 10**6
_IS_DUE = (
    "(time < now() + INTERVAL 1 DAY OR (SELECT min(time) FROM events) >= now() + INTERVAL 1 DAY)"
)
"""SQL for what a clock that was ahead did not write; a lake may be of the future as a whole."""


@dataclass(frozen=True)
class MetricSeries:
    """The values of a metric: when the first span begins, how long each is, in microseconds, and
    whether they are numbers of events."""

    start_us: int
    length_us: int
    values: Floats
    is_count: bool = False

    @property
    def end_us(self) -> int:
        """When the last span ends."""
        return self.start_us + self.length_us * len(self.values)


def metric_series(state: Lake | PinnedLake, metric: str, length_us: int) -> MetricSeries:
    """Return the series of a metric of a lake: `events`, `errors`, the events of a TYPE, or
    `TYPE.FIELD`, the mean of a field, which may be a member of a member. A span without a value has
    the one before.

    Raises InvalidSetting where there are no such events."""
    condition, value = _of(state, metric)
    # From a time before all others: the engine's division rounds towards 0, so that 1970 would have
    # a span of twice the length.
    origin_us = _YEAR_ONE_US // length_us * length_us
    rows = state.sql(
        f"SELECT (epoch_us(time) - ({origin_us})) // {length_us} AS span, {value} AS value"
        " FROM events"
        f" WHERE {condition} AND {BookkeepingEvent.IS_DATA} AND {_IS_DUE}"
        " GROUP BY 1 HAVING value IS NOT NULL"
        f" QUALIFY span >= max(span) OVER () - {SPANS_MAX} ORDER BY span"
    ).fetchall()
    if not rows:
        lack = "" if value == "count(*)" else " with a number there"
        raise InvalidSetting(f"no events for {metric!r}{lack}: events, errors, TYPE or TYPE.FIELD")
    # The last span is not over yet.
    start, count = rows[0][0], rows[-1][0] - rows[0][0]
    # Counts without rows are 0; a mean is unknown there.
    values = np.full(max(count, 1), 0.0 if value == "count(*)" else np.nan)
    for span, number in rows:
        # The last span is not over, and has no place.
        if span - start < len(values):
            values[span - start] = number
    missing = np.isnan(values)
    if missing.any():
        # The place of the last value before each gap.
        indexes = np.maximum.accumulate(np.where(missing, 0, np.arange(len(values))))
        values = values[indexes]
    return MetricSeries(origin_us + start * length_us, length_us, values, value == "count(*)")


def _of(state: Lake | PinnedLake, metric: str) -> tuple[str, str]:
    """The condition and the aggregate of a metric."""
    if metric == "events":
        return BookkeepingEvent.IS_OBSERVED, "count(*)"
    if metric == "errors":
        return "level IN ('ERROR', 'FATAL')", "count(*)"
    type_, field = _type_and_field(state, metric)
    condition = f"type = {literal(type_)}"
    if metric == type_:
        return condition, "count(*)"
    # No path has an empty name.
    if not all(field.split(".")):
        return "false", "count(*)"
    values = ", ".join(f"json_extract_string(data, {path})" for path in member_paths(field))
    # A payload that is no JSON has no fields, and must not fail the query.
    value = f"try_cast(CASE WHEN json_valid(data) THEN coalesce({values}) END AS DOUBLE)"
    # NaN, infinities and what cannot be added up would spoil the mean.
    return f"{condition} AND abs({value}) <= {LARGEST}", f"avg({value})"


def _type_and_field(state: Lake | PinnedLake, metric: str) -> tuple[str, str]:
    """Cut a metric behind the longest beginning that is a type: types have dots, too."""
    names = metric.split(".")
    beginnings = [".".join(names[:count]) for count in range(1, len(names) + 1)]
    literals = ", ".join(map(literal, beginnings))
    rows = state.sql(f"SELECT DISTINCT type FROM events WHERE type IN ({literals})").fetchall()
    types = {type_ for (type_,) in rows}
    # The longest: TYPE may have dots, and so may FIELD.
    type_ = next((name for name in reversed(beginnings) if name in types), names[0])
    return type_, metric.removeprefix(type_).removeprefix(".")
