"""Ingest: files go in at the engine's speed, each row once, whatever stops or repeats it.

A file is read from its cursor on; every million rows, or minute, one publish commits segments,
quarantined lines, identity keys and the cursor `from -> to` together. If the cursor is no longer
where this process found it (another one was faster, or a rewind), the rows are thrown away and
reading starts again from where the cursor is: at worst work is wasted.
"""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lakelog.errors import InvalidSetting
from lakelog.ingest import cursors
from lakelog.ingest.cursors import WINDOW, Cursor
from lakelog.ingest.formats import bulk, jsonl, oos
from lakelog.ingest.source import Broken, Chunk, Overlong, Piece, Source
from lakelog.ingest.transform import Bad, Batch, Transformer, readable
from lakelog.store import disk, idrun, rows, segment
from lakelog.store.manifest import Entry, Manifest
from lakelog.store.opening import Store
from lakelog.store.publish import Change, publish, still_there
from lakelog.store.refs import Head
from lakelog.store.seal import Sealer, drop_known, open_run

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = {form.NAME: form for form in (jsonl, oos, bulk)}
ROWS_MAX = 1_000_000
SECONDS_MAX = 60.0
_SNIFFED = 50
Progress = Callable[[int, int, int], None]


@dataclass
class FileReport:
    """What became of one file: new events, quarantined lines, known ones skipped."""

    path: str
    format: str = ""
    events: int = 0
    quarantined: int = 0
    skipped: int = 0
    left: int = 0
    """Bytes of an unfinished last line, left for next time."""
    error: str = ""


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


class _Moved(Exception):
    """The cursor is not where it was found: start again from where it is."""


