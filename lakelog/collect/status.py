"""What a watcher reports: problems with paths, its totals, and the files in the cache that others
read and lock."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from lakelog.collect.successors import LostFile
from lakelog.disk import File
from lakelog.errors import LakelogError
from lakelog.event import BookkeepingEvent, Event
from lakelog.files import FileScan, printable
from lakelog.ingest import FileReport
from lakelog.lake import Lake
from lakelog.paths import encode_name

_STATUS_EVERY = 10.0
_HAS_EVENT = f"SELECT 1 FROM events WHERE type = '{BookkeepingEvent.WATCH}' AND id = ?"
Say = Callable[[str], None]


@dataclass
class WatchTotals:
    """What a watcher did since it started; times are seconds since 1970."""

    pid: int = field(default_factory=os.getpid)
    started: float = field(default_factory=time.time)
    roots: list[str] = field(default_factory=list)
    rounds: int = 0
    files: int = 0
    events: int = 0
    quarantined: int = 0
    arrivals: int = 0
    """Events whose time is that of their ingest, as none was found in their lines."""
    nuls: int = 0
    lost_files: int = 0
    """Files that went before they were read to their ends."""
    lost_bytes: int = 0
    """What was seen of those files and never read."""
    repeated_lines: int = 0
    """Lines that were stored before, from what had their file's name or inode then."""
    faults: dict[str, str] = field(default_factory=dict)
    last_round: float = 0.0
    last_event: float = 0.0
    slowest_round: float = 0.0
    redis: dict[str, Any] = field(default_factory=dict)
    """Figures of what is kept in Redis beside the lake, if anything is."""

    def end_round(self, start: float, *, is_news: bool) -> None:
        """Count a round that began at `start`, by the clock that is never set."""
        self.rounds += 1
        self.last_round = time.time()
        self.last_event = self.last_round if is_news else self.last_event
        self.slowest_round = max(self.slowest_round, time.monotonic() - start)


