"""Ingest: files are read at the engine's speed, each row exactly once, whatever stops or repeats
it.

A file is read from its cursor on; every million rows, half gigabyte or minute, one publish commits
segments, quarantined lines, identity keys and the cursor `from -> to` together. If the cursor has
moved meanwhile (another process was faster, or the branch was rewound), the rows are discarded and
reading starts again from where the cursor is: at worst work is wasted.
"""

from __future__ import annotations

import functools
import glob
import os
import stat
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

from lakelog.disk import Folder
from lakelog.event import Event
from lakelog.files import Selection, printable
from lakelog.ingest.batch import CursorMoved, Job, finishing
from lakelog.ingest.file_report import FileReport
from lakelog.ingest.gather import Gatherer
from lakelog.ingest.group import FILES_MAX, Group
from lakelog.ingest.repeats import compare as repeats_of
from lakelog.ingest.repeats import report as tell_repeats
from lakelog.ingest.skip import skip_to_ends
from lakelog.ingest.spool import PipedSource, Spool
from lakelog.lines import Hole, Source
from lakelog.maintain import Sealer

_MAINTAIN_EVERY = 32
"""Files between two rounds of maintenance: merging the entries that each publish adds."""
_PAUSE = 0.1
"""Seconds between two reports of progress after files."""
IngestProgress = Callable[[int, int, int], None]


@dataclass
class IngestReport:
    """The result of an ingest, in total and by file."""

    files: list[FileReport] = field(default_factory=list)

    @property
    def events(self) -> int:
        """New events."""
        return sum(f.events for f in self.files)

    @property
    def quarantined(self) -> int:
        """Lines that are no events."""
        return sum(f.quarantined for f in self.files)

    @property
    def arrivals(self) -> int:
        """New events whose time is that of their ingest, as none was found in their lines."""
        return sum(f.arrivals for f in self.files)

    @property
    def skipped(self) -> int:
        """Lines ingested before, and events whose id is known."""
        return sum(f.skipped for f in self.files)

    @property
    def erased(self) -> int:
        """Events and quarantined lines that are refused, as they were erased."""
        return sum(f.erased for f in self.files)


