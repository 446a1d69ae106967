"""What is written to disk, synced and locked.

A `File` and a `Folder` have a path, an `OpenFile` a descriptor, and a `LockFile` a lock that its
process holds. What is `Begun` becomes durable together with others. A `FileSystem` is refused that
cannot keep a lake, and what is no regular file is `NotRegular`. All of them call `disk`, the one
module that writes; of its functions others use those that give a time and a random name.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.disk import disk
    from lakelog.disk.disk import Begun
    from lakelog.disk.file import File, OpenFile
    from lakelog.disk.file_system import FileSystem
    from lakelog.disk.folder import Folder
    from lakelog.disk.lock_file import LockFile
    from lakelog.disk.regular_file import DOCUMENT_MAX, NotIntact, NotRegular

__all__ = [
    "DOCUMENT_MAX",
    "Begun",
    "File",
    "FileSystem",
    "Folder",
    "LockFile",
    "NotIntact",
    "NotRegular",
    "OpenFile",
    "disk",
]

__getattr__ = lazy_face(
    __name__,
    disk="",
    file="Begun File OpenFile",
    file_system="FileSystem",
    folder="Folder",
    lock_file="LockFile",
    regular_file="DOCUMENT_MAX NotIntact NotRegular",
)
