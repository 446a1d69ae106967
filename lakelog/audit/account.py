"""The account of one file in an audit: its lines on one side, the lake's rows on the other.

What counts as a line is what ingest treats as one: every line that is not blank; of _bulk requests
every document and every line that has no action before it; of formats whose events span lines or
share one every event; a line that is too long. Where an ingest consumed a last line without newline
and more was appended later, both parts are lines; so is what was appended to an ingested record.

A line without a row is known only if its key is in the identity runs and some row has that id,
because the key of a row that was lost stays in the runs. Lines that another format can read are
judged by that format, as a replay of quarantined lines would. After a retention, an event older
than its cutoff counts as let go, and so do one without a time of its own, a line that is no event,
and a key whose row is gone: nothing says any more when they were ingested. After a dedupe an event
counts as let go if the lake still has a row that is equal by one of the keys it was deduped by.
What an erasure knows counts as let go, too.
"""

from __future__ import annotations

import itertools
from codecs import BOM_UTF8
from collections.abc import Callable
from contextlib import closing
from typing import Any

from lakelog.audit.absent_lines import AbsentLines
from lakelog.audit.file_audit import (
    FileAudit,
    full_lines,
    integers,
    line_at,
    result_places,
    sorted_places,
)
from lakelog.audit.stored_rows import StoredRows
from lakelog.database import Connect
from lakelog.files import FileCursor
from lakelog.formats import FORMATS, BulkAction, Format
from lakelog.ingest import ChunkResult, Transformer
from lakelog.libraries import np, pa
from lakelog.lines import Chunk, Hole, Overlong, Pause, Piece, Source, Split, visible

_SNIFFED, _SAMPLE = 50, 1 << 18
_HEADS = 8
"""Events of a record that are looked at to see when it was ingested."""


