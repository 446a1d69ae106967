"""How the SQL engine is opened, and by which names it reads files.

`connect` gives a database, which a session opens when it is first asked for (`Connect`);
`connect_engine` one that needs `load_relations` for more than rows. A `segment_cursor` keeps the
footers of files, and what memory cannot hold goes to directories that begin with `SPILL`.
`parquet_sql` reads files, each by its `file_pattern`; `SegmentBlocks` are those of a segment that
is read by ranges in a bucket.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.database.block_ranges import SegmentBlocks
    from lakelog.database.connection import (
        SPILL,
        Connect,
        connect,
        connect_engine,
        load_relations,
        segment_cursor,
    )
    from lakelog.database.parquet_files import file_pattern, parquet_sql

__all__ = [
    "SPILL",
    "Connect",
    "SegmentBlocks",
    "connect",
    "connect_engine",
    "file_pattern",
    "load_relations",
    "parquet_sql",
    "segment_cursor",
]

__getattr__ = lazy_face(
    __name__,
    block_ranges="SegmentBlocks",
    connection="SPILL Connect connect connect_engine load_relations segment_cursor",
    parquet_files="file_pattern parquet_sql",
)
