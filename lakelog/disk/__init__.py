"""What is written to disk, synced and locked.

A `File` and a `Folder` have a path, an `OpenFile` a descriptor, and a `LockFile` a lock that its
process holds. What is `Begun` becomes durable together with others. A `FileSystem` is refused that
cannot keep a lake, and what is no regular file is `NotRegular`. All of them call `disk`, the one
module that writes; of its functions others use those that give a time and a random name.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.disk import disk as disk
    from lakelog.disk.disk import Begun as Begun
    from lakelog.disk.file import File as File
    from lakelog.disk.file import OpenFile as OpenFile
    from lakelog.disk.file_system import FileSystem as FileSystem
    from lakelog.disk.folder import Folder as Folder
    from lakelog.disk.lock_file import LockFile as LockFile
    from lakelog.disk.regular_file import DOCUMENT_MAX as DOCUMENT_MAX
    from lakelog.disk.regular_file import NotIntact as NotIntact
    from lakelog.disk.regular_file import NotRegular as NotRegular

__getattr__, __all__ = lazy_face(__name__)
