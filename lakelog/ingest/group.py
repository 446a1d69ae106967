"""Many short files at once: read one after the other, parsed and published together.

Short pieces of files of one format are concatenated and parsed by one query; then one publish
commits the rows of all with all cursors. A publish costs the same for any number of files, and so
does planning a query. A file that is too large, compressed, has NULs in it, or is of a format that
is specialized to its file is ingested alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

from lakelog import arrays
from lakelog.files import FileCopy, FileCursor, KnownContent, Start, UndecidedFile, printable
from lakelog.formats import FORMATS, Format
from lakelog.ingest.batch import Batch, CursorMoved, Job, is_finished
from lakelog.ingest.chunk_result import ChunkResult
from lakelog.ingest.cursor_commit import commit
from lakelog.ingest.file_report import FileReport
from lakelog.ingest.gather import choose_format
from lakelog.ingest.records import records
from lakelog.libraries import np, pa
from lakelog.lines import Chunk, Source

PIECE_MAX = 8 << 20
"""Bytes of one file that are ingested together with those of others, at most."""
BYTES_MAX = 32 << 20
"""Bytes of a group that are published together, at most."""
FILES_MAX = 250
"""Files of a group, at most: the data of each stays in memory until the publish."""
Alone = Callable[[str, str, str], FileReport]


@dataclass
class _Piece:
    """The new lines of one file, as far as they are ingested, and its next cursor."""

    path: str
    name: str
    mode: str
    report: FileReport
    form: Format
    start: Start
    at: FileCursor
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
    """Ingests short files into one branch; `flush` publishes them.

    `alone(path, name, mode)` ingests one file by itself.
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
        """Ingest one regular file that is called `name`, up to `limit` bytes; `mode` is that of
        Job. The report is complete after `flush`, which is called here when the group is full.

        If the path holds another inode than `expect`, nothing is read, and the report is undecided;
        so it is for a file that may be about to be moved, unless it is `settled`.
        """
        report = FileReport(printable(name))
        try:
            source = Source(path, name, limit=limit)
        except OSError as error:
            report.error = error.strerror or str(error)
            return report
        with closing(source):
            # A watcher saw another file under this path; what is there now is scanned next time.
            if expect is not None and source.identity != expect:
                report.is_undecided = True
                return report
            together = self._read(source, path, report, mode, settled)
        # The group is published first: this file may continue one of its files, whose cursor has to
        # stand by then.
        if not together:
            self.flush()
            return self._alone(path, name, mode)
        report.error = source.broken
        if self._bytes >= BYTES_MAX or len(self._pieces) >= FILES_MAX:
            self.flush()
        return report

    def flush(self) -> None:
        """Publish the group; files whose cursors moved meanwhile are read again. Raises
        LakelogError and OSError when the lake itself fails."""
        # Reset before anything can fail, so that an error does not publish a file twice.
        batch, self._batch = self._batch, None
        new_lines, self._pieces = self._pieces, []
        cursor_moves, self._cursor_moves = self._cursor_moves, []
        self._keys, self._bytes = set(), 0
        if batch is None:
            return
        with closing(batch):
            index = self._resolver.index
            if not new_lines and not cursor_moves:
                self._job.cache.keep(batch.state.digest, index)
                return
            # One query for each format, since planning one costs more than running it over short
            # files.
            for form in {id(same_form.form): same_form.form for same_form in new_lines}.values():
                self._decide(
                    batch, form, [same_form for same_form in new_lines if same_form.form is form]
                )
            moves = [(move.start, move.start.cursor) for move in cursor_moves]
            moves += [(same_form.start, _counted(same_form)) for same_form in new_lines]
            if self._job.dry_run:
                for _, cursor in moves:
                    index.add(cursor)
                self._job.cache.keep(batch.state.digest, index)
                self._job.runs[:] = batch.runs
                return
            try:
                commit(self._job, batch, moves, index)
                return
            except CursorMoved:
                pass
            finally:
                _give_back(len(new_lines))
        # Together they would lose the race again because of one file; alone each of them follows
        # its own cursor.
        unpublished: list[_CursorMove | _Piece] = [*cursor_moves, *new_lines]
        for item in unpublished:
            report = self._alone(item.path, item.name, item.mode)
            item.report.__dict__.update(report.__dict__)

    def _read(
        self, source: Source, path: str, report: FileReport, mode: str, settled: bool
    ) -> bool:
        """Read what is new in a file; False if it has to be ingested alone."""
        # The batch comes first: its base is the state that all of the group is decided by.
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
        report.is_copy = isinstance(decision, FileCopy)
        place = start.cursor.bytes
        data = b"" if report.is_copy else _new_data(source, start)
        # All empty files have one key; read alone, again and again, each would seem to have grown.
        if not data and data is not None and not start.is_due(follows=self._job.follows):
            report.skipped = start.cursor.lines
            return True
        # A cursor that changes twice needs a publish in between.
        touched = {c.key for c in (start.cursor, start.replaced, *start.released) if c}
        if data is None or touched & self._keys:
            return False
        report.note, report.released = start.note, len(start.released)
        if start.replaced is None and data:
            report.begun_origin, report.is_doubtful = start.cursor.origin, bool(start.note)
        self._keys |= touched
        report.skipped = start.cursor.lines
        if not data:
            self._mark(path, source.name, mode, report, start)
            return True
        if b"\0" in data:
            return False
        self._batch.begin(start)
        name, form = choose_format(self._job, start, data)
        # Actions and documents are paired in Python, which one query over many files cannot do.
        if form.traits.pairs:
            self._keys -= touched
            return False
        # Asked last, for only here does the answer matter: it is a system call for each file.
        if mode == "once" and is_finished(source):
            mode = "ended"
        chunk = Chunk(data, place, not data.endswith(b"\n"))
        # Records without their rows say where the cursor goes; the rows follow in _decide.
        complete = records(chunk, form, mode, final=mode != "follow")
        report.format = source.container or form.label
        if not place:
            report.note = report.note or FORMATS.zone_note(form, data[: Source.WINDOW])
        report.left = len(data) - complete.length
        if mode == "ended" and data[complete.length :].strip():
            self._keys -= touched
            return False  # its last line is no event: that is published with care
        if complete.length:
            data = data[: complete.length]
            cursor = _cursor_after(start, data, name)
            lines = len(complete.lines)
            new_lines = _Piece(path, source.name, mode, report, form, start, cursor, data, lines)
            self._pieces.append(new_lines)
            # The next file is matched against where this one will be after the publish.
            self._resolver.apply(start, cursor)
            self._bytes += len(data)
        else:
            self._mark(path, source.name, mode, report, start)
        return True

    def _mark(self, path: str, name: str, mode: str, report: FileReport, start: Start) -> None:
        """Add a cursor that is to be published though nothing was read."""
        if start.is_due(follows=self._job.follows):
            self._cursor_moves.append(_CursorMove(path, name, mode, report, start))
            self._resolver.apply(start, start.cursor)

    def _decide(self, batch: Batch, form: Format, members: list[_Piece]) -> None:
        """Turn the lines of files of one format into rows and bad lines."""
        # A last line without its newline would run into the first line of the next file.
        ended = [p.data if p.data.endswith(b"\n") else p.data + b"\n" for p in members]
        begins = np.array([0, *itertools.accumulate(map(len, ended))])
        # Seams keep a record of one file from being continued by lines of the next.
        chunk = Chunk(b"".join(ended), 0, seams=tuple(begins[:-1].tolist()))
        files = {begin: p.start.before for begin, p in zip(begins.tolist(), members, strict=False)}
        heads = {begin: p.start.head for begin, p in zip(begins.tolist(), members, strict=False)}
        transformer = self._job.transformer(form, "", files=files, heads=heads)
        result = transformer.start(chunk, final=True).finish()
        counts = np.zeros(len(members), np.int64)
        if result.table is not None:
            places = arrays.numbers(result.table["position"])
            index = _within(begins, places)
            # The query saw positions in the concatenation; rows carry those of their own file and
            # its origin.
            shift = np.array([p.start.cursor.bytes for p in members]) - begins[:-1]
            origins = arrays.texts([p.at.origin for p in members])
            for name, values in (
                ("position", arrays.integers(places + shift[index])),
                ("origin", origins.take(arrays.integers(index))),
            ):
                column = result.table.schema.get_field_index(name)
                result.table = result.table.set_column(column, name, values)
            counts += np.bincount(index, minlength=len(members))
        # Before the batch takes the bad lines: quarantined lines carry origin and position, too.
        counts += self._assign_bad(result, members, begins)
        new = batch.take(result)
        self._count_bad(result, members)
        events_by_origin, arrivals_by_origin = dict[str, int](), dict[str, int]()
        if new is not None:
            events_by_origin = _counts(new["origin"])
            arrivals_by_origin = _counts(new["origin"].filter(arrays.mask(arrays.arrived(new))))
        for member, rows in zip(members, counts.tolist(), strict=True):
            report = member.report
            report.events = events_by_origin.get(member.at.origin, 0)
            report.arrivals = arrivals_by_origin.get(member.at.origin, 0)
            report.erased = batch.erased[member.at.origin]
            report.skipped += rows - report.events - report.erased - report.quarantined
            # Blank lines count as lines; records of many events count as their rows.
            report.lines = max(member.lines, rows)

    def _assign_bad(
        self, result: ChunkResult, members: list[_Piece], begins: np.ndarray
    ) -> np.ndarray:
        """Assign bad lines to their files; return how many each has."""
        index = _within(begins, np.array([b.position for b in result.bad], np.int64))
        for bad, number in zip(result.bad, index.tolist(), strict=True):
            member = members[number]
            bad.position += member.start.cursor.bytes - int(begins[number])
            bad.origin = member.at.origin
        return np.bincount(index, minlength=len(members))

    def _count_bad(self, result: ChunkResult, members: list[_Piece]) -> None:
        """Count the bad lines that the batch took for the reports of their files."""
        reports = {member.at.origin: member.report for member in members}
        for bad in result.bad:
            report = reports[bad.origin]
            report.quarantined += 1
            if not report.reason:
                report.reason = f"{bad.reason} (at byte {bad.position})"


