"""Compressed and re-encoded files as streams: all members of gzip, frames of zstd, streams of xz
and bzip2, and UTF-16, packed or not, which is read as UTF-8.

`read(size)` returns what is available, at least one byte unless the stream is at its end.
Everything before a fault is returned first; then BrokenStream says what is wrong, an early end
included.
"""

from __future__ import annotations

import bz2
import codecs
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import zstandard

_BLOCK = 1 << 18
_SKIPPABLE = b"\x2a\x4d\x18"
# A stream names the window that it needs in memory: a hostile one may name gigabytes.
_WINDOW_MAX = 1 << 28
WIDE = "utf-16"
MAGIC_MAX = WIDE_MAX = 64
"""Bytes of a file's beginning that `compression` and `wide_order` need."""
_WIDE_MIN = 4
_MARKS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_CONTROLS = re.compile("[\\x00-\\x08\\x0e-\\x1a\\x1c-\\x1f\\x7f]")
_BZIP2 = (b"1AY&SY", b"\x17rE8P\x90")  # what follows BZh9: a block, or the end of no block at all


class BrokenStream(Exception):
    """The compressed stream is damaged, or ends before its end."""


def compression(start: bytes) -> str:
    """Return "gzip", "zstd", "xz", "bzip2" or "" by the first MAGIC_MAX bytes of a file."""
    if start[:2] == b"\x1f\x8b":
        return "gzip"
    if start[:4] == b"\x28\xb5\x2f\xfd":
        return "zstd"
    if start[1:4] == _SKIPPABLE and start[0] & 0xF0 == 0x50:
        return "zstd"
    if start[:6] == b"\xfd7zXZ\0":
        return "xz"
    return "bzip2" if start[:3] == b"BZh" and start[4:10] in _BZIP2 else ""


def wide_order(start: bytes) -> str:
    """Return the codec of a file that begins so if it is UTF-16, as exports of Windows are; else
    "". Without a byte order mark the NULs beside characters of ASCII tell it. It is not UTF-32."""
    if start[:2] in _MARKS and start[2:4] != b"\0\0":
        return _MARKS[start[:2]]
    start = start[: min(len(start), WIDE_MAX) & ~1]
    for order, high, low in _halves(start):
        if len(start) >= _WIDE_MIN and 0 not in low and high.count(0) >= len(high) / 4:
            decoded = start.decode(order, "replace")
            # What stands in for a character that is cut off is the last one at most.
            return "" if _CONTROLS.search(decoded) or "\ufffd" in decoded[:-1] else order
    return ""


def _halves(start: bytes) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield each order of bytes with the high and the low ones."""
    yield "utf-16-le", start[1::2], start[::2]
    yield "utf-16-be", start[::2], start[1::2]


def inflated(
    file: BinaryIO, codec: str, on_trailing: Callable[[], None] = lambda: None
) -> Utf16Stream | _Begun:
    """Return the stream of what a file holds; `codec` is what `compression` said, or WIDE.

    `on_trailing` is called where bytes follow that are no part of it, and are ignored.
    """
    if codec == WIDE:
        return Utf16Stream(file, file.read(WIDE_MAX))
    stream = Zstd(file) if codec == "zstd" else CompressedFile(file, codec, on_trailing)
    start, fault = b"", None
    try:
        while len(start) < WIDE_MAX and (block := stream.read(WIDE_MAX - len(start))):
            start += block
    except BrokenStream as error:  # what was read before it comes first
        fault = error
    resumed = _Begun(stream, start, fault)
    return Utf16Stream(resumed, resumed.read(WIDE_MAX)) if wide_order(start) else resumed


class _Begun:
    """A stream of which the `start` was read, and then perhaps a fault came."""

    def __init__(
        self, stream: Zstd | CompressedFile, start: bytes, fault: BrokenStream | None
    ) -> None:
        self._stream, self._start, self._fault = stream, start, fault

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes. Raises BrokenStream, OSError."""
        if self._start:
            data, self._start = self._start[:size], self._start[size:]
            return data
        if self._fault is not None:
            raise self._fault
        return self._stream.read(size)


