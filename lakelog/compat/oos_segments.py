"""Segments of a lake, added up for the OOS views by a few threads.

Of each row group only the columns are read that the views need: types and sources as the
dictionaries that they are stored as, and errors, of failures alone, from the column that typed
segments have for them.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from lakelog.compat import oos_state
from lakelog.compat.oos_state import Batch, Sums
from lakelog.runtime.lazy import Lazy
from lakelog.store.bootstrap import Store
from lakelog.store.entry import SegmentEntry

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from lakelog.maintain import compact
    from lakelog.segments import arrays, connection, segment, typed
else:
    arrays, connection, segment, typed = (
        Lazy(f"lakelog.segments.{name}") for name in "arrays connection segment typed".split()
    )
    compact = Lazy("lakelog.maintain.compact")
    np = Lazy("numpy")
    pa = Lazy("pyarrow")
    pc = Lazy("pyarrow.compute")
    pq = Lazy("pyarrow.parquet")

_COLUMNS = ["time", "type", "source", "subject"]
_ENCODED = ["type", "source"]
_ERROR = "error"
_ERROR_COLUMN = "fields.error"
_AT_ONCE = 1_000_000
"""So many events are merged at once, some 30 bytes each."""
_THREADS = 4


class SegmentSums:
    """Adds up segments of one lake. Raises Damaged."""

    def __init__(self, store: Store) -> None:
        self._store, self._mutex = store, threading.Lock()
        self._database: duckdb.DuckDBPyConnection | None = None

    def of(self, entries: list[SegmentEntry]) -> Iterator[list[Sums]]:
        """Yield what segments add to a state, in their order, a bounded number of events at
        once."""
        if not entries:
            return
        threads = min(self._store.settings.threads or os.cpu_count() or 1, _THREADS, len(entries))
        with ThreadPoolExecutor(threads, "lakelog-oos") as pool:
            for group in _groups(entries):
                yield list(itertools.chain.from_iterable(pool.map(self._of_segment, group)))

    def _of_segment(self, entry: SegmentEntry) -> list[Sums]:
        compact.check(self._store, [entry])
        path = self._store.paths.object("segments", entry.key)
        kinds = self._error_kinds(entry)
        encoded = [*_ENCODED, _ERROR_COLUMN] if kinds == {"text"} else _ENCODED
        with pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=encoded) as file:
            sums, first = [], 0
            for group in range(file.num_row_groups):
                batch = self._batch(entry, kinds, file, group, first)
                sums.append(oos_state.add_up(batch))
                first += len(batch.time)
        return sums

    def _batch(
        self, entry: SegmentEntry, kinds: set[str], file: pq.ParquetFile, group: int, first: int
    ) -> Batch:
        """Return a row group as a batch; `first` is the number of its first row, and `kinds` are
        those of errors."""
        table = file.read_row_group(group, _COLUMNS, use_threads=False).unify_dictionaries()
        time, kind, source, item = (table[name].combine_chunks() for name in _COLUMNS)

        def seq(at: np.ndarray) -> np.ndarray:
            numbers = file.read_row_group(group, ["seq"], use_threads=False)["seq"]
            found: np.ndarray = arrays.numbers(numbers)[at]
            return found

        def errors(at: np.ndarray) -> pa.Array:
            if entry.fields and kinds <= {"text"}:
                return _typed_errors(file, group, at, entry.texts > 0)
            if not entry.fields:
                texts = file.read_row_group(group, ["data"], use_threads=False)["data"]
                return oos_state.errors_of(texts.take(arrays.integers(at)).combine_chunks())
            with self._engine() as cursor:
                rows = segment.read(self._store.paths, entry.key, ["data"], at + first, cursor)
            return oos_state.errors_of(rows["data"].combine_chunks())

        order = seq if entry.layout == "sorted" else None
        return Batch(arrays.numbers(time), kind, source, item, errors, order)

    def _error_kinds(self, entry: SegmentEntry) -> set[str]:
        """The kinds of the errors of payloads that are structs; none where those have no errors."""
        if not entry.fields:
            return set()
        members = typed.of_entry(self._store.paths, entry).members
        return {each.kind for each in members if each.name == _ERROR}

    def _engine(self) -> duckdb.DuckDBPyConnection:
        """Return a cursor of an engine that gives payloads their text; most never need one."""
        with self._mutex:
            if self._database is None:
                self._database = connection.connect(self._store.paths, self._store.settings)
            return self._database.cursor()


def _groups(entries: list[SegmentEntry]) -> Iterator[list[SegmentEntry]]:
    group, events = list[SegmentEntry](), 0
    for entry in entries:
        if group and events + entry.events > _AT_ONCE:
            yield group
            group, events = [], 0
        group.append(entry)
        events += entry.events
    if group:
        yield group


def _typed_errors(file: pq.ParquetFile, group: int, at: np.ndarray, has_texts: bool) -> pa.Array:
    """Return the errors of rows whose payloads have them as a text of their own."""
    rows, names = arrays.integers(at), [_ERROR_COLUMN, *(["data"] if has_texts else ())]
    table = file.read_row_group(group, names, use_threads=False)
    if typed.COLUMN in table.column_names:
        errors = table[typed.COLUMN].combine_chunks().field(_ERROR).take(rows)
    else:
        errors = pa.nulls(len(at), pa.string())
    if has_texts:
        texts = table["data"].take(rows).combine_chunks()
        is_text = pc.is_valid(texts)
        of_texts = oos_state.errors_of(texts.filter(is_text))
        errors = pc.replace_with_mask(errors.cast(pa.string()), is_text, of_texts)
    return errors
