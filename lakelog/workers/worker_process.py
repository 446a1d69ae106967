"""The process that does tasks for a pool: each is one message on standard input, and its outcome
is one on standard output. It ends when its input does."""

from __future__ import annotations

import os
import pickle
import struct
import sys
from typing import IO

_LENGTH = struct.Struct("<Q")


def outcome(task: bytes) -> bytes:
    """Do a task, a pickled function and its arguments; return, pickled, whether it was done, and
    what it returned or raised."""
    try:
        function, arguments = pickle.loads(task)
        return pickle.dumps((True, function(*arguments)), protocol=5)
    except Exception as error:
        failure = pickle.dumps((False, error), protocol=5)
        try:
            pickle.loads(failure)
        except Exception:  # an exception that cannot be made of its own arguments
            return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
        return failure


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
        send(answers, outcome(task))


if __name__ == "__main__":
    main()
