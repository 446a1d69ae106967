"""Lines of files, however these are packed: chunks of whole lines with their offsets.

A `Source` yields each `Piece` of a file: a `Chunk` of lines, a part of an `Overlong` one, a `Hole`
of NULs, a `Pause` in one, or a `Split` that another process loads. A `Checksum` sums up what was
read. Of bytes alone are known their `compression`, the `refusal` of what can be no lines, and what
is `visible` beside holes.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.lines.binary import refusal
    from lakelog.lines.checksum import Checksum
    from lakelog.lines.inflate import compression
    from lakelog.lines.pieces import Chunk, Hole, Overlong, Pause, Piece, Split, visible
    from lakelog.lines.source import Source

__all__ = [
    "Checksum",
    "Chunk",
    "Hole",
    "Overlong",
    "Pause",
    "Piece",
    "Source",
    "Split",
    "compression",
    "refusal",
    "visible",
]

__getattr__ = lazy_face(
    __name__,
    binary="refusal",
    checksum="Checksum",
    inflate="compression",
    pieces="Chunk Hole Overlong Pause Piece Split visible",
    source="Source",
)
