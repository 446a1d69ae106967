"""What comes through a pipe, read as it comes and kept so that it can be read again.

A pipe can be read once, but whoever loses a race for a publish reads again: what came stands in a
file without a name. What is published of it gives its place on the disk back, so that a stream
without end needs no more of it than its last lines; its cursor is remembered instead.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import tempfile
import time
from collections.abc import Callable, Generator
from typing import Any

from lakelog.lines import Piece, Source

QUIET = 1.0
"""Seconds that are collected before lines are published, and after which a record is complete."""
BUSY = 5.0
"""Seconds after which a stream that never pauses is published."""
_SLICE = 0.2
"""Seconds of one wait: signals that end the stream are heard in between."""
_READ = 1 << 20
_PAGE = 4096
_PUNCH_HOLE = 0x03
"""FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE."""


class Spool:
    """The bytes of a pipe so far, in a file; it ends where the pipe does, or `stop` says so."""

    def __init__(
        self, pipe: Any, folder: str, stop: Callable[[], bool], *, in_memory: bool = False
    ) -> None:
        """The file has no name and is in a folder, or `in_memory`."""
        self._pipe, self._stop = pipe, stop
        self._file: Any = (
            open(os.memfd_create("lakelog"), "w+b", buffering=0)  # noqa: SIM115
            if in_memory
            else tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        )
        self.size, self.is_ended, self.is_quiet = 0, False, False
        self.head = b""
        """The first bytes, which remain when their place is given back."""
        self.cursor: Any = None
        """The cursor that was published last."""
        self._poll: select.poll | None = None
        with contextlib.suppress(OSError):  # io.UnsupportedOperation: a stream in memory
            self._fd = pipe.fileno()
            self._poll = select.poll()
            self._poll.register(self._fd, select.POLLIN)

    @property
    def path(self) -> str:
        """A path to the file."""
        return f"/dev/fd/{self._file.fileno()}"

    def pull(self, seconds: float) -> bool:
        """Wait for more, so many seconds at most; return whether it came."""
        until = time.monotonic() + seconds
        while not self.is_ended:
            seconds_left = max(until - time.monotonic(), 0.0)
            if self._poll is None or self._poll.poll(1000 * min(seconds_left, _SLICE)):
                return self._take()
            if self._stop():
                self.is_ended = True
            elif seconds_left == 0.0:
                break
        self.is_quiet |= seconds >= QUIET
        return False

    def fill(self, size: int) -> None:
        """Wait for so many bytes; for fewer if nothing comes for a while."""
        while self.size < size and self.pull(0.0 if self.is_quiet else QUIET):
            pass

    def fill_all(self) -> None:
        """Wait for the end."""
        while not self.is_ended:
            self.pull(BUSY)

    def publish(self, cursor: Any, end: int) -> None:
        """Note that the bytes up to a cursor are published; give the place of those up to `end`
        back."""
        self.cursor = cursor
        with contextlib.suppress(AttributeError):  # not of this C library
            # Where the file system cannot, the file grows as the stream does.
            length = ctypes.c_long(end // _PAGE * _PAGE)
            ctypes.CDLL(None).fallocate(self._file.fileno(), _PUNCH_HOLE, ctypes.c_long(0), length)

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

    def _take(self) -> bool:
        try:
            data = os.read(self._fd, _READ) if self._poll else self._pipe.read(_READ)
        except BlockingIOError:  # somebody else read it
            return False
        self.is_ended, self.is_quiet = not data, False
        self.head += data[: max(_PAGE - len(self.head), 0)]
        view = memoryview(data)
        while view:
            count = self._file.write(view)
            view, self.size = view[count:], self.size + count
        return bool(data)


class PipedSource(Source):
    """A stream of lines, of which a chunk is what came within a second. `idle` is called when there
    is nothing more to read for now; with True once nothing came for a while."""

    def __init__(self, spool: Spool, name: str) -> None:
        spool.fill(Source.START)
        super().__init__(spool.path, name, piped=True)
        self._spool = spool
        self.published, self.head = spool.cursor, spool.head
        self.idle: Callable[[bool], None] = lambda is_quiet: None
        self._published = time.monotonic()

    def free(self, cursor: Any) -> None:
        """Give back what is published up to a cursor; the next reader goes on there."""
        self._spool.publish(cursor, max(cursor.bytes - _PAGE, 0))

    def ahead(self, offset: int) -> Generator[Piece]:
        """Yield `pieces`: a thread that reads ahead could not be interrupted."""
        yield from self.pieces(offset)

    def _block(self, size: int) -> bytes:
        spool = self._spool
        self.limit = None  # read_head() took what had come for all
        started_at = time.monotonic()
        if started_at - self._published > BUSY or (spool.size <= self._at and not spool.pull(0.0)):
            self.idle(False)
            self._published = time.monotonic()
        is_quiet = False
        while spool.size <= self._at and not spool.is_ended:
            if not spool.pull(QUIET) and not is_quiet and not spool.is_ended:
                self.idle(True)
                is_quiet = True
        until = time.monotonic() + QUIET
        while spool.size < self._at + size and not spool.is_ended:
            if not spool.pull(0.0 if spool.is_quiet else max(until - time.monotonic(), 0.0)):
                break
        return super()._block(size)
