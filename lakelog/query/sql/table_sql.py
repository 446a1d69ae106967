"""The tables of a lake as a query reads them: rows of segments, and those of the tail."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from lakelog import database, protect, segments, sql
from lakelog.entries import SegmentEntry
from lakelog.event import EVENT_COLUMNS
from lakelog.libraries import duckdb, pa
from lakelog.paths import Paths
from lakelog.query.sql.analysis import may_extract
from lakelog.query.sql.tree import FIELDS, WIDE, tree_of, with_events
from lakelog.runtime.lazy import Lazy
from lakelog.segments import QUARANTINE_COLUMNS

if TYPE_CHECKING:
    from lakelog.query.sql import extractions, payload
    from lakelog.query.sql.extractions import Extraction, TypeTable
    from lakelog.segments import RowRanges
else:
    extractions, payload = Lazy("lakelog.query.sql.extractions"), Lazy("lakelog.query.sql.payload")

Kinds = Callable[[str, tuple[str | int, ...]], frozenset[str]]
"""The kinds of the values of a field, by the schema whose `events` have it and its path."""
_REWRITTEN: dict[tuple[object, ...], payload.Rewriting | None] = {}
_REWRITTEN_MAX, _SHORT = 128, 512
_VECTOR = 2_048
"""Rows that the engine takes at once."""
_NEAR = 0, 1, 3, 7, 15, 31
"""Which blocks of rows are samples of a segment, counted from its end or its begin."""
_NAMES = re.compile(r"\s*(?:with\b|--|/\*)", re.I)


class View(NamedTuple):
    """A table of the lake as one query reads it: its segments, and the rows of its tail."""

    name: str
    entries: list[SegmentEntry]
    tail: pa.Table | None
    more: tuple[Extraction, ...] = ()
    """Extractions from payloads that it has as columns besides its own."""
    of_type: TypeTable | None = None
    """Which events it has, if not all."""
    source: str | None = None
    """The table, in SQL, that has the rows of the tail, where that is not `tail`."""
    bound: str = ""
    """A condition, in SQL, that all of its rows meet; empty for none."""
    ranges: RowRanges = MappingProxyType({})
    """Which rows are read of segments, where those are not all."""
    opens: bool = False
    """Whether it shows protected fields."""
    by_ranges: bool = False
    """Whether few rows of its segments are wanted, so that those in a bucket are not fetched."""
    is_kept: bool = False
    """Whether the engine reads its rows once, and keeps them with the cursor."""

    @property
    def row_count(self) -> int:
        """How many rows of segments are read."""
        return sum(
            entry.events if ranges is None else sum(b - a + 1 for a, b in ranges)
            for entry in self.entries
            for ranges in (self.ranges.get(entry.key),)
        )

    def nearest(self, count: int, descending: bool, holds: Callable[[SegmentEntry], bool]) -> View:
        """The table of the newest segments, or the oldest ones, that have so many events, of those
        that hold something."""
        place = 1 if descending else 0
        entries, events = list[SegmentEntry](), 0
        # Segments sorted by their ends: those that reach furthest come first.
        for entry in sorted(self.entries, key=lambda e: e.time[place], reverse=descending):
            if events < count and holds(entry):
                entries.append(entry)
                events += entry.events
        return self._replace(entries=entries)

    def sample(self, descending: bool, step: int | None) -> View:
        """The table of one in so many blocks of rows of its only segment; without a step of few,
        most of them near its end, or its begin: most segments have their events by time."""
        (entry,) = self.entries
        # Rows of earlier conditions only: a sample must not read what the query leaves out.
        ranges = self.ranges.get(entry.key, ((0, entry.events - 1),))
        blocks = [
            (row, min(row + _VECTOR - 1, stop))
            for start, stop in ranges
            for row in range(start, stop + 1, _VECTOR)
        ]
        blocks = blocks[::-1] if descending else blocks
        samples = blocks[::step] if step else [blocks[n] for n in _NEAR if n < len(blocks)]
        return self._replace(ranges={entry.key: tuple(sorted(samples))})


def columns(name: str) -> tuple[str, ...]:
    """Return the columns of a table, without those of extractions, in order."""
    return QUARANTINE_COLUMNS if name == "quarantine" else (*EVENT_COLUMNS, "seq")


def rows_sql(
    paths: Paths,
    name: str,
    entries: list[SegmentEntry],
    tail: str | None,
    more: Sequence[Extraction] = (),
    ranges: RowRanges | None = None,
    *,
    opens: bool = False,
) -> str:
    """Return SQL for the rows of `events`, `quarantine`, or `events` with `more` columns.

    `tail` is a table with the columns of the first two. With `opens`, payloads have the protected
    fields of which this process has the keys. Raises InvalidKey.
    """
    if opens:
        # Opened by a macro over the text: typed columns have no ciphers to open.
        sealed_rows = rows_sql(paths, name, entries, tail, (), ranges)
        if name == "quarantine":
            return protect.sealed_blocks.opened_lines_sql(paths, sealed_rows)
        rows = protect.sealed_blocks.opened_sql(
            paths, sealed_rows, (entry.key for entry in entries)
        )
        extra = extractions.WideColumns(more)(segments.SegmentScan()) if more else ()
        return f"SELECT {', '.join((*columns(name), *extra))} FROM ({rows})"
    names = ", ".join(columns(name))
    if name == "quarantine":
        files = [paths.object("segments", entry.key) for entry in entries]
        queries = [f"SELECT {names} FROM {database.parquet_sql(files)}"] if entries else []
    else:
        wide = extractions.WideColumns(more)
        scans = segments.SegmentScan.divide(paths, entries)
        queries = [query for scan in scans for query in scan.queries(paths, wide, ranges)]
        names = ", ".join((names, *wide(segments.SegmentScan())))
    if tail is not None or not queries:
        queries.append(f"SELECT {names} FROM {tail or f'({sql.no_rows(columns(name))})'}")
    return " UNION ALL ".join(queries)


def inlined(query: str, table: str, rows: str) -> str:
    """Return a query that has the rows of its only table in itself, so that the engine binds it
    once, and no view before. It must not begin with names of its own (`has_names`)."""
    return f"WITH {table} AS NOT MATERIALIZED ({rows}) {query}"


def has_names(query: str) -> bool:
    """Whether a query begins by giving names to others, or may do so after a comment."""
    return bool(_NAMES.match(query))


def rewrite(
    connection: duckdb.DuckDBPyConnection, query: str, has_types: bool, tables: payload.Tables
) -> payload.Rewriting | None:
    """Return the query with extractions from payloads as columns; see `payload.rewrite`."""
    key = query, has_types, *tables.items()
    # Long queries seldom come again, and their trees are large.
    if key not in _REWRITTEN:
        rewriting = payload.rewrite(connection, tree_of(connection, query), has_types, tables)
        if len(query) > _SHORT:
            return rewriting
        if len(_REWRITTEN) >= _REWRITTEN_MAX:
            _REWRITTEN.clear()
        _REWRITTEN[key] = rewriting
    return _REWRITTEN[key]


def over_typed_columns(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    views: list[View],
    of_refs: Mapping[str, View],
    kinds: Kinds,
    *,
    keep: bool,
) -> tuple[str, list[View]]:
    """Return a query that reads extractions from payloads as columns, and the views that it needs;
    both as they are where that gains nothing.

    `kinds` says which kinds of values a field has in the events of a schema. `of_refs` are the
    `events` of other schemas. `keep` keeps `events` whether or not it is named; those with another
    name have only the segments that the query needs, and a query that reads no extractions reads
    them under that name.
    """
    narrowed = [view for view in of_refs.values() if view.name != "events"]
    events_views = [("", view) for view in views if view.name == "events"]
    events = dict(events_views) | dict(of_refs)
    # Even where nothing is typed, `fields` has to become the payload's text.
    has_types = any(entry.fields for view in events.values() for entry in view.entries)
    has_fields = bool(events) and FIELDS in query.lower()
    if not (has_types or has_fields) or not may_extract(query):
        return _over_narrowed(connection, query, views, narrowed)
    tables = {(schema, "events"): f"{WIDE}{schema}" for schema in events}
    rewriting = rewrite(connection, query, has_types, tables)
    if rewriting is None:
        return _over_narrowed(connection, query, views, narrowed)
    wide = [
        view._replace(
            name=tables[schema, "events"],
            more=tuple(
                column.with_kinds(kinds(schema, column.path)) if column.mode == "fields" else column
                for column in rewriting.columns
            ),
        )
        for schema, view in events.items()
    ]
    if not rewriting.reads_events and not keep:
        views = [view for view in views if view.name != "events"]
    return rewriting.sql, [*views, *wide]


def _over_narrowed(
    connection: duckdb.DuckDBPyConnection, query: str, views: list[View], narrowed: list[View]
) -> tuple[str, list[View]]:
    """Return a query that reads these views in the place of the `events` of their schemas."""
    if not narrowed:
        return query, views
    tree = with_events(
        tree_of(connection, query), {view.name.removeprefix(WIDE): view.name for view in narrowed}
    )
    rewritten = payload.text_of(connection, tree)
    return (rewritten, [*views, *narrowed]) if rewritten else (query, views)