class Ingester:
    """Ingests files into one branch of a lake. Those of jobs that share a cache share the cursors
    in it."""

    FILES_MAX = FILES_MAX
    skip_to_ends = staticmethod(skip_to_ends)
    tell_repeats = staticmethod(tell_repeats)
    repeats_of = staticmethod(repeats_of)

    def __init__(
        self,
        job: Job,
        sealer: Sealer,
        *,
        progress: IngestProgress | None = None,
        stop: Callable[[], bool] = lambda: False,
        append: Callable[[Sequence[Event]], object] = lambda events: None,
    ) -> None:
        """Once `stop` says so, what came until then is published, and nothing more is read. What a
        run has to say of itself in the lake, `append` stores."""
        self._job, self._stop = job, stop
        self._sealer, self._progress, self._append = sealer, progress, append
        self._bytes_done = self._total = 0
        self._reported_at = 0.0
        self._requested: set[str] = set()

    def run(self, paths: list[str]) -> IngestReport:
        """Ingest every file; one that cannot be read is reported, and the others continue.

        Raises OSError and LakelogError when the lake itself fails; what was published is kept.
        """
        report = IngestReport()
        requested = [os.fsdecode(path) for path in paths]
        files, self._requested = list(self.expand(requested, special=True)), set(requested)
        # Progress counts bytes: files of a directory may differ by a factor of a million.
        self._total = sum(map(_size, files))
        group = Group(self._job, self._alone)
        for number, path in enumerate(files):
            if self._stop():
                break
            report.files.append(self._file(path, group))
            self._bytes_done += _size(path)
            # Each publish adds a manifest entry or more; without merging them in between, thousands
            # of files would make every later publish slower.
            if not self._job.dry_run and (number + 1) % _MAINTAIN_EVERY == 0:
                self._sealer.maintain()
            self._show(report, is_last=number + 1 == len(files))
        group.flush()
        if not self._job.dry_run:
            self._report_repeats(report)
            self._sealer.maintain()
        return report

    @staticmethod
    def group(job: Job, alone: Callable[[str, str, str], FileReport]) -> Group:
        """Return what publishes short files together; `alone` reads what is no short one."""
        return Group(job, alone)

    def _report_repeats(self, report: IngestReport) -> None:
        """Report the lines of files read from their beginnings that are in the lake twice now."""
        file_by_origin = {file.begun_origin: file for file in report.files if file.begun_origin}
        doubts = {origin: file.is_doubtful for origin, file in file_by_origin.items()}
        for repeated in self.tell_repeats(self._job, doubts, self._append):
            file_by_origin[repeated.origin].repeated = repeated.lines

    def _show(self, report: IngestReport, *, is_last: bool) -> None:
        """Report progress after a file; not after each of thousands: a report counts all of
        them."""
        clock = time.monotonic()
        if self._progress and (is_last or clock - self._reported_at > _PAUSE):
            self._reported_at = clock
            self._progress(self._bytes_done, self._total, report.events)

    def take(self, path: str, name: str) -> FileReport:
        """Ingest one regular file that is called `name`; the caller maintains the lake."""
        report = FileReport(printable(name))
        for _ in self._steps(path, name, report):
            pass
        return report

    def begin(
        self, path: str, name: str, limit: int | None = None, expect: tuple[int, int] | None = None
    ) -> tuple[Generator[int, bool], FileReport]:
        """Start to ingest, a turn at a time, one regular file that is called `name`, up to
        `limit` bytes of it. If the path holds another inode than `expect`, nothing is read."""
        report = FileReport(printable(name))
        return self._steps(path, name, report, limit=limit, expect=expect), report

    def _file(self, path: str, group: Group) -> FileReport:
        """Ingest one file; a short one is published with others, at the group's next flush."""
        report = FileReport(printable(path))
        try:
            mode = stat.S_IFIFO if path == "-" else os.stat(path).st_mode
            # A named pipe below a directory is not opened: nobody may ever write to it.
            piped = stat.S_ISFIFO(mode) and path in self._requested
            if stat.S_ISDIR(mode):
                os.listdir(path)  # which is what failed, or else it would not be here
            if not piped and path not in self._requested and (irregular := Source.kind_of(mode)):
                report.ignored = f"left out: it is {irregular}"
                return report
            stream = _opened(path) if piped else None
        except OSError as error:
            report.error = error.strerror or str(error)
            return report
        if stream is None:
            return group.take(path, path, self._job.mode)
        # A pipe is published by itself, after the files before it.
        group.flush()
        paths = self._job.store.paths
        in_memory = paths.keys is not None  # an encrypted lake has no plain byte on disk
        with (
            stream as file,
            closing(Spool(file, paths.cache, self._stop, in_memory=in_memory)) as spool,
        ):
            self._stream(spool, path, report)
        return report

    def _stream(self, spool: Spool, name: str, report: FileReport) -> None:
        """Read what comes through a pipe, lines as they come."""
        spool.fill(Source.WINDOW)
        # What came before may come again, and is known by all of its content.
        candidates = self._job.present()[1].alike(spool.head, self._job.label)
        spool.fill(max((cursor.bytes for cursor in candidates), default=0))
        with closing(Source(spool.path)) as source:
            is_plain = not source.compression
        # What is packed is known by its end alone to be whole.
        if not is_plain:
            spool.fill_all()
        for _ in self._steps(
            spool.path, name, report, piped=True, spool=spool if is_plain else None
        ):
            pass

    def _alone(self, path: str, name: str, mode: str) -> FileReport:
        """Ingest a file that is too large, or of another kind, to be published with others."""
        del mode  # that of the job, which the group was given
        return self.take(path, name)

    def _steps(
        self,
        path: str,
        name: str,
        report: FileReport,
        *,
        piped: bool = False,
        spool: Spool | None = None,
        limit: int | None = None,
        expect: tuple[int, int] | None = None,
    ) -> Generator[int, bool]:
        """Read a file, or what comes through a pipe, from its cursor to its end, starting over as
        often as the cursor moves.

        Yields the size of each piece; what was gathered is published when True is sent.
        """
        earlier, is_finished = 0, False
        while not is_finished:
            try:
                source = (
                    PipedSource(spool, name)
                    if spool
                    else Source(path, name, piped=piped, limit=limit)
                )
            except OSError as error:
                report.error = error.strerror or str(error)
                return
            # A watcher saw another file under this path: what is there now is not in its scan, by
            # which it is decided whose copy or successor a file is.
            if expect is not None and source.identity != expect:
                source.close()
                report.error = FileReport.MISSING
                return
            job = finishing(self._job, source)
            with closing(source), closing(Gatherer(job, source, report)) as gatherer:
                # Nothing to read, but the cursor may have to follow a rename.
                if gatherer.is_idle:
                    with suppress(CursorMoved):  # then the next look finds what it is now
                        gatherer.flush()
                    return
                lines_before = max(gatherer.start.lines - report.lines, 0)
                # Starting over must not count the lines before the cursor again.
                report.skipped, earlier = report.skipped + lines_before - earlier, lines_before
                with suppress(CursorMoved):
                    yield from self._read(source, gatherer)
                    is_finished = True
            report.error, report.note = source.broken, report.note or source.remark

    def _read(self, source: Source, gatherer: Gatherer) -> Generator[int, bool]:
        """Read a file to its end. Raises CursorMoved."""
        if isinstance(source, PipedSource):
            source.idle = functools.partial(_publish, source, gatherer)
        with closing(source.ahead(gatherer.start.bytes)) as upcoming:
            for current in upcoming:
                gatherer.take(current)
                if self._stop() and not source.piped:
                    gatherer.flush()
                    return
                if self._progress:
                    self._progress(self._bytes_done + source.raw, self._total, gatherer.event_count)
                # What nobody wrote takes no time, however long it is.
                size = 0 if isinstance(current, Hole) else current.length
                # Whoever drives the generator sends True to publish; it then stays at the same
                # piece.
                while (yield size):
                    gatherer.flush()
                    size = 0
        gatherer.finish()

    @staticmethod
    def expand(
        paths: list[str], *, special: bool = False, selection: Selection | None = None
    ) -> Iterator[str]:
        """Yield files: those of directories and of patterns, sorted; hidden ones, lakes and backups
        are left out, what a `selection` excludes, and what is no file, unless `special`.

        What cannot be listed is yielded itself, for its reader to say why.
        """
        filters = selection or Selection()
        for path in paths:
            if os.path.isdir(path):
                yield from _below(path, special, filters)
            elif path == "-" or os.path.lexists(path):
                if path == "-" or not filters.is_excluded(os.path.abspath(path)):
                    yield path
            else:
                for match in sorted(glob.glob(path, recursive=True)) or [path]:
                    if filters.is_excluded(os.path.abspath(match)):
                        continue
                    if not os.path.isdir(match):
                        yield match
                    elif "**" not in path:  # else what is below was found as well
                        yield from _below(match, special, filters)


