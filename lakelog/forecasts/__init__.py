"""Forecasts of a series: the next values with their intervals, and when a limit is reached.

`forecast` chooses a model by what it would have said in the past; `time_to_limit` says when a
growing series is full; `metric_series` makes a series of a lake's events.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.forecasts.metrics import MetricSeries as MetricSeries
    from lakelog.forecasts.metrics import metric_series as metric_series
    from lakelog.forecasts.models import Forecast as Forecast
    from lakelog.forecasts.models import forecast as forecast
    from lakelog.forecasts.trend import TimeToLimit as TimeToLimit
    from lakelog.forecasts.trend import time_to_limit as time_to_limit

__getattr__, __all__ = lazy_face(__name__)
