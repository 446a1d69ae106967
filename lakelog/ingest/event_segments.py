"""Rows of a batch into segments: whole row groups are encoded as soon as they are full, so that
memory holds few rows and the publish at the end has little left to do.

Rows of one segment have one schema of typed payloads at most; those without stand beside as text.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from lakelog import protect, typed_columns
from lakelog.entries import SegmentEntry
from lakelog.ingest.splits import Loaded, PendingSplit
from lakelog.libraries import pa, pc
from lakelog.paths import Paths
from lakelog.segments import SegmentEncoder, put_segment
from lakelog.typed_columns import FieldColumns

LEVEL = 1
"""Of zstd: ingest is fast, and compaction compresses harder later."""
_COUNTED = ("time", "type", "source", "level", "subject", "id")
"""Columns that the statistics of a segment need; the others are freed once encoded."""
_BYTES = 64 << 20
"""Rows of so many bytes are a row group, however few: those that wait are in memory."""


class EventSegments:
    """Encodes rows in the order they come as segments of about `target` rows, and writes those."""

    def __init__(self, paths: Paths, commit: str, target: int) -> None:
        self._paths, self._commit, self._target = paths, commit, target
        self._gathered: list[pa.Table] = []
        self._counted: list[pa.Table] = []
        self._waiting = self._bytes = self._texts = 0
        # One thread writes segments while the next row group is encoded; syncs would stall the
        # encoder.
        self._disk = ThreadPoolExecutor(1)
        self._writes: list[Future[SegmentEntry] | PendingSplit] = []
        self._encoder: SegmentEncoder | None = None
        self._fields: FieldColumns | None = None
        """How structs are stored; `_stored` is that of the segment that is being encoded."""
        self._stored: FieldColumns | None = None

    def add(self, table: pa.Table, fields: FieldColumns | None) -> None:
        """Add rows; `fields` says how payloads are stored that are structs in a column `fields`."""
        if fields is not None and (not self._fields or fields.schema != self._fields.schema):
            self._end_segment()
            self._fields = fields
        self._gathered.append(table)
        self._waiting += table.num_rows
        self._bytes += table.nbytes
        step = min(SegmentEncoder.ROW_GROUP, self._target)
        while self._waiting >= step or self._bytes >= _BYTES:
            self._encode(min(step, self._waiting))

    def insert(self, answer: PendingSplit) -> None:
        """Put the segments that another process makes of a split behind the rows so far."""
        self._end_segment()
        self._writes.append(answer)

    def write(self) -> list[SegmentEntry]:
        """Write the rest durably; return the entries of all segments."""
        self._end_segment()
        # Every segment is on disk, synced, before the manifest that names it is written.
        entries = list[SegmentEntry]()
        for write in self._writes:
            segment_result = write.result()
            entries += (
                segment_result.entries if isinstance(segment_result, Loaded) else [segment_result]
            )
        return entries

    def close(self) -> None:
        """End the thread that writes."""
        self._disk.shutdown(wait=True, cancel_futures=True)

    def _encode(self, count: int) -> None:
        """Encode rows as a row group; write the segment once it is large enough."""
        gathered = pa.concat_tables(self._gathered, promote_options="default")
        table = gathered.slice(0, count)
        blocks: protect.sealed_blocks.Blocks = {}
        if self._paths.protection is not None:
            table, blocks = protect.sealed_blocks.packed(self._paths, table, is_new=True)
        self._waiting = gathered.num_rows - table.num_rows
        self._gathered = [gathered.slice(count)] if self._waiting else []
        self._bytes = sum(waiting.nbytes for waiting in self._gathered)
        fields = self._fields if typed_columns.COLUMN in table.column_names else None
        if self._encoder is None or (fields and not self._stored):
            self._write()
            self._stored = fields
            self._encoder = SegmentEncoder(*("events", "arrival", self._commit, LEVEL, fields))
        self._encoder.blocks |= blocks
        self._texts += len(table) - table["data"].null_count
        self._encoder.add(*_with_fields(table, self._stored))
        self._counted.append(table.select(_COUNTED))
        if sum(t.num_rows for t in self._counted) >= self._target:
            self._write()

    def _end_segment(self) -> None:
        """Write what there is as a segment of its own."""
        if self._waiting:
            self._encode(self._waiting)
        self._write()

    def _write(self) -> None:
        """Write the segment that is being encoded."""
        encoder, self._encoder = self._encoder, None
        counted, self._counted = self._counted, []
        text_rows, self._texts = self._texts, 0
        if encoder is not None:
            table, data = pa.concat_tables(counted), encoder.finish()
            key = self._stored.schema.key if self._stored else ""
            self._writes.append(self._disk.submit(self._put, data, table, key, text_rows))

    def _put(self, data: bytes, table: pa.Table, fields: str, text_rows: int) -> SegmentEntry:
        entry = put_segment(self._paths, data, table, "events", "arrival")
        return replace(entry, fields=fields, text_rows=text_rows) if fields else entry


def _with_fields(table: pa.Table, fields: FieldColumns | None) -> tuple[pa.Table, int]:
    """Return rows with the column of structs that their segment has, and the bytes of the payloads
    that are structs, as text."""
    if fields is None:
        return table, 0
    if typed_columns.COLUMN not in table.column_names:
        struct_type = fields.schema.arrow_type()
        return table.append_column(typed_columns.COLUMN, pa.nulls(len(table), struct_type)), 0
    return table, pc.sum(table[typed_columns.TEXT_BYTES]).as_py() or 0
