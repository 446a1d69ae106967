"""Where queues store: the lake, through a writer of its own. One queue for each lake and branch."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, TypeAlias

from lakelog.errors import LakeReplaced
from lakelog.event import EncodedBatch
from lakelog.loggers import buffer
from lakelog.loggers.buffer import DiskBuffer
from lakelog.loggers.queue import EventQueue
from lakelog.runtime.lazy import Lazy

# A program that logs to files alone never loads the store.
if TYPE_CHECKING:
    from lakelog import lake as lakes
    from lakelog.lake import Lake
else:
    lakes = Lazy("lakelog.lake")

_WITH_ID = b'{"id":"'
"""How a line with an id begins, if a logger wrote it; within `data` it may occur by chance."""
_QUEUES: dict[tuple[str, str, str], EventQueue] = {}
"""By directory, branch, and what happens when it is full."""
_LOCK = threading.Lock()
LakeOrPath: TypeAlias = "Lake | str | os.PathLike[str]"


class LakeDestination:
    """Stores frames of lines in a lake, durably."""

    def __init__(self, lake: Lake) -> None:
        # A lake of its own: the application may close the one that it has.
        self._lake = lakes.Lake(lake.store, lake.branch_name)
        self.buffers = lake.store.paths.buffers
        self.erased = 0
        self._prepared: list[bytes] = []

    def store(self, lines: list[bytes]) -> None:
        """Store lines as one frame, but those of erased events: refused, they would hold up all
        later ones for ever. Raises OSError, LakelogError."""
        # A cheap look at how each line begins: only what loggers write themselves.
        is_keyed = _WITH_ID in {line[: len(_WITH_ID)] for line in lines}
        batch = EncodedBatch(b"\n".join(lines), [None] * len(lines), is_keyed)
        batch = self._lake.without_erased(batch)
        if not batch.ids:
            self.erased += len(lines)
            return
        try:
            # The queue stores what failed again, and nothing before that.
            self._lake.append_encoded(batch, retries=True)
        except LakeReplaced:  # a log goes to the lake that is at its path now
            replaced = self._lake
            self._lake = lakes.open(replaced.path, create=False, branch=replaced.branch_name)
            # The old one has lost its directory: closing it writes nothing.
            replaced.close()
            self._lake.append_encoded(batch)
        self.erased += len(lines) - len(batch.ids)

    def prepare(self, lines: list[bytes], disk_buffer: DiskBuffer | None) -> list[bytes]:
        """Choose the lines of the next frame: one alone, and buffered, if it begins a file.

        A new file takes three syncs until it has a name, and without one nobody finds its frame.
        """
        if disk_buffer is None or not self._lake.writer().is_opening:
            return lines
        # The first line has its id now: stored twice, it counts once.
        try:
            self._prepared = disk_buffer.add(lines[:1])
        except OSError:  # then the disk will refuse the frame as well
            return lines
        return self._prepared

    def stored(self, lines: list[bytes], disk_buffer: DiskBuffer | None) -> None:
        """Forget what `prepare` buffered."""
        # No others: the buffer may have lines by now that are as long, and not stored.
        if disk_buffer is not None and lines is self._prepared:
            disk_buffer.remove(lines)

    def recover(self) -> None:
        """Store what killed processes left in their buffers. Raises OSError, LakelogError."""
        buffer.recover(self.buffers, self.store, self._lake.branch_name)

    def finish(self) -> None:
        """Nothing to do: what was stored is in the lake."""

    def close(self) -> None:
        """Finish the WAL file; what is stored later begins another."""
        self._lake.close()
        # A new Lake object costs nothing until it is used.
        self._lake = lakes.Lake(self._lake.store, self._lake.branch_name)

    def after_fork(self) -> None:
        """A writer becomes one of its own by itself; the lock may be held by another thread."""
        # The lock of a thread that is not there any more would never be free.
        global _LOCK
        _LOCK = threading.Lock()


def opened_lake(lake: LakeOrPath) -> Lake:
    """Return a lake that is given, or the one at a path, which is created if there is none.

    Raises what `lakelog.open` does.
    """
    return lake if isinstance(lake, lakes.Lake) else lakes.open(lake)


def queue_of(lake: LakeOrPath, full: str = "buffer") -> EventQueue:
    """Return the queue of a lake in this process, and begin it at the first call.

    A path is created as a lake if it is none. Raises what `lakelog.open` does, ValueError.
    """
    # Two threads that log first at the same time share one queue.
    with _LOCK:
        lake_object = opened_lake(lake)
        # By the real path: two ways to one lake share its queue.
        key = os.path.realpath(lake_object.path), lake_object.branch_name, full
        if key not in _QUEUES:
            destination = LakeDestination(lake_object)
            # Blocking or dropping instead of buffering is the program's choice.
            branch = lake_object.branch_name
            disk_buffer = DiskBuffer(destination.buffers, branch) if full == "buffer" else None
            _QUEUES[key] = EventQueue(destination, disk_buffer, full)
        return _QUEUES[key]


def flush_lake(path: str, branch: str, timeout: float) -> bool:
    """Wait until a branch has what loggers of this process wrote to it; whether it has."""
    place = os.path.realpath(path), branch
    queues = [queue for key, queue in list(_QUEUES.items()) if key[:2] == place]
    are_flushed = [queue.flush(timeout) for queue in queues]
    return all(are_flushed)