class Reporter:
    """Says what happens to watched files, as an event of the lake, too, and keeps the totals."""

    def __init__(self, lake: Lake, roots: list[str], say: Say) -> None:
        self._lake, self.say = lake, say
        self.totals = WatchTotals(roots=roots)
        self.complaints: dict[str, str] = {}
        """The problem of each path that has one."""
        self._written = 0.0

    def complain(self, path: str, reason: str) -> None:
        """Report a problem with a path once, and store it as an event."""
        path = printable(path)
        # A fault that lasts would be said and stored every second.
        if self.complaints.get(path) == reason:
            return
        self.complaints[path] = self.totals.faults[path] = reason
        self.tell(path, reason)

    def note(self, report: FileReport, *, is_last: bool) -> None:
        """Count what was read of a file, and say what is wrong with it; `is_last` at its end."""
        totals = self.totals
        totals.events += report.events
        totals.quarantined += report.quarantined
        totals.arrivals += report.arrivals
        if report.nuls:
            totals.nuls += report.nuls
            self.tell(report.path, f"{report.nuls:,} NUL bytes skipped")
        if report.erased:
            self.say(f"{report.path}: {report.erased:,} events refused, which were erased")
        if report.error == FileReport.MISSING:
            return  # it was renamed or removed since the scan
        if report.error:
            self.complain(report.path, report.error)
        elif is_last:
            self.complaints.pop(report.path, None)
        if report.note:
            self.say(f"{report.path}: {report.note}")
        if report.quarantined:
            self.say(f"{report.path}: {report.quarantined} lines to quarantine: {report.reason}")

    def forget(self, listing: FileScan) -> None:
        """Drop complaints about paths that no longer exist: compressed, or removed."""
        if not self.complaints:
            return
        present = map(printable, (*listing.files, *listing.faults, *listing.ignored))
        for path in self.complaints.keys() - set(present):
            del self.complaints[path]

    def tell(self, path: str, message: str, *, id_: str = "", **data: int) -> None:
        """Report something about a path, and store it as an event, with figures for queries."""
        path = printable(path)
        self._say(path, message)
        event = BookkeepingEvent.of(
            BookkeepingEvent.WATCH, path, level="WARN", message=message, data=data or None
        )
        if id_:
            event["id"] = id_
        self.store([event])

    def store(self, events: Sequence[Event]) -> None:
        """Append events of this watcher, if the lake takes any."""
        # The complaint may be that the lake cannot be written.
        with contextlib.suppress(LakelogError, OSError):
            self._lake.append(events)

    def _say(self, path: str, message: str) -> None:
        self.say(f"{path}: {message}")
        self._written = 0.0  # the next round writes the status

    def lose(self, file: LostFile) -> None:
        """Report a file that went before it was read to its end, unless an earlier watcher did."""
        id_ = f"lost:{file.key}:{file.unread}" if file.key else ""
        if id_ and self._lake.sql(_HAS_EVENT, [id_]).fetchall():
            return
        self.totals.lost_files += 1
        self.totals.lost_bytes += file.unread
        message = f"it went with {file.unread:,} bytes that nobody read"
        self.tell(file.path, message, id_=id_, lost_bytes=file.unread)

    def repeat(self, path: str, lines: int) -> None:
        """Report lines that are stored twice, of which the lake has an event already."""
        self.totals.repeated_lines += lines
        self._say(path, BookkeepingEvent.repeated_words(lines))

    def count(self, listing: FileScan, start: float, new: int) -> None:
        """Count a round that began at `start` and ingested so many events."""
        totals = self.totals
        totals.files = len(listing.files)
        totals.end_round(start, is_news=new > 0)
        totals.faults = {p: r for p, r in totals.faults.items() if p in self.complaints}
        # The status file is written when something happened, else seldom: an idle watcher leaves
        # the disk alone.
        if new or listing.faults or abs(totals.last_round - self._written) > _STATUS_EVERY:
            self.save()

    def save(self) -> None:
        """Write the totals to a file for others."""
        with contextlib.suppress(OSError):
            write(status_path(self._lake), self.totals)
            self._written = self.totals.last_round


class JournalReporter:
    """Keeps the totals of who follows the journal, for others to read."""

    def __init__(self, lake: Lake) -> None:
        self._path, self._totals = journal_path(lake), WatchTotals()
        self._written = 0.0

    def count(self, start: float, events: int, quarantined: int) -> None:
        """Count a round that began at `start` and stored so many events and bad lines."""
        totals = self._totals
        totals.events += events
        totals.quarantined += quarantined
        totals.end_round(start, is_news=events > 0)
        if events or quarantined or abs(totals.last_round - self._written) > _STATUS_EVERY:
            self._written = totals.last_round
            with contextlib.suppress(OSError):
                write(self._path, totals)


def write(path: str, totals: WatchTotals) -> None:
    """Write totals to where others read them. Raises OSError."""
    body = asdict(totals) | {"roots": [*map(printable, totals.roots)]}
    data = orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE)
    File(path).replace(data, sync=False)


def status_path(lake: Lake) -> str:
    """Return where the watcher of a branch writes its status."""
    return f"{lake.store.paths.cache}/watch-{encode_name(lake.branch_name)}.json"


def journal_path(lake: Lake) -> str:
    """Return where who follows the journal into a branch writes its status."""
    return f"{lake.store.paths.cache}/journal-{encode_name(lake.branch_name)}.json"


def lock_path(lake: Lake, roots: list[str]) -> str:
    """Return the lock file of a watcher of these directories: there is only one at a time."""
    # Sorted real paths: the same directories have the same lock, however they are written.
    names = "\0".join(sorted(map(os.path.realpath, roots)))
    digest = hashlib.sha256(os.fsencode(names)).hexdigest()[:16]
    return f"{lake.store.paths.cache}/watch-{digest}.lock"
