"""Large files are read in turns, so that the lines of all others are ingested meanwhile.

A file that takes long (a large backlog, or compressed) is read for a bounded time, published, and
left open until its next turn; between two turns the watcher reads all other files. Few stay open,
because each holds chunks in memory: a new one gets a first turn soon, which is all that most need,
and then waits until one of the others is at its end. A file is known here by its inode: it is read
once, whatever it is renamed to meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace

from lakelog.collect.followed_file import FileIdentity
from lakelog.ingest import FileReport

SIZE = 256 << 20
"""Bytes that one file is read for in a turn, at most."""
SECONDS = 2.0
"""Seconds of one turn, after which no other begins in the same round."""
OPEN_MAX = 2
"""Files that stay open between two turns."""
# What a report adds up over all turns of a file; totals must count each event once.
_COUNTS = ("events", "quarantined", "arrivals", "nuls")


class Reading:
    """One file that is read a turn at a time and stays open in between. Close it when done.

    The rows of a turn are published at its end; the `report` grows with each.
    """

    def __init__(self, steps: Generator[int, bool], report: FileReport) -> None:
        self._steps, self.report = steps, report
        self._is_started = False

    def turn(self, size: int, seconds: float) -> bool:
        """Read on, for so many bytes or seconds at most; return whether the file is at its end.

        Raises OSError and LakelogError when the lake itself fails.
        """
        until = time.monotonic() + seconds
        try:
            while size > 0 and time.monotonic() < until:
                # A generator that has not started takes no value.
                size -= self._steps.send(False) if self._is_started else next(self._steps)
                self._is_started = True
            # The turn ends here: what it read is published, so that no turn holds back rows.
            self._steps.send(True)
        except StopIteration:
            return True
        return False

    def close(self) -> None:
        """Close the file; what was not published is read again by the next reader."""
        self._steps.close()


Begin = Callable[[str, str, str, FileIdentity, int | None], Reading]


@dataclass(frozen=True)
class TurnReport:
    """What was ingested in one turn of a file, and whether the file is read to its end."""

    identity: FileIdentity
    report: FileReport
    is_last: bool
    mode: str
    state: tuple[int, int]
    """Size and mtime of the file when its reading began, which ends there."""


@dataclass(eq=False)
class _QueuedFile:
    """A file that is read in turns; of one that lost its name `fd` is still open."""

    identity: FileIdentity
    path: str
    name: str
    mode: str
    reading: Reading | None = None
    fd: int = -1
    had_turn: bool = False
    state: tuple[int, int] = (-1, 0)
    last_report: FileReport = field(default_factory=lambda: FileReport(""))
    """What of its reading's report was given out before."""


