"""How the SQL engine is opened, and by which names it reads files.

`connect` gives a database, which a session opens when it is first asked for (`Connect`);
`connect_engine` one that needs `load_relations` for more than rows. A `shared_database` is opened
at most once for many segments that are read. A `segment_cursor` keeps the footers of files, and
what memory cannot hold goes to directories that begin with `SPILL`. `parquet_sql` reads files, each
by its `file_pattern`; `SegmentBlocks` are those of a segment that is read by ranges in a bucket.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.database.block_ranges import SegmentBlocks as SegmentBlocks
    from lakelog.database.connection import SPILL as SPILL
    from lakelog.database.connection import Connect as Connect
    from lakelog.database.connection import connect as connect
    from lakelog.database.connection import connect_engine as connect_engine
    from lakelog.database.connection import load_relations as load_relations
    from lakelog.database.connection import segment_cursor as segment_cursor
    from lakelog.database.connection import shared_database as shared_database
    from lakelog.database.parquet_files import file_pattern as file_pattern
    from lakelog.database.parquet_files import parquet_sql as parquet_sql

__getattr__, __all__ = lazy_face(__name__)
