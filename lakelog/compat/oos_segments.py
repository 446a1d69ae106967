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
from lakelog.lazy import Lazy
from lakelog.store.bootstrap import Store
from lakelog.store.entry import SegmentEntry

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from lakelog.store import arrays, compact, connection, segment, typed
else:
    arrays, compact, connection, segment, typed = (
        Lazy(f"lakelog.store.{name}") for name in "arrays compact connection segment typed".split()
    )
    np = Lazy("numpy")
    pa = Lazy("pyarrow")
    pc = Lazy("pyarrow.compute")
    pq = Lazy("pyarrow.parquet")

_COLUMNS = ("time", "type", "source", "subject")
_ENCODED = ["type", "source"]
_ERROR = "error"
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
        with pq.ParquetFile(
            path, page_checksum_verification=True, read_dictionary=_ENCODED
        ) as file:
            sums, first = [], 0
            for group in range(file.num_row_groups):
                batch = self._batch(entry, file, group, first)
                sums.append(oos_state.add_up(batch))
                first += len(batch.time)
        return sums

    def _batch(self, entry: SegmentEntry, file: pq.ParquetFile, group: int, first: int) -> Batch:
        """Return a row group as a batch; `first` is the number of its first row."""
        names = [*_COLUMNS, *(["seq"] if entry.layout == "sorted" else ())]
        table = file.read_row_group(group, names, use_threads=False).unify_dictionaries()
        time, kind, source, item = (table[name].combine_chunks() for name in _COLUMNS)
        if entry.layout == "sorted":
            order = arrays.numbers(table["seq"])
        else:
            order = np.arange(first, first + len(table))

        def errors(at: np.ndarray) -> pa.Array:
            if entry.fields and self._has_error_column(entry):
                return _typed_errors(file, group, at, entry.texts > 0)
            if not entry.fields:
                texts = file.read_row_group(group, ["data"], use_threads=False)["data"]
                return oos_state.errors_of(texts.take(arrays.integers(at)).combine_chunks())
            with self._engine() as cursor:
                rows = segment.read(self._store.paths, entry.key, ["data"], at + first, cursor)
            return oos_state.errors_of(rows["data"].combine_chunks())

        return Batch(arrays.numbers(time), order, kind, source, item, errors)

    def _has_error_column(self, entry: SegmentEntry) -> bool:
        """Whether the error of each payload that is a struct is a text, or absent."""
        members = typed.of_entry(self._store.paths, entry).members
        return all(each.kind == "text" for each in members if each.name == _ERROR)

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
    rows, names = arrays.integers(at), [f"{typed.COLUMN}.{_ERROR}"]
    table = file.read_row_group(
        group, [*names, *(["data"] if has_texts else ())], use_threads=False
    )
    if typed.COLUMN in table.column_names:
        structs = table[typed.COLUMN].combine_chunks()
        found, codes = oos_state.encoded(structs.field(_ERROR).take(rows))
        known = arrays.texts([name or oos_state.UNKNOWN for name in found])
        errors = known.take(arrays.integers(codes))
    else:
        errors = arrays.repeated(oos_state.UNKNOWN, len(at))
    if has_texts:
        texts = table["data"].take(rows).combine_chunks()
        is_text = pc.is_valid(texts)
        of_texts = oos_state.errors_of(texts.filter(is_text))
        errors = pc.replace_with_mask(errors, is_text, of_texts)
    return errors
