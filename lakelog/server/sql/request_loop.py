"""How a process of the server reads requests and writes answers, and what it is started with.

Its input has a line of JSON that says which lake and what limits, then frames (`query_limits`);
its output has frames. Requests come one after another; one that runs can be interrupted.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
from typing import BinaryIO, Protocol

import orjson

from lakelog.disk import File
from lakelog.keys import VAULT
from lakelog.server.sql import query_limits as wire
from lakelog.server.sql.bucket_relay import BucketNeeds
from lakelog.values import JsonObject

_DESCRIPTORS_MAX = 1 << 16
_CHUNK_BYTES = 1 << 20
_PAGE = os.sysconf("SC_PAGE_SIZE")
_AGAIN = 0.02
"""Seconds between two interrupts: one that comes between two steps of the engine is lost."""


class FrameOutput:
    """Where frames are written to."""

    def __init__(self, output: BinaryIO) -> None:
        self._output, self._lock = output, threading.Lock()

    def send(self, frame_type: bytes, content: bytes | memoryview) -> None:
        """Send a frame."""
        with self._lock:  # threads of a query ask for what is in a bucket
            self._output.write(wire.frame(frame_type, content))
            self._output.flush()

    def send_chunks(self, content: bytes | memoryview) -> None:
        """Send a content of any size."""
        for start in range(0, len(content), _CHUNK_BYTES):
            self.send(wire.CHUNK, content[start : start + _CHUNK_BYTES])


class RequestAnswerer(Protocol):
    """What answers the requests of one server, one at a time."""

    number: int
    """The number of the request that runs, or 0."""

    def answer(self, content: bytes) -> None:
        """Answer a request; whatever goes wrong is part of the answer."""
        ...

    def interrupt(self) -> None:
        """Stop what runs, from another thread."""
        ...


def begin() -> tuple[JsonObject, FrameOutput]:
    """Return what the server says at first, and where to answer. Keys are learnt from it."""
    # A server leaves its listening socket to children, for whoever takes over from it.
    os.closerange(3, _DESCRIPTORS_MAX)
    plan: JsonObject = orjson.loads(sys.stdin.buffer.readline())
    # Whatever a library prints must not get between the frames.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if "keys" in plan:
        VAULT.learn(plan["keys"])
    return plan, FrameOutput(output)


def answer_requests(answerer: RequestAnswerer, needs: BucketNeeds) -> None:
    """Answer requests until the input ends, and the process with it; `needs` has what else comes
    from the server."""
    source = sys.stdin.buffer
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def answer() -> None:
        while True:
            answerer.answer(requests.get())

    # Daemon: it may be inside the engine when the input ends, and nobody waits for that.
    threading.Thread(target=answer, daemon=True).start()
    while header := source.read(wire.HEADER.size):
        frame_type, size = wire.HEADER.unpack(header)
        content = source.read(size)
        if frame_type == wire.ASK:
            requests.put(content)
        elif frame_type == wire.GIVEN:
            needs.give(content)
        else:
            _interrupt(answerer, int(content))
    os._exit(0)  # what the engine still does is of no use


def _interrupt(answerer: RequestAnswerer, number: int) -> None:
    """Stop the request of that number; the server ends the process if that takes long."""
    # Again and again while it is this request: the number is 0 once it has ended.
    while answerer.number == number:
        with contextlib.suppress(Exception):  # it may have ended this moment
            answerer.interrupt()
        time.sleep(_AGAIN)


def resident_bytes() -> int:
    """Bytes that this process has in memory; 0 where that cannot be told."""
    try:
        return int(File("/proc/self/statm").read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0
