"""The rows of a mapping, as the target takes them, in batches that are read ahead."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from lakelog.engine import messages
from lakelog.errors import QueryFailed
from lakelog.lake import Lake
from lakelog.runtime.lazy import Lazy
from lakelog.segments import sql
from lakelog.sync.mapping import NO_ROWS, Mapping, set_events
from lakelog.sync.target import KEY, SyncTarget

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
else:
    pa = Lazy("pyarrow")
    duckdb = Lazy("duckdb")

_CHUNK_ROWS, _CHUNK_BYTES = 8_192, 64 << 20
"""Rows that are read at once, and bytes of them that are written at once, at most."""


class RowReader:
    """Reads rows of one mapping for one target, so many at a time as a batch has."""

    def __init__(self, lake: Lake, mapping: Mapping, target: SyncTarget, batch_rows: int) -> None:
        self._lake, self._mapping, self._target = lake, mapping, target
        self._rows = min(batch_rows, target.write_rows)

    def mapped(self, events: str) -> Iterator[pa.Table]:
        """Yield what the mapping makes of events, given as SQL. Raises QueryFailed."""
        for rows in self.batches(self._query(), events):
            if self._mapping.is_keyed and rows[KEY].null_count:
                raise QueryFailed(
                    f"the mapping has a row whose {KEY} is null: leave {KEY} as it is"
                )
            yield rows

    def schema(self) -> pa.Schema:
        """The names and types of mapped rows."""
        cursor = self._lake.engine().cursor()
        try:
            set_events(cursor, NO_ROWS)
            return cursor.sql(self._query()).to_arrow_reader(1).schema
        finally:
            cursor.close()

    def _query(self) -> str:
        expressions = []
        for column in self._mapping.columns:
            name = sql.identifier(column.name)
            expressions.append(f"{self._target.value_sql(column)} AS {name}")
        nested = [sql.identifier(name) for name in sorted(self._mapping.nested)]
        as_json = ", ".join(f"to_json({name}) AS {name}" for name in nested)
        source = f"SELECT * REPLACE ({as_json})" if nested else "SELECT *"
        # The query may end in a comment.
        return f"SELECT {', '.join(expressions)} FROM ({source} FROM ({self._mapping.query}\n))"

    def require_one_row(self, events: str) -> None:
        """Refuse events of which one has several rows. Raises QueryFailed."""
        query = f"SELECT {KEY} FROM ({self._mapping.query}\n) GROUP BY {KEY} HAVING count(*) > 1"
        for rows in self.batches(f"{query} LIMIT 1", events):
            if rows.num_rows:
                raise QueryFailed(
                    f"the mapping makes several rows of one event ({KEY} {rows[KEY][0]}): use the"
                    " mode append"
                )

    def batches(self, query: str, events: str = NO_ROWS) -> Iterator[pa.Table]:
        """Yield the rows of a query; `events` are those rows. Raises QueryFailed."""
        # A cursor of its own: one with an unfinished result runs nothing else.
        cursor = self._lake.engine().cursor()
        try:
            set_events(cursor, events)
            reader = cursor.sql(query).to_arrow_reader(_CHUNK_ROWS)
            tables = _gathered(reader, self._rows)
            # The next rows are read and mapped while the target writes these.
            with ThreadPoolExecutor(1, "lakelog-sync") as pool:
                next_batch = pool.submit(next, tables, None)
                while (rows := next_batch.result()) is not None:
                    next_batch = pool.submit(next, tables, None)
                    yield rows
        # Arrow raises OSError for what the engine says while it reads on.
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise QueryFailed(f"the mapping: {messages.gist(str(error))}") from None
        finally:
            cursor.close()


def _gathered(reader: pa.RecordBatchReader, rows: int) -> Iterator[pa.Table]:
    """Yield what a reader has as tables of so many rows, or fewer where they are large."""
    waiting: list[pa.RecordBatch] = []
    count = size = 0
    for batch in reader:
        waiting.append(batch)
        count, size = count + batch.num_rows, size + batch.nbytes
        while count >= rows or size >= _CHUNK_BYTES:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, rows)
            waiting = table.slice(rows).to_batches()
            count, size = max(0, count - rows), sum(chunk.nbytes for chunk in waiting)
    if waiting:
        yield pa.Table.from_batches(waiting)
