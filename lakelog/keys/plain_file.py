"""An encrypted file as a file of its plaintext, of which only what is read is decrypted."""

from __future__ import annotations

import functools
import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO

from lakelog.errors import DamagedSegment
from lakelog.keys.envelope import HEAD_BYTES, EnvelopeReader, NotDecrypted

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""Whoever can write to a lake may have put a pipe there, at which an open would wait."""


# A new file may have the inode of one that was just removed, and the time of its last change: only
# the random salt in the header of its envelope tells them apart.
_Identity = tuple[int, int, int, bytes]
"""Device, inode, time of change and header."""
_CHUNKS = OrderedDict[tuple[_Identity, int], bytes]()
"""Chunks of which a few bytes were read, by file and number."""
_CHUNKS_MAX = 256


class PlainFile(io.RawIOBase):
    """The plaintext of an encrypted object, read by ranges.

    Threads share it: the engine's do, and each goes to a byte and then reads, which takes two
    calls. So each thread has a place of its own.
    """

    def __init__(self, path: str, secret_of: Callable[[bytes], bytes]) -> None:
        """`secret_of` returns the data key of an envelope, by its first bytes. Raises OSError,
        DamagedSegment, InvalidKey."""
        self.path, self._places = path, dict[int, int]()
        self._fd = -1  # Python closes what could not be opened, too
        self._fd = os.open(path, _FLAGS)
        try:
            status = os.fstat(self._fd)
            head = os.pread(self._fd, HEAD_BYTES, 0)
            self._identity = status.st_dev, status.st_ino, status.st_mtime_ns, head
            self._reader = _reader_of(self._identity, status.st_size, secret_of(head))
        except NotDecrypted as error:
            self.close()
            raise DamagedSegment(path, str(error)) from None
        except BaseException:
            self.close()
            raise
        self.size = self._reader.plain_bytes
        """Bytes of the plaintext."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte, and return which."""
        if whence != os.SEEK_SET:
            offset += self.tell() if whence == os.SEEK_CUR else self.size
        place = self._places[threading.get_ident()] = max(offset, 0)
        return place

    def tell(self) -> int:
        """Return the byte that is read next."""
        return self._places.get(threading.get_ident(), 0)

    def _plaintext(self, start: int, stop: int) -> bytes:
        """Return the bytes from one to another. Raises DamagedSegment."""
        step = self._reader.step
        low, high = start // step, -(-stop // step)
        if high - low > 2:
            plaintext = self._chunks(low, high)
        # The engine reads a page, and then its neighbour, or the same one for the next query.
        elif high - low == 1:
            plaintext = self._remembered(low)
        else:
            plaintext = self._remembered(low) + self._remembered(high - 1)
        if len(plaintext) == stop - start:
            return plaintext
        offset = start - low * step
        return plaintext[offset : offset + stop - start]

    def _chunks(self, low: int, high: int) -> bytes:
        begin, end = self._reader.span(low, high)
        try:
            return self._reader.chunks(low, high, os.pread(self._fd, end - begin, begin))
        except NotDecrypted as error:
            raise DamagedSegment(self.path, str(error)) from None

    def _remembered(self, number: int) -> bytes:
        """Return the plaintext of one chunk, of those that were opened last if it is there."""
        chunk = _CHUNKS.get(place := (self._identity, number))
        if chunk is None:
            chunk = _CHUNKS[place] = self._chunks(number, number + 1)
            while len(_CHUNKS) > _CHUNKS_MAX:
                _CHUNKS.popitem(last=False)
        return chunk

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, and return with how many bytes: fewer at the end. Raises
        DamagedSegment."""
        plaintext = self.read(len(buffer))
        buffer[: len(plaintext)] = plaintext
        return len(plaintext)

    def read(self, count: int | None = -1) -> bytes:
        """Return so many bytes: fewer at the end. Raises DamagedSegment."""
        # Not by `readinto`, as it would be without: that copies all of them twice more.
        thread = threading.get_ident()
        start, stop = self._places.get(thread, 0), self.size
        if count is not None and 0 <= count < stop - start:
            stop = start + count
        self._places[thread] = stop
        return self._plaintext(start, stop) if stop > start else b""

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be read from any byte on."""
        return True

    def close(self) -> None:
        """Close it; once more does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        super().close()


@functools.lru_cache(maxsize=1024)
def _reader_of(identity: _Identity, size: int, secret: bytes) -> EnvelopeReader:
    """The cipher of an envelope: the engine opens a file several times for a query."""
    return EnvelopeReader(identity[3], size, secret)


class PlainRanges:
    """The plaintext of an envelope of `size` bytes, of which `fetch(start, length)` gives some."""

    def __init__(
        self, head: bytes, size: int, secret: bytes, fetch: Callable[[int, int], bytes]
    ) -> None:
        """Raises NotDecrypted."""
        self._reader, self._fetch = EnvelopeReader(head, size, secret), fetch
        self.size = self._reader.plain_bytes
        """Bytes of the plaintext."""

    def read(self, start: int, length: int) -> bytes:
        """Return bytes from `start` on: fewer at the end. Raises NotDecrypted."""
        stop, step = min(start + length, self.size), self._reader.step
        if stop <= start:
            return b""
        low, high = start // step, -(-stop // step)
        begin, end = self._reader.span(low, high)
        plaintext = self._reader.chunks(low, high, self._fetch(begin, end - begin))
        return plaintext[start - low * step : stop - low * step]


def open_binary(path: str) -> BinaryIO:
    """Open a file as it is. Raises OSError."""
    return open(os.open(path, _FLAGS), "rb", buffering=0)
