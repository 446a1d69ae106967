"""What a file is read as: chunks of whole lines, parts of overlong ones, holes, and pauses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakelog.files.holes import Holes, blank_holes, find_holes, seams_of
from lakelog.libraries import np, pa
from lakelog.runtime.lazy import LazyProperty
from lakelog.segments import rows

if TYPE_CHECKING:
    from lakelog.files.splits import PendingSplit


@dataclass(frozen=True)
class Chunk:
    """Whole lines from byte `base` on; the last of a file may lack its newline (`open_end`).

    At the bytes `seams` of the data another file begins. In a `binary` chunk NULs are data.
    """

    data: bytes
    base: int
    open_end: bool = False
    seams: tuple[int, ...] = ()
    binary: bool = False

    @property
    def length(self) -> int:
        """Bytes of the file."""
        return len(self.data)

    @LazyProperty
    def holes(self) -> Holes | None:
        """Where the holes are; None where there are none."""
        return None if self.binary else find_holes(self.data)

    @LazyProperty
    def text(self) -> bytes:
        """The data, with holes as blank lines."""
        return self.data if self.holes is None else blank_holes(self.data, self.holes)

    @LazyProperty
    def lines(self) -> tuple[pa.Array, np.ndarray]:
        """The lines as an Arrow array over the text, and where each starts; see split_lines."""
        return rows.split_lines(self.text)

    @LazyProperty
    def breaks(self) -> tuple[int, ...]:
        """Where a line begins that continues nothing: at seams, and at and after holes."""
        if self.holes is None:
            return self.seams
        return tuple(sorted({*self.seams, *seams_of(self.data, self.holes)}))

    def hole_bytes(self, stop: int) -> int:
        """The number of bytes before `stop` that are in holes."""
        if self.holes is None:
            return 0
        starts, ends = self.holes
        return int((ends.clip(max=stop) - starts.clip(max=stop)).sum())


@dataclass(frozen=True)
class Overlong:
    """Part `number`, counted from 1, of a line that is too long to be ingested as one."""

    base: int
    data: bytes
    number: int

    @property
    def length(self) -> int:
        """Bytes of the file."""
        return len(self.data)


@dataclass(frozen=True)
class Hole:
    """NULs, which are no text; those `at_end` of a file may still be overwritten."""

    base: int
    length: int
    at_end: bool = False


@dataclass(frozen=True)
class Pause:
    """More NULs were read, of a hole that is not at its end: whoever reads in turns may stop."""

    base: int
    length: int = 0


@dataclass(frozen=True)
class Split:
    """Whole lines that another process loads, `length` bytes of them."""

    base: int
    length: int
    answer: PendingSplit


Piece = Chunk | Overlong | Hole | Pause | Split
