"""The input of the OOS views: an oos.log that grows, or a lake; each event is read once.

A file is read on from the last position, in whole lines; a last line without its newline counts as
long as it is a whole event. If the file is another one now, or shorter, or differs before that
position, it is read from its start. Lines that are not OOS lines are counted in `skipped`. A file
is read with numpy and Arrow once it is larger than SMALL: to load them takes longer than to read a
small one in plain Python.

Of a lake each published segment is read once (oos_segments), and the live tail is added to every
answer. A compaction changes nothing; after a rewind, a retention or a dedupe everything is read
again.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from typing import TYPE_CHECKING, Any

import orjson

from lakelog.compat import oos_state
from lakelog.compat.oos_state import Batch, Row, SmallState, State
from lakelog.errors import InvalidEvent
from lakelog.event.encode import EPOCH, parse_time, to_micros
from lakelog.lake import Lake
from lakelog.loggers.destination import flush_lake
from lakelog.loggers.logfile import flush_file
from lakelog.runtime.lazy import Lazy
from lakelog.store.bootstrap import Store
from lakelog.store.entry import SegmentEntry

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from lakelog.compat import oos_segments
    from lakelog.query import tail_rows
    from lakelog.segments import arrays, rows
    from lakelog.store import tail
else:
    oos_segments = Lazy("lakelog.compat.oos_segments")
    arrays, rows = Lazy("lakelog.segments.arrays"), Lazy("lakelog.segments.rows")
    tail = Lazy("lakelog.store.tail")
    tail_rows = Lazy("lakelog.query.tail_rows")
    pa = Lazy("pyarrow")
    np = Lazy("numpy")
    pc = Lazy("pyarrow.compute")

CHUNK = 1 << 21
SMALL = 4 << 20
_MUCH = 1 << 24
"""After so many bytes at once, memory that reading took is given back."""
_FIELDS = 6
_MARK = 256
"""So many bytes before the place where reading stopped are compared."""
_FLUSH_SECONDS = 5.0
"""So long a question waits for what loggers of this process wrote; a full disk takes none."""
_COLUMNS = ("time", "type", "source", "subject", "data")


class FileFeed:
    """An oos.log. Raises OSError where it cannot be read."""

    def __init__(self, path: str) -> None:
        self.path, self.skipped, self._mutex = path, 0, threading.Lock()
        self._restart()
        self._last: tuple[tuple[int, ...], State | SmallState] | None = None

    def state(self) -> State | SmallState:
        """The log as it is now, with what loggers of this process wrote to it."""
        flush_file(self.path, _FLUSH_SECONDS)
        with self._mutex:
            return self._look()

    def _look(self) -> State | SmallState:
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            signature = (status.st_ino, status.st_size, status.st_mtime_ns)
            if self._last is not None and self._last[0] == signature:
                return self._last[1]
            # Another file, or a truncated one: nothing of what was read before counts. One that
            # is not small any more is read once again, into the arrays.
            outgrown = isinstance(self._state, SmallState) and status.st_size > SMALL
            if outgrown or not self._goes_on(fd, status):
                self._restart(small=status.st_size <= SMALL)
            self._inode = status.st_ino
            # Asked before the reading, which moves the end.
            much = status.st_size - self._end > _MUCH
            rest = self._read_on(fd, status.st_size)
        finally:
            os.close(fd)
        state = self._state
        if rest:
            state = state.copy()
            self._add(state, rest, final=True)
        if much:
            _give_back()
        self._last = signature, state
        return state

    def _restart(self, small: bool = True) -> None:
        self._state: State | SmallState = SmallState() if small else oos_state.empty()
        self._end, self._mark = 0, b""
        self._inode, self.skipped = 0, 0

    def _goes_on(self, fd: int, status: os.stat_result) -> bool:
        """Whether the file is the one read before, with lines appended at most."""
        if status.st_ino != self._inode or status.st_size < self._end:
            return self._end == 0
        # The bytes before the end, not only the size: a file that was rewritten and grew beyond the
        # old end would be read on in its middle.
        return os.pread(fd, len(self._mark), self._end - len(self._mark)) == self._mark

    def _read_on(self, fd: int, size: int) -> bytes:
        """Read whole lines; return what follows the last newline."""
        rest, at = b"", self._end
        while at < size:
            data = os.pread(fd, min(CHUNK, size - at), at)
            if not data:
                break
            at += len(data)
            data = rest + data
            # A line without its newline may still be being written: it is kept for the next chunk
            # or the next question.
            cut = data.rfind(b"\n") + 1
            lines, rest = data[:cut], data[cut:]
            if lines:
                self._add(self._state, lines)
                self._end += len(lines)
                self._mark = lines[-_MARK:]
        return rest

    def _add(self, state: State | SmallState, data: bytes, final: bool = False) -> None:
        """Add lines to a state; a final line counts only if its JSON is whole."""
        if isinstance(state, SmallState):
            state.add(self._rows(data, final))
        elif (batch := self._batch(data, final)) is not None:
            state.merge([oos_state.add_up(batch)])

    def _rows(self, data: bytes, final: bool) -> list[Row]:
        """Lines as rows."""
        rows: list[Row] = []
        for line in data.decode("utf-8", "replace").split("\n"):
            parts = line.split("|", 5)
            try:
                if len(parts) == _FIELDS and not (final and not _is_json(parts[5])):
                    moment = parse_time(parts[0]) - EPOCH
                    # As `to_micros`, which divides: that takes most of the time here.
                    micros = (moment.days * 86_400 + moment.seconds) * 10**6 + moment.microseconds
                    rows.append((micros, parts[1], *parts[3:]))  # type: ignore[arg-type]
                    continue
            except InvalidEvent:
                pass
            if not final and line.strip():
                self.skipped += 1
        return rows

    def _batch(self, data: bytes, final: bool) -> Batch | None:
        """Lines as a batch, or None for a final line that does not count."""
        lines = rows.split_lines(data)[0]
        try:
            # split_lines takes the bytes as they are; Arrow's string functions assume valid UTF-8
            # and do not check.
            lines.validate(full=True)
        except pa.ArrowInvalid:
            lines = rows.split_lines(data.decode("utf-8", "replace").encode())[0]
        parts = pc.split_pattern(lines, "|", max_splits=5)
        # With max_splits a `|` inside the JSON of the last field does no harm.
        complete = parts.value_lengths().to_numpy() == _FIELDS
        if not complete.all():
            parts = parts.filter(pa.array(complete))
        # Only of the last line it is not known whether it is written to its end.
        if final and (not len(parts) or not _is_json(pc.list_element(parts, 5)[0].as_py())):
            return None
        time, good = _micros(pc.list_element(parts, _index(0)))
        if good is not None:
            parts = parts.filter(pa.array(good))
        if not final and len(parts) != len(lines):
            # Empty lines are no mistake, so they are not counted as skipped.
            blank = pc.equal(pc.utf8_trim_whitespace(lines), "")
            self.skipped += len(lines) - len(parts) - pc.sum(blank).as_py()
        kind, source, item = (pc.list_element(parts, _index(place)) for place in (1, 3, 4))

        def errors(at: np.ndarray) -> pa.Array:
            return oos_state.errors_of(pc.list_element(parts.take(at), 5))

        return Batch(time, kind, source, item, errors)


class LakeFeed:
    """One branch of a lake. Raises Damaged."""

    def __init__(self, lake: Lake) -> None:
        self.path, self.skipped, self._mutex = lake.path, 0, threading.Lock()
        self._store: Store = lake.store
        self._branch = lake.branch_name
        self._tail = tail.Tail(self._store.paths, self._store.refs, lake.branch_name)
        self._rows = tail_rows.TailRows(self._store, lake.engine)
        self._segments = oos_segments.SegmentSums(self._store)
        self._state, self._known = oos_state.empty(), dict[str, SegmentEntry]()
        self._last: tuple[Any, State] | None = None

    def state(self) -> State:
        """The branch as it is now, with live events, and what loggers of this process wrote."""
        flush_lake(self.path, self._branch, _FLUSH_SECONDS)
        with self._mutex:
            return self._look()

    def _look(self) -> State:
        # The tail is asked first: its head says which state the published part has to be.
        pending = self._tail.collect()
        digest = pending.head.move.snapshot
        manifest = self._store.manifests.load(digest)
        table = self._rows.events(pending, manifest.ids) if pending.frames else None
        last = self._last
        if last is not None and last[0][0] == digest and last[0][1] is table:
            return last[1]
        self._follow(self._store.manifests.segments(manifest, "events"))
        state = self._state
        if table is not None and table.num_rows:
            state = state.copy()
            state.merge([oos_state.add_up(_batch_of(table))])
        self._last = (digest, table), state
        return state

    def _follow(self, entries: list[SegmentEntry]) -> None:
        """Read new segments; start over if rows were removed."""
        present = {e.key: e for e in entries}
        vanished = self._known.keys() - present.keys()
        new = [e for key, e in present.items() if key not in self._known]
        # A compacted segment holds exactly the rows of those it was made from, if their counts
        # agree: it counts as read. After a retention or a dedupe they do not.
        for entry in [e for e in new if e.made_from and vanished.issuperset(e.made_from)]:
            sources = [self._known[key] for key in entry.made_from]
            if sum(e.events for e in sources) == entry.events:
                vanished -= set(entry.made_from)
                new.remove(entry)
        # On a copy: of a segment that cannot be read, those before it must not count twice.
        state = self._state.copy()
        # The state cannot forget rows, so it is built again from all that is there.
        if vanished:
            state, new = oos_state.empty(), entries
        # In the order of arrival: of equal times the later event wins.
        for sums in self._segments.of(sorted(new, key=lambda e: e.seq[0])):
            state.merge(sums)
        if sum(e.bytes for e in new) > _MUCH:
            _give_back()
        self._state, self._known = state, present


Feed = FileFeed | LakeFeed


@functools.cache
def _index(place: int) -> Any:
    """A number as an Arrow scalar, cached because creating it costs more than using it."""
    return pa.scalar(place)


def _give_back() -> None:
    """Return freed memory to the system; allocators keep what reading took at its peak."""
    # Both: Arrow's pool, and what the C library keeps of all others.
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError):  # not of this C library
        ctypes.CDLL(None).malloc_trim(0)


def _batch_of(tail: pa.Table) -> Batch:
    """Rows of the live tail as a batch."""
    time, kind, source, item, data = (tail[name].combine_chunks() for name in _COLUMNS)
    return Batch(
        arrays.numbers(time),
        kind,
        source,
        item,
        lambda at: oos_state.errors_of(data.take(arrays.integers(at))),
    )


def _micros(text: pa.Array) -> tuple[np.ndarray, np.ndarray | None]:
    """Times in us, and which texts are times if not all are; then only theirs."""
    with contextlib.suppress(pa.ArrowInvalid):
        # The whole column at once; one odd text fails it, and only then each is parsed by itself.
        return pc.cast(text, pa.timestamp("us", "UTC")).cast("int64").to_numpy(), None
    micros = np.zeros(len(text), np.int64)
    good = np.ones(len(text), bool)
    for place, value in enumerate(text.to_pylist()):
        try:
            micros[place] = to_micros(parse_time(value))
        except InvalidEvent:
            good[place] = False
    return micros[good], good


def _is_json(text: str) -> bool:
    """Whether the text of a last line is whole."""
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True
