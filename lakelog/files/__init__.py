"""Files as they are known again: which one a path holds now, and how far it was ingested.

A `FileScan` has a `FileState` of each file that a `Selection` follows. A `Resolver` says which file
it is: a `Start` where reading goes on, a `FileCopy`, `KnownContent`, or an `UndecidedFile`. A
`FileCursor` is how far a file was ingested, and a `CursorIndex` finds it. A `LogName` is read as
rotation left it, and is `printable` whatever its bytes are.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.files.cursors import CursorIndex as CursorIndex
    from lakelog.files.file_copies import FileCopy as FileCopy
    from lakelog.files.file_cursor import FileCursor as FileCursor
    from lakelog.files.file_cursor import Start as Start
    from lakelog.files.identity import KnownContent as KnownContent
    from lakelog.files.identity import Resolver as Resolver
    from lakelog.files.identity import UndecidedFile as UndecidedFile
    from lakelog.files.rotation import LogName as LogName
    from lakelog.files.rotation import printable as printable
    from lakelog.files.scan import FileScan as FileScan
    from lakelog.files.scan import FileState as FileState
    from lakelog.files.scan import Selection as Selection

__getattr__, __all__ = lazy_face(__name__)
