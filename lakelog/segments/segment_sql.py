"""SQL that reads segments as rows: each payload as its text, however a segment stores it.

Segments are read in as few scans as there are kinds of them: by layout, by the schema of their
typed payloads (typed_columns), and by whether some payloads of typed ones are text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lakelog import database, typed_columns
from lakelog.entries import SegmentEntry
from lakelog.event import EVENT_COLUMNS
from lakelog.paths import Paths

if TYPE_CHECKING:
    from lakelog.typed_columns import Schema

_LAYOUTS = ("arrival", "sorted")


RowRange = tuple[int, int]
"""The first and the last of rows that are read of a segment."""
RowRanges = Mapping[str, tuple[RowRange, ...]]
"""Those of segments, by their digests; all rows of those that are not among them."""


@dataclass(frozen=True, slots=True)
class SegmentScan:
    """Segments that are read alike: `schema` is that of their typed payloads, None where all are
    text; with `has_texts` some are. In their files, typed rows have `fields` and others `data`.
    Rows that are in no segment are read as a scan of none."""

    layout: str = "arrival"
    schema: Schema | None = None
    has_texts: bool = False
    entries: list[SegmentEntry] = field(default_factory=list)

    @classmethod
    def divide(cls, paths: Paths, entries: Iterable[SegmentEntry]) -> list[SegmentScan]:
        """Divide segments into scans, those in layout `arrival` first. Raises DamagedSegment."""
        groups: dict[tuple[str, str, bool], SegmentScan] = {}
        for entry in sorted(entries, key=lambda e: _LAYOUTS.index(e.layout)):
            key = entry.layout, entry.fields, entry.text_rows > 0
            if key not in groups:
                schema = typed_columns.Schema.of_entry(paths, entry) if entry.fields else None
                groups[key] = cls(entry.layout, schema, key[2])
            groups[key].entries.append(entry)
        return list(groups.values())

    def data_sql(self) -> str:
        """SQL for the payload's text over the columns of the files."""
        if self.schema is None:
            return "data"
        payload = self.schema.text_sql()
        return f"coalesce(data, {payload})" if self.has_texts else payload

    def queries(
        self,
        paths: Paths,
        extra_columns: Callable[[SegmentScan], Iterable[str]] | None = None,
        ranges: RowRanges | None = None,
    ) -> Iterator[str]:
        """Yield a query for the rows, or several where other rows are read of some segments: the
        columns of events, seq, and `extra_columns`, as SQL over the columns of the files."""
        for scan, row_ranges in self._by_ranges(ranges or {}):
            columns = [
                name if name != "data" or scan.schema is None else f"{scan.data_sql()} AS data"
                for name in EVENT_COLUMNS
            ]
            columns.append(f"{scan._seq_sql()} AS seq")
            columns.extend(extra_columns(scan) if extra_columns else ())
            files = database.parquet_sql(paths.object("segments", e.key) for e in scan.entries)
            yield f"SELECT {', '.join(columns)} FROM {files}{_where(row_ranges)}"

    def _by_ranges(
        self, ranges: RowRanges
    ) -> Iterator[tuple[SegmentScan, tuple[RowRange, ...] | None]]:
        """Divide a scan by the rows that are read of its segments. A condition of row numbers alone
        is tested by the engine's reader before it decodes other columns, and none of files too."""
        groups = dict[tuple[RowRange, ...] | None, list[SegmentEntry]]()
        for entry in self.entries:
            groups.setdefault(ranges.get(entry.key), []).append(entry)
        for row_ranges, entries in groups.items():
            yield replace(self, entries=entries), row_ranges

    def _seq_sql(self) -> str:
        """SQL for seq: a column of sorted segments, first plus row number of the others.

        A single file is not treated differently: in DuckDB 2.0 a plain sum makes late
        materialization fail with an internal error where a bound on seq meets an ORDER BY with a
        LIMIT.
        """
        if self.layout == "sorted":
            return "seq"
        firsts = ", ".join(str(e.seq[0]) for e in self.entries)
        return f"(([{firsts}]::BIGINT[])[(file_index + 1)::BIGINT] + file_row_number)::BIGINT"


def rows_sql(paths: Paths, entries: Iterable[SegmentEntry]) -> str:
    """Return SQL for the rows of event segments, with seq, in no order; there has to be one."""
    scans = SegmentScan.divide(paths, entries)
    return " UNION ALL ".join(query for scan in scans for query in scan.queries(paths))


def _where(row_ranges: tuple[RowRange, ...] | None) -> str:
    """SQL for the rows that are read of segments, where those are not all."""
    if row_ranges is None:
        return ""
    return " WHERE " + " OR ".join(f"file_row_number BETWEEN {a} AND {b}" for a, b in row_ranges)
