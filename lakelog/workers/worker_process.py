"""The process that does tasks for a pool: each is one message on standard input, and its outcome
is one on standard output. It ends when its input does."""

from __future__ import annotations

import os
import pickle
import struct
import sys
from collections.abc import Callable
from typing import IO

import zstandard

TaskOutcome = tuple[bool, object]
_LENGTH = struct.Struct("<Q")


def outcome(function: Callable[..., object], arguments: tuple[object, ...]) -> TaskOutcome:
    """Do a task; return whether it was done, and what it returned or raised."""
    try:
        return True, function(*arguments)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an exception that cannot be made of its own arguments
            return False, RuntimeError(f"{type(error).__name__}: {error}")
        return False, error


def pickled_outcome(task: bytes) -> bytes:
    """Do a pickled task; return its outcome pickled."""
    return pickle.dumps(outcome(*pickle.loads(task)), protocol=5)


def compressed_outcome(task: bytes) -> bytes:
    """Do a task that was pickled and compressed; return its outcome so."""
    return compress(pickled_outcome(decompress(task)))


def compress(content: bytes) -> bytes:
    """Return content in fewer bytes."""
    return zstandard.ZstdCompressor(level=1).compress(content)


def decompress(message: bytes) -> bytes:
    """Return the content that `compress` made a message of."""
    return zstandard.ZstdDecompressor().decompress(message)


def send(stream: IO[bytes], message: bytes) -> None:
    """Write a message."""
    stream.write(_LENGTH.pack(len(message)))
    stream.write(message)
    stream.flush()


def receive(stream: IO[bytes]) -> bytes:
    """Read a message. Raises EOFError where the stream ends."""
    head = stream.read(_LENGTH.size)
    length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else -1
    message = stream.read(length) if length >= 0 else b""
    if len(message) != length:
        raise EOFError
    return message


def main() -> None:
    """Do tasks until there are no more."""
    # What a library prints must not come between the outcomes.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            task = receive(sys.stdin.buffer)
        except EOFError:
            return
        send(answers, pickled_outcome(task))


if __name__ == "__main__":
    main()
