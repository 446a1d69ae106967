"""Bytes of a file, decompressed, in chunks of whole lines with offsets.

Compression is detected from content: gzip and zstd are read as streams, all members and frames;
Parquet and Arrow as the lines that columnar.py makes of their rows. An offset counts decompressed
bytes. A line over LINE_MAX is not held in memory: it is yielded in parts, all of its bytes. A long
run of NULs is a hole (pieces.py), of which only the length is kept. A file that cannot be read to
its end, whose compression is damaged or cut short, or that inflates beyond RATIO_MAX, ends early
with a reason; a binary file ends at once.
"""

from __future__ import annotations

import os
import stat
import sys
import zlib
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from lakelog.lines.binary import refusal
from lakelog.lines.checksum import joined, of_zeros
from lakelog.lines.columnar import RowStream, container
from lakelog.lines.inflate import MAGIC_MAX, WIDE, BrokenStream, compression, inflated, wide_order
from lakelog.lines.pieces import (
    INNER_MIN,
    Chunk,
    Hole,
    Overlong,
    Pause,
    Piece,
    Split,
    find_holes,
    unwritten_bytes,
)

HOLE = 1 << 16
"""NULs at the end of a block from which on they are a hole of their own."""
RATIO_MAX = 20_000
# Small files may well inflate a lot: a log of one line repeated.
_RATIO_FROM = 1 << 30
# How far before the end of a block a newline is looked for.
_NEAR = 1 << 16
_BOMB = "it inflates over"
_HOLE_END = bytes(HOLE)
_KINDS = {
    stat.S_IFREG: "",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class SplitLoader(Protocol):
    """What has other processes load ranges of whole lines of a long file."""

    def due(self, base: int) -> int:
        """Return how many bytes from `base` on are for another process, 0 if none are."""

    def give(self, base: int, size: int) -> Future[Any]:
        """Give whole lines to another process."""


class Source:
    """One readable input. `broken` says, at its end, why it could not be read any further.

    With a `limit` it ends there, whatever was written after it meanwhile. What is `piped` is a
    copy of what came through a pipe, so that its inode says nothing.
    """

    START = MAGIC_MAX
    """Bytes of a file's beginning that tell how it is packed."""
    CHUNK, SHORT = 24 << 20, 8 << 20
    """Bytes of a chunk at most, and of the first ones. A query is planned for each, but the sooner
    a chunk is there the sooner two threads have something to do."""
    LINE_MAX, PART = 64 << 20, 16 << 20
    """Bytes of a line, and of each part of a longer one."""
    WINDOW = 4096
    """Bytes of a file's beginning, and before a place in it, by which it is known again."""

    def __init__(
        self, path: str, name: str = "", *, piped: bool = False, limit: int | None = None
    ) -> None:
        self.path, self.name, self.piped = path, name or path, piped
        self.broken = self._refused = ""
        self.remark = ""
        """What was left out of the file though nothing is wrong with the rest."""
        self.limit = limit
        self.published: Any = None
        """The cursor of a stream whose beginning, but for its `head`, cannot be read any more."""
        self.head = b""
        self.chunk = self.SHORT
        """Bytes of the chunks that are read next."""
        self.splits: SplitLoader | None = None
        """What other processes load of it, where that is plain."""
        self._at = self._inflated = 0
        self._file: Any = open(_regular(path), "rb", buffering=0)  # noqa: SIM115
        try:
            status = os.fstat(self.descriptor)
            self.size, self.mtime = status.st_size, status.st_mtime_ns
            self.identity = status.st_dev, status.st_ino
            self.is_removed = status.st_nlink == 0
            start = self._file.read(MAGIC_MAX)
            self.container = container(start[:4])
            # What is short is packed as it is, so that a stream of UTF-16 looks like it.
            wide = WIDE if wide_order(start) else ""
            self.compression = self.container or compression(start) or wide
            if self.compression:
                self.limit = None  # of decompressed bytes none is known
            self.seek(0)
        except BaseException:
            self._file.close()
            raise

    @property
    def is_packed(self) -> bool:
        """Whether the file is compressed, or holds rows, so that no writer appends lines to it."""
        return self.compression not in ("", WIDE)

    @property
    def is_shrunk(self) -> bool:
        """Whether the file is shorter now than what was read of it: it was truncated meanwhile."""
        return not self.compression and os.fstat(self.descriptor).st_size < self._at

    @property
    def descriptor(self) -> int:
        """The number of the open file."""
        return int(self._file.fileno())

    @property
    def raw(self) -> int:
        """Bytes read from the disk so far, for progress; all of them where rows are read."""
        return self.size if self.container else int(self._file.tell())

    def read(self, size: int) -> bytes:
        """Read up to `size` decompressed bytes; fewer only at the end, see `broken`."""
        if self.limit is not None:
            size = min(size, max(self.limit - self._at, 0))
        # Streams return what they have; chunks of a fixed size keep the queries large.
        blocks, remaining = [], size
        while remaining and not self.broken:
            try:
                block = self._stream.read(remaining)
            # What was read before the fault is good, and is returned.
            except BrokenStream as error:
                self.broken = str(error)
                break
            except OSError as error:
                self.broken = f"cannot be read any further: {error.strerror or error}"
                break
            if not block:
                break
            blocks.append(block)
            remaining -= len(block)
        data = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        # Asked once, of the decompressed beginning: a compressed binary file is one, too.
        if self._at == 0 and not self._refused:
            self._refused = refusal(data)
        if self._refused:
            self.broken = self._refused
            return b""
        self._at += size - remaining
        return data

    def seek(self, offset: int) -> None:
        """Start over at a decompressed offset."""
        self.broken = ""
        self._file.seek(0 if self.compression else offset)
        self._at = 0 if self.compression else offset
        self._stream = self._open()
        # Compressed streams cannot seek: everything before the offset is decompressed again.
        while self.compression and offset:
            block = self.read(min(offset, self.CHUNK))
            if not block:
                return
            offset -= len(block)

    def reach(self, size: int) -> None:
        """Read up to `size`, if the file is as long: whoever read it so far knew more than who
        measured it."""
        if self.limit is not None and self.limit < size <= os.fstat(self.descriptor).st_size:
            self.limit = size

    def skip_unwritten(self, length_max: int) -> int:
        """Go past bytes that nobody wrote, `length_max` at most; return how many these are. All are
        NULs, and the file system says where they end."""
        if self.compression:
            return 0
        if self.limit is not None:
            length_max = min(length_max, self.limit - self._at)
        length = max(unwritten_bytes(self.descriptor, self._at, length_max), 0)
        self._at = self._file.seek(self._at + length)
        return length

    def pieces(self, offset: int) -> Iterator[Piece]:
        """Yield chunks of whole lines from `offset`, where the stream must stand."""
        pending, base, hole, number = b"", offset, 0, 0
        self._inflated = 0
        # Plain blocks are read up to a newline, which saves joining the rest of one to the next.
        while True:
            if not (pending or hole or number) and (split := self._split(base)):
                yield split
                base += split.length
                continue
            # Of a sparse file as large as a disk no turn could read the NULs.
            hole += self.skip_unwritten(sys.maxsize) if hole else 0
            if not (block := self._block(self._next_size())):
                break
            if hole:
                # Only bytes after a hole show that it will not be overwritten any more.
                content = block.lstrip(b"\0")
                hole += len(block) - len(content)
                if not content:
                    yield Pause(base)
                    continue
                if pending:
                    yield _line(pending, base, number)
                base, block = base + len(pending), content
                yield Hole(base, hole)
                base, pending, hole, number = base + hole, b"", 0, 0
            if block.endswith(_HOLE_END):
                block, pending = pending + block, b""
                hole = Hole.at_end_of(block)
                block = block[: len(block) - hole]
            line_end = block.rfind(b"\n") + 1
            # The usual case: nothing pending and only whole lines, so no byte is copied.
            if line_end == len(block) <= self.LINE_MAX and not pending and not number:
                if block:
                    yield Chunk(block, base)
                base += line_end
                continue
            if line_end and len(pending) + line_end <= self.LINE_MAX and not number:
                yield Chunk(b"".join((pending, memoryview(block)[:line_end])), base)
                base, pending = base + len(pending) + line_end, block[line_end:]
                continue
            # An overlong line, or none that ends in this block.
            data = pending + block
            split_pieces, number = _split(data, base, number)
            yield from split_pieces
            length = sum(next_piece.length for next_piece in split_pieces)
            base, pending = base + length, data[length:]
        if self.broken.startswith(_BOMB):
            return
        # The end is known now: NULs there are a hole at the end, not part of the last line.
        nuls = 0 if hole else Hole.at_end_of(pending)
        pending, hole = pending[: len(pending) - nuls], hole + nuls
        if pending:
            yield _line(pending, base, number, open_end=True)
        if hole:
            yield Hole(base + len(pending), hole, at_end=True)

    def ahead(self, offset: int) -> Generator[Piece]:
        """Yield `pieces`, each read while the one before it is worked on; close it when done."""
        upcoming = self.pieces(offset)
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(_next_split, upcoming)
            while (current := coming.result()) is not None:
                coming = reader.submit(_next_split, upcoming)
                yield current

    def read_head(self) -> bytes:
        """Read the file's beginning. Of one shorter than WINDOW no more is read after that, or what
        is being written now would have no key."""
        self.seek(0)
        head = self.read(self.WINDOW)
        if len(head) < self.WINDOW and not self.compression:
            self.limit = len(head) if self.limit is None else min(self.limit, len(head))
        return head

    def before(self, place: int) -> bytes:
        """The last bytes before a place, WINDOW at most; the source then stands at the place."""
        start = max(place - self.WINDOW, 0)
        self.seek(start)
        return self.read(place - start)

    def crc(self, size: int) -> int | None:
        """The CRC-32 of the first bytes of the file; None if it has fewer."""
        self.seek(0)
        crc = 0
        while size:
            if unwritten := self.skip_unwritten(size):
                crc, size = joined(crc, of_zeros(unwritten), unwritten), size - unwritten
                continue
            block = self.read(min(size, 1 << 20))
            if not block:
                return None
            crc, size = zlib.crc32(block, crc), size - len(block)
        return crc

    @staticmethod
    def kind_of(mode: int) -> str:
        """The kind of a file that is not regular, by its mode; empty if it is regular."""
        return _KINDS.get(stat.S_IFMT(mode), "something else")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _next_size(self) -> int:
        """The bytes to read so that a block ends with a line, if one ends near the size of it."""
        size = min(self.chunk, self.CHUNK)
        if self.compression or size <= _NEAR:
            return size
        try:
            near = os.pread(self.descriptor, _NEAR, self._file.tell() + size - _NEAR)
        except OSError:
            return size
        whole = len(near) == _NEAR and b"\n" in near
        return size - _NEAR + near.rfind(b"\n") + 1 if whole else size

    def _split(self, base: int) -> Split | None:
        """Give what comes next to another process, if that has time."""
        size = self.splits.due(base) if self.splits else 0
        # The end of a file may be without its newline, or a hole.
        if not self.splits or not size or base + size + self.SHORT > self.size:
            return None
        near = os.pread(self.descriptor, _NEAR, base + size - _NEAR)
        size += near.rfind(b"\n") + 1 - _NEAR
        if b"\n" not in near:
            return None
        self._at = self._file.seek(base + size)
        return Split(base, size, self.splits.give(base, size))

    def _open(self) -> Any:
        if self.container:
            return RowStream(self._file)
        if not self.compression:
            return self._file
        return inflated(self._file, self.compression, self._note_trailing)

    def _note_trailing(self) -> None:
        self.remark = f"bytes after the end of the {self.compression} stream were ignored"

    def _block(self, size: int) -> bytes:
        """Read a block, unless the file inflates beyond RATIO_MAX: then `broken` says so."""
        block = self.read(size)
        self._inflated += len(block)
        large = bool(self.compression) and self._inflated > _RATIO_FROM
        if large and self._inflated > RATIO_MAX * max(self.raw, 1):
            self.broken = f"{_BOMB} {RATIO_MAX} times: not read any further"
            return b""
        return block


def _regular(path: str) -> int:
    """Open a regular file without blocking on anything else. Raises OSError."""
    irregular = Source.kind_of(os.stat(path).st_mode)
    if not irregular:
        # O_NONBLOCK: a pipe that took the place of the file would block open() until somebody
        # writes.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        irregular = Source.kind_of(os.fstat(fd).st_mode)  # another may have its name by now
        if not irregular:
            return fd
        os.close(fd)
    raise OSError(f"not a regular file: it is {irregular}")


def _line(data: bytes, base: int, number: int, *, open_end: bool = False) -> Piece:
    """The rest of a line, of an overlong one if `number` parts of it came before."""
    return Overlong(base, data, number + 1) if number else Chunk(data, base, open_end)


def _split(data: bytes, base: int, number: int) -> tuple[list[Piece], int]:
    """Split data into whole lines and parts of overlong ones; `number` parts came before it.

    Also returns how many parts there were of the line that continues after the pieces. Where parts
    end depends on the line alone, not on the size of blocks.
    """
    ordered: list[Piece] = []
    position, part_size = 0, min(Source.PART, Source.LINE_MAX)
    solid = len(data.rstrip(b"\0"))  # NULs at the end may be the beginning of a hole
    # A line is overlong only once more than LINE_MAX of it is there; whether NULs at the end count
    # is known later.
    while number or solid - position > Source.LINE_MAX:
        size = _line_end(data[position:], is_continued=number > 0)
        if not number and 0 < size <= Source.LINE_MAX:
            ordered.append(Chunk(data[position : position + size], base + position))
            position += size
            continue
        end = position + size if size else 0
        while position < end or (not end and solid - position > part_size):
            stop = (
                end if 0 < end <= position + part_size else Overlong.end(data, position + part_size)
            )
            number += 1
            ordered.append(Overlong(base + position, data[position:stop], number))
            position = stop
        if not end:
            return ordered, number
        number = 0
    rest_end = _last_end(data[position:])
    if rest_end:
        ordered.append(Chunk(data[position : position + rest_end], base + position))
    return ordered, 0


def _line_end(data: bytes, *, is_continued: bool) -> int:
    """Where the first line ends, which `is_continued` from before the data, or the hole that
    replaces it; 0 if it continues."""
    end = data.find(b"\n") + 1
    holes = find_holes(data[:end] if end else data)
    for start, stop in zip(*(holes or ((), ())), strict=True):
        if start:
            return int(start)
        if not is_continued or stop >= INNER_MIN:
            return int(stop)
    return end


def _last_end(data: bytes) -> int:
    """Where the last whole line ends, or the last hole that is followed by something."""
    line_end = data.rfind(b"\n") + 1
    holes = find_holes(data[line_end:])
    ends = [] if holes is None else [end for end in holes[1].tolist() if end < len(data) - line_end]
    return line_end + ends[-1] if ends else line_end


def _next_split(upcoming: Iterator[Piece]) -> Piece | None:
    """The next piece, its lines already split in this thread."""
    current = next(upcoming, None)
    if isinstance(current, Chunk):
        _ = current.lines
    return current
