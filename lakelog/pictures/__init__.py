"""Pictures of what an analysis found: files with charts, and small ones of text for terminals.

A `Curve` is a series with what was expected or forecast; `curves_chart` draws panels of them,
`bars_chart` bars, and `encode` makes a file of a chart. `sparkline` and `meter` are text.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.pictures.charts import Curve as Curve
    from lakelog.pictures.charts import bars_chart as bars_chart
    from lakelog.pictures.charts import curves_chart as curves_chart
    from lakelog.pictures.charts import encode as encode
    from lakelog.pictures.charts import meter as meter
    from lakelog.pictures.charts import require_drawable as require_drawable
    from lakelog.pictures.charts import since as since
    from lakelog.pictures.charts import sparkline as sparkline

__getattr__, __all__ = lazy_face(__name__)
