"""Watching directories: every line of every file becomes an event, once, soon after it is written.

A scan of names, sizes and times is the truth of what changed; events of the file system only bring
the next scan forward. Which file a path holds is decided by inode and content (ingest/identity.py),
with the cursor in the same move as the rows. Of a file no more is read than it held when it was
scanned, so that a copy of it is known before what the copy holds is read. Files that changed last
are held open, so that what was written just before they were removed is still read. An unfinished
last line waits for its newline as long as somebody may write it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from lakelog import bookkeeping
from lakelog.collect import followed_file
from lakelog.collect.followed_file import FollowedFile
from lakelog.collect.turns import Turns
from lakelog.errors import LakelogError
from lakelog.ingest import cursors
from lakelog.ingest.batch import GRACE, FileReport, Job
from lakelog.ingest.group import FILES_MAX, Group
from lakelog.ingest.ingest import Ingester, Reading
from lakelog.ingest.rotation import PACKED, is_rotated
from lakelog.ingest.scan import IGNORED, FileState, Scan, look_again, scan, seen_as
from lakelog.store import disk

if TYPE_CHECKING:
    from lakelog.lake import Lake

HELD_MAX = 256
"""So many files are held open at most, those that changed last."""
STABLE = 2.0
"""Seconds for which a copy must have stood still before it is read."""
_PATIENCE, _ARRIVAL_MAX = 30.0, 5.0
_STATUS_EVERY = 10.0
_WENT = os.strerror(errno.ENOENT)
Say = Callable[[str], None]
Identity = tuple[int, int]


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
    nuls: int = 0
    faults: dict[str, str] = field(default_factory=dict)
    last_round: float = 0.0
    last_event: float = 0.0
    slowest_round: float = 0.0


class Watcher:
    """Follows the files of directories into one branch of a lake."""

    def __init__(
        self,
        lake: Lake,
        roots: list[str],
        *,
        patterns: tuple[str, ...] = ("*",),
        form: str | None = None,
        source: str | None = None,
        say: Say | None = None,
        after: Callable[[Scan], None] | None = None,
    ) -> None:
        """`after` is called with each scan, once what is new in it was taken in."""
        self._after = after
        self._lake, self._roots = lake, [os.path.abspath(root) for root in roots]
        self._patterns, self._say = patterns, say or (lambda text: None)
        self._form, self._source = form, source
        self._job = Job(lake.store, lake.branch_name, lake.engine, form, source, follows=True)
        self._known: dict[Identity, FollowedFile] = {}
        self._inodes: dict[Identity, str] = {}
        self._told: dict[str, str] = {}
        self._unseen: set[str] = set()
        self._turns = Turns(self._begin)
        self._written = 0.0
        self._held_max = min(HELD_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self.totals = Totals(roots=self._roots)
        self.scan_seconds = 0.0
        """Processor time that the last look at all files took."""

    def round(self, *, final: bool = False) -> int:
        """Scan once and take in what changed; return the number of new events.

        `final` also takes last lines without a newline. Raises LakelogError and OSError only when
        the lake itself fails.
        """
        began, worked = time.monotonic(), time.thread_time()
        found = scan(self._roots, self._patterns)
        due = [seen for seen in found.files.values() if self._changed(seen)]
        self.scan_seconds = time.thread_time() - worked
        gone = [f for identity, f in self._known.items() if identity not in found.inodes]
        if due or gone:
            due += look_again(found, self._patterns)
        found.names.clear()
        self._note_inodes(found)
        new, originals_left = self._finish(gone)
        taken, released = self._take([s for s in due if not self._is_arriving(s)], final=final)
        by_turns, ended = self._take_turns()
        new += taken + by_turns
        if originals_left or released or ended:
            # A copy takes the place of its original at once, or another file might; and a file that
            # had turns may have grown meanwhile.
            again = [f.seen for f in self._known.values() if f.is_copy and f not in gone]
            again += [seen for seen in found.files.values() if seen.identity in ended]
            new += self._take([s for s in map(_now, again) if s], final=final)[0]
        for path in self._unseen - found.faults.keys():
            if self._told.pop(cursors.printable(path), None) and path in self._roots:
                self._tell(cursors.printable(path), "there again")
        self._unseen = set(found.faults)
        for path, reason in (found.faults | found.ignored).items():
            self._complain(path, reason)
        self._forget(found)
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
    def unread(self) -> bool:
        """Whether something could not be read that should be: a directory, or a file."""
        return any(not reason.startswith(IGNORED) for reason in self._told.values())

    @property
    def behind(self) -> bool:
        """Whether some file is not read to its end, for others had their turns too."""
        return bool(self._turns)

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
        files = [[*f.seen, f.fd, f.held, f.unfinished, f.is_copy] for f in self._known.values()]
        for followed in self._known.values():
            if followed.fd >= 0:
                os.set_inheritable(followed.fd, True)
        return {"totals": asdict(self.totals), "told": self._told, "files": files}

    def remember(self, memory: dict[str, Any]) -> None:
        """Go on where another watcher of this process, before it was renewed, had come to."""
        self.totals = Totals(**memory["totals"])
        self._told = memory["told"]
        for *values, fd, held, unfinished, is_copy in memory["files"]:
            if fd >= 0:
                os.set_inheritable(fd, False)
            seen, now = FileState(*values), time.monotonic()
            self._known[seen.identity] = FollowedFile(seen, fd, now, held, unfinished, is_copy)

    def close(self) -> None:
        """Let go of the files."""
        self._turns.close()
        for followed in self._known.values():
            followed_file.close(followed)
        self._known.clear()

    # --- one file ---

    def _changed(self, seen: FileState) -> bool:
        if self._turns and seen.identity in self._turns:
            return False
        followed = self._known.get(seen.identity)
        if followed is None or followed.seen != seen or followed.held:
            return True
        if followed.unfinished and self._is_ended(followed):
            return True
        said = self._told and cursors.printable(seen.path) in self._told
        return bool(said) and time.monotonic() - followed.since > _PATIENCE

    def _is_ended(self, followed: FollowedFile) -> bool:
        """Whether nobody will write the rest of a last line: its file is rotated, was left alone
        for a while, and nobody has it open for writing, as far as the system knows."""
        quiet = time.monotonic() - followed.since
        if quiet < GRACE or not is_rotated(followed.seen.path):
            return False
        followed.since = time.monotonic()  # if somebody has: ask again after as long
        return not followed_file.is_open_for_writing(followed)

    def _note_inodes(self, found: Scan) -> None:
        """Say where each file is, for who decides which is which."""
        self._inodes.clear()
        for identity, followed in self._known.items():
            if followed.fd >= 0:
                self._inodes[identity] = f"/dev/fd/{followed.fd}"
        self._inodes.update(self._turns.unnamed())
        self._inodes.update((seen.identity, seen.path) for seen in found.files.values())
        self._job.inodes = self._inodes

    def _finish(self, gone: list[FollowedFile]) -> tuple[int, bool]:
        """Read the rest of files that lost their names, through the descriptors that are held.

        As long as somebody may write on, they are kept. Returns the number of new events, and
        whether one of the files is left for good.
        """
        new, left = 0, False
        for followed in gone:
            identity = followed.seen.identity
            if self._turns.unname(identity, followed.fd):
                self._known.pop(identity)  # its descriptor is with the turns now
                continue
            if followed.fd >= 0:
                status = os.fstat(followed.fd)
                if (status.st_size, status.st_mtime_ns) != (
                    followed.seen.size,
                    followed.seen.mtime_ns,
                ):
                    followed.since = time.monotonic()
                is_open = followed_file.is_open_for_writing(followed)
                kept = is_open or (is_open is None and time.monotonic() - followed.since < GRACE)
                mode = "follow" if kept else "last"
                report = self._ingest(f"/dev/fd/{followed.fd}", followed.seen.path, mode)
                self._note(report)
                new += report.events
                if kept:
                    size, mtime_ns = status.st_size, status.st_mtime_ns
                    followed.seen = followed.seen._replace(size=size, mtime_ns=mtime_ns)
                    continue
            followed_file.close(followed)
            self._known.pop(identity)
            self._inodes.pop(identity, None)
            left = True
        return new, left

    def _take(self, due: list[FileState], *, final: bool) -> tuple[int, bool]:
        """Take in what changed, all of it in one publish if it is not much.

        Returns the number of new events, and whether a file was found to have been truncated."""
        new, released = 0, False
        for at in range(0, len(due), FILES_MAX):
            reports = self._take_together(due[at : at + FILES_MAX], final=final)
            new += sum(report.events for report in reports)
            released = released or any(report.released for report in reports)
        return new, released

    def _take_together(self, due: list[FileState], *, final: bool) -> list[FileReport]:
        """Take in what changed in a few files, all of it in one publish if it is not much."""
        identities = {seen.path: seen.identity for seen in due}

        def later(path: str, name: str, mode: str) -> FileReport:
            self._turns.add(identities[path], path, name, mode)
            return FileReport(cursors.printable(name))

        group = Group(self._job, later)
        taken: list[tuple[FollowedFile, FileReport]] = []
        for seen in due:
            followed = self._known.get(seen.identity) or FollowedFile(seen.unread)
            mode = self._mode(followed, seen, final=final)
            report = group.take(
                seen.path,
                seen.path,
                mode,
                limit=seen.size,
                expect=seen.identity,
                settled=self._is_settled(followed, seen),
            )
            if report.is_undecided:
                self._known[seen.identity] = FollowedFile(
                    seen.unread, followed.fd, followed.since or time.monotonic()
                )
                continue
            fd = self._hold(followed, seen)
            now = FollowedFile(seen, fd, time.monotonic(), mode == "follow", is_copy=report.is_copy)
            taken.append((now, report))
            self._known.pop(seen.identity, None)
            self._known[seen.identity] = now
            # All that is known is gone through: now and then, not for each of many files.
            if len(taken) % max(self._held_max // 2, 1) == 0:
                self._hold_few()
        self._hold_few()
        group.flush()
        for followed, report in taken:
            followed.unfinished = report.left > 0
            followed.held = followed.held and report.left > 0
            if followed.seen.identity not in self._turns:
                self._note(report)
        return [report for _, report in taken]

    def _mode(self, followed: FollowedFile, seen: FileState, *, final: bool) -> str:
        """What becomes of a file's end: see Job."""
        if final:
            return "once"
        if followed.seen != seen:
            return "follow"
        return "settled" if followed.held else "last" if followed.unfinished else "follow"

    def _is_settled(self, followed: FollowedFile, seen: FileState) -> bool:
        """Whether a new file was left alone for as long as one on its way to a place would not."""
        waited = time.monotonic() - followed.since if followed.since else 0.0
        age = time.time() - seen.mtime_ns / 1e9
        return followed.seen.size >= 0 or waited > _ARRIVAL_MAX or age > STABLE or waited > STABLE

    def _hold(self, followed: FollowedFile, seen: FileState) -> int:
        """Keep a file open, to read what is written before it is removed."""
        if followed.fd >= 0:
            return followed.fd
        with contextlib.suppress(OSError):  # then its reader says why
            fd = os.open(seen.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) == seen.identity:
                return fd
            os.close(fd)
        return -1

    def _take_turns(self) -> tuple[int, set[Identity]]:
        """Go on with the files that need long, each for a while; return the number of new events,
        and which files are at their ends."""
        turns = self._turns.run()
        for turn in turns:
            self._note(turn.report, is_last=turn.is_last)
            followed = self._known.get(turn.identity)
            if turn.is_last and followed is not None:
                followed.held = followed.unfinished = turn.report.left > 0
                followed.is_copy = turn.report.is_copy
        ended = {turn.identity for turn in turns if turn.is_last}
        return sum(turn.report.events for turn in turns), ended

    def _ingest(self, path: str, name: str, mode: str) -> FileReport:
        return self._worker(mode).take(path, name)

    def _begin(self, path: str, name: str, mode: str) -> Reading:
        with contextlib.suppress(OSError):
            return self._worker(mode).begin(path, name, os.stat(path).st_size)
        return self._worker(mode).begin(path, name)  # whose reader says why

    def _worker(self, mode: str) -> Ingester:
        lake = self._lake
        return Ingester(
            lake.store,
            lake.branch_name,
            lake.sealer(),
            lake.engine,
            form=self._form,
            source=self._source,
            mode=mode,
            follows=True,
            inodes=self._inodes,
        )

    def _note(self, report: FileReport, *, is_last: bool = True) -> None:
        totals = self.totals
        totals.events += report.events
        totals.quarantined += report.quarantined
        if report.nuls:
            totals.nuls += report.nuls
            self._tell(report.path, f"{report.nuls:,} NUL bytes skipped")
        if report.error == _WENT:
            return  # it was renamed or removed since the scan
        if report.error:
            self._complain(report.path, report.error)
        elif is_last:
            self._told.pop(report.path, None)
        if report.note:
            self._say(f"{report.path}: {report.note}")
        if report.quarantined:
            self._say(f"{report.path}: {report.quarantined} lines to quarantine: {report.reason}")

    def _is_arriving(self, seen: FileState) -> bool:
        """Whether a packed file new here is still being written: it is read once it stood still
        for a while, by its times or, where those are no help, by ours."""
        if seen.identity in self._known and self._known[seen.identity].seen.size >= 0:
            return False
        if not seen.path.endswith(PACKED) or time.time() - seen.mtime_ns / 1e9 > STABLE:
            return False
        waiting = self._known.get(seen.identity)
        now = time.monotonic()
        state = seen.size, seen.mtime_ns
        if waiting is None or waiting.arriving != state:
            self._known[seen.identity] = FollowedFile(seen.unread, since=now, arriving=state)
            return True
        return now - waiting.since < STABLE

    def _hold_few(self) -> None:
        """Close the files that did not change for longest, past the limit."""
        held = [followed for followed in self._known.values() if followed.fd >= 0]
        for followed in held[: -self._held_max]:
            followed_file.close(followed)

    # --- the whole ---

    def _forget(self, found: Scan) -> None:
        """Let go of what was said of paths that are there no more: compressed, or removed."""
        if not self._told:
            return
        there = map(cursors.printable, (*found.files, *found.faults, *found.ignored))
        for path in self._told.keys() - set(there):
            del self._told[path]

    def _complain(self, path: str, reason: str) -> None:
        """Say once what is wrong with a path, and store it as an event."""
        path = cursors.printable(path)
        if self._told.get(path) == reason:
            return
        self._told[path] = self.totals.faults[path] = reason
        self._tell(path, reason)

    def _tell(self, path: str, message: str) -> None:
        """Say something of a path, and store it as an event."""
        self._say(f"{path}: {message}")
        event = bookkeeping.event(bookkeeping.WATCH, path, level="WARN", message=message)
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
    return f"{lake.store.paths.cache}/watch-{lake.branch_name.replace('/', '-')}.json"


def lock_path(lake: Lake, roots: list[str]) -> str:
    """The file that a watcher of these directories holds, so that there is one alone."""
    names = "\0".join(sorted(map(os.path.realpath, roots)))
    digest = hashlib.sha256(os.fsencode(names)).hexdigest()[:16]
    return f"{lake.store.paths.cache}/watch-{digest}.lock"


def _now(seen: FileState) -> FileState | None:
    """What a file is now that was scanned a moment ago; None if its path holds another one."""
    with contextlib.suppress(OSError):
        now = seen_as(seen.path, os.stat(seen.path))
        return now if now.identity == seen.identity else None
    return None


def raise_descriptor_limit() -> None:
    """Let this process open as many files as it may."""
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