class Utf16Stream:
    """A stream of UTF-16, of which `start` was read, as UTF-8; code units that are no text are
    escaped. The first half of a character at its end waits for the second."""

    def __init__(self, stream: BinaryIO | _Begun, start: bytes) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(wide_order(start))("backslashreplace")
        has_mark = start[:2] in _MARKS
        self._data = self._decoder.decode(start[2:] if has_mark else start).encode()

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes. Raises BrokenStream, OSError."""
        while not self._data:
            block = self._stream.read(_BLOCK)
            if not block:
                return b""
            self._data = self._decoder.decode(block).encode()
        data, self._data = self._data[:size], self._data[size:]
        return data


class _GzipMember:
    """A member of a gzip file, with the methods that xz and bzip2 have."""

    def __init__(self) -> None:
        self._engine = zlib.decompressobj(wbits=31)
        self._is_full = False

    @property
    def eof(self) -> bool:
        return self._engine.eof

    @property
    def unused_data(self) -> bytes:
        return self._engine.unused_data

    @property
    def needs_input(self) -> bool:
        # zlib holds output back without any input left when it was asked for just so much.
        return not self._engine.unconsumed_tail and not self._is_full

    def decompress(self, data: bytes, size: int) -> bytes:
        data_out = self._engine.decompress(self._engine.unconsumed_tail + data, size)
        self._is_full = len(data_out) == size
        return data_out


_MAGIC = {"gzip": b"\x1f\x8b", "bzip2": b"BZh"}
"""How members begin, of formats after which trailing bytes are ignored."""
_MEMBERS: dict[str, Callable[[], Any]] = {
    "gzip": _GzipMember,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_WINDOW_MAX),
    "bzip2": bz2.BZ2Decompressor,
}


class CompressedFile:
    """A file of gzip, xz or bzip2, of any number of members; zeros after one are padding, and what
    is no member after the last one of gzip or bzip2 is ignored, as these programs do."""

    def __init__(self, file: BinaryIO, codec: str, on_trailing: Callable[[], None]) -> None:
        self._file, self._kind, self._input = file, codec, b""
        self._member: Any = None
        self._has_read = self._is_over = False
        self._on_trailing = on_trailing

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes. Raises BrokenStream, OSError."""
        while True:
            if self._member is None and not self._begin():
                return b""
            # Asked only when the decoder has nothing left, else a file that is complete would look
            # cut short.
            if self._member.needs_input and not self._input:
                self._input = self._file.read(_BLOCK)
                if not self._input:
                    raise BrokenStream(f"the {self._kind} stream ends too early")
            data = self._decompress(size)
            if self._member.eof:
                self._input, self._member = self._member.unused_data, None
            if data:
                return data

    def _decompress(self, size: int) -> bytes:
        chunk, self._input = self._input, b""
        try:
            data: bytes = self._member.decompress(chunk, size)
        except (zlib.error, lzma.LZMAError, OSError) as error:  # bz2 raises OSError
            raise BrokenStream(f"the {self._kind} stream is damaged: {error}") from None
        return data

    def _begin(self) -> bool:
        """Start the next member; False at the end of the file."""
        if self._is_over:
            return False
        self._input = self._input.lstrip(b"\0")
        while not self._input:
            self._input = self._file.read(_BLOCK)
            if not self._input:
                return False
            self._input = self._input.lstrip(b"\0")
        # Of one byte nobody knows yet: a member may be being written.
        magic = _MAGIC.get(self._kind, b"")
        if self._has_read and magic and not magic.startswith(self._input[: len(magic)]):
            self._is_over = True
            self._on_trailing()
            return False
        self._has_read, self._member = True, _MEMBERS[self._kind]()
        return True


class Zstd:
    """A zstd file, whatever the number of its frames, skippable ones included."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        engine = zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX)
        self._stream = engine.stream_reader(file, read_across_frames=True, closefd=False)

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes. Raises BrokenStream, OSError."""
        try:
            # read1 returns what one block gives: everything before a fault, even if less than
            # `size`.
            data = self._stream.read1(size)
        except zstandard.ZstdError as error:
            raise BrokenStream(f"the zstd stream is damaged: {error}") from None
        if not data and not self._is_whole():
            raise BrokenStream("the zstd stream ends too early")
        return data

    def _is_whole(self) -> bool:
        """Whether the last frame is complete, which the library does not say."""
        position, end = 0, int(self._file.seek(0, 2))
        while position < end:
            position = _frame_end(self._file, position, end)
        return position == end


def _frame_end(file: BinaryIO, position: int, end: int) -> int:
    """Return where the frame that begins there ends, by its headers; beyond `end` if it is cut."""
    file.seek(position)
    head = file.read(18)
    if head[1:4] == _SKIPPABLE:
        return position + 8 + int.from_bytes(head[4:8], "little") if len(head) >= 8 else end + 1
    try:
        place = position + zstandard.frame_header_size(head)
        checksum = 4 if zstandard.get_frame_parameters(head).has_checksum else 0
    except zstandard.ZstdError:
        return end + 1
    is_last = 0
    while not is_last:
        file.seek(place)
        block = file.read(3)
        if len(block) < 3:
            return end + 1
        number = int.from_bytes(block, "little")
        is_last, block_type, size = number & 1, number >> 1 & 3, number >> 3
        # A run-length block stores one byte, whatever its size.
        place += 3 + (1 if block_type == 1 else size)
    return place + checksum
