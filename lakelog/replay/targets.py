"""Where a replay gives its events: a stream, a program, an address."""

from __future__ import annotations

import fcntl
import os
import select
import stat
import struct
import subprocess
import termios
import time
from dataclasses import replace
from typing import IO, Protocol

from lakelog.clients import ConnectionLost, Endpoint, HttpConnection
from lakelog.errors import LakelogError, Unreachable

CONTENT_TYPE = "application/x-ndjson"
# A minute in all, in which a server restarts.
_TRIES, _LONGEST = 10, 10.0
_LOOK, _LOOK_LATE = 0.001, 0.05
"""Seconds until a pipe is looked at again, and of a reader that takes long."""
_REQUEST_BYTES = 1_000_000
"""Of one request of several events: many servers and proxies refuse more than a megabyte."""


class ReplayTarget(Protocol):
    """Takes events, as JSON lines. What `send` took is delivered."""

    name: str
    """Who takes them, without secrets, "" for a stream of this process."""

    def send(self, lines: bytes) -> None:
        """Deliver events. Raises LakelogError, OSError."""

    def close(self) -> None:
        """Wait until all is taken. Raises LakelogError."""


class StreamTarget:
    """A stream of this process, such as its standard output."""

    name = ""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def send(self, lines: bytes) -> None:
        """Write events, and nothing that waits in a buffer. Raises BrokenPipeError where whoever
        reads them left before the last."""
        self._stream.write(lines)
        # Whoever reads along must not wait for a full buffer.
        self._stream.flush()
        _wait_until_read(self._stream)

    def close(self) -> None:
        """Nothing is left to do."""


class CommandTarget:
    """A program that reads events from its standard input, one process for all of them."""

    def __init__(self, command: str) -> None:
        # Its arguments may be secrets.
        self._command, self.name = command, command.split(maxsplit=1)[0] if command.split() else ""
        # The user's own command line.
        self._process = subprocess.Popen(command, shell=True, stdin=subprocess.PIPE)

    def send(self, lines: bytes) -> None:
        """Write events to the program, which has read them then. Raises LakelogError if it has
        ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(lines)
            self._process.stdin.flush()
            _wait_until_read(self._process.stdin)
        except BrokenPipeError:
            raise self._ended() from None

    def close(self) -> None:
        """End its input and wait for the program. Raises LakelogError if it fails."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        # Its exit code says whether it took all.
        if self._process.wait():
            raise self._ended()

    def _ended(self) -> LakelogError:
        return LakelogError(f"the command {self._command!r} ended with {self._process.wait()}")


def _wait_until_read(stream: IO[bytes]) -> None:
    """Wait until all is read that is in a pipe: it is lost if the reader ends, and a cursor would
    be behind it. Raises BrokenPipeError if the reader has ended."""
    try:
        is_pipe = stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except OSError:  # a stream of this process alone
        return
    (readers := select.poll()).register(stream, 0)
    pause = _LOOK
    while is_pipe and struct.unpack("i", fcntl.ioctl(stream, termios.FIONREAD, bytes(4)))[0]:
        if readers.poll(0):
            raise BrokenPipeError
        time.sleep(pause)
        pause = min(2 * pause, _LOOK_LATE)


class HttpTarget:
    """An address that takes JSON lines by POST. A request without an answer is made again."""

    def __init__(self, url: str) -> None:
        endpoint = Endpoint.of_request(url)
        self._path = endpoint.path
        path, _, _ = endpoint.path.partition("?")
        endpoint = replace(endpoint, address=f"{endpoint.address}{path}")
        self.name = endpoint.address
        self._connection = HttpConnection(endpoint, {}, compresses=False)

    def send(self, lines: bytes) -> None:
        """Send events in few requests. Raises Unreachable, LakelogError for a refusal."""
        start = 0
        while start < len(lines):
            end = lines.rfind(b"\n", start, start + _REQUEST_BYTES) + 1
            # An event that is longer goes alone.
            end = end or lines.find(b"\n", start) + 1 or len(lines)
            self._post(lines[start:end])
            start = end

    def _post(self, lines: bytes) -> None:
        for attempt in range(1, _TRIES + 1):
            try:
                self._connection.request("POST", self._path, lines, CONTENT_TYPE)
                return
            except ConnectionLost as error:
                if attempt == _TRIES:
                    # The server may have taken it: events with ids are stored once.
                    raise Unreachable(str(error)) from None
                time.sleep(min(0.1 * 2**attempt, _LONGEST))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
