"""What was appended and is no part of a state yet: frames in WALs, the tail, and what is trimmed.

A `Header` and each `Frame` of a file have bytes; `scan` and `resume` read them. A `Tail` gives the
`PendingFrames` of a branch from its `WalFile`s, and `trim` removes files that are sealed.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.wal.frames import END_BYTES as END_BYTES
    from lakelog.wal.frames import Frame as Frame
    from lakelog.wal.frames import Header as Header
    from lakelog.wal.frames import encode_end as encode_end
    from lakelog.wal.frames import encode_frame as encode_frame
    from lakelog.wal.frames import resume as resume
    from lakelog.wal.frames import scan as scan
    from lakelog.wal.frames import space_after as space_after
    from lakelog.wal.tail import PendingFrames as PendingFrames
    from lakelog.wal.tail import Tail as Tail
    from lakelog.wal.tail import WalFile as WalFile
    from lakelog.wal.trimming import trim as trim

__getattr__, __all__ = lazy_face(__name__)
