"""A state as a Dask DataFrame, a partition for each share; only the columns used are read."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from lakelog.dataframes import event_scan
from lakelog.dataframes.event_scan import EventScan
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas
else:
    dd, pandas = Lazy("dask.dataframe"), Lazy("pandas")


def to_dask(scan: EventScan) -> dd.DataFrame:
    """Return the events as a Dask DataFrame of Arrow types. Raises QueryFailed without Dask."""
    event_scan.require("dask", ".to_dask()", "pip install 'lakelog[dask]'")
    meta = _frame(EventScan(scan.root, ()))
    frame: dd.DataFrame = dd.from_map(_frame, scan.shares(), meta=meta, label="lakelog")
    return frame


def _frame(scan: EventScan, columns: list[str] | None = None) -> pandas.DataFrame:
    """Read a share; Dask passes `columns` where only some are used."""
    rows = event_scan.read_rows(scan, columns)
    return rows.to_pandas(types_mapper=functools.partial(pandas.ArrowDtype))
