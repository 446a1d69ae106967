"""Where a lake has which file, and what a file's name says.

`Paths` are those below one directory and `Keys` the same below any prefix, or below none in `KEYS`.
A `FileName` says what it is the name of, and `FileNames` do so for a folder; `encode_name` makes
the one of a branch or tag.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.paths.file_names import FileName, FileNames, encode_name
    from lakelog.paths.lake_paths import (
        CHUNK,
        FORMAT,
        INDEX,
        KEYS,
        LEASE,
        OBJECTS,
        PLAIN_FORMAT,
        Keys,
        Paths,
    )

__all__ = [
    "CHUNK",
    "FORMAT",
    "INDEX",
    "KEYS",
    "LEASE",
    "OBJECTS",
    "PLAIN_FORMAT",
    "FileName",
    "FileNames",
    "Keys",
    "Paths",
    "encode_name",
]

__getattr__ = lazy_face(
    __name__,
    file_names="FileName FileNames encode_name",
    lake_paths="CHUNK FORMAT INDEX KEYS LEASE OBJECTS PLAIN_FORMAT Keys Paths",
)
