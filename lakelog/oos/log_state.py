"""What the OOS views know of a log that they read: how each item stands, outcomes, failures."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from lakelog.libraries import np

STATES = {"DISCOVER": "discovered", "PROCESS": "processing", "COMPLETE": "completed"} | {
    "FAIL": "failed"
}
"""Event types that say how an item stands."""
# As many as the older view showed.
FAILURES = 10
HOUR = 3_600_000_000
RECENT = 1 << 15
"""So many events are kept in plain Python at most, some 200 bytes each."""
UNKNOWN = "unknown"
"""What the error of a payload is called that names none."""
# In their order, which is that of the old view.
_CODES = {name: code for code, name in enumerate(STATES)}
# An item's time in us and the code of its state are one number; all years up to 9999 have room.
_CODE_BITS = 2
_CODE_MASK = (1 << _CODE_BITS) - 1


class LogEvent(NamedTuple):
    """What the views need of one event; its time is in us."""

    time: int
    type: str
    source: str
    item: str
    data: str


@dataclass(frozen=True, slots=True)
class LoggedFailure:
    """One failure."""

    time: int
    source: str | None
    item: str | None
    error: str


@dataclass(frozen=True, slots=True)
class Archive:
    """Earlier events: hashes of items in their order, their states, and all times."""

    items: np.ndarray
    latest: np.ndarray
    times: np.ndarray
    completions: np.ndarray

    @classmethod
    def empty(cls) -> Archive:
        """Return the archive of no event."""
        nothing = np.empty(0, np.int64)
        return cls(nothing, nothing, nothing, nothing)

    def extend(self, latest: dict[int, int], times: list[int], completions: list[int]) -> Archive:
        """Return an archive that has later arrivals too."""
        size = len(latest)
        keys = np.concatenate([self.items, np.fromiter(latest, np.int64, size)])
        values = np.concatenate([self.latest, np.fromiter(latest.values(), np.int64, size)])
        # Stable: of one item the later arrival stays behind.
        order = np.argsort(keys, kind="stable")
        keys, values = keys[order], values[order]
        # Of an item that was there already, the earlier arrival stands before the later one.
        is_repeated = keys[1:] == keys[:-1]
        earlier, later = values[:-1][is_repeated], values[1:][is_repeated]
        is_newer = (later >> _CODE_BITS) >= (earlier >> _CODE_BITS)
        values[1:][is_repeated] = np.where(is_newer, later, earlier)
        is_kept = np.append(~is_repeated, True) if len(keys) else np.empty(0, bool)
        return Archive(
            keys[is_kept],
            values[is_kept],
            np.concatenate([self.times, np.array(times, np.int64)]),
            np.concatenate([self.completions, np.array(completions, np.int64)]),
        )


@dataclass
class LogState:
    """The log so far; times outside the archive are sorted.

        latest       the newest time and state of each item
        times        of every event, and of every completion
        sources      [completed, failed] of each

    Events may come in any order and in any number of batches: of one item the newest time wins, and
    of equal times what was added later. What was added is kept in plain Python, so that a small log
    is answered before numpy is loaded, and from RECENT events on in sorted arrays: 16 bytes an item
    and 8 a time.
    """

    latest: dict[int, int] = field(default_factory=dict)
    times: list[int] = field(default_factory=list)
    completions: list[int] = field(default_factory=list)
    sources: dict[str, tuple[int, int]] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    failures: list[LoggedFailure] = field(default_factory=list)
    first: int | None = None
    archive: Archive | None = None

    def copy(self) -> LogState:
        """Return a state that can be extended independently of this one; archives are shared."""
        return LogState(
            dict(self.latest),
            list(self.times),
            list(self.completions),
            dict(self.sources),
            dict(self.errors),
            list(self.failures),
            self.first,
            self.archive,
        )

    def add(self, events: list[LogEvent]) -> None:
        """Add events, in the order in which they stand in the log."""
        for event in events:
            code = _CODES.get(event.type)
            if code is None:
                continue
            if event.item:
                # A hash, keyed by this process, instead of the text: items are only counted.
                key, value = hash(event.item), event.time << _CODE_BITS | code
                earlier = self.latest.get(key)
                if earlier is None or event.time >= earlier >> _CODE_BITS:
                    self.latest[key] = value
            if event.type == "COMPLETE":
                self.completions.append(event.time)
                self._count_outcome(event.source, completed=1)
            elif event.type == "FAIL":
                error = error_of(event.data)
                self._count_outcome(event.source, failed=1)
                self.errors[error] = self.errors.get(error, 0) + 1
                self.failures.append(LoggedFailure(event.time, event.source, event.item, error))
        self.times += [event.time for event in events]
        # Nearly in order as a rule: then sorting is one pass, and counting is a search.
        self.times.sort()
        self.completions.sort()
        if events:
            self.first = self.times[0] if self.first is None else min(self.first, self.times[0])
        # stable: of equal times what was ingested later is newer
        self.failures = sorted(self.failures, key=lambda failure: failure.time)[-FAILURES:]
        # Above this, arrays take a tenth of the memory.
        if len(self.times) > RECENT:
            self.move_to_archive()

    def active(self, low: int, high: int) -> int:
        """Return how many events have a time above `low`, up to `high`."""
        count = bisect_right(self.times, high) - bisect_right(self.times, low)
        if self.archive is None:
            return count
        times = self.archive.times
        return count + int(np.count_nonzero((times > low) & (times <= high)))

    def completed(self, low: int, high: int) -> dict[int, int]:
        """Return completions above `low`, up to `high`, by hours since 1970, in their order."""
        start, end = (bisect_right(self.completions, time) for time in (low, high))
        counts = Counter(time // HOUR for time in self.completions[start:end])
        if self.archive is not None:
            times = self.archive.completions
            hours = times[(times > low) & (times <= high)] // HOUR
            unique, unique_counts = np.unique(hours, return_counts=True)
            counts.update(dict(zip(unique.tolist(), unique_counts.tolist(), strict=True)))
        return dict(sorted(counts.items()))

    def standing(self) -> dict[str, int]:
        """Return how many items are in each state."""
        if self.archive is not None:
            if self.latest:
                # An item may be on both sides; together each is there once.
                self.move_to_archive()
            codes = np.bincount(self.archive.latest & _CODE_MASK, minlength=len(STATES)).tolist()
            return dict(zip(STATES.values(), codes, strict=True))
        counts = Counter(value & _CODE_MASK for value in self.latest.values())
        return {state: counts[code] for code, state in enumerate(STATES.values())}

    def move_to_archive(self) -> None:
        """Move what is kept in plain Python to the archive."""
        archive = self.archive or Archive.empty()
        self.archive = archive.extend(self.latest, self.times, self.completions)
        self.latest, self.times, self.completions = {}, [], []

    def _count_outcome(self, source: str, completed: int = 0, failed: int = 0) -> None:
        before = self.sources.get(source, (0, 0))
        self.sources[source] = before[0] + completed, before[1] + failed


def error_of(payload: str) -> str:
    """Return what a payload calls the error, or UNKNOWN."""
    try:
        data = orjson.loads(payload) if payload else None
    except orjson.JSONDecodeError:
        data = None
    error = data.get("error") if isinstance(data, dict) else None
    if error is None or error == "":
        return UNKNOWN
    return error if isinstance(error, str) else orjson.dumps(error).decode()