def _publish(source: PipedSource, gatherer: Gatherer, is_quiet: bool) -> None:
    """Publish what came through a pipe; with its last record if nothing came for a while. Raises
    CursorMoved."""
    if is_quiet:
        gatherer.settle()
    gatherer.flush()
    source.free(gatherer.start)


def _below(directory: str, special: bool, selection: Selection) -> Iterator[str]:
    closed: list[str] = []
    for folder, names, files in Folder(directory).walk(lambda e: closed.append(str(e.filename))):
        yield from closed
        closed.clear()
        # A lake below a watched directory would ingest its own segments.
        if Selection.is_apart(folder):
            names.clear()
            continue
        place = os.path.abspath(folder)
        names[:] = [n for n in names if n[0] != "." and not selection.is_excluded(f"{place}/{n}")]
        for name in files:
            path = os.path.join(folder, name)
            if name.startswith(".") or selection.is_excluded(f"{place}/{name}"):
                continue
            if special or _is_file_or_lost(path):
                yield path
    yield from closed


def _is_file_or_lost(path: str) -> bool:
    """Whether a path names a file, or a link that leads nowhere, of which its reader says so."""
    return os.path.isfile(path) or not os.path.exists(path)


def _size(path: str) -> int:
    """Bytes of a file as far as anybody knows, for progress."""
    try:
        status = os.stat(path) if path != "-" else None
        return status.st_size if status and stat.S_ISREG(status.st_mode) else 0
    except OSError:
        return 0


def _opened(path: str) -> Any:
    """Open standard input or a pipe, which can be read only once."""
    if path != "-":
        # Without waiting for a writer, as a signal could not end that.
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
    if sys.stdin is None:
        raise OSError("standard input is closed")
    return nullcontext(sys.stdin.buffer)
