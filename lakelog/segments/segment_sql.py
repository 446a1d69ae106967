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
from lakelog.segments import segment
from lakelog.store.paths import Paths

if TYPE_CHECKING:
    from lakelog.typed_columns import Schema

_LAYOUTS = ("arrival", "sorted")


@dataclass(frozen=True, slots=True)
class SegmentScan:
    """Segments that are read alike: `schema` is that of their typed payloads, None where all are
    text; with `has_texts` some are. In their files, typed rows have `fields` and others `data`."""

    layout: str
    schema: Schema | None
    has_texts: bool
    entries: list[SegmentEntry] = field(default_factory=list)

    def data_sql(self) -> str:
        """SQL for the payload's text over the columns of the files."""
        if self.schema is None:
            return "data"
        payload = self.schema.text_sql()
        return f"coalesce(data, {payload})" if self.has_texts else payload


RowRanges = Mapping[str, tuple[tuple[int, int], ...]]
"""The first and the last of the rows that are read of segments, by their digests; all rows of those
that are not among them."""
TEXT = SegmentScan("arrival", None, False)
"""How rows that are in no segment are read."""
Columns = Callable[[SegmentScan], Iterable[str]]
"""Returns more columns of a scan, as SQL over the columns of the files."""


def scans(paths: Paths, entries: Iterable[SegmentEntry]) -> list[SegmentScan]:
    """Divide segments into scans, those in layout `arrival` first. Raises DamagedSegment."""
    groups: dict[tuple[str, str, bool], SegmentScan] = {}
    for entry in sorted(entries, key=lambda e: _LAYOUTS.index(e.layout)):
        key = entry.layout, entry.fields, entry.texts > 0
        if key not in groups:
            schema = typed_columns.Schema.of_entry(paths, entry) if entry.fields else None
            groups[key] = SegmentScan(entry.layout, schema, key[2])
        groups[key].entries.append(entry)
    return list(groups.values())


def rows_sql(paths: Paths, entries: Iterable[SegmentEntry]) -> str:
    """Return SQL for the rows of event segments, with seq, in no order; there has to be one."""
    return " UNION ALL ".join(queries(paths, scans(paths, entries)))


def queries(
    paths: Paths,
    scan_list: Iterable[SegmentScan],
    extra_columns: Columns | None = None,
    ranges: RowRanges | None = None,
) -> list[str]:
    """Return a query for the rows of each scan, or several of one of whose segments other rows are
    read: the columns of events, seq, and `extra_columns`."""
    selects = []
    for scan, row_ranges in _by_ranges(scan_list, ranges or {}):
        columns = [
            name if name != "data" or scan.schema is None else f"{scan.data_sql()} AS data"
            for name in segment.EVENT_COLUMNS
        ]
        columns.append(f"{_seq_sql(scan)} AS seq")
        columns.extend(extra_columns(scan) if extra_columns else ())
        files = database.parquet_sql(paths.object("segments", e.key) for e in scan.entries)
        selects.append(f"SELECT {', '.join(columns)} FROM {files}{_where(row_ranges)}")
    return selects


def _by_ranges(
    scan_list: Iterable[SegmentScan], ranges: RowRanges
) -> Iterator[tuple[SegmentScan, tuple[tuple[int, int], ...] | None]]:
    """Divide scans by the rows that are read of their segments. A condition of row numbers alone is
    tested by the engine's reader before it decodes other columns; one of files too is not."""
    for scan in scan_list:
        groups = dict[tuple[tuple[int, int], ...] | None, list[SegmentEntry]]()
        for entry in scan.entries:
            groups.setdefault(ranges.get(entry.key), []).append(entry)
        for row_ranges, entries in groups.items():
            yield replace(scan, entries=entries), row_ranges


def _where(row_ranges: tuple[tuple[int, int], ...] | None) -> str:
    """SQL for the rows that are read of segments, where those are not all."""
    if row_ranges is None:
        return ""
    return " WHERE " + " OR ".join(f"file_row_number BETWEEN {a} AND {b}" for a, b in row_ranges)


def _seq_sql(scan: SegmentScan) -> str:
    """SQL for seq: a column of sorted segments, first plus row number of the others.

    A single file is not treated differently: in DuckDB 2.0 a plain sum makes late materialization
    fail with an internal error where a bound on seq meets an ORDER BY with a LIMIT.
    """
    if scan.layout == "sorted":
        return "seq"
    firsts = ", ".join(str(e.seq[0]) for e in scan.entries)
    return f"(([{firsts}]::BIGINT[])[(file_index + 1)::BIGINT] + file_row_number)::BIGINT"