def _is_read(source: Source, start: Start) -> bool:
    """Whether nothing is new in a file; a compressed one is judged by its inode, size and time."""
    if not source.compression:
        return source.size <= start.cursor.bytes
    old = start.replaced
    return old is not None and (*old.identity, old.size, old.mtime) == (
        *source.identity,
        source.size,
        source.mtime,
    )


def _new_data(source: Source, start: Start) -> bytes | None:
    """What is new in a file; None if it has to be ingested alone."""
    bytes_max = min(PIECE_MAX, Source.CHUNK)
    if _is_read(source, start):
        return b""
    if source.compression and not start.cursor.bytes and not source.read(1) and not source.broken:
        return b""  # an empty one, of which no cursor says that it was read
    if (
        source.compression
        or source.size - start.cursor.bytes > bytes_max
        or start.cursor.unfinished
    ):
        return None
    # One byte more than is allowed shows a file that grew since it was measured.
    data = source.read(bytes_max + 1)
    return None if len(data) > bytes_max or source.is_shrunk else data


def _cursor_after(start: Start, data: bytes, form: str) -> FileCursor:
    """The cursor after data that was read at its place, in a format."""
    place, crc = start.cursor.bytes, start.cursor.crc
    before = (start.before + data[-Source.WINDOW :])[-Source.WINDOW :]
    crc = None if crc is None else zlib.crc32(data, crc)
    return start.cursor.moved(place + len(data), before, crc).read_as(form, place)


def _counts(values: pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs."""
    return {pair["values"]: pair["counts"] for pair in values.value_counts().to_pylist()}


def _give_back(files: int) -> None:
    """Return memory to the system where many more files may follow."""
    if files >= FILES_MAX:
        # glibc and Arrow keep freed memory for reuse: over many files that looks like a leak.
        pa.default_memory_pool().release_unused()
        with contextlib.suppress(AttributeError):  # not of this C library
            ctypes.CDLL(None).malloc_trim(0)


def _within(begins: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Which piece each place is in."""
    return np.searchsorted(begins, places, "right") - 1


def _counted(member: _Piece) -> FileCursor:
    """The cursor of a piece with its number of lines."""
    return replace(member.at, lines=member.start.cursor.lines + member.report.lines)
