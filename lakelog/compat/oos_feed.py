"""Where the OOS views read from: an oos.log that grows, or a lake; each event once.

A file is read on from where it was left, whole lines only; a last line without its newline counts
for as long as it stands so, if it is a whole event. A file that is another one now, or shorter, or
does not hold what stood before the place it was left at, is read from its start. Lines that are no
OOS lines are counted in `skipped`.

Of a lake the published segments are taken in once each, the live tail is laid over them at every
question. A compaction changes nothing; after a rewind, a retention or a dedupe all is read anew.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from typing import TYPE_CHECKING, Any

import orjson

from lakelog.compat import oos_state
from lakelog.compat.oos_state import Batch, State
from lakelog.errors import InvalidEvent
from lakelog.event import parse_time, to_micros
from lakelog.lake import Lake
from lakelog.lazy import Lazy
from lakelog.store.bootstrap import Store
from lakelog.store.manifest import Entry

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from lakelog.query import tail_rows
    from lakelog.store import compact, rows, tail
else:
    compact, rows, tail = (Lazy(f"lakelog.store.{n}") for n in ("compact", "rows", "tail"))
    tail_rows = Lazy("lakelog.query.tail_rows")
    pa = Lazy("pyarrow")
    np = Lazy("numpy")
    pc = Lazy("pyarrow.compute")
    pq = Lazy("pyarrow.parquet")

CHUNK = 1 << 21
_MUCH = 1 << 24
"""After so many bytes at once, memory that reading took is given back."""
_FIELDS = 6
_MARK = 256
"""So many bytes before the place where reading stopped are compared."""
_COLUMNS = ["time", "type", "source", "subject", "data"]


class FileFeed:
    """An oos.log. Raises OSError where it cannot be read."""

    def __init__(self, path: str) -> None:
        self.path, self.skipped, self._mutex = path, 0, threading.Lock()
        self._restart()
        self._last: tuple[tuple[int, ...], State] | None = None

    def state(self) -> State:
        """The log as it is now."""
        with self._mutex:
            return self._look()

    def _look(self) -> State:
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            seen = (status.st_ino, status.st_size, status.st_mtime_ns)
            if self._last is not None and self._last[0] == seen:
                return self._last[1]
            if not self._goes_on(fd, status):
                self._restart()
            self._inode = status.st_ino
            much = status.st_size - self._end > _MUCH
            rest = self._read_on(fd, status.st_size)
        finally:
            os.close(fd)
        found = self._state
        if rest and (made := self._batch(rest, final=True)) is not None:
            found = found.copy()
            found.add(made)
        if much:
            _give_back()
        self._last = seen, found
        return found

    def _restart(self) -> None:
        self._state, self._end, self._mark = oos_state.empty(), 0, b""
        self._inode, self._lines, self.skipped = 0, 0, 0

    def _goes_on(self, fd: int, status: os.stat_result) -> bool:
        """Whether the file is the one read before, with nothing but more behind it."""
        if status.st_ino != self._inode or status.st_size < self._end:
            return self._end == 0
        return os.pread(fd, len(self._mark), self._end - len(self._mark)) == self._mark

    def _read_on(self, fd: int, size: int) -> bytes:
        """Take whole lines in; return what follows the last newline."""
        rest, at = b"", self._end
        while at < size:
            data = os.pread(fd, min(CHUNK, size - at), at)
            if not data:
                break
            at += len(data)
            data = rest + data
            cut = data.rfind(b"\n") + 1
            whole, rest = data[:cut], data[cut:]
            if whole and (made := self._batch(whole)) is not None:
                self._state.add(made)
            if whole:
                self._end += len(whole)
                self._mark = whole[-_MARK:]
        return rest

    def _batch(self, data: bytes, final: bool = False) -> Batch | None:
        """Lines as a batch; a final line counts only if its JSON is whole."""
        lines = rows.split_lines(data)[0]
        try:
            lines.validate(full=True)
        except pa.ArrowInvalid:
            lines = rows.split_lines(data.decode("utf-8", "replace").encode())[0]
        parts = pc.split_pattern(lines, "|", max_splits=5)
        whole = parts.value_lengths().to_numpy() == _FIELDS
        if not whole.all():
            parts = parts.filter(pa.array(whole))
        if final and (not len(parts) or not _is_json(pc.list_element(parts, 5)[0].as_py())):
            return None
        time, good = _micros(pc.list_element(parts, _index(0)))
        if good is not None:
            parts = parts.filter(pa.array(good))
        if not final and len(parts) != len(lines):
            blank = pc.equal(pc.utf8_trim_whitespace(lines), "")
            self.skipped += len(lines) - len(parts) - pc.sum(blank).as_py()
        first, self._lines = self._lines, self._lines + len(parts)
        order = np.arange(first, first + len(parts), dtype=np.int64)
        kind, source, item = (pc.list_element(parts, _index(place)) for place in (1, 3, 4))
        return Batch(
            time,
            order,
            kind,
            source,
            item,
            lambda at: pc.list_element(parts.take(at), 5).to_pylist(),
        )


class LakeFeed:
    """One branch of a lake. Raises Damaged."""

    def __init__(self, lake: Lake) -> None:
        self.path, self.skipped, self._mutex = lake.path, 0, threading.Lock()
        self._store: Store = lake.store
        self._tail = tail.Tail(self._store.paths, self._store.refs, lake.branch_name)
        self._rows = tail_rows.TailRows(self._store, lake.engine)
        self._state, self._known = oos_state.empty(), dict[str, Entry]()
        self._last: tuple[Any, State] | None = None

    def state(self) -> State:
        """The branch as it is now, live events included."""
        with self._mutex:
            return self._look()

    def _look(self) -> State:
        pending = self._tail.collect()
        digest = pending.head.move.snapshot
        state = self._store.manifests.load(digest)
        table = self._rows.events(pending, state.ids) if pending.frames else None
        last = self._last
        if last is not None and last[0][0] == digest and last[0][1] is table:
            return last[1]
        self._follow([e for e in self._store.manifests.entries(state) if e["kind"] == "events"])
        found = self._state
        if table is not None and table.num_rows:
            found = found.copy()
            found.add(_batch_of(table))
        self._last = (digest, table), found
        return found

    def _follow(self, entries: list[Entry]) -> None:
        """Take in segments that are new; begin again if rows went."""
        now = {e["key"]: e for e in entries}
        gone = self._known.keys() - now.keys()
        new = [e for key, e in now.items() if key not in self._known]
        for entry in [e for e in new if gone.issuperset(e.get("from") or ["?"])]:
            made_of = [self._known[key] for key in entry["from"]]
            if sum(e["events"] for e in made_of) == entry["events"]:
                gone -= set(entry["from"])
                new.remove(entry)
        if gone:
            self._state, new = oos_state.empty(), entries
        for entry in sorted(new, key=lambda e: e["seq"][0]):
            self._state.add(self._read(entry))
        if sum(e["bytes"] for e in new) > _MUCH:
            _give_back()
        self._known = now

    def _read(self, entry: Entry) -> Batch:
        compact.check(self._store, [entry])
        names = [*_COLUMNS, "seq"] if entry["layout"] == "sorted" else _COLUMNS
        path = self._store.paths.object("segments", entry["key"])
        return _batch_of(pq.ParquetFile(path).read(columns=names))


Feed = FileFeed | LakeFeed


@functools.cache
def _index(place: int) -> Any:
    """A number as Arrow takes it: made at every use it would cost more than the use."""
    return pa.scalar(place)


def _give_back() -> None:
    """Return freed memory to the system; allocators keep as much as reading took at its most."""
    import ctypes

    pa.default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError):  # not of this C library
        ctypes.CDLL(None).malloc_trim(0)


def _batch_of(table: pa.Table) -> Batch:
    """Rows of a lake as a batch."""
    time, kind, source, item = (table[name].combine_chunks() for name in _COLUMNS[:-1])
    order = np.arange(table.num_rows, dtype=np.int64)
    if "seq" in table.column_names:
        order = table["seq"].to_numpy()
    return Batch(
        time.cast("int64").to_numpy(),
        order,
        kind,
        source,
        item,
        lambda at: table["data"].take(at).to_pylist(),
    )


def _micros(text: pa.Array) -> tuple[np.ndarray, np.ndarray | None]:
    """Times in us, and which texts are times if not all are; then only theirs."""
    with contextlib.suppress(pa.ArrowInvalid):
        return pc.cast(text, pa.timestamp("us", "UTC")).cast("int64").to_numpy(), None
    found = np.zeros(len(text), np.int64)
    good = np.ones(len(text), bool)
    for place, value in enumerate(text.to_pylist()):
        try:
            found[place] = to_micros(parse_time(value))
        except InvalidEvent:
            good[place] = False
    return found[good], good


def _is_json(text: str) -> bool:
    """Whether the text of a last line is whole."""
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True
