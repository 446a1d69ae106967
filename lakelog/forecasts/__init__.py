"""Forecasts of a series: the next values with their intervals, and when a limit is reached.

`forecast` chooses a model by what it would have said in the past; `time_to_limit` says when a
growing series is full; `metric_series` makes a series of a lake's events.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.forecasts.metrics import MetricSeries, metric_series
    from lakelog.forecasts.models import Forecast, forecast
    from lakelog.forecasts.trend import TimeToLimit, time_to_limit

__all__ = ["Forecast", "MetricSeries", "TimeToLimit", "forecast", "metric_series", "time_to_limit"]

__getattr__ = lazy_face(
    __name__,
    metrics="MetricSeries metric_series",
    models="Forecast forecast",
    trend="TimeToLimit time_to_limit",
)
