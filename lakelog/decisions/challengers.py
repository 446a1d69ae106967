"""Challengers: a new version that is asked about recorded inputs, a program or a callable.

A program is one process for all inputs. It reads each as a line of JSON and writes an answer as a
line of JSON, in the same order, as soon or as late as it likes. It is stopped, with all that it
started, when it writes nothing for so long that it must be stuck, and however the replay ends.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, Protocol

import orjson

from lakelog.errors import LakelogError

RecordedInput = dict[str, Any]
"""What was known before a decision, as JSON has it."""
LINE_MAX = 16 << 20
"""Bytes of one answer."""
_CHUNK = 1 << 16
_END_GRACE = 10.0


class Challenger(Protocol):
    """Answers inputs, one answer for each, in order."""

    def answers(self, inputs: Sequence[RecordedInput]) -> Iterator[object]:
        """Yield the answers. Raises LakelogError."""


class CallableChallenger:
    """A function that takes one input and returns its answer."""

    def __init__(self, function: Callable[[RecordedInput], object]) -> None:
        self._function = function

    def answers(self, inputs: Sequence[RecordedInput]) -> Iterator[object]:
        """Yield the answers; what the function raises, passes."""
        for recorded in inputs:
            yield self._function(recorded)


class CommandChallenger:
    """A program that reads inputs and writes answers, both as lines of JSON."""

    def __init__(self, command: str, patience: float = 60.0) -> None:
        """`patience` is how many seconds it may take until its next answer."""
        self._command, self._patience = command, patience
        # Its arguments may be secrets.
        self.name = command.split(maxsplit=1)[0] if command.split() else ""

    def answers(self, inputs: Sequence[RecordedInput]) -> Iterator[object]:
        """Yield the answers. Raises LakelogError if it fails, hangs, or answers anything else."""
        # In a group of its own, so that what a shell started is stopped with it.
        process = subprocess.Popen(
            self._command,
            shell=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        # A program may answer before it has read all: reading must not wait for writing.
        feeder = threading.Thread(target=_feed, args=(process.stdin, inputs), daemon=True)
        feeder.start()
        try:
            count = 0
            for line in self._lines(process.stdout):
                count += 1
                if count > len(inputs):
                    raise self._error(f"wrote more answers than the {len(inputs):,} inputs")
                yield self._parse(line, count)
            self._check_end(process, count, len(inputs))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            feeder.join()
            process.stdout.close()

    def _lines(self, stdout: IO[bytes]) -> Iterator[bytes]:
        pending = b""
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while True:
                if not selector.select(self._patience):
                    raise self._error(
                        f"wrote nothing for {self._patience:g} seconds: is it waiting, or does it"
                        " buffer its output? --timeout gives it longer"
                    )
                chunk = os.read(stdout.fileno(), _CHUNK)
                if not chunk:
                    break
                *lines, pending = (pending + chunk).split(b"\n")
                yield from lines
                if len(pending) > LINE_MAX:
                    raise self._error("wrote a line of more than 16 MB")
        if pending:
            yield pending

    def _parse(self, line: bytes, number: int) -> object:
        try:
            return orjson.loads(line)
        except orjson.JSONDecodeError:
            excerpt = line[:60].decode("utf-8", "replace")
            raise self._error(f"wrote line {number:,}, which is not JSON: {excerpt!r}") from None

    def _check_end(self, process: subprocess.Popen[bytes], count: int, inputs: int) -> None:
        try:
            code = process.wait(_END_GRACE)
        except subprocess.TimeoutExpired:
            raise self._error("closed its output and did not end") from None
        if code:
            raise self._error(f"ended with {code} after {count:,} of {inputs:,} answers")
        if count < inputs:
            raise self._error(f"wrote {count:,} answers to {inputs:,} inputs: one line for each")

    def _error(self, complaint: str) -> LakelogError:
        return LakelogError(f"the command {self._command!r} {complaint}")


def _feed(stdin: IO[bytes], inputs: Sequence[RecordedInput]) -> None:
    # A program that ends early is reported by its answers.
    with contextlib.suppress(OSError):
        for recorded in inputs:
            stdin.write(orjson.dumps(recorded, default=str) + b"\n")
    with contextlib.suppress(OSError):
        stdin.close()
