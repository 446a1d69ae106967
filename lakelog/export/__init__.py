"""Rows as files for other tools: `lake.export` and `lakelog export`.

`export` writes rows to the files that its `destination` says, in one of `FORMATS`. `atomic_file`
and `atomic_directory` let what they write appear complete or not at all; a
`scratch_directory` is removed, at the latest by the next one beside the same path.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.export.folder import atomic_directory as atomic_directory
    from lakelog.export.folder import atomic_file as atomic_file
    from lakelog.export.folder import require_free as require_free
    from lakelog.export.folder import scratch_directory as scratch_directory
    from lakelog.export.folder import sizes as sizes
    from lakelog.export.row_files import FORMATS as FORMATS
    from lakelog.export.row_files import destination as destination
    from lakelog.export.row_files import export as export
    from lakelog.export.tables import COMPRESSION as COMPRESSION
    from lakelog.export.tables import GROUP_ROWS as GROUP_ROWS
    from lakelog.export.tables import SHARD_ROWS as SHARD_ROWS
    from lakelog.export.tables import ExportResult as ExportResult

__getattr__, __all__ = lazy_face(__name__)
