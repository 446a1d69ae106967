"""Ingest: files go in at the engine's speed, each row once, whatever stops or repeats it.

A file is read from its cursor on; every million rows, half gigabyte or minute, one publish
commits segments, quarantined lines, identity keys and the cursor `from -> to` together. If the
cursor is no longer where this process found it (another one was faster, or a rewind), the rows
are thrown away and reading starts again from where the cursor is: at worst work is wasted.
"""

from __future__ import annotations

import glob
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

from lakelog.ingest.apart import is_apart
from lakelog.ingest.batch import FileReport, Job, Moved
from lakelog.ingest.cursors import printable
from lakelog.ingest.formats import known
from lakelog.ingest.gather import Gatherer
from lakelog.ingest.source import Source
from lakelog.store.opening import Store
from lakelog.store.seal import Sealer

_MAINTAIN_EVERY = 32
"""Files between two merges of what every publish adds."""
Progress = Callable[[int, int, int], None]


@dataclass
class IngestReport:
    """What an ingest did, in all and by file."""

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
    def skipped(self) -> int:
        """Lines taken in before, and events whose id is known."""
        return sum(f.skipped for f in self.files)


class Ingester:
    """Takes files into one branch of a lake."""

    def __init__(
        self, store: Store, branch: str, sealer: Sealer, connect: Callable[[], Any], *,
        form: str | None = None, source: str | None = None, dry_run: bool = False,
        progress: Progress | None = None, mode: str = "once",
    ) -> None:  # fmt: skip
        if form is not None:
            known.named(form)
        self._job = Job(store, branch, connect, form, source, dry_run, mode)
        self._sealer, self._progress = sealer, progress
        self._seen = self._total = 0

    def run(self, paths: list[str]) -> IngestReport:
        """Take in every file; one that cannot be read is reported, the others go on.

        Raises OSError and LakelogError when the lake itself fails; what was published is kept.
        """
        report = IngestReport()
        files = list(expand([os.fsdecode(path) for path in paths]))
        self._total = sum(map(_size, files))
        for number, path in enumerate(files):
            entry = FileReport(printable(path))
            report.files.append(entry)
            self._file(path, entry)
            self._seen += _size(path)
            if not self._job.dry_run and (number + 1) % _MAINTAIN_EVERY == 0:
                self._sealer.maintain()
        if not self._job.dry_run:
            self._sealer.maintain()
        return report

    def take(self, path: str, name: str) -> FileReport:
        """Take in one regular file that is called `name`; whoever follows it maintains the lake."""
        report = FileReport(printable(name))
        self._follow(path, name, report)
        return report

    def _file(self, path: str, report: FileReport) -> None:
        try:
            piped = path == "-" or stat.S_ISFIFO(os.stat(path).st_mode)
            stream = _opened(path) if piped else None
        except OSError as error:
            report.error = error.strerror or str(error)
            return
        if stream is None:
            self._follow(path, path, report)
            return
        with stream as file, tempfile.TemporaryFile(dir=self._job.store.layout.cache) as spool:
            shutil.copyfileobj(file, spool, 1 << 20)
            spool.flush()
            self._follow(f"/dev/fd/{spool.fileno()}", path, report)

    def _follow(self, path: str, name: str, report: FileReport) -> None:
        """Read a file from its cursor to its end, starting over as often as the cursor moves."""
        earlier, done = 0, False
        while not done:
            try:
                source = Source(path, name)
            except OSError as error:
                report.error = error.strerror or str(error)
                return
            with closing(source), closing(Gatherer(self._job, source, report)) as gatherer:
                known = max(gatherer.start.lines - report.lines, 0)
                report.skipped, earlier = report.skipped + known - earlier, known
                with suppress(Moved):
                    self._read(source, gatherer)
                    done = True
            report.error = source.broken

    def _read(self, source: Source, gatherer: Gatherer) -> None:
        """Read a file to its end. Raises Moved."""
        with closing(source.ahead(gatherer.start.bytes)) as pieces:
            for piece in pieces:
                gatherer.take(piece)
                if self._progress:
                    self._progress(self._seen + source.raw, self._total, gatherer.told)
        gatherer.finish()


def expand(paths: list[str]) -> Iterator[str]:
    """Yield files: those of directories and of patterns, sorted; hidden ones, lakes and backups
    are left out.

    What cannot be listed is yielded itself, for its reader to say why.
    """
    for path in paths:
        if os.path.isdir(path):
            yield from _below(path)
        elif path == "-" or os.path.lexists(path):
            yield path
        else:
            for found in sorted(glob.glob(path, recursive=True)) or [path]:
                if not os.path.isdir(found):
                    yield found
                elif "**" not in path:  # else what is below was found as well
                    yield from _below(found)


def _below(directory: str) -> Iterator[str]:
    closed: list[str] = []
    for folder, names, files in os.walk(directory, onerror=lambda e: closed.append(e.filename)):
        yield from closed
        closed.clear()
        if is_apart(folder):
            names.clear()
            continue
        names[:] = sorted(n for n in names if not n.startswith("."))
        for name in sorted(files):
            path = os.path.join(folder, name)
            if not name.startswith(".") and (os.path.isfile(path) or os.path.islink(path)):
                yield path
    yield from closed


def _size(path: str) -> int:
    """Bytes of a file as far as anybody knows, for progress."""
    try:
        return os.stat(path).st_size if path != "-" else 0
    except OSError:
        return 0


def _opened(path: str) -> Any:
    """What comes from elsewhere than a file, which can be read only once."""
    if path != "-":
        return open(path, "rb")
    if sys.stdin is None:
        raise OSError("standard input is closed")
    return nullcontext(sys.stdin.buffer)
