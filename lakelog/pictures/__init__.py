"""Pictures of what an analysis found: files with charts, and small ones of text for terminals.

A `Curve` is a series with what was expected or forecast; `curves_chart` draws panels of them,
`bars_chart` bars, and `encode` makes a file of a chart. `sparkline` and `meter` are text.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.pictures.charts import (
        Curve,
        bars_chart,
        curves_chart,
        encode,
        meter,
        require_drawable,
        since,
        sparkline,
    )

__all__ = [
    "Curve",
    "bars_chart",
    "curves_chart",
    "encode",
    "meter",
    "require_drawable",
    "since",
    "sparkline",
]

__getattr__ = lazy_face(
    __name__, charts="Curve bars_chart curves_chart encode meter require_drawable since sparkline"
)
