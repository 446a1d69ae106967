"""Making the tables of the lake on a cursor, as temporary views of segments and tails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lakelog.query.sql import table_sql
from lakelog.query.sql.table_sql import View
from lakelog.segments import connection
from lakelog.store.entry import SegmentEntry

if TYPE_CHECKING:
    import duckdb

    from lakelog.query.sql.extractions import Extraction


class RowsSql(Protocol):
    """Returns SQL for the rows of a table: of segments, and of what has those of a tail."""

    def __call__(
        self,
        name: str,
        entries: list[SegmentEntry],
        tail: str | None,
        more: tuple[Extraction, ...] = (),
    ) -> str: ...


def make(cursor: duckdb.DuckDBPyConnection, view: View, rows_of: RowsSql, *, is_part: bool) -> None:
    """Make a view on a cursor, of segments that are verified; `is_part` says that `rows_of` leaves
    some of their rows out."""
    name, source = view.name, view.source
    if view.tail is not None:
        connection.load_relations()  # which know how the engine reads Arrow tables
        tail = view.tail.select(table_sql.columns(name))
        # A view over it would take as long again.
        is_bare = not (view.entries or view.more or view.of_type or view.bound or is_part)
        source = f"lakelog_tail_{'quarantine' if name == 'quarantine' else 'events'}"
        cursor.register(name if is_bare else source, tail)
        if is_bare:
            return
    rows = rows_of(name, view.entries, source, view.more)
    rows = view.of_type.rows_sql(rows) if view.of_type else rows
    rows = f"SELECT * FROM ({rows}) WHERE {view.bound}" if view.bound else rows
    cursor.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {rows}")
