"""Files as they are known again: which one a path holds now, and how far it was ingested.

A `FileScan` has a `FileState` of each file that a `Selection` follows. A `Resolver` says which file
it is: a `Start` where reading goes on, a `FileCopy`, `KnownContent`, or an `UndecidedFile`. A
`FileCursor` is how far a file was ingested, and a `CursorIndex` finds it. A `LogName` is read as
rotation left it, and is `printable` whatever its bytes are.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.files.cursors import CursorIndex
    from lakelog.files.file_copies import FileCopy
    from lakelog.files.file_cursor import FileCursor, Start
    from lakelog.files.identity import KnownContent, Resolver, UndecidedFile
    from lakelog.files.rotation import LogName, printable
    from lakelog.files.scan import FileScan, FileState, Selection

__all__ = [
    "CursorIndex",
    "FileCopy",
    "FileCursor",
    "FileScan",
    "FileState",
    "KnownContent",
    "LogName",
    "Resolver",
    "Selection",
    "Start",
    "UndecidedFile",
    "printable",
]

__getattr__ = lazy_face(
    __name__,
    cursors="CursorIndex",
    file_copies="FileCopy",
    file_cursor="FileCursor Start",
    identity="KnownContent Resolver UndecidedFile",
    rotation="LogName printable",
    scan="FileScan FileState Selection",
)
