"""What a file is read as: chunks of whole lines, parts of overlong ones, holes, and pauses.

Runs of NUL bytes in files of lines: not text, but space that no writer filled.

A writer that does not append continues at its old offset after its file was truncated, and leaves a
hole before its next line; a power cut may leave one after the last line. A hole is a run of NULs,
of at least two at the beginning of a line (each line of UTF-16 begins with one) or INNER_MIN within
it: what is before it and what is after it are lines of their own. Shorter runs are of the line.
"""

from __future__ import annotations

import errno
import os
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeAlias

from lakelog import arrays
from lakelog.libraries import np, pa
from lakelog.runtime.lazy import LazyProperty


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
        return arrays.split_lines(self.text)

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

    @staticmethod
    def end(data: bytes | bytearray, position: int) -> int:
        """The place within data, or one up to three bytes before it, that is in no character of
        UTF-8: parts end there, so that each is text by itself."""
        places = (position - back for back in range(4))
        return next((place for place in places if data[place] & 0xC0 != 0x80), position)


@dataclass(frozen=True)
class Hole:
    """NULs, which are no text; those `at_end` of a file may still be overwritten."""

    base: int
    length: int
    at_end: bool = False

    @staticmethod
    def at_end_of(data: bytes) -> int:
        """Return how many bytes the hole has that data ends with; 0 if it does not end with one."""
        size = len(data.rstrip(b"\0"))
        count = len(data) - size
        at_start = not size or data[size - 1] == _NEWLINE
        return count if count >= (START_MIN if at_start else INNER_MIN) else 0


@dataclass(frozen=True)
class Pause:
    """More NULs were read, of a hole that is not at its end: whoever reads in turns may stop."""

    base: int
    length: int = 0


@dataclass(frozen=True)
class Split:
    """Whole lines that another process loads, `length` bytes of them, and what it answers."""

    base: int
    length: int
    answer: Future[Any]


Piece = Chunk | Overlong | Hole | Pause | Split


START_MIN, INNER_MIN = 2, 16
"""Bytes of a run that are a hole, at the beginning of a line and within it; the NULs that fill up
fixed fields are mostly fewer."""
_NUL, _NEWLINE, _SPACE = 0, 10, 32
Holes: TypeAlias = "tuple[np.ndarray, np.ndarray]"
"""Where holes begin and end, as arrays of the same length."""


def find_holes(data: bytes) -> Holes | None:
    """Return the holes of data that begins with a line, or None."""
    # Nearly all files have no NULs, and this search runs at memory speed.
    if b"\0" not in data:
        return None
    codes = np.frombuffer(data, np.uint8)
    # One zero on each side, so that a run at either end has an edge, too.
    is_nul = np.zeros(len(codes) + 2, np.int8)
    is_nul[1:-1] = codes == _NUL
    edges = np.diff(is_nul)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    sizes = ends - starts
    long = (sizes >= INNER_MIN) | (_at_line_start(codes, starts) & (sizes >= START_MIN))
    return (starts[long], ends[long]) if long.any() else None


def blank_holes(data: bytes, holes: Holes) -> bytes:
    """Return data of the same length in which each hole is a blank line of its own."""
    starts, ends = holes
    codes = np.frombuffer(data, np.uint8).copy()
    step = np.zeros(len(codes) + 1, np.int8)
    step[starts], step[ends] = 1, -1
    # Same length as before: positions of lines stay those of the file.
    codes[np.cumsum(step[:-1], dtype=np.int8).view(np.bool_)] = _SPACE
    # A hole within a line ends it at once: what is before and after it are lines of their own.
    codes[starts[~_at_line_start(np.frombuffer(data, np.uint8), starts)]] = _NEWLINE
    codes[ends - 1] = _NEWLINE
    return codes.tobytes()


def seams_of(data: bytes, holes: Holes) -> tuple[int, ...]:
    """Where lines begin, in data with blanked holes, that continue nothing: the holes themselves
    and what is after them."""
    starts, ends = holes
    codes = np.frombuffer(data, np.uint8)
    after = ends[ends < len(data)]
    # Of a line that is nothing but a hole only the line break is left: the next line begins.
    after = after + (codes[after] == _NEWLINE)
    begins = np.union1d(starts + ~_at_line_start(codes, starts), after)
    return tuple(begins[begins < len(data)].tolist())


def unwritten_bytes(fd: int, position: int, length_max: int) -> int:
    """Return how many bytes of a file from `position` on have no place on the disk, up to
    `length_max`: NULs that need not be read. The descriptor stands elsewhere afterwards."""
    try:
        end = os.lseek(fd, position, os.SEEK_DATA)
    except OSError as error:
        # ENXIO: no data up to the end. Other errors: the file system does not say.
        end = os.fstat(fd).st_size if error.errno == errno.ENXIO else position
    return min(end - position, length_max)


def visible(data: bytes) -> bytes:
    """Return data without its holes, for detecting its format."""
    holes = find_holes(data)
    return data if holes is None else blank_holes(data, holes).lstrip(b" \n")


def _at_line_start(codes: np.ndarray, starts: np.ndarray) -> np.ndarray:
    mask: np.ndarray = (starts == 0) | (codes[starts - 1] == _NEWLINE)
    return mask
