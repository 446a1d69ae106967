"""A state of a lake as a table of another engine: Polars, Dask, Ray, Daft, Spark.

Each function takes an `EventScan` and returns that engine's own lazy table of the columns of
`events`. Engines read the segments themselves, or call `read_rows` for a share of them; payloads
that segments have as typed columns become their text where `data` is asked for.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.dataframes.daft_frame import to_daft
    from lakelog.dataframes.dask_frame import to_dask
    from lakelog.dataframes.event_scan import EventScan, scan_of
    from lakelog.dataframes.polars_frame import to_polars
    from lakelog.dataframes.ray_dataset import to_ray
    from lakelog.dataframes.spark_frame import to_spark

__all__ = ["EventScan", "scan_of", "to_daft", "to_dask", "to_polars", "to_ray", "to_spark"]

__getattr__ = lazy_face(
    __name__,
    daft_frame="to_daft",
    dask_frame="to_dask",
    event_scan="EventScan scan_of",
    polars_frame="to_polars",
    ray_dataset="to_ray",
    spark_frame="to_spark",
)
