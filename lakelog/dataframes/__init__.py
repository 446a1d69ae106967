"""A state of a lake as a table of another engine: Polars, Dask, Ray, Daft, Spark.

Each function takes an `EventScan` and returns that engine's own lazy table of the columns of
`events`. Engines read the segments themselves, or call `read_rows` for a share of them; payloads
that segments have as typed columns become their text where `data` is asked for.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.dataframes.daft_frame import to_daft as to_daft
    from lakelog.dataframes.dask_frame import to_dask as to_dask
    from lakelog.dataframes.event_scan import EventScan as EventScan
    from lakelog.dataframes.event_scan import scan_of as scan_of
    from lakelog.dataframes.polars_frame import to_polars as to_polars
    from lakelog.dataframes.ray_dataset import to_ray as to_ray
    from lakelog.dataframes.spark_frame import to_spark as to_spark

__getattr__, __all__ = lazy_face(__name__)
