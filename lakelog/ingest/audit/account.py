"""The account of one file in an audit: its lines on one side, the lake's rows on the other.

What counts as a line is what ingest takes for one: every line that is not blank, of _bulk requests
every document and every line that has no action before it, of formats whose events span lines or
share one every event. A line too long to be taken in is one quarantined line. Where a run of
ingest took a last line that had no newline, and more was written behind it later, both parts are
lines; so are lines that were written behind a record that had been taken in.

A line without a row is known only if its key is in the id runs and some row has that id, for the
key of a row that was lost stays in the runs. Lines that another format can read count by that,
too, as a replay of quarantined lines would. After a retention, an event older than its line is
let go, and so is one without a time of its own, a line that is no event, and a key whose row is
gone: nothing tells any more when they came in. After a dedupe an event is let go if a row of the
lake is its equal still, by one of the keys that the lake was deduped by.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

from lakelog.ingest.audit.file_audit import FileAudit
from lakelog.ingest.audit.stored_rows import StoredRows
from lakelog.ingest.cursors import Cursor
from lakelog.ingest.formats import bulk, jsonl, registry
from lakelog.ingest.holes import visible
from lakelog.ingest.records import BOM, is_left, joins, simple
from lakelog.ingest.source import LINE_MAX, Chunk, Hole, Overlong, Piece, Source
from lakelog.ingest.transform import ChunkResult, Transformer
from lakelog.lazy import Lazy

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
else:
    np = Lazy("numpy")

_SNIFFED, _SAMPLE = 50, 1 << 18
_HEADS = 8
"""So many events of a record are looked at to see when it was taken in."""
_ODD = (9, 10, 11, 12, 13, 32, 0xEF)
"""Bytes that a blank line may begin with: white space, or a byte order mark."""


class Account:
    """Compares one file with the places of its origin; `line` is that of a retention, in us."""

    def __init__(
        self,
        file: FileAudit,
        number: int,
        places: StoredRows,
        cursor: Cursor | None,
        line: int | None,
    ) -> None:
        self.file, self._number, self._places, self._line = file, number, places, line
        self._started = time.time_ns() // 1000
        self.cursor = cursor
        if cursor is not None:
            self._cursor = cursor
            file.stored, file.quarantined = places.counts(cursor.origin)

    def without_file(self) -> None:
        """Check what can be told without the file: each place once, no more than lines."""
        file, cursor = self.file, self._cursor
        file.lines = cursor.lines
        there = self._places.within(cursor.origin, 0, cursor.bytes)
        places, counts = np.unique(there, return_counts=True)
        file.note("doubled", places[counts > 1])
        file.note("foreign", np.unique(self._places.outside(cursor.origin, cursor.bytes)))
        file.foreign += max(len(places) - cursor.lines, 0)

    def unknown(self, position: int) -> None:
        """Take back that a line is known: no row has its id."""
        self.file.known -= 1
        if self._line is None and not self._places.deduped:
            self.file.note("missing", [position])
        else:
            self.file.let_go += 1

    def unequalled(self, position: int) -> None:
        """Take back that a dedupe took a line: no row is its equal."""
        self.file.let_go -= 1
        self.file.note("missing", [position])

    def stored_twice(self, path: str) -> None:
        """Report that all lines of a file that is gone were stored again, from another one."""
        self.file.note("doubled", self._places.within(self._cursor.origin, 0, self._cursor.bytes))
        self.file.gone += f"; its lines are stored again from {path}"

    def read(
        self, source: Source, connect: Callable[[], Any], form: Any, head: bytes, *, beyond: int = 0
    ) -> None:
        """Read the file up to its cursor and compare; `form` is given if it was forced. Of a copy
        that is shorter than what was read of its original, rows up to `beyond` are no fault."""
        head = visible(head[: self._cursor.bytes])
        self._connect, self._head, self._forced = connect, head, form is not None
        self._form = form and registry.specialize(form, head)
        self._transformers: dict[Any, Transformer] = {}
        self._held, self._parts = b"", list[int]()
        file, covered = self.file, 0
        end = self._cursor.bytes + self._cursor.unfinished
        self._at = min(self._cursor.shared, end)
        begin = self._at
        source.seek(0)
        with closing(source.ahead(0)) as pieces:
            for piece in pieces:
                if piece.base < end:
                    self._piece(piece, begin, end)
                covered = piece.base + piece.length
                if covered >= end and not source.compression:
                    covered = max(covered, source.size)
                    break
        file.waiting, file.error = max(covered - end, 0), source.broken
        if covered < end:
            file.error = source.broken or f"only {covered:,} of {end:,} bytes can be read"
        self._end_long()
        self._end_held()
        if covered > self._at:
            self._compare(self._at, min(covered, end), [])
        last = max(end, beyond)
        file.note("foreign", _unique(self._places.outside(self._cursor.origin, last)))

    def _piece(self, piece: Piece, begin: int, end: int) -> None:
        """Compare what a piece holds, as far as it gave rows of this file."""
        if piece.base + piece.length <= begin:
            return
        if isinstance(piece, Overlong):
            self._long_line(piece, end)
            return
        self._end_long()
        if isinstance(piece, Hole):
            self._hole(piece, end)
            return
        low, high = max(piece.base, begin), min(piece.base + len(piece.data), end)
        forms = [] if self._forced else list(self._cursor.forms)
        cuts = [low, *(at for at, _ in forms if low < at < high), high]
        for start, stop in itertools.pairwise(cuts):
            whole = (start, stop) == (piece.base, piece.base + len(piece.data))
            data = piece.data[start - piece.base : stop - piece.base]
            part = piece if whole else Chunk(data, start)
            names = [name for at, name in forms if at <= start]
            self._part(part, registry.named(names[-1]) if names else None)

    def _long_line(self, part: Overlong, end: int) -> None:
        """Remember where a part of an overlong line is, until all are known."""
        if part.number == 1:
            self._end_long()
            self._end_held(cut=True)
        self._parts.append(part.base)
        self._parts_end = min(part.base + part.length, end)

    def _end_long(self) -> None:
        """Compare the parts of an overlong line. What was written behind one that had been taken
        in without its end has places of its own."""
        if not self._parts:
            return
        bases, self._parts = _ints(self._parts), []
        there = self._places.within(self._cursor.origin, self._at, self._parts_end)
        later = self._later(bases[:1], np.setdiff1d(there, bases))
        seam = later.min() if len(later) else self._parts_end
        expected = bases[bases < seam]
        high = self._parts_end
        self._give_up(self._compare(self._at, high, expected, lambda at: at[at >= seam]))

    def _hole(self, hole: Hole, end: int) -> None:
        """Nothing is expected of NULs, unless they are within a record of a binary format."""
        binary = getattr(self._form, "BINARY", False) and not hole.at_end
        if binary and len(self._held) + hole.length <= LINE_MAX:
            self._held += bytes(hole.length)
            return
        self._end_held(cut=True)
        self._compare(self._at, min(hole.base + hole.length, end), [])

    def _part(self, chunk: Chunk, form: Any) -> None:
        """Compare what is of one format, which is told by its lines where no cursor says it."""
        if form is not None and (self._form is None or form.NAME != self._form.NAME):
            self._end_held()
            self._form = registry.specialize(form, self._head[: self._cursor.bytes])
        if self._form is None:
            self._form = self._choose(chunk)
        self.file.format = registry.label(self._form)
        if simple(self._form):
            self._lines(chunk)
        else:
            self._events(Chunk(self._held + chunk.data, self._at))

    def _end_held(self, *, cut: bool = False) -> None:
        """Compare what was held for its end, behind which nothing of its format comes. Where it was
        `cut`, what is no event even so is one quarantined line."""
        if self._held:
            self._events(Chunk(self._held, self._at), final=True, cut=cut)

    def _choose(self, chunk: Chunk) -> Any:
        """The format that ingest chose: by the first lines, unless rows show that it was forced."""
        taken = self._head[: self._cursor.bytes]
        data = visible(chunk.data)
        form = registry.specialize(registry.detect(taken, data, self.file.source), taken or data)
        if form.NAME != bulk.NAME:
            return form
        actions, at = [], 0
        for line in chunk.text[:_SAMPLE].splitlines(keepends=True)[:_SNIFFED]:
            if bulk.action_of(line.strip().removeprefix(BOM)):
                actions.append(chunk.base + at)
            at += len(line)
        rows = set(self._places.within(self._cursor.origin, chunk.base, chunk.base + at).tolist())
        forced = 2 * len(rows.intersection(actions)) > len(actions)
        return jsonl if forced else form

    def _lines(self, chunk: Chunk) -> None:
        """Compare a chunk whose lines stand each for itself."""
        starts = chunk.lines[1]
        expected = starts[:-1][_full(chunk)] + chunk.base
        high = chunk.base + len(chunk.data)
        absent = self._compare(chunk.base, high, expected, lambda at: self._seams(chunk, at))
        if len(absent):
            index = np.searchsorted(starts, absent - chunk.base).tolist()
            lines = [chunk.text[starts[i] : starts[i + 1]] for i in index]
            self._judge(lines, absent, self._form, self.file.label)

    def _events(self, chunk: Chunk, *, final: bool = False, cut: bool = False) -> None:
        """Compare a chunk of which only its format can tell what are events; what may go on is
        held."""
        made = self._transformer(self._form, self.file.label).run(chunk, final=final)
        # where a later run of ingest began, records are cut as where a file begins
        parts = self._resumed(chunk, made) if joins(self._form) else []
        for part in parts:
            self._hold(*part)
        if parts:
            start = self._at
            chunk = Chunk(chunk.data[start - chunk.base :], start)
            made = self._transformer(self._form, self.file.label).run(chunk, final=final)
        self._hold(chunk, made, final=final, cut=cut)

    def _resumed(self, chunk: Chunk, made: ChunkResult) -> list[tuple[Chunk, ChunkResult]]:
        """What runs of ingest took of a chunk before others began that took what was written
        behind a record later; each must be such as is taken where a file ends."""
        end = chunk.base + len(chunk.data)
        expected = np.append(_sorted(*_places(made)), chunk.base + made.taken)  # what is held, too
        there = np.unique(self._places.within(self._cursor.origin, chunk.base, end))
        later = self._later(expected, np.setdiff1d(there, expected))
        later = later[later > chunk.base]
        came = self._places.arrivals(self._cursor.origin, there.tolist() if len(later) else [])
        found, begin = list[tuple[Chunk, ChunkResult]](), chunk.base
        for stray in later.tolist():
            # The run may have begun before: lines of two streams stand one between the other.
            n = int(np.searchsorted(there, stray))
            while n and there[n - 1] > begin and came[int(there[n - 1])][0] >= came[stray][0]:
                n -= 1
            at = int(there[n])
            if at <= begin:
                continue
            data = chunk.data[begin - chunk.base : at - chunk.base]
            part = Chunk(data, begin, not data.endswith(b"\n"))
            whole = self._ended().run(part, final=True)
            if whole.taken == len(data):
                found.append((part, whole))
                begin = at
        return found

    def _hold(
        self, chunk: Chunk, made: ChunkResult, *, final: bool = True, cut: bool = False
    ) -> None:
        """Hold what a chunk gives against the lake, and keep what may go on."""
        self._held = chunk.data[made.taken :]
        places, bad = _places(made)
        if cut and self._held:
            bad, self._held = np.append(bad, chunk.base + made.taken), b""
        expected = _sorted(places, bad)
        high = chunk.base + (len(chunk.data) if final else made.taken)
        absent = self._compare(chunk.base, high, expected)
        if not len(absent):
            return
        if made.table:
            lost = np.isin(places, absent)
            self._decide(made.table.filter(lost), places[lost])
        bad = bad[np.isin(bad, absent)]
        lines = [_line_at(chunk.text, at - chunk.base) for at in bad.tolist()]
        if lines:
            self._judge(lines, bad, jsonl, None)

    def _later(self, heads: np.ndarray, strays: np.ndarray) -> np.ndarray:
        """Which places are of what was written behind the record or line they are in, after that
        had been taken in. A record may give several of the `heads`."""
        if not len(heads) or not len(strays):
            return _ints([])
        last = np.maximum(np.searchsorted(heads, strays, "right"), 1)
        before = [heads[max(n - _HEADS, 0) : n].tolist() for n in last.tolist()]
        wanted = {*itertools.chain.from_iterable(before), *strays.tolist()}
        known = self._places.arrivals(self._cursor.origin, sorted(wanted))
        found = []
        for earlier, stray in zip(before, strays.tolist(), strict=True):
            came = [known.get(head, (None, False))[0] for head in earlier]
            # one that never came is missing, and said to be
            if any(time is None or time < known[stray][0] for time in came):
                found.append(stray)
        return _ints(found)

    def _compare(
        self,
        low: int,
        high: int,
        expected: Any,
        seams: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> np.ndarray:
        """Hold the lines that begin from `low` to `high` against the lake; return those absent."""
        lines = _ints(expected)
        there = self._places.within(self._cursor.origin, low, high)
        places, counts = np.unique(there, return_counts=True)
        self.file.note("doubled", places[counts > 1])
        strays = np.setdiff1d(places, lines, assume_unique=True)
        if len(strays) and seams is not None:
            found = seams(strays)
            self.file.lines += len(found)
            strays = np.setdiff1d(strays, found, assume_unique=True)
        self.file.note("foreign", strays)
        self.file.lines += len(lines)
        self._at = high
        return np.setdiff1d(lines, places, assume_unique=True)

    def _seams(self, chunk: Chunk, strays: np.ndarray) -> np.ndarray:
        """Which places within lines are where a last line ended once, and more came later."""
        starts, begin = chunk.lines[1], -1
        pairs: list[tuple[int, int, bool]] = []
        for at in (strays - chunk.base).tolist():
            line = int(np.searchsorted(starts, at, "right")) - 1
            begin = max(begin, int(starts[line]))
            before = chunk.text[begin:at].strip().removeprefix(BOM)
            if before and chunk.text[at : starts[line + 1]].strip():
                cut = is_left(before, self._tolerant(), "ended")
                pairs.append((begin + chunk.base, at + chunk.base, cut))
                begin = at
        known = self._places.arrivals(self._cursor.origin, [p for pair in pairs for p in pair[:2]])
        found = []
        for first, second, cut in pairs:
            (came, bad), (later, _) = known.get(first, (None, False)), known[second]
            if came is not None and came < later and (bad or not cut):
                found.append(second)
        return _ints(found)

    def _judge(self, lines: list[bytes], places: np.ndarray, form: Any, label: str | None) -> None:
        """Decide what became of lines without a row, by the exact rule of a format."""
        made = self._transformer(form, label).run(Chunk(b"".join(lines), 0))
        ends = np.cumsum([0, *map(len, lines)])
        if made.table:
            at = np.searchsorted(ends, np.asarray(made.table["position"]))
            self._decide(made.table, places[at])
        bad = np.searchsorted(ends, _ints([b.position for b in made.bad]))
        if form is jsonl:
            self._give_up(places[bad])
        elif len(bad):
            self._judge([lines[i] for i in bad.tolist()], places[bad], jsonl, None)

    def _decide(self, table: pa.Table, places: np.ndarray) -> None:
        """Take lines whose id is known out; give the others up."""
        left = np.ones(len(places), dtype=bool)
        keyed = np.flatnonzero(np.asarray(table["key"].is_valid()))
        if len(keyed):
            held = self._places.ask(self._number, places[keyed], table["key"].drop_null())
            left[keyed[held]] = False
            self.file.known += int(held.sum())
            if self._places.deduped and self._line is None:
                self._places.compare(
                    self._number, places[keyed[held]], table.take(keyed[held]), False
                )
        times = np.asarray(table["time"].cast("int64"))
        self._give_up(places[left], times[left], table.filter(left))

    def _give_up(
        self, places: np.ndarray, times: np.ndarray | None = None, table: pa.Table | None = None
    ) -> None:
        """Call lines missing, unless a retention, or a dedupe, may have taken them."""
        let_go = np.zeros(len(places), dtype=bool)
        timeless = let_go
        if times is not None:
            timeless = (times >= self._started) & (times <= time.time_ns() // 1000)
        if self._line is not None:
            let_go = ~let_go if times is None else (times < self._line) | timeless
        if any("time" in key.names for key in self._places.deduped):
            let_go = let_go | timeless  # nothing tells any more what time its row had
        left = ~let_go
        if table is not None and self._places.deduped and left.any():
            self._places.compare(self._number, places[left], table.filter(left), True)
            let_go[:] = True  # until unequalled() says otherwise
        self.file.let_go += int(let_go.sum())
        self.file.note("missing", places[~let_go])

    def _tolerant(self) -> Any:
        """The format as ingest has it, which takes lines of other styles, too."""
        return registry.tolerant(self._form, self.file.source, forced=self._forced)

    def _ended(self) -> Transformer:
        """What reads a file that nobody writes to any more."""
        form, origin = self._tolerant(), self._cursor.origin
        return Transformer(self._connect(), form, origin, self.file.label, "ended")

    def _transformer(self, form: Any, label: str | None) -> Transformer:
        """What decides lines of a format, made once."""
        key = form.NAME, label
        if key not in self._transformers:
            connection, origin = self._connect(), self._cursor.origin
            mode = "follow" if joins(form) else "once"
            made = Transformer(connection, form, origin, label, mode)
            self._transformers[key] = made
        return self._transformers[key]


def _full(chunk: Chunk) -> np.ndarray:
    """Tell the lines of a chunk that are not blank."""
    starts = chunk.lines[1]
    heads = np.frombuffer(chunk.text, np.uint8)[starts[:-1]]
    full = np.ones(len(heads), dtype=bool)
    odd = np.isin(heads, _ODD)
    alone = odd & (np.diff(starts) == 1) & (heads != 0xEF)
    full[alone] = False
    for i in np.flatnonzero(odd & ~alone).tolist():
        line = chunk.text[starts[i] : starts[i + 1]]
        full[i] = bool(line.strip().removeprefix(BOM))
    return full


def _line_at(data: bytes, start: int) -> bytes:
    """The line that begins at an offset, with its newline."""
    end = data.find(b"\n", start) + 1
    return data[start : end or len(data)]


def _places(made: ChunkResult) -> tuple[np.ndarray, np.ndarray]:
    """Where events and bad lines of a chunk are."""
    events = np.asarray(made.table["position"]) if made.table else _ints([])
    return events, _ints([b.position for b in made.bad])


def _sorted(places: np.ndarray, bad: np.ndarray) -> np.ndarray:
    return np.sort(np.concatenate([places, bad]))


def _ints(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.int64)


def _unique(values: np.ndarray) -> np.ndarray:
    return np.unique(values)
