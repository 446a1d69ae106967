"""The input of the OOS views: an oos.log that grows, or a lake.

A file is read on from the last position, in whole lines; a last line without its newline counts as
long as it is a whole event. If the file is another one now, or shorter, or differs before that
position, it is read from its start. Lines that are not OOS lines are counted in `skipped`.

A lake answers by views of its own, which are kept as all views are: live events are in every
answer, a compaction changes nothing, and after a rewind the answers are those of its state.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections import Counter

import orjson

from lakelog.disk import OpenFile
from lakelog.errors import InvalidEvent
from lakelog.lake import Lake
from lakelog.libraries import pa
from lakelog.loggers import AILogger
from lakelog.oos.log_state import FAILURES, HOUR, STATES, UNKNOWN, LogEvent, LoggedFailure, LogState
from lakelog.runtime.tables import ModuleFiles
from lakelog.values import JsonObject, from_micros, parse_time

CHUNK = 1 << 18
_LARGE = 1 << 24
"""After so many bytes at once, memory that reading took is returned to the system."""
_FIELDS = 6
_MARK = 256
"""So many bytes before the position where reading stopped are compared."""
FLUSH_SECONDS = 5.0
"""So long a question waits for what loggers of this process wrote; a full disk takes none."""
_YEAR_1 = -62_135_596_800_000_000
"""No event is older: the engine rounds a division to zero, not down."""


_STANDING = (
    ModuleFiles(__file__)
    .text("oos_status.sql")
    .format(item_types=", ".join(f"'{name}'" for name in STATES))
)
"""Unlike the view `status`, of an item's categories together, and of these four types alone."""
_COUNTS = (
    ModuleFiles(__file__)
    .text("oos_counts.sql")
    .format(year_1=_YEAR_1, hour=HOUR, first_hour=_YEAR_1 // HOUR, unknown=UNKNOWN)
)
"""As one, for each view that is kept costs every new event."""


class FileFeed:
    """An oos.log. Raises OSError where it cannot be read."""

    def __init__(self, path: str) -> None:
        self.path, self.skipped, self._mutex = path, 0, threading.Lock()
        self._restart()
        self._signature: tuple[int, ...] = ()
        self._answers = self._state

    def state(self) -> Answers:
        """The log as it is now, with what loggers of this process wrote to it."""
        # Lines that this process has not written yet belong to the answer.
        AILogger.flush_all(self.path, FLUSH_SECONDS)
        with self._mutex:
            return self._refresh()

    def _refresh(self) -> LogState:
        with OpenFile.closing(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)) as fd:
            status = os.fstat(fd)
            # Inode, size and time: the usual answer costs one look at them.
            signature = (status.st_ino, status.st_size, status.st_mtime_ns)
            if signature == self._signature:
                return self._answers
            # Another file, or a truncated one: nothing of what was read before counts.
            if not self._is_continued(fd, status):
                self._restart()
            self._inode = status.st_ino
            is_large = status.st_size - self._end > _LARGE
            # Up to the size at the beginning: a log that grows all the time must not hold the
            # answer.
            last_line = self._read_lines(fd, status.st_size)
        # Millions of events in plain Python would take gigabytes.
        if is_large:
            self._state.move_to_archive()
            _return_memory()
        self._answers = self._state
        # A copy, as the line may go on: then it is read again, and counted once.
        if last_line and (events := self._events(last_line, is_final=True)):
            self._answers = self._state.copy()
            self._answers.add(events)
        self._signature = signature
        return self._answers

    def _restart(self) -> None:
        self._state = LogState()
        self._end, self._mark = 0, b""
        self._inode, self.skipped = 0, 0

    def _is_continued(self, fd: int, status: os.stat_result) -> bool:
        """Whether the file is the one read before, with lines appended at most."""
        if status.st_ino != self._inode or status.st_size < self._end:
            return self._end == 0
        # The bytes before the end, not only the size: a file that was rewritten and grew beyond the
        # old end would be read on in its middle.
        return os.pread(fd, len(self._mark), self._end - len(self._mark)) == self._mark

    def _read_lines(self, fd: int, size: int) -> bytes:
        """Add whole lines to the state; return what follows the last newline."""
        incomplete, position = b"", self._end
        while position < size:
            data = os.pread(fd, min(CHUNK, size - position), position)
            if not data:
                break
            position += len(data)
            data = incomplete + data
            # A line without its newline may still be being written: it is kept for the next chunk
            # or the next question.
            end = data.rfind(b"\n") + 1
            lines, incomplete = data[:end], data[end:]
            if lines:
                self._state.add(self._events(lines))
                self._end += len(lines)
                # The end of what was read, to know the file by.
                self._mark = lines[-_MARK:]
        return incomplete

    def _events(self, data: bytes, is_final: bool = False) -> list[LogEvent]:
        """Parse lines; a final one counts only if its JSON is whole."""
        events: list[LogEvent] = []
        for line in data.decode("utf-8", "replace").split("\n"):
            # The payload may have bars in it: only the first ones divide.
            fields = line.split("|", _FIELDS - 1)
            try:
                if len(fields) == _FIELDS and not (is_final and not _is_json(fields[-1])):
                    time, name, _, source, item, payload = fields
                    moment = parse_time(time) - from_micros(0)
                    # As `to_micros`, which divides: that takes most of the time here.
                    micros = (moment.days * 86_400 + moment.seconds) * 10**6 + moment.microseconds
                    events.append(LogEvent(micros, name, source, item, payload))
                    continue
            except InvalidEvent:
                pass
            # A last line that is not whole may still be written.
            if not is_final and line.strip():
                self.skipped += 1
        return events


