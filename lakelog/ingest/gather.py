"""One pass over one file: rows are batched, then committed together with the cursor."""

from __future__ import annotations

import dataclasses
import os
from codecs import BOM_UTF8
from concurrent.futures import ThreadPoolExecutor

from lakelog.files import FileCopy, FileCursor, KnownContent, Start, UndecidedFile
from lakelog.formats import FORMATS, Format
from lakelog.ingest import split_worker, splits
from lakelog.ingest.batch import Batch, CursorMoved, Job
from lakelog.ingest.chunk_result import ChunkResult, RejectedLine
from lakelog.ingest.cursor_commit import commit
from lakelog.ingest.definitions import LakeFormat
from lakelog.ingest.file_report import FileReport
from lakelog.ingest.records import joins
from lakelog.ingest.split_worker import SplitLoad
from lakelog.ingest.transform import Transformer, readable
from lakelog.lines import Checksum, Chunk, Hole, Overlong, Pause, Piece, Source, Split, visible

_TOO_LONG = "the line behind it is too long"
UNFINISHED = "the last line has no newline and is no event: it is read again once it goes on"


class Gatherer:
    """One pass over one file, from where its cursor is; each publish starts a new batch."""

    def __init__(self, job: Job, source: Source, report: FileReport) -> None:
        self._job, self._source, self._report = job, source, report
        self._batch = Batch(job)
        self.is_idle = False
        """Whether there is nothing to read in the file."""
        self._resolver = job.resolver(self._batch.state)
        self._is_index_whole = True
        """Whether the cursors are those of the batch's state."""
        # The batch first: the cursors that are looked up here are those that its publish compares
        # with.
        self._start = self._decide(self._resolver.resolve(source))
        if source.is_removed and job.mode == "last":
            # Once it is closed its inode's number may be that of another file.
            self._start = dataclasses.replace(self._start, cursor=self._start.cursor.released())
        self._batch.begin(self._start)
        self._place = self._start.cursor.bytes
        self._before, self._pending = self._start.before, b""
        self._transformer: Transformer | None = None
        self._form, self._since, self._joins = "", 0, False
        self._is_binary = False
        self._nuls = self._end_hole = 0
        self._pool = ThreadPoolExecutor(1)
        self._crc = Checksum(self._start.cursor.crc, self._pool)
        self._splits: splits.Splits | None = None

    def _decide(self, decision: Start | FileCopy | KnownContent | UndecidedFile) -> Start:
        """Where reading starts; the report says why a file is not read."""
        report = self._report
        if isinstance(decision, Start):
            report.note, report.released = decision.note, len(decision.released)
            if decision.replaced is None:
                report.begun_origin, report.is_doubtful = (
                    decision.cursor.origin,
                    bool(decision.note),
                )
            return decision
        self.is_idle = True
        if isinstance(decision, FileCopy):
            report.is_copy = True
            return decision.start
        if isinstance(decision, KnownContent):
            report.same_as = decision.cursor.name
            report.skipped += decision.cursor.lines
            return Start(decision.cursor, decision.cursor, b"", b"")
        report.is_undecided = True
        return Start(self._resolver.index.new_cursor(self._source, b"", None), None, b"", b"")

    @property
    def start(self) -> FileCursor:
        """The cursor at which reading started."""
        return self._start.cursor

    @property
    def event_count(self) -> int:
        """Events published or gathered, for progress."""
        return self._report.events + self._batch.rows

    def take(self, current: Piece) -> None:
        """Add a piece of the file; publish when the batch is full. Raises CursorMoved."""
        if isinstance(current, Pause):
            return
        if isinstance(current, Overlong):
            self._take_part(current)
        elif isinstance(current, Hole):
            self._take_hole(current)
        elif isinstance(current, Split):
            self._take_split(current)
        else:
            pending = self._pending
            if current.open_end and self._source.broken:
                # What follows cannot be read now: a line that it cuts is none.
                end = current.data.rfind(b"\n") + 1
                current = Chunk(current.data[:end], current.base)
            # A pending record is parsed again together with what follows it; it is short,
            # RECORD_MAX at most for text.
            joined = (
                Chunk(pending + current.data, self._place, current.open_end) if pending else current
            )
            self._take_chunk(joined)
        if self._batch.full:
            self.flush()

    def _take_part(self, overlong: Overlong) -> None:
        """Quarantine a part of an overlong line."""
        if overlong.number == 1:
            self._end_pending(_TOO_LONG)
            self._batch.lines += 1
        reason = f"a line of over {Source.LINE_MAX:,} bytes is too long: part {overlong.number:,}"
        self._add_bad(reason, overlong.base, overlong.data)

    def _take_hole(self, hole: Hole) -> None:
        """Skip NULs. At the end of a file they may still be overwritten, so they stay unread,
        unless nothing more comes."""
        if hole.at_end and self._job.mode != "last":
            self._end_hole = hole.length
            return
        # In a binary record NULs are data; in text they separate lines.
        if (
            self._is_binary
            and len(self._pending) + hole.length <= Source.LINE_MAX
            and not hole.at_end
        ):
            self._pending += bytes(hole.length)
            return
        self._end_pending("a hole of NULs follows")
        self._nuls += hole.length
        # The CRC covers holes as well, but a hole may be larger than any disk.
        self._crc.add_zeros(hole.length)
        self._move(hole.base + hole.length, bytes(min(hole.length, Source.WINDOW)))

    def _take_split(self, split: Split) -> None:
        """Add lines that another process loads."""
        self._batch.insert(split, self._pool)
        end = split.base + split.length
        self._crc.add_sum(lambda: split.answer.result().crc, split.length)
        self._move(end, os.pread(self._source.descriptor, Source.WINDOW, end - Source.WINDOW))

    def _end_pending(self, reason: str) -> None:
        """Ingest the pending record, of which no more comes; what is still no event is
        quarantined."""
        pending, self._pending = self._pending, b""
        if pending:
            self._take_chunk(Chunk(pending, self._place), final=True)
        pending, self._pending = self._pending, b""
        if pending:
            self._add_bad(f"it has no end: {reason}", self._place, pending)

    def _add_bad(self, reason: str, place: int, data: bytes) -> None:
        # The pool still adds the chunk before: bad lines stay in the order of the file.
        self._batch.wait()
        bad = [RejectedLine(place, reason, readable(data), self.start.origin)]
        self._batch.add_bad(self._batch.accepted(bad))
        self._crc.add([data], len(data))
        self._move(place + len(data), data)

    def settle(self) -> None:
        """Ingest the pending record: nothing came behind it for a while."""
        pending, self._pending = self._pending, b""
        if pending and self._joins:
            self._take_chunk(Chunk(pending, self._place), final=True)
        else:
            self._pending = pending

    def finish(self) -> None:
        """Ingest the pending record, as nothing follows; publish. Raises CursorMoved."""
        pending, self._pending = self._pending, b""
        if pending and self._joins and self._job.mode != "follow" and not self._source.broken:
            open_end = not pending.endswith(b"\n")
            self._take_chunk(Chunk(pending, self._place, open_end), final=True)
        else:
            self._pending = pending
        self.flush(is_end=True)

    def _add_unfinished(self, batch: Batch) -> int:
        """Quarantine the rest of a file that nobody writes to, unless it is there already; return
        its size in bytes."""
        unfinished_text = self._pending.strip().removeprefix(BOM_UTF8)
        if (
            self._job.mode != "ended"
            or self._source.broken
            or self._end_hole
            or not unfinished_text
        ):
            return 0  # or somebody keeps room after it, to write there later
        size = len(self._pending)
        if self._place == self.start.bytes and size == self.start.unfinished:
            return size
        bad = RejectedLine(self._place, UNFINISHED, readable(self._pending), self.start.origin)
        batch.unfinished += batch.accepted([bad])
        return size

    def flush(self, *, is_end: bool = False) -> None:
        """Publish the batch with the cursor; at the end of a finished file also a last line that
        is no event. Raises CursorMoved."""
        batch, job = self._batch, self._job
        # Counts and bad lines are complete only now.
        batch.wait()
        if refused := batch.wait_for_splits():
            self._report.alone = refused + splits.ALONE
            raise CursorMoved
        self._report.left = len(self._pending) + self._end_hole
        start = self._start
        unfinished = self._add_unfinished(batch) if is_end else 0
        self._report.left -= unfinished
        is_same = self._place == self.start.bytes and unfinished == self.start.unfinished
        # What is left is looked at again, though nothing changes in the file.
        is_read = is_end and not (self._source.broken or self._report.left)
        # The last turn may have ended where the file does, before anybody knew.
        is_said = bool(self.start.mtime) or not (is_read and self._source.compression)
        # Nothing changed, so that looking at an idle file costs no publish.
        if is_same and is_said and not start.is_due(follows=job.follows):
            return
        if self._source.is_shrunk:
            raise CursorMoved  # what was read may be of two files: look at it again
        cursor = start.cursor
        # The line was read again: the same publish removes its quarantined beginning (FORMAT.md
        # F18.8).
        if start.cursor.unfinished and not is_same:
            start = dataclasses.replace(start, ended=start.cursor.tail_key)
        if self._place != cursor.bytes:
            cursor = cursor.moved(self._place, self._before, self._crc.value())
        cursor = dataclasses.replace(cursor, lines=cursor.lines + batch.lines)
        if self._source.broken or self._source.compression:
            # Where there is more, it is looked into again.
            cursor = dataclasses.replace(cursor, mtime=self._source.mtime if is_read else 0)
        if not is_same:
            cursor = dataclasses.replace(cursor, unfinished=unfinished, tail_key="")
        if self._form:
            cursor = cursor.read_as(self._form, self._since)
        base_now = batch.base
        if job.dry_run:
            # Nothing is published, but the next file has to see this cursor and these ids.
            self._resolver.index.add(cursor)
            job.runs[:] = batch.runs
        else:
            # Whatever interrupts a commit may have changed a part of them.
            self._is_index_whole = False
            base_now = commit(job, batch, [(start, cursor)], self._resolver.index)
            # commit() may have added to the cursor, such as the segment of an unfinished line.
            cursor = self._resolver.index.get(cursor.key) or cursor
        self._count(batch)
        batch.close()
        # From here on the cursor that was published is the one to replace; nothing is released
        # twice.
        self._start = Start(cursor, cursor, self._start.head, b"")
        # Our own move and no later one: the cursors were looked up after this one.
        self._batch = Batch(job, base_now)
        self._batch.begin(self._start)
        self._resolver, self._is_index_whole = job.resolver(self._batch.state), True

    def close(self) -> None:
        """End the threads that encode and write, and other processes."""
        if self._splits:
            self._splits.close()
        # For the next file: reading them again costs more than a short file does.
        if self._is_index_whole:
            self._job.cache.give_back(self._batch.state.digest, self._resolver.index)
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._batch.close()

    def _count(self, batch: Batch) -> None:
        report = self._report
        report.events += batch.rows
        report.arrivals += batch.arrivals
        report.skipped += batch.skipped
        report.erased += batch.erased.total()
        report.lines += batch.lines
        bad = [*batch.bad, *batch.unfinished]
        report.quarantined += len(bad)
        report.nuls, self._nuls = report.nuls + self._nuls, 0
        if bad and not report.reason:
            first_bad = min(bad, key=lambda bad_line: bad_line.position)
            report.reason = f"{first_bad.reason} (at byte {first_bad.position})"

    def _take_chunk(self, chunk: Chunk, *, final: bool = False) -> None:
        # Chosen at the first chunk of text and not before: a file may begin with a hole or an
        # overlong line, which say nothing of its format.
        if self._transformer is None:
            self._form, form = choose_format(self._job, self._start, visible(chunk.data))
            self._report.format = self._source.container or form.label
            if not self._place:
                note = FORMATS.zone_note(form, visible(chunk.data[: Source.WINDOW]))
                self._report.note = self._report.note or note
            self._since = self._place
            # Rows that are not stored are shown, with payloads as text.
            schemas = None if self._job.dry_run else self._batch.schemas
            self._transformer = self._job.transformer(
                *(form, self.start.origin, self._before),
                schemas=schemas,
                heads={0: self._start.head},
            )
            self._joins, self._is_binary = joins(form), form.traits.binary
        # The length is known before the rows are: the next piece can be read while the pool
        # finishes these.
        result = self._transformer.start(chunk, final=final)
        self._begin_splits(result)
        self._source.chunk = self._splits.chunk if self._splits else self._transformer.chunk
        self._batch.add(result, self._pool)
        self._pending = chunk.data[result.length :]
        self._nuls += 0 if self._is_binary else chunk.hole_bytes(result.length)
        self._crc.add([memoryview(chunk.data)[: result.length]], result.length)
        self._move(
            chunk.base + result.length,
            chunk.data[max(result.length - Source.WINDOW, 0) : result.length],
        )

    def _begin_splits(self, result: ChunkResult) -> None:
        """Let other processes load a part of a long file whose lines are like those of a chunk."""
        job, transformer, source = self._job, self._transformer, self._source
        is_plain = not source.compression and source.limit is None
        is_whole = job.mode in ("once", "ended") and not (job.dry_run or job.follows)
        is_cut = transformer is not None and transformer.chunk == Source.SHORT and result.lines
        if self._splits or not (is_plain and is_whole and is_cut) or job.conformance:
            return
        fields = result.fields
        load = SplitLoad(
            # A path could name another file meanwhile.
            f"/proc/{os.getpid()}/fd/{source.descriptor}",
            job.store.paths.root,
            self._batch.target,
            self.start.origin,
            tuple(self.start.earlier_origins(self._start.head)),
            job.label,
            (fields.schema.to_json(),) if fields else (),
        )
        span = max(self._place, self._report.alone), source.size
        line = result.length / result.lines
        self._splits = source.splits = split_worker.begin(
            load, line, span, job.store.settings.threads
        )

    def _move(self, place: int, data: bytes) -> None:
        self._place, self._before = place, (self._before + data[-Source.WINDOW :])[-Source.WINDOW :]