class Turns:
    """The files that are read in turns. `begin(path, name, mode, identity, limit)` starts
    to read one, up to so many bytes."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._waiting: list[_QueuedFile] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, identity: FileIdentity) -> bool:
        return any(entry.identity == identity for entry in self._waiting)

    def add(self, identity: FileIdentity, path: str, name: str, mode: str) -> None:
        """Queue a file for turns until it is read to its end."""
        if identity not in self:
            self._waiting.append(_QueuedFile(identity, path, name, mode))

    def mark_unlinked(self, identity: FileIdentity, fd: int) -> bool:
        """Keep reading a file that lost its name through `fd`; False if it is not queued, or was
        never opened and cannot be any more."""
        entry = next((entry for entry in self._waiting if entry.identity == identity), None)
        if entry is None:
            return False
        # Not begun yet, so it is read through the descriptor that the watcher held, and to its end:
        # nobody opens it for writing under a name any more.
        if entry.reading is None:
            if fd < 0:
                self._waiting.remove(entry)
                return False
            entry.path, entry.mode = f"/dev/fd/{fd}", "last"
        # It may have lost a name before; both descriptors are of the same inode.
        _close_fd(entry.fd)
        entry.fd = fd
        return True

    def unlinked_paths(self) -> dict[FileIdentity, str]:
        """Return paths to files that lost their names and are not read to their ends."""
        return {entry.identity: f"/dev/fd/{entry.fd}" for entry in self._waiting if entry.fd >= 0}

    def run(self) -> list[TurnReport]:
        """Give turns for a while, one to each file at most; return what each ingested.

        Raises LakelogError and OSError when the lake itself fails.
        """
        reports, until = list[TurnReport](), time.monotonic() + SECONDS
        for entry in self._next():
            is_last = self._turn(entry)
            report, mode = _report_delta(entry), entry.mode
            # Its report is final, but the file is not: the reading began under the name that is
            # gone.
            if is_last and entry.fd >= 0 and entry.mode != "last":
                # It lost its name while it was read: what was written since has no other reader.
                _end_reading(entry)
                entry.path, entry.mode, is_last = f"/dev/fd/{entry.fd}", "last", False
            reports.append(TurnReport(entry.identity, report, is_last, mode, entry.state))
            self._waiting.remove(entry)
            if is_last:
                _close_entry(entry)
            else:
                self._requeue(entry)
            # Asked after a turn and not before: each round gives at least one, so that every file
            # gets on.
            if time.monotonic() > until:
                break
        return reports

    def close(self) -> None:
        """Close the files; their rest is read by the next watcher."""
        for entry in self._waiting:
            _close_entry(entry)
        self._waiting.clear()

    def _turn(self, entry: _QueuedFile) -> bool:
        """Read one file for a turn; return whether it was its last."""
        # Also after a failed turn, which ended its reading: what that one brought was reported
        # then.
        if entry.reading is None:
            # The size of now is the limit: a file that grows as fast as it is read would never come
            # to its end.
            limit = None
            with contextlib.suppress(OSError):  # then its reader says why
                status = os.stat(entry.path)
                entry.state = status.st_size, status.st_mtime_ns
                limit = status.st_size
            entry.reading = self._begin(entry.path, entry.name, entry.mode, entry.identity, limit)
            entry.last_report = FileReport("")
        try:
            return entry.reading.turn(SIZE, SECONDS)
        except BaseException:
            _end_reading(entry)
            raise

    def _next(self) -> list[_QueuedFile]:
        """Return the files that may have a turn now: first the one whose last turn is longest ago,
        so that new ones cannot starve it, then those that had none yet."""
        with_turns = [entry for entry in self._waiting if entry.had_turn][:OPEN_MAX]
        return [
            *with_turns[:1],
            *(entry for entry in self._waiting if not entry.had_turn),
            *with_turns[1:],
        ]

    def _requeue(self, entry: _QueuedFile) -> None:
        """Queue a file that is not at its end behind those that stay open with it, or at the end of
        all that wait."""
        turns_taken = sum(job.had_turn for job in self._waiting)
        # Its chunks are given back: the cursor says where its next turn begins.
        if not entry.had_turn and turns_taken >= OPEN_MAX:
            _end_reading(entry)
            place = turns_taken
        else:
            place = min(turns_taken, OPEN_MAX - 1)
        # The sort is stable, so it only moves the files that stay open to the front.
        entry.had_turn = True
        self._waiting.sort(key=lambda job: not job.had_turn)
        self._waiting.insert(place, entry)


def _report_delta(entry: _QueuedFile) -> FileReport:
    """Return what a file's report gained since the last call."""
    assert entry.reading is not None
    report, previous = entry.reading.report, entry.last_report
    entry.last_report = replace(report)
    counts = {name: getattr(report, name) - getattr(previous, name) for name in _COUNTS}
    return replace(report, **counts)


def _end_reading(entry: _QueuedFile) -> None:
    if entry.reading is not None:
        entry.reading.close()
    entry.reading = None


def _close_entry(entry: _QueuedFile) -> None:
    _end_reading(entry)
    _close_fd(entry.fd)
    entry.fd = -1


def _close_fd(fd: int) -> None:
    if fd >= 0:
        os.close(fd)
