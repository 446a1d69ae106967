"""Rows as files for other tools: `lake.export` and `lakelog export`.

`export` writes rows to the files that its `destination` says, in one of `FORMATS`. `atomic_file`
and `atomic_directory` let what they write appear complete or not at all; a
`scratch_directory` is removed, at the latest by the next one beside the same path.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.export.folder import (
        atomic_directory,
        atomic_file,
        require_free,
        scratch_directory,
        sizes,
    )
    from lakelog.export.row_files import FORMATS, destination, export
    from lakelog.export.tables import COMPRESSION, GROUP_ROWS, SHARD_ROWS, ExportResult

__all__ = [
    "COMPRESSION",
    "FORMATS",
    "GROUP_ROWS",
    "SHARD_ROWS",
    "ExportResult",
    "atomic_directory",
    "atomic_file",
    "destination",
    "export",
    "require_free",
    "scratch_directory",
    "sizes",
]

__getattr__ = lazy_face(
    __name__,
    folder="atomic_directory atomic_file require_free scratch_directory sizes",
    row_files="FORMATS destination export",
    tables="COMPRESSION ExportResult GROUP_ROWS SHARD_ROWS",
)
