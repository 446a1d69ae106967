"""How are rows files, and files rows? Immutable Parquet files that are named by their hash.

`write_segment` stores rows, which have a `segment_schema`, or QUARANTINE_COLUMNS; `put_segment`
what a `SegmentEncoder` made of them, with the `text_encodings` that suit them. They are at most
`rows_target`, and `describe_rows` is what a manifest says of them. A `Segment` is one that is read;
`rows_sql` is the SQL for the rows of many, which are divided into `SegmentScan`s that are read
alike, whole or in some `RowRanges`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.segments.segment import (
        QUARANTINE_COLUMNS,
        Segment,
        SegmentEncoder,
        describe_rows,
        put_segment,
        rows_target,
        segment_schema,
        text_encodings,
        write_segment,
    )
    from lakelog.segments.segment_sql import RowRanges, SegmentScan, rows_sql

__all__ = [
    "QUARANTINE_COLUMNS",
    "RowRanges",
    "Segment",
    "SegmentEncoder",
    "SegmentScan",
    "describe_rows",
    "put_segment",
    "rows_sql",
    "rows_target",
    "segment_schema",
    "text_encodings",
    "write_segment",
]

__getattr__ = lazy_face(
    __name__,
    segment="""QUARANTINE_COLUMNS Segment SegmentEncoder describe_rows put_segment rows_target
        segment_schema text_encodings write_segment""",
    segment_sql="RowRanges SegmentScan rows_sql",
)
