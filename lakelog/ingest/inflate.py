"""Compressed files as streams: gzip with all its members, zstd with all its frames.

`read(size)` gives what is there, at least one byte unless the stream is at its end. Everything
before a fault is given first; then BrokenStream says what is wrong, an early end included.
"""

from __future__ import annotations

import zlib
from typing import Any

import zstandard

_BLOCK = 1 << 18
_SKIPPABLE = b"\x2a\x4d\x18"
_WINDOW_MAX = 1 << 28


class BrokenStream(Exception):
    """The compressed stream is damaged, or ends before its end."""


def compression(start: bytes) -> str:
    """Return "gzip", "zstd" or "" by the first four bytes of a file."""
    if start[:2] == b"\x1f\x8b":
        return "gzip"
    if start == b"\x28\xb5\x2f\xfd" or (start[1:4] == _SKIPPABLE and start[0] & 0xF0 == 0x50):
        return "zstd"
    return ""


class Gzip:
    """A gzip file, whatever the number of its members; zeros after one are padding."""

    def __init__(self, file: Any) -> None:
        self._file, self._input = file, b""
        self._member: Any = None

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes. Raises BrokenStream, OSError."""
        while True:
            if self._member is None and not self._begin():
                return b""
            try:
                data: bytes = self._member.decompress(self._input, size)
            except zlib.error as error:
                raise BrokenStream(f"the gzip stream is damaged: {error}") from None
            if self._member.eof:
                self._input, self._member = self._member.unused_data, None
            else:
                self._input = self._member.unconsumed_tail
            if data:
                return data
            if self._member is not None and not self._input:
                self._input = self._file.read(_BLOCK)
                if not self._input:
                    raise BrokenStream("the gzip stream ends too early")

    def _begin(self) -> bool:
        """Start the next member; False at the end of the file."""
        self._input = self._input.lstrip(b"\0")
        while not self._input:
            self._input = self._file.read(_BLOCK)
            if not self._input:
                return False
            self._input = self._input.lstrip(b"\0")
        self._member = zlib.decompressobj(wbits=31)
        return True


class Zstd:
    """A zstd file, whatever the number of its frames, skippable ones included."""

    def __init__(self, file: Any) -> None:
        self._file = file
        engine = zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX)
        self._stream = engine.stream_reader(file, read_across_frames=True, closefd=False)

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes. Raises BrokenStream, OSError."""
        try:
            data = self._stream.read1(size)
        except zstandard.ZstdError as error:
            raise BrokenStream(f"the zstd stream is damaged: {error}") from None
        if not data and not self._is_whole():
            raise BrokenStream("the zstd stream ends too early")
        return data

    def _is_whole(self) -> bool:
        """Whether the last frame is complete, which the library does not say."""
        at, end = 0, int(self._file.seek(0, 2))
        while at < end:
            at = _frame_end(self._file, at, end)
        return at == end


def _frame_end(file: Any, at: int, end: int) -> int:
    """Return where the frame at `at` ends, by its headers; beyond `end` if it is cut short."""
    file.seek(at)
    head = file.read(18)
    if head[1:4] == _SKIPPABLE:
        return at + 8 + int.from_bytes(head[4:8], "little") if len(head) >= 8 else end + 1
    try:
        place = at + zstandard.frame_header_size(head)
        checksum = 4 if zstandard.get_frame_parameters(head).has_checksum else 0
    except zstandard.ZstdError:
        return end + 1
    last = 0
    while not last:
        file.seek(place)
        block = file.read(3)
        if len(block) < 3:
            return end + 1
        number = int.from_bytes(block, "little")
        last, kind, size = number & 1, number >> 1 & 3, number >> 3
        place += 3 + (1 if kind == 1 else size)
    return place + checksum
