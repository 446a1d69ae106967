"""Bytes of a file, decompressed, in chunks of whole lines with offsets.

Compression is told by content: gzip and zstd are read as streams, all members and frames. An
offset counts decompressed bytes. A line over LINE_MAX is not kept in memory: its beginning, its
length and its place are reported. A stream that ends in the middle of its compression, or that
inflates beyond RATIO_MAX, ends with a reason.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import zstandard

CHUNK = 32 << 20
LINE_MAX = 64 << 20
KEPT = 65_536
RATIO_MAX = 20_000
_RATIO_FROM = 1 << 30
_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError)


@dataclass(frozen=True)
class Chunk:
    """Whole lines from byte `base` on; the last of a file may lack its newline (`open_end`)."""

    data: bytes
    base: int
    open_end: bool = False


@dataclass(frozen=True)
class Overlong:
    """A line that was too long to take in: where, how long, and how it begins."""

    base: int
    length: int
    head: bytes
    last: bytes


@dataclass(frozen=True)
class Broken:
    """The stream ended wrongly at byte `base`."""

    base: int
    reason: str


Piece = Chunk | Overlong | Broken


class Source:
    """One readable input; `raw` counts bytes read from the medium, for progress."""

    def __init__(self, path: str, name: str = "") -> None:
        self.path, self.name = path, name or path
        self._file: Any = open(path, "rb", buffering=0)  # noqa: SIM115
        self.size = os.fstat(self._file.fileno()).st_size
        start = self._file.read(4)
        self._file.seek(0)
        self.compression = _compression(start)
        self._stream = self._open()

    @property
    def raw(self) -> int:
        """Bytes taken from the medium so far."""
        return int(self._file.tell())

    def read(self, size: int) -> bytes:
        """Read up to `size` decompressed bytes; empty at the end. Raises what _ERRORS holds."""
        parts, left = [], size
        while left:
            part = self._stream.read(left)
            if not part:
                break
            parts.append(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def seek(self, offset: int) -> None:
        """Start over at a decompressed offset."""
        self._file.seek(0 if self.compression else offset)
        if self.compression:
            self._stream = self._open()
            while offset:
                part = self.read(min(offset, CHUNK))
                if not part:
                    return
                offset -= len(part)

    def pieces(self, offset: int) -> Iterator[Piece]:
        """Yield chunks of whole lines from `offset`, where the stream must stand."""
        pending, base, done = b"", offset, 0
        while True:
            try:
                block = self.read(CHUNK)
            except _ERRORS as error:
                if pending:
                    yield Chunk(pending, base, True)
                yield Broken(base + len(pending), f"{self.compression} stream is damaged: {error}")
                return
            data = pending + block if pending else block
            done += len(block)
            if self._is_bomb(done):
                yield Broken(base, f"it inflates over {RATIO_MAX} times: not read any further")
                return
            if not block:
                if data:
                    yield Chunk(data, base, True)
                return
            cut = data.rfind(b"\n") + 1
            if cut:
                yield Chunk(data[:cut] if cut < len(data) else data, base)
                base, pending = base + cut, data[cut:]
            elif len(data) > LINE_MAX:
                length, last, pending = self._skip_line(data)
                yield Overlong(base, length, data[:KEPT], last)
                base += length
            else:
                pending = data

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _open(self) -> Any:
        if self.compression == "gzip":
            return gzip.GzipFile(fileobj=self._file, mode="rb")
        if self.compression == "zstd":
            reader = zstandard.ZstdDecompressor(max_window_size=1 << 31)
            return reader.stream_reader(self._file, read_across_frames=True, closefd=False)
        return self._file

    def _skip_line(self, data: bytes) -> tuple[int, bytes, bytes]:
        """Read past an overlong line; return its length, its last bytes, and what follows it."""
        length, last = len(data), data[-KEPT:]
        while block := self.read(CHUNK):
            cut = block.find(b"\n") + 1
            if cut:
                return length + cut, (last + block[:cut])[-KEPT:], block[cut:]
            length, last = length + len(block), block[-KEPT:]
        return length, last, b""

    def _is_bomb(self, done: int) -> bool:
        large = bool(self.compression) and done > _RATIO_FROM
        return large and done > RATIO_MAX * max(self.raw, 1)


def _compression(start: bytes) -> str:
    if start[:2] == b"\x1f\x8b":
        return "gzip"
    skippable = len(start) == 4 and start[1:] == b"\x2a\x4d\x18" and start[0] & 0xF0 == 0x50
    return "zstd" if start == b"\x28\xb5\x2f\xfd" or skippable else ""