class Ingester:
    """Takes files into one branch of a lake."""

    def __init__(
        self, store: Store, branch: str, sealer: Sealer, connect: Callable[[], Any], *,
        form: str | None = None, source: str | None = None, dry_run: bool = False,
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        if form is not None and form not in FORMATS:
            raise InvalidSetting(f"no format {form!r}: choose from {', '.join(FORMATS)}")
        self._store, self._branch, self._sealer = store, branch, sealer
        self._connect, self._form, self._label = connect, form, source
        self._dry_run, self._progress = dry_run, progress
        self._seen = self._total = self._events = 0

    def run(self, paths: list[str]) -> IngestReport:
        """Take in every file; one that cannot be read is reported, the others go on."""
        report = IngestReport()
        files = list(expand(paths))
        self._total = sum(os.path.getsize(f) for f in files if os.path.isfile(f))
        for path in files:
            entry = FileReport(path)
            report.files.append(entry)
            try:
                self._file(path, entry)
            except OSError as error:
                entry.error = error.strerror or str(error)
            self._seen += os.path.getsize(path) if os.path.isfile(path) else 0
        if not self._dry_run:
            self._sealer.maintain()
        return report

    def _file(self, path: str, report: FileReport) -> None:
        if path != "-":
            self._follow(path, path, report)
            return
        with tempfile.TemporaryFile(dir=self._store.layout.cache) as spool:
            shutil.copyfileobj(_standard_input(), spool, 1 << 20)
            spool.flush()
            self._follow(f"/proc/self/fd/{spool.fileno()}", path, report)

    def _follow(self, path: str, name: str, report: FileReport) -> None:
        """Read a file from its cursor to its end, starting over as often as the cursor moves."""
        while True:
            source = Source(path, name)
            try:
                self._read(source, report)
                return
            except _Moved:
                continue
            finally:
                source.close()

    def _read(self, source: Source, report: FileReport) -> None:
        state = self._state()
        known = {c.key: c for c in map(cursors.of_entry, self._entries(state))}
        start, replaced = cursors.find(source, known, self._label)
        work = _Work(self, source, start, replaced, report)
        if not report.skipped:
            report.skipped = start.lines
        try:
            for piece in source.pieces(start.bytes):
                work.take(piece)
                self._tell(source, work)
            work.flush()
        finally:
            work.close()
        report.left = max(work.left, 0)

    def _state(self) -> Manifest:
        head = self._store.refs.head(self._branch)
        return self._store.manifests.load(head.move.snapshot)

    def _entries(self, state: Manifest) -> list[Entry]:
        return self._store.manifests.entries(state, "cursor")

    def _tell(self, source: Source, work: _Work) -> None:
        if self._progress:
            self._progress(self._seen + source.raw, self._total, work.told)


class _Work:
    """One pass over one file: rows gathered since the last publish."""

    def __init__(
        self, owner: Ingester, source: Source, start: Cursor, replaced: Cursor | None,
        report: FileReport,
    ) -> None:  # fmt: skip
        self._owner, self._source, self._report = owner, source, report
        self._at, self._replaced = start, replaced
        self._place = start.bytes
        self._before = b""
        self._transformer: Transformer | None = None
        self._pool = ThreadPoolExecutor(1)
        self.left = 0
        self._reset()

    @property
    def told(self) -> int:
        """Events published or gathered, for progress."""
        return self._report.events + self._batch.rows

    def take(self, piece: Piece) -> None:
        """Add a piece of the file; publish when enough is gathered."""
        if isinstance(piece, Chunk):
            self._take_chunk(piece)
        elif isinstance(piece, Overlong):
            reason = f"a line of {piece.length} bytes is too long"
            self._batch.bad.append(Bad(piece.base, reason, readable(piece.head)))
            self._moved_to(piece.base + piece.length, piece.last)
        elif isinstance(piece, Broken):
            self._batch.bad.append(Bad(piece.base, piece.reason, ""))
            self._report.error = piece.reason
        if self._gathered >= ROWS_MAX or time.monotonic() - self._since > SECONDS_MAX:
            self.flush()

    def flush(self) -> None:
        """Publish what is gathered, with the cursor. Raises _Moved."""
        table, entries = self._finish()
        batch = self._batch
        if self._owner._dry_run:
            self._count(table, batch)
        elif self._place != self._at.bytes or batch.bad:
            self._publish(table, entries, batch)
        self._reset()

    def close(self) -> None:
        """End the encoding thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _reset(self) -> None:
        self._batch = Batch()
        self._since = time.monotonic()
        self._gathered = 0
        self._duplicates = 0
        self._tables: list[pa.Table] = []
        self._runs: list[tuple[Any, Any]] = []
        self._builder: segment.Builder | None = None
        self._pending: list[Future[None]] = []
        self._commit = disk.random_hex()
        self._base = self._owner._state()

    def _take_chunk(self, chunk: Chunk) -> None:
        if self._transformer is None:
            form = self._choose(chunk)
            self._report.format = form.NAME
            label = {} if self._owner._label is None else {"source": self._owner._label}
            connection = self._owner._connect()
            self._transformer = Transformer(connection, form, self._at.key, label)
        made = Batch(bad=self._batch.bad)
        taken = self._transformer.run(chunk, made)
        self._batch.lines += made.lines
        for table in made.tables:
            self._add(table)
        self.left = len(chunk.data) - taken
        self._moved_to(chunk.base + taken, chunk.data[:taken])

    def _choose(self, chunk: Chunk) -> Any:
        if self._owner._form:
            return FORMATS[self._owner._form]
        lines = chunk.data[: 1 << 18].split(b"\n")[:_SNIFFED]
        return max(FORMATS.values(), key=lambda form: form.sniff(lines))

    def _add(self, table: pa.Table) -> None:
        """Drop events whose id is known, hand the rest to the encoder."""
        before = table.num_rows
        if table["key"].null_count < before:
            table = self._new_only(table)
        self._duplicates += before - table.num_rows
        self._gathered += before
        if not table.num_rows or self._owner._dry_run:
            self._tables.append(table)
            return
        if self._builder is None:
            self._builder = segment.Builder("events", "arrival", self._commit)
        for done in self._pending:
            done.result()
        self._pending = [self._pool.submit(self._builder.add, table)]
        self._tables.append(table)

    def _new_only(self, table: pa.Table) -> pa.Table:
        table = drop_known(self._owner._store, table, self._base.ids, self._runs)
        keys = rows.key_arrays(table["key"].drop_null())
        if len(keys[0]):
            self._runs.append(idrun.ordered(*keys))
        return table

    def _moved_to(self, place: int, data: bytes) -> None:
        self._place = place
        self._before = (self._before + data[-WINDOW:])[-WINDOW:]

    def _finish(self) -> tuple[pa.Table | None, list[Entry]]:
        """Wait for the encoder and write the segments."""
        import pyarrow as pa

        for done in self._pending:
            done.result()
        table = pa.concat_tables(self._tables) if self._tables else None
        entries: list[Entry] = []
        layout = self._owner._store.layout
        if self._builder is not None and table is not None:
            data = self._builder.finish()
            entries.append(segment.put(layout, data, table, "events", "arrival"))
        if self._batch.bad and not self._owner._dry_run:
            bad = bad_table(self._batch.bad, self._at.key)
            entries.append(
                segment.write(layout, bad, kind="quarantine", order="arrival", commit=self._commit)
            )
        return table, entries

    def _publish(self, table: pa.Table | None, entries: list[Entry], batch: Batch) -> None:
        store, branch = self._owner._store, self._owner._branch
        cursor = self._cursor(batch)
        steps = [cursor.entry()]
        if self._replaced is not None and self._replaced.key != cursor.key:
            steps.insert(0, cursors.removal(self._replaced))
        ids = self._id_run()

        def plan(head: Head, state: Manifest) -> Change | None:
            if not self._holds(state) or not still_there(store, entries):
                return None
            name = os.path.basename(cursor.name)
            return Change("ingest", name, (*entries, *steps), ids_add=tuple(ids))

        if publish(store, branch, plan) is None:
            raise _Moved
        files = [(e["key"], store.layout.object("segments", e["key"])) for e in entries]
        store.marks.add_all(files)
        self._at = self._replaced = cursor
        self._count(table, batch)

    def _count(self, table: pa.Table | None, batch: Batch) -> None:
        self._report.events += table.num_rows if table is not None else 0
        self._report.quarantined += len(batch.bad)
        self._report.skipped += self._duplicates

    def _id_run(self) -> list[Entry]:
        if not self._runs:
            return []
        high, low = idrun.merge(self._runs)
        return [idrun.write(self._owner._store.layout, high, low, self._commit)]

    def _holds(self, state: Manifest) -> bool:
        """Whether the cursor stands where we found it and nobody brought one of our ids."""
        known = {e["key"]: e for e in self._owner._entries(state)}
        old = self._replaced
        there = known.get(old.key if old else self._at.key)
        if (there is None) != (old is None) or (there and old and there["bytes"] != old.bytes):
            return False
        had = {run["digest"] for run in self._base.ids}
        fresh = [run for run in state.ids if run["digest"] not in had]
        if not self._runs or not fresh:
            return True
        high, low = idrun.merge(self._runs)
        return not any(
            idrun.found(open_run(self._owner._store, run), high, low).any() for run in fresh
        )

    def _cursor(self, batch: Batch) -> Cursor:
        """The cursor after this batch; its tail is that of the bytes before its place."""
        tail = cursors.digest(self._before)
        if len(self._before) < min(WINDOW, self._place):
            tail = cursors.tail_at(self._source.path, self._place)
        return Cursor(
            self._at.key, self._place, self._at.head_len, tail, self._at.lines + batch.lines,
            self._source.name, self._source.size,
        )  # fmt: skip


def expand(paths: list[str]) -> Iterator[str]:
    """Yield files: those of directories (hidden ones left out) and of patterns, sorted."""
    for path in paths:
        if path == "-" or os.path.isfile(path):
            yield path
        elif os.path.isdir(path):
            for folder, names, files in os.walk(path):
                names[:] = sorted(n for n in names if not n.startswith("."))
                yield from (f"{folder}/{f}" for f in sorted(files) if not f.startswith("."))
        else:
            yield from sorted(glob.glob(path, recursive=True)) or [path]


def bad_table(bad: list[Bad], origin: str) -> pa.Table:
    """Return quarantined lines as rows of a quarantine segment."""
    import pyarrow as pa

    now = disk.now_us()
    columns = {
        "ingested_at": pa.array([now] * len(bad), pa.timestamp("us", "UTC")),
        "origin": [origin] * len(bad),
        "position": [b.position for b in bad],
        "reason": [b.reason for b in bad],
        "line": [b.line for b in bad],
    }
    return pa.table(columns, schema=segment.schema("quarantine"))


def _standard_input() -> Any:
    import sys

    return sys.stdin.buffer
