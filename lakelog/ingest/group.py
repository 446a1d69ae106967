"""What many files brought at once: read one after the other, decided and published together.

Short pieces of files of one format are put one behind the other and decided by one query; then
one publish commits the rows of all with all cursors. A publish costs the same however many files
it is of, and so does planning a query. Whoever is too large, packed, or of a format that is
fitted to its file goes alone, as ingest does it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lakelog.ingest import cursors
from lakelog.ingest.batch import Batch, FileReport, Job, Moved, commit
from lakelog.ingest.cursors import WINDOW, Cursor, Start, printable
from lakelog.ingest.formats import bulk
from lakelog.ingest.gather import chosen
from lakelog.ingest.records import records
from lakelog.ingest.source import Chunk, Source
from lakelog.ingest.transform import Made
from lakelog.store.manifest import Entry

if TYPE_CHECKING:
    import numpy as np

PIECE_MAX = 8 << 20
"""Bytes of one file that are taken together with those of others."""
BYTES_MAX = 32 << 20
"""Bytes that are gathered before they are published."""
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


class Group:
    """Takes in files of one branch; what they brought is published by `flush`.

    `alone(path, name, mode)` takes in one file by itself.
    """

    def __init__(self, job: Job, alone: Alone) -> None:
        self._job, self._alone = replace(job, mode="last"), alone
        self._batch: Batch | None = None
        self._entries: list[Entry] = []
        self._pieces: list[_Piece] = []
        self._pending: dict[str, Entry] = {}
        self._bytes = 0

    def take(self, path: str, name: str, mode: str) -> FileReport:
        """Take in one regular file that is called `name`; `mode` is that of Job. The report is
        complete after `flush`, which is done here when much is gathered."""
        report = FileReport(printable(name))
        try:
            source = Source(path, name)
        except OSError as error:
            report.error = error.strerror or str(error)
            return report
        with closing(source):
            together = not source.compression and self._read(source, path, report, mode)
        if not together:
            self.flush()
            return self._alone(path, name, mode)
        report.error = source.broken
        if self._bytes >= BYTES_MAX:
            self.flush()
        return report

    def flush(self) -> None:
        """Publish what was gathered; files whose cursors moved meanwhile are read again. Raises
        LakelogError and OSError when the lake itself fails."""
        batch, self._batch = self._batch, None
        pieces, self._pieces = self._pieces, []
        self._pending, self._bytes = {}, 0
        if batch is None:
            return
        with closing(batch):
            if not pieces:
                return
            for form in {id(piece.form): piece.form for piece in pieces}.values():
                self._decide(batch, form, [piece for piece in pieces if piece.form is form])
            moves = [(piece.start, _counted(piece)) for piece in pieces]
            try:
                commit(self._job, batch, moves, self._entries)
                return
            except Moved:
                pass
        for piece in pieces:
            again = self._alone(piece.path, piece.name, piece.mode)
            piece.report.__dict__.update(again.__dict__)

    def _read(self, source: Source, path: str, report: FileReport, mode: str) -> bool:
        """Read what is new in a file; False if it has to go alone."""
        if self._batch is None:
            self._batch = Batch(self._job)
            self._entries = self._job.cursors(self._batch.state)
        known = [*self._entries, *self._pending.values()]
        start = cursors.find(source, known, self._job.label)
        if start.replaced is not None and start.replaced.key in self._pending:
            return False
        place = start.cursor.bytes
        data = source.read(PIECE_MAX + 1) if source.size - place <= PIECE_MAX else b""
        if len(data) > PIECE_MAX or source.size - place > PIECE_MAX:
            return False
        if not data:
            return True
        name, form = chosen(self._job, start, data)
        if form is bulk:
            return False
        chunk = Chunk(data, place, not data.endswith(b"\n"))
        found = records(chunk, form, mode, final=mode != "follow")
        report.format, report.left = form.NAME, len(data) - found.taken
        if found.taken:
            data = data[: found.taken]
            at = replace(
                start.cursor, bytes=place + len(data),
                tail=cursors.digest((start.before + data[-WINDOW:])[-WINDOW:]),
            ).read_as(name, place)  # fmt: skip
            lines = len(found.lines)
            piece = _Piece(path, source.name, mode, report, form, start, at, data, lines)
            self._pieces.append(piece)
            self._pending[at.key] = at.entry()
            self._bytes += len(data)
        return True

    def _decide(self, batch: Batch, form: Any, pieces: list[_Piece]) -> None:
        """Turn the lines of files of one format into rows and bad lines."""
        import numpy as np
        import pyarrow as pa

        ended = [p.data if p.data.endswith(b"\n") else p.data + b"\n" for p in pieces]
        begins = np.array([0, *itertools.accumulate(map(len, ended))])
        chunk = Chunk(b"".join(ended), 0, seams=tuple(begins[:-1].tolist()))
        made = self._job.transformer(form, "").start(chunk, final=True).finish()
        counts = np.zeros(len(pieces), np.int64)
        if made.table is not None:
            places = np.asarray(made.table["position"])
            index = _within(begins, places)
            shift = np.array([p.start.cursor.bytes for p in pieces]) - begins[:-1]
            origins = pa.array([p.at.origin for p in pieces]).take(pa.array(index))
            for name, values in (
                ("position", pa.array(places + shift[index])),
                ("origin", origins),
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
            report.skipped = rows - report.events
            report.lines = max(piece.lines, rows + report.quarantined)

    def _set_aside(self, made: Made, pieces: list[_Piece], begins: np.ndarray) -> None:
        """Lay bad lines to their files."""
        import numpy as np

        index = _within(begins, np.array([b.position for b in made.bad], np.int64))
        for bad, at in zip(made.bad, index.tolist(), strict=True):
            piece = pieces[at]
            bad.position += piece.start.cursor.bytes - int(begins[at])
            bad.origin = piece.at.origin
            piece.report.quarantined += 1
            if not piece.report.reason:
                piece.report.reason = f"{bad.reason} (at byte {bad.position})"


def _within(begins: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Which piece each place is in."""
    import numpy as np

    return np.searchsorted(begins, places, "right") - 1


def _counted(piece: _Piece) -> Cursor:
    """The cursor of a piece with the lines it took."""
    return replace(piece.at, lines=piece.start.cursor.lines + piece.report.lines)
