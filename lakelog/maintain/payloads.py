"""The rows of segments that are merged, and how their payloads are stored."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lakelog import arrays, protect, typed_columns
from lakelog.entries import SegmentEntry
from lakelog.errors import DamagedSegment
from lakelog.event import EVENT_COLUMNS
from lakelog.libraries import duckdb, np, pa
from lakelog.segments import Segment, segment_schema
from lakelog.store import Store

TYPED = True
"""Whether payloads are written as typed columns, where those give their text back."""


@dataclass(frozen=True)
class SegmentRows:
    """Rows of segments with seq. Payloads in a column `fields` are structs of `schema`, which are
    `text_bytes` as text."""

    table: pa.Table
    schema: typed_columns.Schema | None = None
    text_bytes: int = 0


class PayloadStorage:
    """How one run stores payloads: as typed columns, with the schemas of what is there already."""

    def __init__(self, store: Store, engine: duckdb.DuckDBPyConnection) -> None:
        self._store, self.engine = store, engine
        self.typing = typed_columns.PayloadTyping(engine)
        self.neighbours: list[SegmentEntry] = []
        """Typed segments whose schemas come first, that nearest in seq before others."""

    def rows(self, group: list[SegmentEntry]) -> SegmentRows:
        """Return the rows of a group. Raises DamagedSegment."""
        sources = [
            (entry, *read_segment(self._store, entry, Segment.read_stored)) for entry in group
        ]
        events = Counter[typed_columns.Schema]()
        for entry, _, schema in sources:
            events.update({schema.plain(): entry.events} if schema else {})
        # The schema of most rows, with whole texts: structs of another one become text.
        common_schema = events.most_common(1)[0][0] if events else None
        tables, size = [], 0
        for entry, table, schema in sources:
            # From now on seq is a column: sorted rows are no longer in its order.
            if entry.layout == "arrival":
                seq = arrays.integers(np.arange(table.num_rows) + entry.seq[0])
                table = table.append_column("seq", seq)
            rows = table.select([*EVENT_COLUMNS, "seq"])
            rows = rows.cast(segment_schema("events", "sorted"))
            if common_schema and schema:
                structs = table[typed_columns.COLUMN].cast(schema.arrow_type())
                rows, added_bytes = self.typing.recast(
                    schema, common_schema, rows.append_column(typed_columns.COLUMN, structs)
                )
                size += added_bytes + Segment(self._store.paths, entry.key).text_bytes()
            tables.append(rows)
        all_rows = pa.concat_tables(tables, promote_options="default")
        if common_schema:
            # They are taken in parts, each of which would put all chunks together once more.
            index = all_rows.column_names.index(typed_columns.COLUMN)
            structs = all_rows[typed_columns.COLUMN].combine_chunks()
            all_rows = all_rows.set_column(index, typed_columns.COLUMN, structs)
        return SegmentRows(all_rows, common_schema, size)

    def protected(
        self, rows: SegmentRows, group: list[SegmentEntry]
    ) -> tuple[SegmentRows, protect.sealed_blocks.Blocks]:
        """Return rows of a group whose protected fields are in blocks, and these. Raises
        InvalidKey, DamagedSegment."""
        paths = self._store.paths
        if paths.protection is None:
            return rows, {}
        table = rows.table
        if rows.schema:
            table = typed_columns.restored(self.engine, rows.schema, table)
        table, blocks = protect.sealed_blocks.packed(paths, table, (entry.key for entry in group))
        return SegmentRows(table), blocks

    def choose(
        self, rows: SegmentRows, group: list[SegmentEntry], order: pa.Array
    ) -> typed_columns.FieldColumns | None:
        """Return how the payloads of a group are stored in an order, None for text."""
        if not TYPED:
            return None
        inputs = sorted((e for e in group if e.fields), key=lambda entry: -entry.events)
        start = group[0].seq[0]
        nearest = sorted(self.neighbours, key=lambda entry: abs(entry.seq[0] - start))
        near = dict[typed_columns.Schema, None]()
        for entry in (*inputs[:1], *nearest[:1]):
            # A neighbour that is damaged is not this group's damage.
            with contextlib.suppress(DamagedSegment):
                near[typed_columns.Schema.of_entry(self._store.paths, entry).plain()] = None
        return self.typing.choose(rows.table, rows.schema, near, order)

    def convert(
        self,
        fields: typed_columns.FieldColumns | None,
        rows: pa.Table,
        schema: typed_columns.Schema | None,
    ) -> tuple[pa.Table, int]:
        """Return rows as they are to be stored, and the bytes of payloads that became structs."""
        if fields:
            return self.typing.convert(fields.schema, rows, schema)
        return (typed_columns.restored(self.engine, schema, rows) if schema else rows), 0


def read_segment(store: Store, entry: SegmentEntry, reader: Callable[[Segment], object]) -> Any:
    """Call `read` on a segment. Raises DamagedSegment where it is missing or no valid Parquet."""
    try:
        return reader(Segment(store.paths, entry.key))
    except (FileNotFoundError, pa.ArrowException) as error:
        path = store.paths.object("segments", entry.key)
        raise DamagedSegment(path, f"it cannot be read ({' '.join(str(error).split())})") from None
