"""Bytes of a file, decompressed, in chunks of whole lines with offsets.

Compression is told by content: gzip and zstd are read as streams, all members and frames. An
offset counts decompressed bytes. A line over LINE_MAX is not kept in memory: its beginning, its
length and its place are reported. A file that cannot be read to its end, whose compression is
damaged or cut short, or that inflates beyond RATIO_MAX, ends early with a reason.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from lakelog.ingest.inflate import BrokenStream, Gzip, Zstd, compression
from lakelog.store import rows

CHUNK = 24 << 20
LINE_MAX = 64 << 20
KEPT = 65_536
RATIO_MAX = 20_000
_RATIO_FROM = 1 << 30
_NEAR = 1 << 16
_BOMB = "it inflates over"


@dataclass(frozen=True)
class Chunk:
    """Whole lines from byte `base` on; the last of a file may lack its newline (`open_end`).

    At the bytes `seams` of the data another file begins.
    """

    data: bytes
    base: int
    open_end: bool = False
    seams: tuple[int, ...] = ()

    @functools.cached_property
    def lines(self) -> tuple[Any, Any]:
        """The lines as an Arrow array over the data, and where each starts; see split_lines."""
        return rows.split_lines(self.data)


@dataclass(frozen=True)
class Overlong:
    """A line that was too long to take in: where, how long, how it begins and ends."""

    base: int
    length: int
    head: bytes
    last: bytes


Piece = Chunk | Overlong


class Source:
    """One readable input. `broken` says, at its end, why it could not be read any further.

    With a `limit` it ends there, whatever was written behind it meanwhile.
    """

    def __init__(self, path: str, name: str = "") -> None:
        self.path, self.name = path, name or path
        self.broken = ""
        self.limit: int | None = None
        self._at = self._done = 0
        self._file: Any = open(path, "rb", buffering=0)  # noqa: SIM115
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            self.compression = compression(self._file.read(4))
            self.seek(0)
        except BaseException:
            self._file.close()
            raise

    @property
    def raw(self) -> int:
        """Bytes taken from the medium so far, for progress."""
        return int(self._file.tell())

    def read(self, size: int) -> bytes:
        """Read up to `size` decompressed bytes; fewer only at the end, see `broken`."""
        if self.limit is not None:
            size = min(size, max(self.limit - self._at, 0))
        parts, left = [], size
        while left and not self.broken:
            try:
                part = self._stream.read(left)
            except BrokenStream as error:
                self.broken = str(error)
                break
            except OSError as error:
                self.broken = f"cannot be read any further: {error.strerror or error}"
                break
            if not part:
                break
            parts.append(part)
            left -= len(part)
        self._at += size - left
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def seek(self, offset: int) -> None:
        """Start over at a decompressed offset."""
        self.broken = ""
        self._file.seek(0 if self.compression else offset)
        self._at = 0 if self.compression else offset
        self._stream = self._open()
        while self.compression and offset:
            part = self.read(min(offset, CHUNK))
            if not part:
                return
            offset -= len(part)

    def pieces(self, offset: int) -> Iterator[Piece]:
        """Yield chunks of whole lines from `offset`, where the stream must stand."""
        pending, base = b"", offset
        self._done = 0
        while True:
            block = self._block(CHUNK if self.compression else self._to_line_end(CHUNK))
            if self.broken.startswith(_BOMB):
                return
            if not block:
                if pending:
                    yield Chunk(pending, base, True)
                return
            cut = block.rfind(b"\n") + 1
            if cut == len(block) and not pending:
                yield Chunk(block, base)
                base += cut
                continue
            if cut and len(pending) + cut <= LINE_MAX:
                yield Chunk(b"".join((pending, memoryview(block)[:cut])), base)
                base, pending = base + len(pending) + cut, block[cut:]
                continue
            data = pending + block
            cut = data.rfind(b"\n") + 1
            first = data.find(b"\n") + 1 if len(data) > LINE_MAX else 0
            if first > LINE_MAX:
                yield Overlong(base, first, data[:KEPT], data[first - KEPT : first])
                base, pending = base + first, data[first:]
            elif cut:
                yield Chunk(data[:cut] if cut < len(data) else data, base)
                base, pending = base + cut, data[cut:]
            elif len(data) > LINE_MAX:
                length, last, pending = self._skip_line(data)
                if self.broken.startswith(_BOMB):
                    return
                yield Overlong(base, length, data[:KEPT], last)
                base += length
            else:
                pending = data

    def ahead(self, offset: int) -> Generator[Piece]:
        """Yield `pieces`, each read while the one before it is worked on; close it when done."""
        pieces = self.pieces(offset)
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(_next_split, pieces)
            while (piece := coming.result()) is not None:
                coming = reader.submit(_next_split, pieces)
                yield piece

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _to_line_end(self, size: int) -> int:
        """How much to read so that the block ends with a line, if one ends near `size`."""
        if size <= _NEAR:
            return size
        try:
            near = os.pread(self._file.fileno(), _NEAR, self._file.tell() + size - _NEAR)
        except OSError:
            return size
        whole = len(near) == _NEAR and b"\n" in near
        return size - _NEAR + near.rfind(b"\n") + 1 if whole else size

    def _open(self) -> Any:
        if self.compression:
            return Gzip(self._file) if self.compression == "gzip" else Zstd(self._file)
        return self._file

    def _skip_line(self, data: bytes) -> tuple[int, bytes, bytes]:
        """Read past an overlong line; return its length, its last bytes, and what follows it."""
        length, last = len(data), data[-KEPT:]
        while block := self._block(CHUNK):
            cut = block.find(b"\n") + 1
            if cut:
                return length + cut, (last + block[:cut])[-KEPT:], block[cut:]
            length, last = length + len(block), (last + block)[-KEPT:]
        return length, last, b""

    def _block(self, size: int) -> bytes:
        """Read on, unless the file inflates beyond all measure: then `broken` says so."""
        block = self.read(size)
        self._done += len(block)
        large = bool(self.compression) and self._done > _RATIO_FROM
        if large and self._done > RATIO_MAX * max(self.raw, 1):
            self.broken = f"{_BOMB} {RATIO_MAX} times: not read any further"
            return b""
        return block


def _next_split(pieces: Iterator[Piece]) -> Piece | None:
    """The next piece, with its lines found beside whoever waits for it."""
    piece = next(pieces, None)
    if isinstance(piece, Chunk):
        _ = piece.lines
    return piece
