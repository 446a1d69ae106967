"""What many files brought at once: read one after the other, decided and published together.

Short pieces of files of one format are put one behind the other and decided by one query; then
one publish commits the rows of all with all cursors. A publish costs the same however many files
it is of, and so does planning a query. Whoever is too large, packed, has NULs in it, or is of a
format that is fitted to its file goes alone, as ingest does it.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lakelog.ingest import source as sources
from lakelog.ingest import stripes
from lakelog.ingest.batch import Batch, CursorMoved, FileReport, Job, commit, is_finished
from lakelog.ingest.cursors import WINDOW, Cursor, Start, printable
from lakelog.ingest.formats import bulk
from lakelog.ingest.formats.local_time import zone_note
from lakelog.ingest.formats.registry import label
from lakelog.ingest.gather import chosen
from lakelog.ingest.identity import FileCopy, KnownContent, UndecidedFile
from lakelog.ingest.records import records
from lakelog.ingest.source import Chunk, Source
from lakelog.ingest.transform import ChunkResult
from lakelog.lazy import Lazy

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
else:
    pa = Lazy("pyarrow")
    np = Lazy("numpy")

PIECE_MAX = 8 << 20
"""Bytes of one file that are taken together with those of others."""
BYTES_MAX = 32 << 20
"""Bytes that are gathered before they are published."""
FILES_MAX = 250
"""Files that are gathered before they are published: what is kept of each is kept till then."""
Alone = Callable[[str, str, str], FileReport]


@dataclass
class _Piece:
    """What one file brought: its lines as far as they are taken, and where its cursor goes."""

    path: str
    name: str
    mode: str
    report: FileReport
    form: Any
    start: Start
    at: Cursor
    data: bytes
    lines: int


@dataclass
class _CursorMove:
    """A file of which only the cursor changes."""

    path: str
    name: str
    mode: str
    report: FileReport
    start: Start


class Group:
    """Takes in files of one branch; what they brought is published by `flush`.

    `alone(path, name, mode)` takes in one file by itself.
    """

    def __init__(self, job: Job, alone: Alone) -> None:
        self._job, self._alone = replace(job, mode="last"), alone
        self._batch: Batch | None = None
        self._pieces: list[_Piece] = []
        self._cursor_moves: list[_CursorMove] = []
        self._keys: set[str] = set()
        self._bytes = 0

    def take(
        self,
        path: str,
        name: str,
        mode: str,
        *,
        limit: int | None = None,
        expect: tuple[int, int] | None = None,
        settled: bool = True,
    ) -> FileReport:
        """Take in one regular file that is called `name`, up to `limit` bytes; `mode` is that of
        Job. The report is complete after `flush`, which is done here when much is gathered.

        If the path holds another inode than the one to `expect`, nothing is read, and the report
        is undecided; so it is of a file on its way to another place, unless it is `settled`.
        """
        report = FileReport(printable(name))
        try:
            source = Source(path, name, limit=limit)
        except OSError as error:
            report.error = error.strerror or str(error)
            return report
        with closing(source):
            if expect is not None and source.identity != expect:
                report.is_undecided = True
                return report
            together = self._read(source, path, report, mode, settled)
        if not together:
            self.flush()
            return self._alone(path, name, mode)
        report.error = source.broken
        if self._bytes >= BYTES_MAX or len(self._pieces) >= FILES_MAX:
            self.flush()
        return report

    def flush(self) -> None:
        """Publish what was gathered; files whose cursors moved meanwhile are read again. Raises
        LakelogError and OSError when the lake itself fails."""
        batch, self._batch = self._batch, None
        pieces, self._pieces = self._pieces, []
        cursor_moves, self._cursor_moves = self._cursor_moves, []
        self._keys, self._bytes = set(), 0
        if batch is None:
            return
        with closing(batch):
            index = self._resolver.index
            if not pieces and not cursor_moves:
                self._job.cache.keep(batch.state.digest, index)
                return
            for form in {id(piece.form): piece.form for piece in pieces}.values():
                self._decide(batch, form, [piece for piece in pieces if piece.form is form])
            moves = [(mark.start, mark.start.cursor) for mark in cursor_moves]
            moves += [(piece.start, _counted(piece)) for piece in pieces]
            if self._job.dry_run:
                for _, at in moves:
                    index.add(at)
                self._job.cache.keep(batch.state.digest, index)
                self._job.runs[:] = batch.runs
                return
            try:
                commit(self._job, batch, moves, index)
                return
            except CursorMoved:
                pass
            finally:
                _give_back(len(pieces))
        again: list[_CursorMove | _Piece] = [*cursor_moves, *pieces]
        for one in again:
            report = self._alone(one.path, one.name, one.mode)
            one.report.__dict__.update(report.__dict__)

    def _read(
        self, source: Source, path: str, report: FileReport, mode: str, settled: bool
    ) -> bool:
        """Read what is new in a file; False if it has to go alone."""
        if self._batch is None:
            self._batch = Batch(self._job)
            self._resolver = self._job.resolver(self._batch.state)
        decision = self._resolver.resolve(source, settled=settled)
        if isinstance(decision, KnownContent | UndecidedFile):
            report.is_undecided = isinstance(decision, UndecidedFile)
            if isinstance(decision, KnownContent):
                if decision.cursor.key in self._keys:
                    return False  # how many lines it has is known once it is published
                report.same_as, report.skipped = decision.cursor.name, decision.cursor.lines
            return True
        start = decision.start if isinstance(decision, FileCopy) else decision
        # A cursor that changes twice needs a publish in between.
        touched = {c.key for c in (start.cursor, start.replaced, *start.released) if c}
        if touched & self._keys:
            return False
        report.note, report.released = start.note, len(start.released)
        report.is_copy = isinstance(decision, FileCopy)
        place = start.cursor.bytes
        most = min(PIECE_MAX, sources.CHUNK)
        if report.is_copy or _is_read(source, start):
            data = b""
        elif source.compression or source.size - place > most or start.cursor.unfinished:
            return False
        else:
            data = source.read(most + 1)
            if len(data) > most or source.is_shrunk:
                return False
        self._keys |= touched
        report.skipped = start.cursor.lines
        if not data:
            self._mark(path, source.name, mode, report, start)
            return True
        if b"\0" in data:
            return False
        name, form = chosen(self._job, start, data)
        if form is bulk:
            self._keys -= touched
            return False
        if mode == "once" and is_finished(source):
            mode = "ended"
        chunk = Chunk(data, place, not data.endswith(b"\n"))
        found = records(chunk, form, mode, final=mode != "follow")
        report.format = source.container or label(form)
        if not place:
            report.note = report.note or zone_note(form, data[:WINDOW])
        report.left = len(data) - found.taken
        if mode == "ended" and data[found.taken :].strip():
            self._keys -= touched
            return False  # its last line is no event: that is published with care
        if found.taken:
            data = data[: found.taken]
            before = (start.before + data[-WINDOW:])[-WINDOW:]
            crc = start.cursor.crc
            crc = None if crc is None else zlib.crc32(data, crc)
            at = start.cursor.moved(place + len(data), before, crc).read_as(name, place)
            lines = len(found.lines)
            piece = _Piece(path, source.name, mode, report, form, start, at, data, lines)
            self._pieces.append(piece)
            self._resolver.apply(start, at)
            self._bytes += len(data)
        else:
            self._mark(path, source.name, mode, report, start)
        return True

    def _mark(self, path: str, name: str, mode: str, report: FileReport, start: Start) -> None:
        """Remember a cursor that is to be published though nothing was read."""
        if start.is_due(follows=self._job.follows):
            self._cursor_moves.append(_CursorMove(path, name, mode, report, start))
            self._resolver.apply(start, start.cursor)

    def _decide(self, batch: Batch, form: Any, pieces: list[_Piece]) -> None:
        """Turn the lines of files of one format into rows and bad lines."""
        ended = [p.data if p.data.endswith(b"\n") else p.data + b"\n" for p in pieces]
        begins = np.array([0, *itertools.accumulate(map(len, ended))])
        chunk = Chunk(b"".join(ended), 0, seams=tuple(begins[:-1].tolist()))
        files = {at: p.start.before for at, p in zip(begins.tolist(), pieces, strict=False)}
        made = self._job.transformer(form, "", files=files).start(chunk, final=True).finish()
        counts = np.zeros(len(pieces), np.int64)
        if made.table is not None:
            places = np.asarray(made.table["position"])
            index = _within(begins, places)
            shift = np.array([p.start.cursor.bytes for p in pieces]) - begins[:-1]
            origins = pa.array([p.at.origin for p in pieces], pa.string())
            for name, values in (
                ("position", stripes.integers(places + shift[index])),
                ("origin", origins.take(stripes.integers(index))),
            ):
                column = made.table.schema.get_field_index(name)
                made.table = made.table.set_column(column, name, values)
            counts += np.bincount(index, minlength=len(pieces))
        self._set_aside(made, pieces, begins)
        new = batch.take(made)
        stored = dict[str, int]()
        if new is not None:
            stored = {c["values"]: c["counts"] for c in new["origin"].value_counts().to_pylist()}
        for piece, rows in zip(pieces, counts.tolist(), strict=True):
            report = piece.report
            report.events = stored.get(piece.at.origin, 0)
            report.skipped += rows - report.events
            report.lines = max(piece.lines, rows + report.quarantined)

    def _set_aside(self, made: ChunkResult, pieces: list[_Piece], begins: np.ndarray) -> None:
        """Lay bad lines to their files."""
        index = _within(begins, np.array([b.position for b in made.bad], np.int64))
        for bad, at in zip(made.bad, index.tolist(), strict=True):
            piece = pieces[at]
            bad.position += piece.start.cursor.bytes - int(begins[at])
            bad.origin = piece.at.origin
            piece.report.quarantined += 1
            if not piece.report.reason:
                piece.report.reason = f"{bad.reason} (at byte {bad.position})"


def _is_read(source: Source, start: Start) -> bool:
    """Whether nothing is new in a file; a packed one is not unpacked again to know it."""
    if not source.compression:
        return source.size <= start.cursor.bytes
    old = start.replaced
    return old is not None and (*old.identity, old.size, old.mtime) == (
        *source.identity,
        source.size,
        source.mtime,
    )


def _give_back(files: int) -> None:
    """Give memory back to the system where many more files may follow."""
    if files >= FILES_MAX:
        pa.default_memory_pool().release_unused()
        with contextlib.suppress(AttributeError):  # not of this C library
            ctypes.CDLL(None).malloc_trim(0)


def _within(begins: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Which piece each place is in."""
    return np.searchsorted(begins, places, "right") - 1


def _counted(piece: _Piece) -> Cursor:
    """The cursor of a piece with the lines it took."""
    return replace(piece.at, lines=piece.start.cursor.lines + piece.report.lines)
