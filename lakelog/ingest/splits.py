"""A long file loaded by several processes: ranges of its lines, splits, go to those beside.

The threads of one process wait for Python's lock and keep 1.6 cores busy. So of a plain file whose
lines are all spelled alike `split_worker` loads splits, each as large as a segment, and in between
this process as much. What comes of a split takes its place in the order of the file and is
published with the rest. A worker that fails or refuses costs time alone: what is not published yet
is read again, by this process.
"""

from __future__ import annotations

import contextlib
import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from lakelog.entries import SegmentEntry, parse
from lakelog.runtime import interpreter
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import subprocess
else:
    subprocess = Lazy("subprocess")

LEAST = 512 << 20
"""So many bytes of a file have to be left: to start a worker takes as long as 50 MB."""
PROCESSES = 2
"""With this one, where there are more processors, unless the settings name a number of threads.

On two processors this saves 6 % of the time, and takes 540 instead of 340 MB.
"""
ALONE = 1 << 30
"""So much of a file is read alone after a split that was refused."""
_PART = 0.97
"""Of the rows of a segment, a split has this part: where lines are a little shorter than those
before, a few rows would else be a segment of their own."""
_LONGEST, _CHUNK = 256 << 20, 4 << 20
"""Bytes of a split, and of the parts in which it is read: two processes have some in memory."""
_AHEAD = 2
"""Splits that a worker has at most, the one it works on included."""


@dataclass(frozen=True)
class Loaded:
    """What a worker made of a split: segments, the events in them and those without a time, and the
    CRC-32 of the bytes."""

    entries: tuple[SegmentEntry, ...]
    events: int
    arrivals: int
    crc: int


class SplitRefused(Exception):
    """A worker did not load a split: not all of its lines are spelled alike, or it has ended."""


PendingSplit = Future[Loaded]
"""Done once a worker has loaded a split, or raises SplitRefused."""


class Splits:
    """The workers of one file, and how it is split."""

    def __init__(self, size: int, after: int, workers: list[_Worker]) -> None:
        self.size = size
        """Bytes of a split."""
        self.chunk = part(size)
        """Bytes of the chunks of this process: some of them are a split."""
        self._end, self._workers = after, workers

    def due(self, base: int) -> int:
        """Return how many bytes from `base` on are for a worker, 0 if they are for this process."""
        own_bytes = base - self._end
        count = round(own_bytes / self.size)
        # What this process reads in between are whole segments, too.
        is_next = count and abs(own_bytes - count * self.size) <= self.chunk // 2
        return self.size if is_next and any(w.waiting < _AHEAD for w in self._workers) else 0

    def give(self, base: int, size: int) -> PendingSplit:
        """Give whole lines to a worker."""
        self._end = base + size
        return min(self._workers, key=lambda worker: worker.waiting).load(base, size)

    def close(self) -> None:
        """End the workers; what they have not done is refused."""
        for worker in self._workers:
            worker.close()


class _Worker:
    """One process, and the thread that waits for its answers."""

    def __init__(self, descriptor: int, load: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lakelog.ingest.split_worker", str(descriptor)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for this process, which then ends it
            cwd="/",  # or a directory that is called lakelog would be found first
            pass_fds=[descriptor],
            env=interpreter.environment(),
        )
        self._thread = ThreadPoolExecutor(1, "split")
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self._begun: list[PendingSplit] = []
        self._send(load)

    @property
    def waiting(self) -> int:
        """How many splits it has."""
        self._begun = [answer for answer in self._begun if not answer.done()]
        return len(self._begun)

    def load(self, base: int, size: int) -> PendingSplit:
        """Let it load a split."""
        self._send((base, size))
        self._begun.append(self._thread.submit(self._answer))
        return self._begun[-1]

    def close(self) -> None:
        """Let it end, whatever it is doing."""
        if self.waiting:
            self._process.kill()
        self._send(None)
        with contextlib.suppress(OSError):
            self._requests.close()
        self._thread.shutdown()
        self._process.wait()
        self._answers.close()

    def _send(self, message: object) -> None:
        with contextlib.suppress(OSError):  # it is gone: its answers end as well
            self._requests.write(orjson.dumps(message) + b"\n")
            self._requests.flush()

    def _answer(self) -> Loaded:
        # Whatever else it says, or no more: it did not load the split.
        try:
            answer = orjson.loads(self._answers.readline())
            entries = [e for e in parse(answer["entries"]) if isinstance(e, SegmentEntry)]
            return Loaded(tuple(entries), answer["events"], answer["arrivals"], answer["crc"])
        except (ValueError, KeyError, TypeError) as error:
            raise SplitRefused from error


def part(size: int) -> int:
    """Return the bytes of the parts, all about as large, in which a split is read."""
    return -(-size // -(-size // _CHUNK))


def begin(
    descriptor: int, load: dict[str, Any], line: float, span: tuple[int, int], threads: int
) -> Splits | None:
    """Return workers for a span of a plain file, its begin and end; None if that is too short, or
    if there is no processor for another process, or no way to start one.

    `load` is what they are told of the load, `line` the bytes of a line, `threads` the setting.
    """
    size, (after, end) = int(load["rows"] * _PART * line), span
    is_long = end - after >= LEAST and size <= _LONGEST
    processors = len(os.sched_getaffinity(0))
    count = min(threads or PROCESSES, processors if threads else processors - 1) - 1
    if not (is_long and count > 0):
        return None
    try:
        return Splits(size, after, [_Worker(descriptor, load) for _ in range(count)])
    except OSError:
        return None
