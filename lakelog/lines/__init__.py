"""Lines of files, however these are packed: chunks of whole lines with their offsets.

A `Source` yields each `Piece` of a file: a `Chunk` of lines, a part of an `Overlong` one, a `Hole`
of NULs, a `Pause` in one, or a `Split` that another process loads. A `Checksum` sums up what was
read. Of bytes alone are known their `compression`, the `refusal` of what can be no lines, and what
is `visible` beside holes.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.lines.binary import refusal as refusal
    from lakelog.lines.checksum import Checksum as Checksum
    from lakelog.lines.inflate import compression as compression
    from lakelog.lines.pieces import Chunk as Chunk
    from lakelog.lines.pieces import Hole as Hole
    from lakelog.lines.pieces import Overlong as Overlong
    from lakelog.lines.pieces import Pause as Pause
    from lakelog.lines.pieces import Piece as Piece
    from lakelog.lines.pieces import Split as Split
    from lakelog.lines.pieces import visible as visible
    from lakelog.lines.source import Source as Source

__getattr__, __all__ = lazy_face(__name__)
