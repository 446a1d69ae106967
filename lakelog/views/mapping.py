"""What a view maps: the rows of segments and of a tail, as one table of its shape."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Protocol

from lakelog import sql
from lakelog.entries import SegmentEntry
from lakelog.event import EVENT_COLUMNS
from lakelog.libraries import duckdb
from lakelog.paths import Paths
from lakelog.query import Extraction, SegmentMap
from lakelog.runtime.lazy import Lazy
from lakelog.views.definition import ViewDefinition
from lakelog.views.layers import LayerBuilder, LayerTable, StateShape, view
from lakelog.views.lineage import SegmentRead
from lakelog.views.params import Values

if TYPE_CHECKING:
    from lakelog.protect import sealed_blocks
else:
    sealed_blocks = Lazy("lakelog.protect.sealed_blocks")

TIME = "epoch_us(time)::HUGEINT * 9223372036854775808"
PLACE = f"{TIME} + seq AS place"
"""Orders events by time, those of one time by seq; never null."""


class RowsProvider(Protocol):
    """What gives the rows of segments: a session of the lake."""

    def rows_sql(
        self,
        entries: list[SegmentEntry],
        extractions: tuple[Extraction, ...] = (),
        *,
        opens: bool = False,
    ) -> str:
        """SQL for the rows of verified segments, with seq and more columns; it may open protected
        fields."""
        ...


class Mapper:
    """Maps rows in the database of a builder."""

    def __init__(self, paths: Paths, source: RowsProvider, builder: LayerBuilder) -> None:
        self._paths, self._source, self._builder = paths, source, builder

    def mapped(
        self,
        cursor: duckdb.DuckDBPyConnection,
        shape: StateShape,
        sources: list[SegmentRead],
        tail: str = "",
        condition: str = "true",
        *,
        opens: bool = False,
    ) -> LayerTable:
        """Keep the partial of segments and of the rows of a tail, of those for which SQL holds."""
        segment_map = SegmentMap(shape.map)
        if any(source.entry.fields for source in sources):
            segment_map = segment_map.over_columns(cursor)
            shape = dataclasses.replace(shape, map=segment_map.sql)
        rows = self._rows(sources, segment_map.columns, opens=opens)
        if tail:
            tail = sealed_blocks.opened_sql(self._paths, tail, ()) if opens else tail
            columns = (*EVENT_COLUMNS, "seq", *segment_map.of_texts(), "place")
            # In the same order of columns: UNION ALL goes by position.
            rows += f" UNION ALL SELECT {', '.join(columns)} FROM ({tail})"
        return self._builder.mapped(
            cursor, shape, f"SELECT * FROM ({rows}) WHERE {condition}", segment_map.table
        )

    def _rows(
        self,
        sources: list[SegmentRead],
        columns: tuple[Extraction, ...] = (),
        *,
        opens: bool = False,
    ) -> str:
        """SQL for the rows of segments, each verified before."""
        whole = [source.entry for source in sources if not source.without]
        queries = (
            [self._source.rows_sql(whole, columns, opens=opens)] if whole or not sources else []
        )
        for source in sources:
            if source.without:
                covered = " OR ".join(f"seq BETWEEN {a} AND {b}" for a, b in source.without)
                rows = self._source.rows_sql([source.entry], columns)
                queries.append(f"SELECT * FROM ({rows}) WHERE NOT ({covered})")
        return f"SELECT *, {PLACE} FROM ({' UNION ALL '.join(queries)})"


def shape_of(
    cursor: duckdb.DuckDBPyConnection, definition: ViewDefinition, values: Values
) -> StateShape:
    """Ask the engine which columns a map gives; its merge must give the same."""
    maps, merges = (definition.filled(section, values) for section in ("map", "merge"))
    view(cursor, "segment", f"SELECT *, {PLACE} FROM ({sql.no_rows((*EVENT_COLUMNS, 'seq'))})")
    relation = cursor.sql(maps)
    columns = tuple(zip(relation.columns, map(str, relation.types), strict=True))
    return StateShape(columns, definition.key, definition.merged, maps, merges)


def engine_name() -> str:
    """What states depend on beside their SQL."""
    return f"1 {duckdb.__version__}"
