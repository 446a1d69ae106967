"""A log file as the destination of a queue: whole lines, rotation, and its way into a lake.

Lines are written with O_APPEND, so that processes may share a file, and never half a line: after a
write that stopped short (a full disk) the next one begins a new line, and only what is missing is
written again.

    NAME                           the log; at ROTATE_BYTES it becomes
    NAME.YYYYMMDD-HHMMSS           a backup, beside which stands
    NAME.YYYYMMDD-HHMMSS.summary.json   {file, bytes, lines, first, last, events: {type: count}}

A lake gets the lines from the file, not from us: `follower` ingests them, under the identity that
any ingest gives them (FORMAT.md 18). So whoever ingests or watches the same file stores nothing
twice, and what a killed process wrote is not lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import threading
import time
from collections import Counter

import orjson

from lakelog.disk import File
from lakelog.loggers.buffer import DiskBuffer
from lakelog.loggers.destination import LakeOrPath, flush_lake, opened_lake
from lakelog.loggers.follower import FileFollower
from lakelog.loggers.queue import EventQueue, QueueStats
from lakelog.loggers.recorder import Recorder

ROTATE_BYTES = 100_000_000
_PIECE = 1 << 18
_QUEUES: dict[str, EventQueue] = {}
_LOCK = threading.Lock()


class LogFile:
    """Writes lines to a file that it rotates. `kind` finds the type of an event in its line, as
    `(type)`; `stamp` the time, as `(time)`."""

    def __init__(self, path: str, kind_pattern: bytes, stamp: bytes, rotate_bytes: int) -> None:
        self.path, self.rotate_bytes = path, rotate_bytes
        self._kind, self._stamp = re.compile(kind_pattern), re.compile(stamp)
        self._followers: list[FileFollower] = []
        self._fd, self._inode = -1, 0
        self._line_end, self._written = b"", 0  # what ends a line that was cut off
        self.erased = 0
        self._summaries: list[threading.Thread] = []

    def bring_to(self, follower: FileFollower) -> None:
        """Let another lake have the lines, too, unless it is one already."""
        places = [(other.lake, other.branch) for other in self._followers]
        if (follower.lake, follower.branch) not in places:
            self._followers.append(follower)

    def store(self, lines: list[bytes]) -> None:
        """Write lines to the page cache. Raises OSError; the same lines may then be given again."""
        self._reopen()
        # After a failure the first lines of the same batch may be there already.
        content = self._line_end + b"".join(line + b"\n" for line in lines[self._written :])
        size = 0
        try:
            view = memoryview(content)
            while size < len(content):
                size += os.write(self._fd, view[size:])
        except BaseException:
            self._note_cut(lines, content[:size])
            raise
        self._line_end, self._written = b"", 0
        if self.rotate_bytes and os.fstat(self._fd).st_size >= self.rotate_bytes:
            with contextlib.suppress(OSError):  # another process may be quicker
                self._rotate()
        for follower in self._followers:
            follower.ensure()

    def _note_cut(self, lines: list[bytes], on_disk: bytes) -> None:
        """Note which lines are in the file, and how the one is ended that was cut off."""
        ending, on_disk = self._line_end[len(on_disk) :], on_disk[len(self._line_end) :]
        self._written += on_disk.count(b"\n")
        cut_line = on_disk.rpartition(b"\n")[2]
        if cut_line:
            # A line of OOS that ends with its last bar would be an event without its data.
            ending = b"{\n" if cut_line.endswith(b"|") else b"\n"
            if cut_line == lines[self._written]:
                ending, self._written = b"\n", self._written + 1
        self._line_end = ending

    def prepare(self, lines: list[bytes], buffer: DiskBuffer | None) -> list[bytes]:
        """All of them."""
        return lines

    def stored(self, lines: list[bytes], buffer: DiskBuffer | None) -> None:
        """Nothing to do."""

    def recover(self) -> None:
        """Nothing to do: what an earlier process wrote stands in the file."""

    def finish(self) -> None:
        """See to it that the last lines are brought to the lake, too."""
        for follower in self._followers if self._fd >= 0 else ():
            follower.leave()

    def close(self) -> None:
        """Close the file, and let the lake get the rest of it."""
        for thread in self._summaries:
            thread.join()
        self._summaries.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        for follower in self._followers:
            follower.finish()

    def after_fork(self) -> None:
        """In a child: another descriptor, so that the parent's locks are not shared."""
        global _LOCK
        _LOCK = threading.Lock()
        self._summaries.clear()
        self._written = 0  # of lines that the parent writes again
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _reopen(self) -> None:
        """Open the file, again if it was renamed or removed by another process."""
        if self._fd >= 0:
            with contextlib.suppress(FileNotFoundError):
                if os.stat(self.path).st_ino == self._inode:
                    return
            os.close(self._fd)
            self._fd = -1
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(self.path, flags, 0o644)
        self._inode = os.fstat(self._fd).st_ino

    def _rotate(self) -> None:
        """Rename the file to its backup, once though several processes write it."""
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(self.path).st_ino != self._inode:
            return
        moment = time.time()
        # A name that is taken is one of the same second: the next free one is in the future.
        while os.path.exists(backup := f"{self.path}.{_second(moment)}"):
            moment += 1
        os.rename(self.path, backup)
        # Reading 100 MB again must not keep lines waiting.
        thread = threading.Thread(target=self._summarize, args=(backup,), daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread at the shutdown of the interpreter
            thread.start()
            self._summaries.append(thread)

    def _summarize(self, backup: str) -> None:
        """Write the summary of a backup beside it."""
        kinds: Counter[str] = Counter()
        oldest = newest = b""
        size = lines = 0
        with open(backup, "rb") as file:
            incomplete = b""
            while chunk := file.read(_PIECE):
                size += len(chunk)
                whole, newline, incomplete = (incomplete + chunk).rpartition(b"\n")
                lines += (whole + newline).count(b"\n")
                kinds.update(name.decode("utf-8", "replace") for name in self._kind.findall(whole))
                oldest = oldest or _found(self._stamp, whole.partition(b"\n")[0])
                newest = _found(self._stamp, whole.rpartition(b"\n")[2]) or newest
                time.sleep(0.001)  # between two pieces the threads of the program go on
        summary: dict[str, object] = {
            "file": os.path.basename(backup),
            "bytes": size,
            "lines": lines,
        }
        summary |= {"first": oldest.decode(), "last": newest.decode(), "events": dict(kinds)}
        data = orjson.dumps(summary, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        with contextlib.suppress(OSError):  # a full disk gets none, and not a half
            File(f"{backup}.summary.json").replace(data, sync=False)


def queue_of_file(
    path: str, kind_pattern: bytes, stamp: bytes, follower: FileFollower | None, rotate_bytes: int
) -> EventQueue:
    """Return the queue of a file in this process, which each lake gets, too, that is named once."""
    name = os.path.realpath(path)
    with _LOCK:
        if name not in _QUEUES:
            os.makedirs(os.path.dirname(name), exist_ok=True)
            # At once, so that whoever reads the log before its first line finds it; a disk that
            # refuses it now may take the lines later.
            with contextlib.suppress(OSError):
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
            _QUEUES[name] = EventQueue(
                LogFile(name, kind_pattern, stamp, rotate_bytes), None, "block"
            )
        queue = _QUEUES[name]
        file = queue.destination
        if follower is not None and isinstance(file, LogFile):
            file.bring_to(follower)
        return queue


def _second(moment: float) -> str:
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime(moment))


def _found(pattern: re.Pattern[bytes], line: bytes) -> bytes:
    match = pattern.search(line)
    return match[1] if match else b""


class LineLog:
    """What a logger writes to: a file, which a lake may get too, or a lake alone (`recorder`)."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        lake: LakeOrPath | None,
        kind_pattern: bytes,
        stamp: bytes,
        rotate_bytes: int,
        strict: bool,
    ) -> None:
        self.recorder: Recorder | None = None
        self._strict = strict
        self._follower: FileFollower | None = None
        if path is None:
            if lake is None:
                raise ValueError("a logger needs a file, a lake, or both")
            self.recorder = Recorder(lake, strict=strict)
            return
        if lake is not None:
            opened, file = opened_lake(lake), os.path.realpath(path)
            self._follower = FileFollower(opened.path, opened.branch_name, file)
        self._queue = queue_of_file(
            os.fspath(path), kind_pattern, stamp, self._follower, rotate_bytes
        )
        self.put = self._queue.put

    def fail(self, error: Exception) -> None:
        """Count an event that cannot be written; raise the error if the caller asked for that."""
        if self._strict:
            raise error
        if self.recorder is not None:
            self.recorder.fail(error)
        else:
            self._queue.refuse(f"an event was refused: {error}")

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the file, or else the lake, has everything; whether it has."""
        return (self.recorder or self._queue).flush(timeout)

    def sync(self) -> bool:
        """Wait until the lake has everything too; whether it has."""
        return self.flush() and (self._follower is None or self._follower.sync())

    def stats(self) -> QueueStats:
        """What was written, is waiting, was dropped or refused."""
        return (self.recorder or self._queue).stats()


class LineLogger:
    """What all loggers of lines have in common."""

    def __init__(self, log: LineLog) -> None:
        self._log = log

    @staticmethod
    def flush_all(path: str, timeout: float, branch: str = "") -> bool:
        """Wait until a file, or with a branch that of a lake, has what all loggers of this process
        wrote to it; whether it has."""
        if branch:
            return flush_lake(path, branch, timeout)
        queue = _QUEUES.get(os.path.realpath(path)) if _QUEUES else None
        return queue is None or queue.flush(timeout)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the file has everything, or so many seconds; whether it has."""
        return self._log.flush(timeout)

    def sync(self) -> bool:
        """Wait until the lake has everything that the file has; whether it has."""
        return self._log.sync()

    def stats(self) -> QueueStats:
        """What was written, is waiting, was dropped or refused."""
        return self._log.stats()