def choose_format(job: Job, start: Start, data: bytes) -> tuple[str, Format]:
    """Choose the format of a file: the one requested, else the one that the lake defines for it,
    else the one detected from its first bytes, which is final once there are enough of them. Plain
    text applies only until lines of a known kind come. Returns its name and the format."""
    consumed = visible(start.head[: start.cursor.bytes or Source.WINDOW])
    definition = job.definition(start.cursor.name)
    name = FORMATS.name_of(definition) if definition else ""
    forced = bool(name)
    if not name:
        # A format that was once chosen from enough bytes stays, else a file could change its format
        # when only its newest lines are looked at.
        last_name = start.cursor.forms[-1][1] if start.cursor.forms else FORMATS.LAST
        is_open = FORMATS.is_last(last_name) or LakeFormat.is_gone(last_name, job.formats)
        settled = start.cursor.bytes >= Source.WINDOW and not is_open
        file_name = start.cursor.name
        name = last_name if settled else FORMATS.name_in(definition, consumed, data, file_name)
        name = FORMATS.completed(name, definition)
    # The beginning of the file and not of this chunk: headers and the first element stand there.
    form = FORMATS.specialize(FORMATS.by_name(name), consumed or data)
    return name, FORMATS.tolerant(form, start.cursor.name, forced=forced)