class Account:
    """Compares one file with the positions of its origin; `line` is a retention's cutoff, in us,
    `refused` says which rows the lake's erasures leave out."""

    def __init__(
        self,
        file: FileAudit,
        number: int,
        places: StoredRows,
        cursor: FileCursor | None,
        line: int | None,
        refused: Callable[[pa.Table], np.ndarray],
    ) -> None:
        self.file, self._places, self.cursor = file, places, cursor
        self.absent = AbsentLines(file, number, places, line, refused)
        if cursor is not None:
            self._cursor = cursor
            self.absent.origin = cursor.origin
            file.stored, file.quarantined, file.arrival = places.counts(cursor.origin)

    def without_file(self) -> None:
        """Check the lake's side alone: each position once, and no more positions than lines."""
        file, cursor = self.file, self._cursor
        file.lines = cursor.lines
        # Without lines to compare with, more positions than the cursor counted are the only sign
        # that rows were invented.
        positions = self._places.within(cursor.origin, 0, cursor.bytes)
        places, counts = np.unique(positions, return_counts=True)
        file.note("doubled", places[counts > 1])
        file.note("foreign", np.unique(self._places.outside(cursor.origin, cursor.bytes)))
        file.foreign += max(len(places) - cursor.lines, 0)

    def stored_twice(self, path: str) -> None:
        """Report that all lines of a file that is gone were stored again, from another one."""
        self.file.note("doubled", self._places.within(self._cursor.origin, 0, self._cursor.bytes))
        self.file.gone += f"; its lines are stored again from {path}"

    def read(
        self, source: Source, connect: Connect, form: Format | None, head: bytes, beyond: int = 0
    ) -> None:
        """Read the file up to its cursor and compare; `form` is given if it was forced. Of a copy
        that is shorter than what was read of its original, rows up to `beyond` are no fault."""
        # Detection at ingest saw no byte beyond the cursor, so what was written since must not
        # change which format is chosen.
        head = visible(head[: self._cursor.bytes])
        self._connect, self._head, self._forced = connect, head, form is not None
        self._form = FORMATS.specialize(form, head) if form else FORMATS.JSON_LINES
        self._is_chosen = self._forced
        self._transformers: dict[Any, Transformer] = {}
        self._pending, self._parts = b"", list[int]()
        file, covered = self.file, 0
        # An unfinished last line is in quarantine although the cursor stands before it, so its row
        # is expected, too.
        end = self._cursor.bytes + self._cursor.unfinished
        # The first bytes of a copy are rows of its original, which has an account of its own.
        self._at = min(self._cursor.shared, end)
        begin = self._at
        source.seek(0)
        with closing(source.ahead(0)) as upcoming:
            for current in upcoming:
                if current.base < end:
                    self._piece(current, begin, end)
                covered = current.base + current.length
                # The size of a plain file says how much is still waiting; only decompressing would
                # say it of others.
                if covered >= end and not source.compression:
                    covered = max(covered, source.size)
                    break
        file.waiting, file.error = max(covered - end, 0), source.broken
        if covered < end:
            file.error = source.broken or f"only {covered:,} of {end:,} bytes can be read"
        # At most one of the two is pending: an overlong line ends a record, any other piece the
        # line.
        self._end_long()
        self._end_pending()
        # The rest holds no line (blank lines, holes), so a row that names a position in it is
        # foreign.
        if covered > self._at:
            self._compare(self._at, min(covered, end), [])
        end_seen = max(end, beyond)
        file.note("foreign", np.unique(self._places.outside(self._cursor.origin, end_seen)))

    def _piece(self, source_piece: Piece, begin: int, end: int) -> None:
        """Compare the part of a piece that gave rows of this file."""
        if source_piece.base + source_piece.length <= begin or isinstance(source_piece, Pause):
            return
        if isinstance(source_piece, Overlong):
            self._long_line(source_piece, end)
            return
        self._end_long()
        if isinstance(source_piece, Hole):
            self._hole(source_piece, end)
            return
        assert not isinstance(source_piece, Split)  # what is audited is read by this process alone
        low, high = (
            max(source_piece.base, begin),
            min(source_piece.base + len(source_piece.data), end),
        )
        forms = [] if self._forced else list(self._cursor.forms)
        # A cursor notes where the format of its file changed; each stretch is compared in the
        # format that it was ingested in.
        cuts = [low, *(position for position, _ in forms if low < position < high), high]
        for start, stop in itertools.pairwise(cuts):
            whole = (start, stop) == (source_piece.base, source_piece.base + len(source_piece.data))
            data = source_piece.data[start - source_piece.base : stop - source_piece.base]
            # An unchanged piece keeps its line index, which a slice would compute again.
            chunk = source_piece if whole else Chunk(data, start)
            names = [name for position, name in forms if position <= start]
            self._part(chunk, FORMATS.by_name(names[-1]) if names else None)

    def _long_line(self, overlong: Overlong, end: int) -> None:
        """Remember where a part of an overlong line is, until all parts are known."""
        if overlong.number == 1:
            self._end_long()
            self._end_pending(is_cut=True)
        self._parts.append(overlong.base)
        self._parts_end = min(overlong.base + overlong.length, end)

    def _end_long(self) -> None:
        """Compare the parts of an overlong line. What was appended to one that had been ingested
        without its end has positions of its own."""
        if not self._parts:
            return
        bases, self._parts = integers(self._parts), []
        positions = self._places.within(self._cursor.origin, self._at, self._parts_end)
        later = self._later(bases[:1], np.setdiff1d(positions, bases))
        # From there on lines were ingested as a file of their own, one by one and not as parts.
        seam = later.min() if len(later) else self._parts_end
        expected = bases[bases < seam]
        high = self._parts_end
        self.absent.give_up(self._compare(self._at, high, expected, lambda at: at[at >= seam]))

    def _hole(self, hole: Hole, end: int) -> None:
        """Nothing is expected of NULs, unless they are within a record of a binary format."""
        binary = self._form.traits.binary and not hole.at_end
        if binary and len(self._pending) + hole.length <= Source.LINE_MAX:
            self._pending += bytes(hole.length)
            return
        self._end_pending(is_cut=True)
        self._compare(self._at, min(hole.base + hole.length, end), [])

    def _part(self, chunk: Chunk, form: Format | None) -> None:
        """Compare lines of one format, which is detected where no cursor names it."""
        if form is not None and not (self._is_chosen and form.NAME == self._form.NAME):
            self._end_pending()
            self._form = FORMATS.specialize(form, self._head[: self._cursor.bytes])
        elif not self._is_chosen:
            self._form = self._choose(chunk)
        self._is_chosen = True
        self.file.format = self._form.label
        if Transformer.simple(self._form):
            self._lines(chunk)
        else:
            self._events(Chunk(self._pending + chunk.data, self._at))

    def _end_pending(self, *, is_cut: bool = False) -> None:
        """Compare the pending record, after which nothing of its format follows. Where it was
        `is_cut`, what is still no event is one quarantined line."""
        if self._pending:
            self._events(Chunk(self._pending, self._at), final=True, is_cut=is_cut)

    def _choose(self, chunk: Chunk) -> Format:
        """The format that ingest chose: by the first lines, unless rows show that it was forced."""
        consumed = self._head[: self._cursor.bytes]
        data = visible(chunk.data)
        form = FORMATS.detect(consumed, data, self.file.source)
        form = FORMATS.specialize(form, consumed or data)
        # By looks alone forced JSON lines may be _bulk: both are lines of objects.
        if not form.traits.pairs:
            return form
        # As _bulk an action line has no row of its own; forced to JSON lines it has one. The
        # majority decides, since single rows may be missing.
        actions, position = [], 0
        for line in chunk.text[:_SAMPLE].splitlines(keepends=True)[:_SNIFFED]:
            if BulkAction.of(line.strip().removeprefix(BOM_UTF8)):
                actions.append(chunk.base + position)
            position += len(line)
        rows = set(
            self._places.within(self._cursor.origin, chunk.base, chunk.base + position).tolist()
        )
        forced = 2 * len(rows.intersection(actions)) > len(actions)
        return FORMATS.JSON_LINES if forced else form

    def _lines(self, chunk: Chunk) -> None:
        """Compare a chunk whose lines stand each for itself."""
        starts = chunk.lines[1]
        expected = starts[:-1][full_lines(chunk)] + chunk.base
        high = chunk.base + len(chunk.data)
        absent = self._compare(chunk.base, high, expected, lambda at: self._seams(chunk, at))
        if len(absent):
            # Only lines without a row are parsed: the usual audit reads a file at the speed of a
            # search for newlines.
            index = np.searchsorted(starts, absent - chunk.base).tolist()
            lines = [chunk.text[starts[i] : starts[i + 1]] for i in index]
            self._judge(lines, absent, self._form, self.file.label)

    def _events(self, chunk: Chunk, *, final: bool = False, is_cut: bool = False) -> None:
        """Compare a chunk in which only its format can find the events; a record that may
        continue stays pending."""
        result = self._transformer(self._form, self.file.label).run(chunk, final=final)
        # where a later run of ingest began, records are cut as where a file begins
        resumed_chunks = self._resumed(chunk, result) if Transformer.joins(self._form) else []
        for resumed in resumed_chunks:
            self._hold(*resumed)
        if resumed_chunks:
            start = self._at
            chunk = Chunk(chunk.data[start - chunk.base :], start)
            result = self._transformer(self._form, self.file.label).run(chunk, final=final)
        self._hold(chunk, result, final=final, is_cut=is_cut)

    def _resumed(self, chunk: Chunk, result: ChunkResult) -> list[tuple[Chunk, ChunkResult]]:
        """The parts of a chunk that earlier ingests consumed before later ones ingested what had
        been appended; each must be what an ingest consumes where a file ends."""
        end = chunk.base + len(chunk.data)
        # A pending record is expected, too: ingest may have consumed it at the end of the file.
        expected = np.append(sorted_places(*result_places(result)), chunk.base + result.length)
        positions = np.unique(self._places.within(self._cursor.origin, chunk.base, end))
        later = self._later(expected, np.setdiff1d(positions, expected))
        later = later[later > chunk.base]
        arrivals = self._places.arrivals(
            self._cursor.origin, positions.tolist() if len(later) else []
        )
        completed, begin = list[tuple[Chunk, ChunkResult]](), chunk.base
        # Each stray position is where a later ingest began, unless the part before it is no
        # complete record.
        for stray in later.tolist():
            # The run may have started earlier: lines of two streams alternate.
            n = int(np.searchsorted(positions, stray))
            while (
                n
                and positions[n - 1] > begin
                and arrivals[int(positions[n - 1])][0] >= arrivals[stray][0]
            ):
                n -= 1
            position = int(positions[n])
            if position <= begin:
                continue
            data = chunk.data[begin - chunk.base : position - chunk.base]
            resumed = Chunk(data, begin, not data.endswith(b"\n"))
            whole = self._ended().run(resumed, final=True)
            if whole.length == len(data):
                completed.append((resumed, whole))
                begin = position
        return completed

    def _hold(
        self, chunk: Chunk, result: ChunkResult, *, final: bool = True, is_cut: bool = False
    ) -> None:
        """Compare the result of a chunk with the lake, and keep a record that may continue."""
        self._pending = chunk.data[result.length :]
        places, bad = result_places(result)
        # An overlong line or a hole ended the record: ingest quarantined the rest as one line.
        if is_cut and self._pending:
            bad, self._pending = np.append(bad, chunk.base + result.length), b""
        # The unfinished end of a file has one row, be it an action of _bulk or that and a document.
        limit, high = self._cursor.bytes, chunk.base + (len(chunk.data) if final else result.length)
        if self._cursor.unfinished and chunk.base <= limit < high:
            bad = np.append(bad[bad < limit], limit)
        expected = sorted_places(places, bad)
        absent = self._compare(chunk.base, high, expected)
        if not len(absent):
            return
        if result.table:
            is_absent = np.isin(places, absent)
            self.absent.decide(result.table.filter(is_absent), places[is_absent])
        if len(bad := bad[np.isin(bad, absent)]):
            lines = [line_at(chunk.text, position - chunk.base) for position in bad.tolist()]
            # A replay may have found the id of such a line known, read as JSON lines.
            self._judge(lines, bad, FORMATS.JSON_LINES, None)

    def _later(self, heads: np.ndarray, strays: np.ndarray) -> np.ndarray:
        """Which positions are of text that was appended to the record or line around them, after
        that had been ingested. A record may give several of the `heads`."""
        if not len(heads) or not len(strays):
            return integers([])
        following = np.maximum(np.searchsorted(heads, strays, "right"), 1)
        before = [heads[max(n - _HEADS, 0) : n].tolist() for n in following.tolist()]
        positions = {*itertools.chain.from_iterable(before), *strays.tolist()}
        arrivals = self._places.arrivals(self._cursor.origin, sorted(positions))
        appended = []
        for earlier, stray in zip(before, strays.tolist(), strict=True):
            times = [arrivals.get(head, (None, False))[0] for head in earlier]
            # A head that was never ingested is missing, and reported as such.
            if any(arrival is None or arrival < arrivals[stray][0] for arrival in times):
                appended.append(stray)
        return integers(appended)

    def _compare(
        self,
        low: int,
        high: int,
        expected: Any,
        seams: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> np.ndarray:
        """Compare the lines that begin from `low` to `high` with the lake; return those absent."""
        lines = integers(expected)
        positions = self._places.within(self._cursor.origin, low, high)
        places, counts = np.unique(positions, return_counts=True)
        self.file.note("doubled", places[counts > 1])
        strays = np.setdiff1d(places, lines, assume_unique=True)
        if len(strays) and seams is not None:
            ends = seams(strays)
            self.file.lines += len(ends)
            strays = np.setdiff1d(strays, ends, assume_unique=True)
        self.file.note("foreign", strays)
        self.file.lines += len(lines)
        self._at = high
        return np.setdiff1d(lines, places, assume_unique=True)

    def _seams(self, chunk: Chunk, strays: np.ndarray) -> np.ndarray:
        """Which positions within lines are where a last line once ended and more was appended."""
        starts, begin = chunk.lines[1], -1
        pairs: list[tuple[int, int, bool]] = []
        for offset in (strays - chunk.base).tolist():
            line = int(np.searchsorted(starts, offset, "right")) - 1
            begin = max(begin, int(starts[line]))
            before = chunk.text[begin:offset].strip().removeprefix(BOM_UTF8)
            if before and chunk.text[offset : starts[line + 1]].strip():
                # A line that ingest would have left for next time can only have a row if it was
                # quarantined as unfinished.
                is_cut = Transformer.is_left(before, self._tolerant(), "ended")
                pairs.append((begin + chunk.base, offset + chunk.base, is_cut))
                begin = offset
        arrivals = self._places.arrivals(
            self._cursor.origin, [p for pair in pairs for p in pair[:2]]
        )
        ends = []
        for head, tail, is_cut in pairs:
            # The later part must have come in after the earlier one, else both are of one run,
            # which never cuts a line in two.
            (came, bad), (later, _) = arrivals.get(head, (None, False)), arrivals[tail]
            if came is not None and came < later and (bad or not is_cut):
                ends.append(tail)
        return integers(ends)

    def _judge(
        self, lines: list[bytes], places: np.ndarray, form: Format, label: str | None
    ) -> None:
        """Classify lines without a row, by the exact rule of a format."""
        result = self._transformer(form, label).run(Chunk(b"".join(lines), 0))
        # Positions in the result are of the joined lines, so they are mapped back.
        ends = np.cumsum([0, *map(len, lines)])
        if result.table:
            records = np.searchsorted(ends, np.asarray(result.table["position"]))
            self.absent.decide(result.table, places[records])
        bad = np.searchsorted(ends, integers([b.position for b in result.bad]))
        if form is FORMATS.JSON_LINES:
            self.absent.give_up(places[bad])
        elif len(bad):
            self._judge([lines[i] for i in bad.tolist()], places[bad], FORMATS.JSON_LINES, None)

    def _tolerant(self) -> Format:
        """The format as ingest uses it, which also accepts lines of other styles."""
        return FORMATS.tolerant(self._form, self.file.source, forced=self._forced)

    def _ended(self) -> Transformer:
        """The transformer for a file that nobody writes to any more."""
        form, origin = self._tolerant(), self._cursor.origin
        return Transformer(self._connect, form, origin, self.file.label, "ended")

    def _transformer(self, form: Format, label: str | None) -> Transformer:
        """The transformer for lines of a format, one for each."""
        key = form.NAME, label
        if key not in self._transformers:
            origin = self._cursor.origin
            # Joined formats must not complete the last record of a chunk: its continuation may be
            # in the next one.
            mode = "follow" if Transformer.joins(form) else "once"
            self._transformers[key] = Transformer(self._connect, form, origin, label, mode)
        return self._transformers[key]
