"""forecast: the next values of a metric with their intervals, and when a limit is reached."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator

import click

from lakelog import forecasts, pictures
from lakelog.cli.app import App, state_option, verb
from lakelog.cli.options import argument, option
from lakelog.cli.render.output import OUTPUT, PLOT, OutputTarget, emit_plot, emit_words
from lakelog.cli.render.tables import cell
from lakelog.forecasts import Forecast, MetricSeries, TimeToLimit
from lakelog.libraries import alt, np
from lakelog.pictures import Curve
from lakelog.settings import span_us

_DAY_US = 86_400_000_000
_HISTORY_US = 7 * _DAY_US
_WIDTH = 72
_YEAR_9999 = 253_402_300_799


@verb()
def forecast(
    app: App,
    metric: str = argument("METRIC"),
    every: str = option("--every SPAN", "Values by spans of this length.", shown="1h"),
    horizon: str = option("--horizon SPAN", "How far to look ahead.", shown="24h"),
    limit: float | None = option("--full N", "Say when the metric reaches N."),
    ref: str | None = state_option("As of a tag, branch, snapshot or time."),
    plot: str | None = PLOT,
    target: OutputTarget = OUTPUT,
) -> None:
    """Forecast a metric: events, errors, events of a TYPE, or the mean of TYPE.FIELD.

    A model is used only where it was better on earlier days than the values of the day
    before. Intervals hold nine in ten. --full goes on with the trend until it is N.
    """
    length = span_us(every)
    # The season of the models is a day of values, so that there has to be one at least.
    if not 1_000_000 <= length <= _DAY_US:
        raise click.UsageError("--every is from 1s to 24h")
    with app.open() as lake:
        series = forecasts.metric_series(lake.at(ref) if ref else lake, metric, length)
    if limit is not None:
        _emit_limit(series, metric, limit, target, plot)
        return
    steps = max(1, span_us(horizon) // length)
    # There are no fewer events than none.
    lower_bound = 0.0 if series.is_count else -math.inf
    result = forecasts.forecast(series.values, _DAY_US // length, steps, lower_bound)
    rows = [
        {
            "time": _time(series.end_us + index * length),
            "value": float(result.values[index]),
            "low": float(result.low[index]),
            "high": float(result.high[index]),
            # What it is worth goes with each value, as in the words for people.
            "model": result.model,
            "error": result.error,
            "naive_error": result.naive_error,
        }
        for index in range(steps)
    ]
    emit_plot(plot, lambda: _chart(series, metric, result))
    emit_words(rows, target, lambda: "".join(_lines(series, metric, result)))


def _emit_limit(
    series: MetricSeries, metric: str, limit: float, target: OutputTarget, plot: str | None
) -> None:
    reached = forecasts.time_to_limit(series.values, limit)
    times = [
        # A trend that is nearly flat reaches the limit in more steps than a date can hold.
        None if steps is None else _time(series.end_us + int(min(steps, 1e9) * series.length_us))
        for steps in (reached.steps, reached.low, reached.high)
    ]
    row = dict(zip(("time", "earliest", "latest"), times, strict=True))
    growth = reached.slope * _DAY_US / series.length_us
    now = float(series.values[-1])
    record = {"metric": metric, "limit": limit, **row, "growth_per_day": growth, "now": now}

    def words() -> str:
        if times[0] is None:
            return f"{cell(metric)} does not reach {limit:g}: {growth:+.3g} a day, now {now:.4g}\n"
        between = " to ".join("later" if time is None else f"{time:%Y-%m-%d}" for time in times[1:])
        return (
            f"{cell(metric)} reaches {limit:g} on {times[0]:%Y-%m-%d %H:%M} ({between}):"
            f" {growth:+.3g} a day, now {now:.4g}\n"
        )

    emit_plot(plot, lambda: _chart_of_limit(series, metric, limit, reached))
    emit_words([record], target, words)


def _lines(series: MetricSeries, metric: str, result: Forecast) -> Iterator[str]:
    yield f"{cell(metric)}, {len(series.values):,} values, then {len(result.values):,} to come\n"
    history = series.values[-(_WIDTH - min(len(result.values), _WIDTH // 3)) :]
    both = np.concatenate([history, result.values[: _WIDTH // 3]])
    bars = pictures.sparkline(both.tolist(), len(both))
    yield f"{bars[: len(history)]}│{bars[len(history) :]}\n"
    middle = len(result.values) // 2
    for index in sorted({0, middle, len(result.values) - 1}):
        time = _time(series.end_us + index * series.length_us)
        value, lowest, highest = (float(v[index]) for v in (result.values, result.low, result.high))
        yield f"{time:%Y-%m-%d %H:%M}  {value:10.4g}   {lowest:.4g} to {highest:.4g}\n"
    is_naive = result.error >= result.naive_error
    # Only what beats yesterday's values is a model; equal errors say nothing.
    compared = "" if is_naive else f"; the day before has {result.naive_error:.2f}"
    yield f"model: {result.model}, error {result.error:.2f} on earlier days{compared}\n"


def _curve(series: MetricSeries, metric: str) -> Curve:
    return Curve(metric, series.start_us, series.length_us, series.values.tolist())


def _chart(series: MetricSeries, metric: str, result: Forecast) -> alt.VConcatChart:
    """The last of a series, and what comes, with its interval."""
    start_us = series.end_us - max(_HISTORY_US, 3 * len(result.values) * series.length_us)
    before = pictures.since(_curve(series, metric), start_us)
    values, low, high = (v.tolist() for v in (result.values, result.low, result.high))
    ahead = Curve(metric, series.end_us, series.length_us, values, (), low, high, is_ahead=True)
    return pictures.curves_chart(
        [[before, ahead]], f"{metric}, then its forecast (UTC): {result.model}"
    )


def _chart_of_limit(
    series: MetricSeries, metric: str, limit: float, reached: TimeToLimit
) -> alt.VConcatChart:
    """A series, and its trend until the limit is reached."""
    count = len(series.values)
    # At most three times the history: a limit far ahead would squeeze all that was seen.
    steps = 1 + int(min(reached.steps if reached.steps is not None else count, 3 * count))
    trend = (series.values[-1] + reached.slope * np.arange(1, steps + 1)).tolist()
    ahead = Curve(metric, series.end_us, series.length_us, trend, is_ahead=True)
    panel = [_curve(series, metric), ahead]
    return pictures.curves_chart(
        [panel], f"{metric} and its trend (UTC), until {limit:g}", limit=limit
    )


def _time(moment_us: int) -> datetime.datetime:
    # datetime ends with the year 9999.
    return datetime.datetime.fromtimestamp(min(moment_us / 1e6, _YEAR_9999), datetime.UTC)
