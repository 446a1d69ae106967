"""A state as a Polars LazyFrame: Polars reads the segments, and skips what a query leaves out."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lakelog import typed_columns
from lakelog.dataframes import event_scan
from lakelog.dataframes.event_scan import EventScan, SegmentFile
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import polars
else:
    polars = Lazy("polars")


def to_polars(scan: EventScan) -> polars.LazyFrame:
    """Return the events as a LazyFrame. Raises QueryFailed without Polars."""
    event_scan.require("polars", ".to_polars()", "pip install 'lakelog[polars]'")
    if scan.is_encrypted:
        return _opened(scan)
    frames = [_frame(scan.root, *run) for run in event_scan.runs_alike(scan)]
    if scan.tail is not None or not frames:
        rows = event_scan.schema().empty_table() if scan.tail is None else scan.tail
        frames.append(polars.DataFrame(rows).lazy())
    return polars.concat(frames)


def _opened(scan: EventScan) -> polars.LazyFrame:
    """Return the rows of an encrypted lake, which are opened share by share, in memory."""
    from polars.io.plugins import register_io_source

    def frames(
        columns: list[str] | None, condition: polars.Expr | None, rows: int | None, _: int | None
    ) -> Iterator[polars.DataFrame]:
        for share in scan.shares():
            frame = polars.DataFrame(event_scan.read_rows(share, columns))
            if rows is not None:
                frame = frame.head(rows)
                rows -= frame.height
            yield frame if condition is None else frame.filter(condition)
            if rows == 0:
                return

    schema = polars.DataFrame(event_scan.schema().empty_table()).schema
    return register_io_source(frames, schema=schema, is_pure=True)


def _frame(root: str, files: list[SegmentFile], first_seq: int | None) -> polars.LazyFrame:
    """Return the rows of segments that are read alike."""
    paths = [file.path for file in files]
    index = None if first_seq is None else "seq"
    frame = polars.scan_parquet(paths, row_index_name=index, glob=False, hive_partitioning=False)
    if first_seq is not None:
        # Added here and not as the index's offset, which has 32 bits.
        frame = frame.with_columns(polars.col("seq").cast(polars.Int64) + first_seq)
    if files[0].is_typed:
        restore = functools.partial(_texts, root, files[0].schema_json)
        payload = polars.struct("data", typed_columns.COLUMN).map_batches(
            restore, return_dtype=polars.String, is_elementwise=True
        )
        frame = frame.with_columns(payload.alias("data"))
    return frame.select(event_scan.COLUMNS)


def _texts(root: str, schema_json: str, payloads: polars.Series) -> polars.Series:
    columns = payloads.struct.unnest().to_arrow()
    strings = columns["data"].cast("string")
    restored = event_scan.payload_texts(root, schema_json, columns[typed_columns.COLUMN], strings)
    return polars.Series("data", polars.from_arrow(restored))
