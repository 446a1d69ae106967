"""Watching directories: each line of each file becomes an event, exactly once, soon after it is
written.

A scan of names, sizes and times decides what changed; notifications from the file system only bring
the next scan forward. Which file a path holds is decided by inode and content (files/identity.py),
and the cursor is published in the same move as the rows. A file is read only as far as it reached
when it was scanned, so that a copy of it is recognized before the lines in the copy are read. The
files that changed last stay open, so that what was written just before their removal is still read.
An unfinished last line waits for its newline as long as somebody may write it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from lakelog.collect import followed_file
from lakelog.collect.followed_file import FileIdentity, FollowedFile, OldFiles
from lakelog.collect.status import Reporter, Say, WatchTotals
from lakelog.collect.successors import Successors
from lakelog.collect.turns import Reading, Turns
from lakelog.files import CursorIndex, FileScan, FileState, LogName, Selection, printable
from lakelog.ingest import FileReport, Ingester, Job
from lakelog.lake import Lake
from lakelog.refs import Head, only_grew

STABLE = 2.0
"""Seconds for which a copy must not have changed before it is read."""
# Seconds after which a file with a complaint is tried again, though nothing changed in it; seconds
# for which a new file is waited for at most, where clocks do not help.
GRACE = Job.GRACE
_PATIENCE, _ARRIVAL_MAX = 30.0, 5.0


class Watcher:
    """Follows the files of directories into one branch of a lake."""

    def __init__(
        self,
        lake: Lake,
        roots: list[str],
        *,
        patterns: tuple[str, ...] = ("*",),
        excluded: tuple[str, ...] = (),
        ignore_older: float | None = None,
        from_end: bool = False,
        form: str | None = None,
        source: str | None = None,
        say: Say | None = None,
        after: Callable[[FileScan], None] | None = None,
    ) -> None:
        """`after` is called with each scan, once everything new in it is ingested. `ignore_older`
        is that of OldFiles; with `from_end` a first watcher reads what is written from now on."""
        self._after = after
        self.lake, self._roots = lake, [os.path.abspath(root) for root in roots]
        self.selection = Selection(patterns, excluded)
        self._old_files, self._from_end = OldFiles(ignore_older), from_end
        self._reporter = Reporter(lake, self._roots, say or (lambda message: None))
        self._has_moved = False
        self._head: Head | None = None
        self._is_rewound = False
        self._begun: dict[str, bool] = {}
        self._successors = Successors(self._roots, source, self.selection)
        self._job = Job(lake.store, lake.branch_name, lake.engine, form, source, follows=True)
        # In the order of their last change, which decides whose descriptors are closed.
        self._known: dict[FileIdentity, FollowedFile] = {}
        self._inodes: dict[FileIdentity, str] = {}
        self._unseen: set[str] = set()
        self._turns = Turns(self._begin)
        self._open_files_max = followed_file.open_files_max()
        self.scan_seconds = 0.0
        """Processor time that the last look at all files took."""

    def round(self, *, final: bool = False) -> int:
        """Scan once and ingest what changed; return the number of new events.

        `final` also ingests last lines without a newline. Raises LakelogError and OSError only when
        the lake itself fails.
        """
        start, worked = time.monotonic(), time.thread_time()
        # Sizes are taken first and nothing is read beyond them, so that all files are as they were
        # at one moment.
        listing = self.selection.scan(self._roots)
        self._begin_round()
        self._successors.update(listing, self._known, self._index)
        if self._from_end:
            Ingester.skip_to_ends(self._job, list(listing.files.values()), self._roots)
            self._from_end = False
        self._old_files.leave_out(listing, self._known, self._index)
        due = [file for file in listing.files.values() if self._has_changed(file)]
        self.scan_seconds = time.thread_time() - worked
        missing = [f for identity, f in self._known.items() if identity not in listing.inodes]
        # Whatever existed when the size of a file was taken must be in the listing: a copy of a
        # file is then known before the bytes that it may hold are read from the file.
        if due or missing:
            due += listing.look_again(self.selection)
            self._old_files.leave_out(listing, self._known, self._index)
            due = [file for file in due if file.path in listing.files]
        # Only the second look needs them; of 20,000 files they are megabytes.
        listing.names.clear()
        self._note_inodes(listing)
        # Files without a name come first: what their last lines are must be published before a copy
        # of them is recognized.
        new, any_original_closed = self._finish(missing, listing)
        # Large files only get their turns after all small ones.
        direct, any_truncated = self._take(
            [s for s in due if not self._is_arriving(s)], final=final
        )
        by_turns, finished = self._take_turns()
        new += direct + by_turns
        if any_original_closed or any_truncated or finished:
            # A copy takes the place of its original at once, or another file might; and a file that
            # had turns may have grown meanwhile.
            reread = [f.file for f in self._known.values() if f.is_copy and f not in missing]
            reread += [file for file in listing.files.values() if file.identity in finished]
            # One that did not grow is at its end, and would have its turns without end.
            present = [
                file
                for file in filter(None, map(followed_file.stat_again, reread))
                if finished.get(file.identity) != (file.size, file.mtime_ns)
            ]
            new += self._take(present, final=final)[0]
        # A root that can be read again is worth a word, because nothing else would say that its
        # trouble is over.
        for path in self._unseen - listing.faults.keys():
            if self._complaints.pop(printable(path), None) and path in self._roots:
                self._reporter.tell(path, "there again")
        self._unseen = set(listing.faults)
        for path, reason in (listing.faults | listing.ignored).items():
            self._reporter.complain(path, reason)
        self._reporter.forget(listing)
        if self._successors.is_unsettled and not self.has_arriving_files:
            for lost_file in self._successors.lost(self._index()):
                self._reporter.lose(lost_file)
        self._tell_repeats()
        if new:
            self.lake.sealer().maintain()
        self._end_round()
        self._reporter.count(listing, start, new)
        # At the end: a backup is taken of what was ingested, not before it.
        if self._after is not None:
            self._after(self._successors.without_outside(listing))
        return new

    @property
    def totals(self) -> WatchTotals:
        """What this watcher did since it started."""
        return self._reporter.totals

    @property
    def _complaints(self) -> dict[str, str]:
        return self._reporter.complaints

    @property
    def is_unsettled(self) -> bool:
        """Whether a file is missing of which the next round may find what it became."""
        return self._has_moved or self._successors.is_unsettled

    @property
    def has_links(self) -> bool:
        """Whether links lead to followed files, of whose changes no notification may come."""
        return self._successors.has_links

    @property
    def has_arriving_files(self) -> bool:
        """Whether a file is not read yet because it may be a copy that is still being written."""
        return any(followed.file.size < 0 for followed in self._known.values())

    @property
    def has_unreadable(self) -> bool:
        """Whether a directory or file could not be read."""
        return any(not reason.startswith(FileScan.IGNORED) for reason in self._complaints.values())

    @property
    def is_behind(self) -> bool:
        """Whether a file is not read to its end, because others had their turns too."""
        return bool(self._turns)

    @property
    def has_open_ends(self) -> bool:
        """Whether the end of a file was left, to be ingested once nothing more is written behind
        it."""
        return any(followed.has_open_end for followed in self._known.values())

    @property
    def is_busy(self) -> bool:
        """Whether the work that follows a round is still in progress."""
        return bool(getattr(self._after, "is_busy", False))

    def memory(self) -> dict[str, Any]:
        """Return what a watcher needs to continue where this one is: for `remember`.

        Open files are handed over by descriptor number.
        """
        files = [followed.hand_over() for followed in self._known.values()]
        return {"totals": asdict(self.totals), "told": self._complaints, "files": files}

    def remember(self, memory: dict[str, Any]) -> None:
        """Continue where another watcher of this process, before its restart, had got to."""
        self._reporter.totals = WatchTotals(**memory["totals"])
        self._reporter.complaints = memory["told"]
        for values in memory["files"]:
            followed = FollowedFile.take_over(values)
            self._known[followed.file.identity] = followed

    def save_totals(self) -> None:
        """Write the totals to a file for others, as `round` does."""
        self._reporter.save()

    def close(self) -> None:
        """Close the files."""
        self._turns.close()
        for followed in self._known.values():
            followed_file.close(followed)
        self._known.clear()

    # --- one file ---

    def _has_changed(self, file: FileState) -> bool:
        # It is being read already, in turns.
        if self._turns and file.identity in self._turns:
            return False
        followed = self._known.get(file.identity)
        if self._is_rewound or followed is None or followed.file != file or followed.has_open_end:
            return True
        if followed.has_partial_line and self._is_ended(followed):
            return True
        has_complaint = self._complaints and printable(file.path) in self._complaints
        return bool(has_complaint) and time.monotonic() - followed.read_at > _PATIENCE

    def _is_ended(self, followed: FollowedFile) -> bool:
        """Whether nobody will write the rest of a last line: its file is rotated, was left alone
        for a while, and nobody has it open for writing, as far as the system knows."""
        quiet = time.monotonic() - followed.read_at
        if quiet < GRACE or not LogName(followed.file.path).is_rotated:
            return False
        followed.read_at = time.monotonic()  # if somebody has: ask again after as long
        return not followed_file.is_open_for_writing(followed)

    def _begin_round(self) -> None:
        self._has_moved = False
        self._look_at_branch()

    def _end_round(self) -> None:
        self._is_rewound = False
        self._look_at_branch()  # for what this round published is what a backup lacks

    def _look_at_branch(self) -> None:
        refs, earlier = self.lake.store.refs, self._head
        self._head = head = refs.head(self.lake.branch_name)
        # A rollback takes cursors back, and so does a backup that is restored, also those of files
        # in which nothing changes. Until a round has come to its end, they are all to be read.
        if earlier is None:
            self._is_rewound |= head.move.generation != 0
        else:
            self._is_rewound |= not only_grew(refs, head, earlier)

    def _index(self) -> CursorIndex:
        """The cursors of now."""
        return self._job.present()[1]

    def _tell_repeats(self) -> None:
        """Report lines of files read from their beginnings that are in the lake twice now."""
        if self._begun and not self._turns:
            started_files, self._begun = self._begun, {}
            for repeated in Ingester.tell_repeats(self._job, started_files, self._reporter.store):
                self._reporter.repeat(repeated.path, repeated.lines)

    def _note_inodes(self, listing: FileScan) -> None:
        """Record where each inode can be read, for the decision which file is which."""
        self._inodes.clear()
        for identity, followed in self._known.items():
            if followed.fd >= 0:
                self._inodes[identity] = f"/dev/fd/{followed.fd}"
        self._inodes.update(self._turns.unlinked_paths())
        # A name wins over a descriptor: it is what a user knows the file by.
        self._inodes.update((file.identity, file.path) for file in listing.files.values())
        self._job.inodes = self._inodes

    def _finish(self, missing: list[FollowedFile], listing: FileScan) -> tuple[int, bool]:
        """Read the rest of files that lost their names, through their open descriptors.

        They stay open as long as somebody may write to them, or their packed forms are not read.
        Returns the number of new events, and whether one of the files was closed for good.
        """
        new, any_closed = 0, False
        files = listing.files.values() if missing else ()
        unread = [file for file in files if not self._is_read(file)]
        for followed in missing:
            identity = followed.file.identity
            # A file in the middle of its turns keeps its reading, and gets the descriptor.
            if self._turns.mark_unlinked(identity, followed.fd):
                self._known.pop(identity)  # its descriptor is with the turns now
                continue
            if followed.fd >= 0:
                status = os.fstat(followed.fd)
                if (status.st_size, status.st_mtime_ns) != (
                    followed.file.size,
                    followed.file.mtime_ns,
                ):
                    followed.read_at = time.monotonic()
                # A program may go on writing to a file without a name until it reopens its log.
                # Where the system cannot say so, it is waited for as long as GRACE since the last
                # change.
                is_open = followed_file.is_open_for_writing(followed)
                may_grow = is_open or (
                    is_open is None and time.monotonic() - followed.read_at < GRACE
                )
                # A line behind what the packer read makes that the shorter one: only beside this
                # file it is known to be a copy.
                is_kept = followed.is_packed_in(unread)
                mode = "follow" if may_grow else "settled" if is_kept else "last"
                report = self._worker(mode).take(f"/dev/fd/{followed.fd}", followed.file.path)
                self._note(report)
                new += report.events
                if may_grow or is_kept:
                    # As of before the read: what was written since then is a change of the next
                    # round.
                    size, mtime_ns = status.st_size, status.st_mtime_ns
                    followed.file = followed.file._replace(size=size, mtime_ns=mtime_ns)
                    continue
            elif printable(followed.file.path) not in self._complaints:
                self._successors.miss(followed, self._index())
            followed_file.close(followed)
            self._known.pop(identity)
            self._inodes.pop(identity, None)
            any_closed = True
        return new, any_closed

    def _take(self, due: list[FileState], *, final: bool) -> tuple[int, bool]:
        """Ingest what changed, all of it in one publish if it is not much.

        Returns the number of new events, and whether a file turned out to be truncated.
        """
        new, any_truncated = 0, False
        # In groups, so that memory is bounded however many files changed at once.
        for start in range(0, len(due), Ingester.FILES_MAX):
            reports = self._take_together(due[start : start + Ingester.FILES_MAX], final=final)
            new += sum(report.events for report in reports)
            any_truncated = any_truncated or any(report.released for report in reports)
        return new, any_truncated

    def _take_together(self, due: list[FileState], *, final: bool) -> list[FileReport]:
        """Ingest what changed in a few files, all of it in one publish if it is not much."""
        identities = {file.path: file.identity for file in due}

        def later(path: str, name: str, mode: str) -> FileReport:
            # The group calls this for a file with too much to read at once.
            self._turns.add(identities[path], path, name, mode)
            return FileReport(printable(name))

        group = Ingester.group(self._job, later)
        results: list[tuple[FollowedFile, FileReport]] = []
        for file in due:
            followed = self._known.get(file.identity) or FollowedFile(file.unread)
            mode = followed.mode(file, final=final)
            report = group.take(
                file.path,
                file.path,
                mode,
                limit=file.size,
                expect=file.identity,
                settled=self._is_settled(followed, file),
            )
            # It may be a copy that is still being written: it stays unread, so that the next round
            # decides.
            if report.is_undecided:
                self._known[file.identity] = FollowedFile(
                    file.unread, followed.fd, followed.read_at or time.monotonic()
                )
                continue
            # Not before: an undecided file gets no descriptor.
            fd = followed.fd if followed.fd >= 0 else followed_file.open_file(file)
            current = FollowedFile(
                file, fd, time.monotonic(), mode == "follow", is_copy=report.is_copy
            )
            results.append((current, report))
            # Taken out first: a dict keeps an old place, and the order is by last change
            # (_limit_open_files).
            self._known.pop(file.identity, None)
            self._known[file.identity] = current
            # All that is known is gone through: now and then, not for each of many files.
            if len(results) % max(self._open_files_max // 2, 1) == 0:
                self._limit_open_files()
        self._limit_open_files()
        group.flush()
        # Only now: what the flush published decides how much of each file is left.
        for followed, report in results:
            followed.has_partial_line = report.left > 0
            followed.has_open_end = followed.has_open_end and report.left > 0
            if followed.file.identity not in self._turns:
                self._note(report)
        return [report for _, report in results]

    def _is_settled(self, followed: FollowedFile, file: FileState) -> bool:
        """Whether a new file was left alone longer than one that is still being moved into
        place."""
        # The file's own time is no help where a clock is wrong or the copy keeps the time of its
        # original (cp -p): then it is our own waiting that counts.
        waited = time.monotonic() - followed.read_at if followed.read_at else 0.0
        age = time.time() - file.mtime_ns / 1e9
        return followed.file.size >= 0 or waited > _ARRIVAL_MAX or age > STABLE or waited > STABLE

    def _take_turns(self) -> tuple[int, dict[FileIdentity, tuple[int, int]]]:
        """Continue with the large files, each for a while; return the number of new events, and
        which files are at their ends, with the size and mtime that they had then."""
        turns = self._turns.run()
        for turn in turns:
            self._note(turn.report, is_last=turn.is_last)
            followed = self._known.get(turn.identity)
            # What holds for files that are read at once, see _take_together.
            if turn.is_last and followed is not None:
                followed.has_partial_line = turn.report.left > 0
                followed.has_open_end = turn.mode == "follow" and turn.report.left > 0
                followed.is_copy = turn.report.is_copy
        # One that is damaged ends where it did before: it is tried again later (_has_changed).
        finished = {t.identity: t.state for t in turns if t.is_last and not t.report.error}
        return sum(turn.report.events for turn in turns), finished

    def _begin(
        self, path: str, name: str, mode: str, identity: FileIdentity, limit: int | None
    ) -> Reading:
        return Reading(*self._worker(mode).begin(path, name, limit, identity))

    def _worker(self, mode: str) -> Ingester:
        # With the cursors that this watcher has: of many files, all would be read for each.
        job = replace(self._job, mode=mode, inodes=self._inodes)
        return Ingester(job, self.lake.sealer())

    def _note(self, report: FileReport, *, is_last: bool = True) -> None:
        if report.begun_origin:
            self._begun[report.begun_origin] = report.is_doubtful
        if report.released:
            self._successors.truncate(report.path)
        # Its new name, or its absence, is in the next scan.
        if report.error == FileReport.MISSING:
            self._has_moved = True
        self._reporter.note(report, is_last=is_last)

    def _is_read(self, file: FileState) -> bool:
        """Whether a file was read before, so that it is no arrival."""
        return file.identity in self._known and self._known[file.identity].file.size >= 0

    def _is_arriving(self, file: FileState) -> bool:
        """Whether a new compressed file is still being written: it is read once it has not changed
        for a while, by its own times or, where those are no help, by ours."""
        if self._is_read(file):
            return False
        # Of a compressed file half a frame cannot be read, while plain text can be at any moment.
        if not LogName(file.path).is_packed or time.time() - file.mtime_ns / 1e9 > STABLE:
            return False
        waiting = self._known.get(file.identity)
        clock = time.monotonic()
        state = file.size, file.mtime_ns
        if waiting is None or waiting.arrival != state:
            self._known[file.identity] = FollowedFile(file.unread, read_at=clock, arrival=state)
            return True
        # Whoever packs a file keeps it open until it is complete. Where the system cannot say
        # whether it is, only time tells.
        return (
            clock - waiting.read_at < STABLE
            and followed_file.is_open_for_writing(waiting) is not False
        )

    def _limit_open_files(self) -> None:
        """Close the files whose last change is longest ago, beyond the limit."""
        with_descriptor = [followed for followed in self._known.values() if followed.fd >= 0]
        # In the order of their last change (_take_together): a file that was idle for long is the
        # least likely to be written to right before its removal.
        for followed in with_descriptor[: -self._open_files_max]:
            followed_file.close(followed)
