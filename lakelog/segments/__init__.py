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
    from lakelog.segments.segment import QUARANTINE_COLUMNS as QUARANTINE_COLUMNS
    from lakelog.segments.segment import Segment as Segment
    from lakelog.segments.segment import SegmentEncoder as SegmentEncoder
    from lakelog.segments.segment import describe_rows as describe_rows
    from lakelog.segments.segment import put_segment as put_segment
    from lakelog.segments.segment import rows_target as rows_target
    from lakelog.segments.segment import segment_schema as segment_schema
    from lakelog.segments.segment import text_encodings as text_encodings
    from lakelog.segments.segment import write_segment as write_segment
    from lakelog.segments.segment_sql import RowRanges as RowRanges
    from lakelog.segments.segment_sql import SegmentScan as SegmentScan
    from lakelog.segments.segment_sql import rows_sql as rows_sql

__getattr__, __all__ = lazy_face(__name__)
