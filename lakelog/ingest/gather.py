"""One pass over one file: rows are gathered, then committed together with the cursor."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lakelog.ingest import cursors
from lakelog.ingest.batch import Batch, FileReport, Job, commit
from lakelog.ingest.cursors import WINDOW, Cursor, Start
from lakelog.ingest.formats import known
from lakelog.ingest.records import joins
from lakelog.ingest.source import Chunk, Overlong, Piece, Source
from lakelog.ingest.transform import Bad, Transformer, readable


class Gatherer:
    """One pass over one file, from where `find` says; it starts a new batch at each publish."""

    def __init__(self, job: Job, source: Source, report: FileReport) -> None:
        self._job, self._source, self._report = job, source, report
        self._batch = Batch(job)
        self._entries = job.cursors(self._batch.state)
        self._start = cursors.find(source, self._entries, job.label)
        self._place = self._start.cursor.bytes
        self._before, self._held = self._start.before, b""
        self._transformer: Transformer | None = None
        self._form, self._since, self._joins = "", 0, False
        self._pool = ThreadPoolExecutor(1)

    @property
    def start(self) -> Cursor:
        """Where the file was taken up."""
        return self._start.cursor

    @property
    def told(self) -> int:
        """Events published or gathered, for progress."""
        return self._report.events + self._batch.rows

    def take(self, piece: Piece) -> None:
        """Add a piece of the file; publish when enough is gathered. Raises Moved."""
        if isinstance(piece, Overlong):
            reason = f"a line of {piece.length:,} bytes is too long"
            if self._held and self._joins:
                held, self._held = self._held, b""
                self._take_chunk(Chunk(held, self._place), final=True)
            self._batch.wait()
            self._batch.add_bad([Bad(piece.base, reason, readable(piece.head), self.start.origin)])
            self._move(piece.base + piece.length, self._held + piece.last)
            self._batch.lines, self._held = self._batch.lines + 1, b""
        else:
            held = self._held
            again = Chunk(held + piece.data, self._place, piece.open_end) if held else piece
            self._take_chunk(again)
        if self._batch.full:
            self.flush()

    def finish(self) -> None:
        """Take what was held back for its end, now that nothing follows; publish. Raises Moved."""
        held, self._held = self._held, b""
        if held and self._joins and self._job.mode != "follow":
            open_end = not held.endswith(b"\n")
            self._take_chunk(Chunk(held, self._place, open_end), final=True)
        else:
            self._held = held
        self.flush()

    def flush(self) -> None:
        """Publish what is gathered, with the cursor. Raises Moved."""
        batch, job = self._batch, self._job
        batch.wait()
        self._report.left = len(self._held)
        if self._place == self.start.bytes:
            return
        at = dataclasses.replace(
            self.start, bytes=self._place, tail=cursors.digest(self._before),
            lines=self.start.lines + batch.lines,
        )  # fmt: skip
        if self._form:
            at = at.read_as(self._form, self._since)
        done = batch.base
        if job.dry_run:
            job.pretended[at.key] = at.entry()
            job.runs[:] = batch.runs
        else:
            done = commit(job, batch, [(self._start, at)], self._entries)
        self._count(batch)
        batch.close()
        self._start = Start(at, at, self._start.head, b"")
        self._batch = Batch(job, done)  # and no later move, for this one is where the cursor stood
        self._entries = job.cursors(self._batch.state)

    def close(self) -> None:
        """End the threads that encode and write."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._batch.close()

    def _count(self, batch: Batch) -> None:
        report = self._report
        report.events += batch.rows
        report.skipped += batch.known
        report.lines += batch.lines
        report.quarantined += len(batch.bad)
        if batch.bad and not report.reason:
            first = min(batch.bad, key=lambda bad: bad.position)
            report.reason = f"{first.reason} (at byte {first.position})"

    def _take_chunk(self, chunk: Chunk, *, final: bool = False) -> None:
        if self._transformer is None:
            self._form, form = chosen(self._job, self._start, chunk.data)
            self._report.format = form.NAME
            self._since = self._place
            self._transformer = self._job.transformer(form, self.start.origin)
            self._joins = joins(form)
        made = self._transformer.start(chunk, final=final)
        self._batch.add(made, self._pool)
        self._held = chunk.data[made.taken :]
        self._move(chunk.base + made.taken, chunk.data[max(made.taken - WINDOW, 0) : made.taken])

    def _move(self, place: int, data: bytes) -> None:
        self._place, self._before = place, (self._before + data[-WINDOW:])[-WINDOW:]


def chosen(job: Job, start: Start, data: bytes) -> tuple[str, Any]:
    """The name and rule of the format that was asked for, or else of the one that the file's first
    bytes look like, once there are enough of them: then it stays. Plain text only goes until lines
    of a known kind come."""
    taken = start.head[: start.cursor.bytes or WINDOW]
    forms, name = start.cursor.forms, job.form or ""
    if not name:
        settled = forms and start.cursor.bytes >= WINDOW and forms[-1][1] != known.LAST
        name = forms[-1][1] if settled else known.told(taken, data, start.cursor.name).NAME
    return name, known.fitted(known.named(name), taken or data)