class LakeFeed:
    """One branch of a lake. Raises Damaged."""

    skipped = 0

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._counted: tuple[pa.Table, list[JsonObject]] | None = None

    def state(self) -> Answers:
        """The branch as it is now, with live events, and what loggers of this process wrote."""
        AILogger.flush_all(self._lake.path, FLUSH_SECONDS, self._lake.branch_name)
        return self

    def standing(self) -> dict[str, int]:
        """Return how many items are in each state."""
        rows = self._lake.view(_STANDING).to_pylist()
        counts = {row["status"]: row["items"] for row in rows}
        # The four states of the old view; others have no place there.
        return {state: counts.get(name, 0) for name, state in STATES.items()}

    def active(self, low: int, high: int) -> int:
        """Return how many events have a time above `low`, up to `high`."""
        return sum(self._between("events", low, high).values())

    def completed(self, low: int, high: int) -> dict[int, int]:
        """Return completions above `low`, up to `high`, by hours since 1970, in their order."""
        return dict(sorted(self._between("completed", low, high).items()))

    @property
    def sources(self) -> dict[str, tuple[int, int]]:
        """How many events of each source completed and failed."""
        counts = {row["source"]: (row["completed"], row["failed"]) for row in self._by("source")}
        return {source: outcomes for source, outcomes in counts.items() if any(outcomes)}

    @property
    def errors(self) -> dict[str, int]:
        """How many failures have each error."""
        return {row["error"]: row["failed"] for row in self._by("error")}

    @property
    def failures(self) -> list[LoggedFailure]:
        """The newest failures, the oldest first."""
        table = self._lake.view("failures", {"limit": FAILURES})
        # As numbers: Arrow would make objects of pandas of some units.
        table = table.set_column(0, "time", table["time"].cast("int64"))
        rows = reversed(table.select(["time", "source", "subject", "error"]).to_pylist())
        return [LoggedFailure(*row.values()) for row in rows]

    @property
    def first(self) -> int | None:
        """The time of the first event in us."""
        return min((row["first"] for row in self._by("hour")), default=None)

    def _by(self, column: str, **window: int) -> list[JsonObject]:
        """Return the counts by hour, source or error; without a window those of the last answer if
        it is still the same."""
        table = self._lake.view(_COUNTS, None, **window)
        if self._counted is not None and self._counted[0] is table:
            rows = self._counted[1]
        else:
            rows = table.to_pylist()
            # Answers of a window are asked for once, and must not displace the whole one.
            if not window:
                self._counted = table, rows
        return [row for row in rows if row[column] is not None]

    def _between(self, counted: str, low: int, high: int) -> dict[int, int]:
        """Return the counts of events above `low`, up to `high`, by hours since 1970."""
        counts = Counter[int]()
        for row in self._by("hour"):
            hour, rows = row["hour"], [row]
            # Of the two hours at most in which the window begins and ends, events are read again.
            if row["first"] <= low < row["last"] or row["first"] <= high < row["last"]:
                # Half-open in the views: one more on both ends makes the old view's bounds.
                since, until = max(low, hour * HOUR - 1) + 1, min(high + 1, (hour + 1) * HOUR)
                rows = self._by("hour", since=since, until=until)
            elif row["last"] <= low or row["first"] > high:
                continue
            counts[hour] = sum(inner[counted] for inner in rows)
        return +counts


OosFeed = FileFeed | LakeFeed
Answers = LogState | LakeFeed
"""What the views are computed from: both have the same members."""


def _return_memory() -> None:
    """Return freed memory to the system; the C library keeps what reading took at its peak."""
    with contextlib.suppress(AttributeError):  # not of this C library
        ctypes.CDLL(None).malloc_trim(0)


def _is_json(payload: str) -> bool:
    """Whether the text of a last line is whole."""
    try:
        orjson.loads(payload)
    except ValueError:
        return False
    return True
