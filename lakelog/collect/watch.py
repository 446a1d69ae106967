"""Watching directories: every line of every file becomes an event, once, soon after it is written.

A scan of names, sizes and times is the truth of what changed; events of the file system only bring
the next scan forward. What is taken in, and how far, is decided by ingest: by content, with the
cursor in the same move as the rows. A followed file is held open, so that what was written just
before it was renamed or removed is still read. An unfinished last line waits for its newline; it
is taken as it is once its file was replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from lakelog.collect.scan import SUFFIXES, Scan, Seen, scan
from lakelog.errors import LakelogError
from lakelog.ingest import cursors
from lakelog.ingest.batch import FileReport, Job
from lakelog.ingest.group import Group
from lakelog.ingest.ingest import Ingester
from lakelog.ingest.source import Source
from lakelog.store import disk

if TYPE_CHECKING:
    from lakelog.lake import Lake

HELD_MAX = 256
"""So many files are held open at most, those that changed last."""
STABLE = 2.0
"""Seconds for which a copy must have stood still before it is read."""
_PATIENCE = 30.0
_STATUS_EVERY = 10.0
_LABEL = "lakelog"
Say = Callable[[str], None]


@dataclass
class Totals:
    """What a watcher did since it started; times are seconds since 1970."""

    pid: int = field(default_factory=os.getpid)
    started: float = field(default_factory=time.time)
    roots: list[str] = field(default_factory=list)
    rounds: int = 0
    files: int = 0
    events: int = 0
    quarantined: int = 0
    faults: dict[str, str] = field(default_factory=dict)
    last_round: float = 0.0
    last_event: float = 0.0
    slowest_round: float = 0.0


@dataclass
class _Followed:
    seen: Seen
    fd: int = -1
    since: float = 0.0
    held: bool = False
    """Whether its end was left, for more may belong to it."""


class Watcher:
    """Follows the files of directories into one branch of a lake."""

    def __init__(
        self, lake: Lake, roots: list[str], *, patterns: tuple[str, ...] = ("*",),
        form: str | None = None, source: str | None = None, say: Say | None = None,
        after: Callable[[Scan], None] | None = None,
    ) -> None:  # fmt: skip
        """`after` is called with each scan, once what is new in it was taken in."""
        self._after = after
        self._lake, self._roots = lake, [os.path.abspath(root) for root in roots]
        self._patterns, self._say = patterns, say or (lambda text: None)
        self._form, self._source = form, source
        self._job = Job(lake.store, lake.branch_name, lake.engine, form, source)
        self._known: dict[str, _Followed] = {}
        self._told: dict[str, str] = {}
        self._unseen: set[str] = set()
        self._written = 0.0
        self.totals = Totals(roots=self._roots)

    def round(self, *, final: bool = False) -> int:
        """Scan once and take in what changed; return the number of new events.

        `final` also takes last lines without a newline. Raises LakelogError and OSError only when
        the lake itself fails.
        """
        began = time.monotonic()
        found = scan(self._roots, self._patterns)
        due = [seen for seen in found.files.values() if self._changed(seen)]
        new = sum(self._finish(path) for path in self._gone(found))
        new += self._take([s for s in due if not self._is_copy_in_progress(s)], final=final)
        for path in self._unseen - found.faults.keys():
            self._told.pop(path, None)
        self._unseen = set(found.faults)
        for path, reason in found.faults.items():
            self._complain(path, reason)
        if new:
            self._lake.sealer().maintain()
        self._count(found, began, new)
        if self._after is not None:
            self._after(found)
        return new

    @property
    def waiting(self) -> bool:
        """Whether some file is not read yet, for it may be a copy that is being written."""
        return any(followed.seen.size < 0 for followed in self._known.values())

    @property
    def holding(self) -> bool:
        """Whether the end of some file was left that is taken once nothing was written behind."""
        return any(followed.held for followed in self._known.values())

    @property
    def busy(self) -> bool:
        """Whether what is done after a round is still going on."""
        return bool(getattr(self._after, "busy", False))

    @property
    def lake(self) -> Lake:
        """The lake that lines are taken into."""
        return self._lake

    def memory(self) -> dict[str, Any]:
        """What a watcher has to know to go on where this one is: for `remember`.

        The files that are held open are handed over by number.
        """
        files = [[*astuple(f.seen), f.fd, f.held] for f in self._known.values()]
        for followed in self._known.values():
            if followed.fd >= 0:
                os.set_inheritable(followed.fd, True)
        return {"totals": asdict(self.totals), "told": self._told, "files": files}

    def remember(self, memory: dict[str, Any]) -> None:
        """Go on where another watcher of this process, before it was renewed, had come to."""
        self.totals = Totals(**memory["totals"])
        self._told = memory["told"]
        for *seen, fd, held in memory["files"]:
            if fd >= 0:
                os.set_inheritable(fd, False)
            self._known[seen[0]] = _Followed(Seen(*seen), fd, time.monotonic(), held)

    def close(self) -> None:
        """Let go of the files."""
        for followed in self._known.values():
            _close(followed)
        self._known.clear()

    # --- one file ---

    def _changed(self, seen: Seen) -> bool:
        followed = self._known.get(seen.path)
        if followed is None or followed.seen != seen or followed.held:
            return True
        return seen.path in self._told and time.monotonic() - followed.since > _PATIENCE

    def _gone(self, found: Scan) -> list[str]:
        """Paths that name another file now, or none."""
        return [
            path
            for path, followed in self._known.items()
            if path not in found.files or found.files[path].identity != followed.seen.identity
        ]

    def _finish(self, path: str) -> int:
        """Read the rest of a file that lost its name, through the descriptor that is held."""
        followed = self._known.pop(path)
        try:
            if followed.fd < 0:
                return 0
            report = self._ingest(f"/dev/fd/{followed.fd}", path, "last")
            self._note(report)
            return report.events
        finally:
            _close(followed)

    def _take(self, due: list[Seen], *, final: bool) -> int:
        """Take in what changed, all of it in one publish if it is not much."""
        group = Group(self._job, self._ingest)
        taken: list[tuple[_Followed, FileReport]] = []
        for seen in due:
            followed = self._known.setdefault(seen.path, _Followed(seen.unread))
            if followed.fd < 0:
                with contextlib.suppress(OSError):  # then its reader says why
                    followed.fd = os.open(seen.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            still = followed.held and followed.seen == seen
            mode = "once" if final else "settled" if still else "follow"
            report = group.take(seen.path, seen.path, mode)
            taken.append((_Followed(seen, followed.fd, time.monotonic(), mode == "follow"), report))
        group.flush()
        for followed, report in taken:
            followed.held = followed.held and report.left > 0
            self._known.pop(followed.seen.path, None)
            self._known[followed.seen.path] = followed
            self._note(report)
        self._hold_few()
        return sum(report.events for _, report in taken)

    def _ingest(self, path: str, name: str, mode: str) -> FileReport:
        lake = self._lake
        worker = Ingester(
            lake.store, lake.branch_name, lake.sealer(), lake.engine, form=self._form,
            source=self._source, mode=mode,
        )  # fmt: skip
        return worker.take(path, name)

    def _note(self, report: FileReport) -> None:
        totals = self.totals
        totals.events += report.events
        totals.quarantined += report.quarantined
        if report.error:
            self._complain(report.path, report.error)
        else:
            self._told.pop(report.path, None)
        if report.quarantined:
            self._say(f"{report.path}: {report.quarantined} lines to quarantine: {report.reason}")

    def _is_copy_in_progress(self, seen: Seen) -> bool:
        """Whether a file new here may be a copy that is still being written.

        A part of a file that was taken in looks like a new file with the same beginning.
        """
        followed = self._known.get(seen.path)
        if followed is not None and followed.seen.identity == seen.identity and followed.fd >= 0:
            return False
        if time.time() - seen.mtime_ns / 1e9 > STABLE:
            return False
        if not seen.path.endswith(SUFFIXES) and not self._is_part(seen):
            return False
        waiting = followed or self._known.setdefault(seen.path, _Followed(seen.unread))
        waiting.since = waiting.since or time.monotonic()
        return time.monotonic() - waiting.since < _PATIENCE

    def _is_part(self, seen: Seen) -> bool:
        """Whether a file begins as one does that was taken in further than it is long."""
        try:
            with contextlib.closing(Source(seen.path)) as file:
                head = file.read(cursors.WINDOW)
        except OSError:
            return False
        if any(
            other.seen.size > seen.size and other.fd >= 0
            and other.seen.identity != seen.identity
            and os.pread(other.fd, len(head), 0) == head
            for other in self._known.values()
        ):  # fmt: skip
            return True
        state = self._job.state(self._job.head())
        alike = cursors.of_head(self._job.cursors(state), head, self._source)
        return any(entry["bytes"] > seen.size for entry in alike)

    def _hold_few(self) -> None:
        """Close the files that did not change for longest, past the limit."""
        held = [path for path, followed in self._known.items() if followed.fd >= 0]
        for path in held[:-HELD_MAX]:
            _close(self._known[path])

    # --- the whole ---

    def _complain(self, path: str, reason: str) -> None:
        """Say once what is wrong with a path, and store it as an event."""
        if self._told.get(path) == reason:
            return
        self._told[path] = self.totals.faults[path] = reason
        self._say(f"{path}: {reason}")
        event = {
            "type": "lakelog.watch", "source": _LABEL, "subject": path, "level": "WARN",
            "message": reason,
        }  # fmt: skip
        with contextlib.suppress(LakelogError, OSError):
            self._lake.append(event)

    def _count(self, found: Scan, began: float, new: int) -> None:
        totals = self.totals
        totals.rounds += 1
        totals.files = len(found.files)
        totals.last_round = time.time()
        totals.last_event = totals.last_round if new else totals.last_event
        totals.slowest_round = max(totals.slowest_round, time.monotonic() - began)
        totals.faults = {p: r for p, r in totals.faults.items() if p in self._told}
        if new or found.faults or abs(totals.last_round - self._written) > _STATUS_EVERY:
            self._write_status()

    def _write_status(self) -> None:
        with contextlib.suppress(OSError):
            data = orjson.dumps(asdict(self.totals), option=orjson.OPT_APPEND_NEWLINE)
            disk.replace_whole(status_path(self._lake), data, sync=False)
            self._written = self.totals.last_round


def status_path(lake: Lake) -> str:
    """Where the watcher of a branch says what it does."""
    return f"{lake.store.layout.cache}/watch-{lake.branch_name.replace('/', '-')}.json"


def lock_path(lake: Lake, roots: list[str]) -> str:
    """The file that a watcher of these directories holds, so that there is one alone."""
    names = "\0".join(sorted(map(os.path.realpath, roots)))
    digest = hashlib.sha256(os.fsencode(names)).hexdigest()[:16]
    return f"{lake.store.layout.cache}/watch-{digest}.lock"


def _close(followed: _Followed) -> None:
    if followed.fd >= 0:
        os.close(followed.fd)
        followed.fd = -1
