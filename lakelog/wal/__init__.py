"""What was appended and is no part of a state yet: frames in WALs, the tail, and what is trimmed.

A `Header` and each `Frame` of a file have bytes; `scan` and `resume` read them. A `Tail` gives the
`PendingFrames` of a branch from its `WalFile`s, and `trim` removes files that are sealed.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.wal.frames import (
        END_BYTES,
        Frame,
        Header,
        encode_end,
        encode_frame,
        resume,
        scan,
        space_after,
    )
    from lakelog.wal.tail import PendingFrames, Tail, WalFile
    from lakelog.wal.trimming import trim

__all__ = [
    "END_BYTES",
    "Frame",
    "Header",
    "PendingFrames",
    "Tail",
    "WalFile",
    "encode_end",
    "encode_frame",
    "resume",
    "scan",
    "space_after",
    "trim",
]

__getattr__ = lazy_face(
    __name__,
    frames="END_BYTES Frame Header encode_end encode_frame resume scan space_after",
    tail="PendingFrames Tail WalFile",
    trimming="trim",
)
