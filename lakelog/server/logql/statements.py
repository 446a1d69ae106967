"""The SQL that answers queries in LogQL. Times are microseconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass

from lakelog.server.logql.line_scope import (
    STREAM_COLUMNS,
    LineScope,
    number_sql,
    require_known_labels,
    scope_of,
)
from lakelog.server.logql.syntax import Grouping, LogQLFault, LogSelection, RangeAggregation
from lakelog.values import from_micros

SERIES_MAX = 2_000
POINTS_MAX = 11_000
_PUSHED = ("labels", "metadata")
# A label that is empty is none: the streams of both are one.
_STREAM = ", ".join(
    (
        *(f"nullif({column}, '') AS {column}" for column in STREAM_COLUMNS),
        *(f"nullif(CAST(data->'$.{home}' AS VARCHAR), '{{}}') AS {home}" for home in _PUSHED),
    )
)
_BY_SPAN = ("rate", "bytes_rate")
_OF_NUMBERS = {
    "rate": "sum(value)",
    "sum_over_time": "sum(value)",
    "avg_over_time": "avg(value)",
    "min_over_time": "min(value)",
    "max_over_time": "max(value)",
    "stddev_over_time": "stddev_pop(value)",
    "stdvar_over_time": "var_pop(value)",
    "first_over_time": "arg_min(value, moment)",
    "last_over_time": "arg_max(value, moment)",
}
_OF_LINES = {
    "rate": "count(*)",
    "count_over_time": "count(*)",
    "bytes_over_time": "sum(value)",
    "bytes_rate": "sum(value)",
}


@dataclass(frozen=True)
class TimeRange:
    """From `start` to `end`, every `step` us; a moment has both equal."""

    start: int
    end: int
    step: int = 1_000_000

    @property
    def points(self) -> int:
        """The steps of it."""
        return (self.end - self.start) // self.step + 1


@dataclass(frozen=True)
class SeriesStatement:
    """SQL for a range aggregation: rows of a step (from 0), a value, and labels. `names` are those
    of the columns label_0, …; None for the columns of a stream."""

    sql: str
    scope: LineScope
    names: tuple[str, ...] | None


def lines_sql(selection: LogSelection, span: TimeRange, limit: int, *, is_forward: bool) -> str:
    """SQL for the lines of a span without its end, see `result_lines`. Raises LogQLFault."""
    scope = scope_of(selection)
    # Ordered by the column `events.time`, as `time` alone is the number selected under that name.
    order = "" if is_forward else " DESC"
    sources = "".join(
        f", {source.expression} AS source_{number}" for number, source in enumerate(scope.sources)
    )
    filter_sql = _where(scope, f"time >= {moment(span.start)}", f"time < {moment(span.end)}")
    return (
        f"SELECT epoch_us(time) AS time, {scope.line} AS line, {_STREAM}{sources} FROM events"
        f" {filter_sql} ORDER BY events.time{order}, seq{order} LIMIT {limit}"
    )


def series_sql(
    aggregation: RangeAggregation, span: TimeRange, grouping: Grouping | None
) -> SeriesStatement:
    """SQL for the values of a range aggregation at each step, by some labels or by all of the
    stream. Raises LogQLFault."""
    if span.points > POINTS_MAX:
        raise LogQLFault(f"more than {POINTS_MAX:,} points a series: take a longer step")
    scope = scope_of(aggregation.selection)
    grouping = grouping or aggregation.grouping
    if grouping is not None and grouping.is_without:
        grouping = None
    if grouping is None:
        require_known_labels(scope)
        names, columns = None, _STREAM
        columns += "".join(f", {s.expression} AS source_{n}" for n, s in enumerate(scope.sources))
    else:
        names = grouping.names
        columns = ", ".join(
            f"nullif({scope.label(n)}, '') AS label_{i}" for i, n in enumerate(names)
        )
    value, aggregate = _value(aggregation, scope)
    low, high = span.start - aggregation.span - aggregation.offset, span.end - aggregation.offset
    filter_sql = _where(scope, f"time > {moment(low)}", f"time <= {moment(high)}")
    # A moment T counts the lines of T - span < time <= T.
    since = f"(epoch_us(time) + {aggregation.offset} - {span.start})"
    first_step = f"greatest(ceil({since} / {span.step}), 0)::BIGINT"
    end_step = f"least(ceil(({since} + {aggregation.span}) / {span.step}), {span.points})::BIGINT"
    columns = f", {columns}" if columns else ""
    inner = (
        f"SELECT unnest(range({first_step}, {end_step})) AS step, epoch_us(time) AS moment,"
        f" {value} AS value{columns} FROM events {filter_sql}"
    )
    keys = _keys(scope, names)
    grouped = "".join(f", {key}" for key in keys)
    condition = "WHERE value IS NOT NULL" if aggregation.unwrap else ""
    return SeriesStatement(
        f"SELECT step, {aggregate}::DOUBLE AS value{grouped} FROM ({inner}) {condition}"
        f" GROUP BY step{grouped} ORDER BY step{grouped}",
        *(scope, names),
    )


def _keys(scope: LineScope, names: tuple[str, ...] | None) -> list[str]:
    if names is not None:
        return [f"label_{number}" for number in range(len(names))]
    return [*STREAM_COLUMNS, *_PUSHED, *(f"source_{n}" for n in range(len(scope.sources)))]


def _value(aggregation: RangeAggregation, scope: LineScope) -> tuple[str, str]:
    """SQL for the number of a line, and for that of its span."""
    function, seconds = aggregation.function, aggregation.span / 1e6
    if aggregation.unwrap:
        value = number_sql(scope.label(aggregation.unwrap), aggregation.conversion)
        if function == "quantile_over_time":
            quantile = aggregation.parameter
            if quantile is None or not 0 <= quantile <= 1:
                raise LogQLFault("a quantile is a number from 0 to 1")
            return value, f"quantile_cont(value, {quantile!r})"
        aggregate = _OF_NUMBERS.get(function)
    else:
        value, aggregate = f"strlen({scope.line})", _OF_LINES.get(function)
    if aggregate is None:
        raise LogQLFault(
            f"{function} is not supported" + (" with unwrap" if aggregation.unwrap else "")
        )
    return value, f"({aggregate}) / {seconds!r}" if function in _BY_SPAN else aggregate


def stream_sql(selections: list[LogSelection], span: TimeRange) -> str:
    """SQL for the streams of a span."""
    filter_sql = _selected(selections, span)
    return f"SELECT DISTINCT {_STREAM} FROM events {filter_sql} ORDER BY ALL LIMIT {SERIES_MAX}"


def label_names_sql(selections: list[LogSelection], span: TimeRange) -> str:
    """SQL for the names of the labels of a span."""
    filter_sql = _selected(selections, span)
    columns = ", ".join(f"CASE WHEN {c} <> '' THEN '{c}' END" for c in STREAM_COLUMNS)
    service = "CASE WHEN source <> '' THEN 'service_name' END"
    pushed = " UNION ".join(
        f"SELECT unnest(json_keys(data, '$.{home}')) AS name FROM events {filter_sql}"
        for home in _PUSHED
    )
    return (
        f"SELECT name FROM (SELECT DISTINCT unnest([{columns}, {service}]) AS name FROM events"
        f" {filter_sql}) WHERE name IS NOT NULL UNION {pushed} ORDER BY 1"
    )


def label_values_sql(name: str, selections: list[LogSelection], span: TimeRange, limit: int) -> str:
    """SQL for the values of a label in a span."""
    value = LineScope().label(name)
    return (
        f"SELECT DISTINCT value FROM (SELECT {value} AS value FROM events"
        f" {_selected(selections, span)}) WHERE value <> '' ORDER BY 1 LIMIT {limit}"
    )


def statistics_sql(selections: list[LogSelection], span: TimeRange) -> str:
    """SQL for how much there is: streams, entries and bytes."""
    return (
        "SELECT count(DISTINCT (type, category, source, level, labels)) AS streams,"
        " count(*) AS entries, coalesce(sum(size), 0)::BIGINT AS bytes FROM (SELECT"
        f" strlen({LineScope().line}) AS size, {_STREAM} FROM events {_selected(selections, span)})"
    )


def moment(micros: int) -> str:
    """SQL for a time, within those that events have."""
    micros = min(max(micros, -62_135_596_800_000_000), 253_402_300_799_000_000)
    time = from_micros(micros)
    return f"TIMESTAMPTZ '{time.year:04}-{time:%m-%d %H:%M:%S.%f}+00'"


def _selected(selections: list[LogSelection], span: TimeRange) -> str:
    """The WHERE of what any of some selections selects."""
    times = f"time >= {moment(span.start)}", f"time <= {moment(span.end)}"
    scopes = [scope_of(selection) for selection in selections]
    if not scopes:
        return _where(LineScope(), *times)
    any_selection = " OR ".join(f"({' AND '.join(scope.conditions) or 'true'})" for scope in scopes)
    return _where(LineScope(), *times, f"({any_selection})")


def _where(scope: LineScope, *conditions: str) -> str:
    return f"WHERE {' AND '.join((*conditions, *scope.conditions))}"
