"""A long file loaded by several processes: ranges of its lines, splits, go to those beside.

The threads of one process wait for Python's lock and keep 1.6 cores busy. So of a plain file whose
lines are all spelled alike `split_worker` loads splits, each as large as a segment, and in between
this process as much. What comes of a split takes its place in the order of the file and is
published with the rest. A worker that fails or refuses costs time alone: what is not published yet
is read again, by this process.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from lakelog.entries import SegmentEntry
from lakelog.workers import WorkerPool

LEAST = 512 << 20
"""So many bytes of a file have to be left: to start a worker takes as long as 50 MB."""
PROCESSES = 2
"""With this one, where there are more processors, unless the settings name a number of threads.

On two processors this saves 6 % of the time, and takes 540 instead of 340 MB.
"""
ALONE = 1 << 30
"""So much of a file is read alone after a split that was refused."""
PART = 0.97
"""Of the rows of a segment, a split has this part: where lines are a little shorter than those
before, a few rows would else be a segment of their own."""
LONGEST, _CHUNK = 256 << 20, 4 << 20
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
    """A split that is not for a worker: not all of its lines are spelled alike."""


PendingSplit = Future[Loaded]
"""Done once a worker has loaded a split; raises whatever kept it from that."""


class Splits:
    """The workers of one file, and how it is split."""

    def __init__(
        self, size: int, after: int, pool: WorkerPool, load: Callable[[int, int], Loaded]
    ) -> None:
        """`load` is the task of a worker, by the begin and the length of a split."""
        self.size = size
        """Bytes of a split."""
        self.chunk = part(size)
        """Bytes of the chunks of this process: some of them are a split."""
        self._end, self._pool, self._load = after, pool, load
        self._waiting: list[PendingSplit] = []

    def due(self, base: int) -> int:
        """Return how many bytes from `base` on are for a worker, 0 if they are for this process."""
        own_bytes = base - self._end
        count = round(own_bytes / self.size)
        # What this process reads in between are whole segments, too.
        is_next = count and abs(own_bytes - count * self.size) <= self.chunk // 2
        self._waiting = [loaded for loaded in self._waiting if not loaded.done()]
        return self.size if is_next and len(self._waiting) < _AHEAD * self._pool.count else 0

    def give(self, base: int, size: int) -> PendingSplit:
        """Give whole lines to a worker."""
        self._end = base + size
        self._waiting.append(self._pool.submit(self._load, (base, size)))
        return self._waiting[-1]

    def close(self) -> None:
        """End the workers; what they have not done is refused."""
        self._pool.close()


def part(size: int) -> int:
    """Return the bytes of the parts, all about as large, in which a split is read."""
    return -(-size // -(-size // _CHUNK))
