"""Where a lake has which file, and what a file's name says.

`Paths` are those below one directory and `Keys` the same below any prefix, or below none in `KEYS`.
A `FileName` says what it is the name of, and `FileNames` do so for a folder; `encode_name` makes
the one of a branch or tag.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.paths.file_names import FileName as FileName
    from lakelog.paths.file_names import FileNames as FileNames
    from lakelog.paths.file_names import encode_name as encode_name
    from lakelog.paths.lake_paths import CHUNK as CHUNK
    from lakelog.paths.lake_paths import FORMAT as FORMAT
    from lakelog.paths.lake_paths import INDEX as INDEX
    from lakelog.paths.lake_paths import KEYS as KEYS
    from lakelog.paths.lake_paths import LEASE as LEASE
    from lakelog.paths.lake_paths import OBJECTS as OBJECTS
    from lakelog.paths.lake_paths import PLAIN_FORMAT as PLAIN_FORMAT
    from lakelog.paths.lake_paths import Keys as Keys
    from lakelog.paths.lake_paths import Paths as Paths

__getattr__, __all__ = lazy_face(__name__)
