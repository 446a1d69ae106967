"""A database by ADBC (https://arrow.apache.org/adbc), through the low-level interface of drivers.

Their DB-API modules import pandas and polars where they are installed, which takes a second.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from lakelog.libraries import pa
from lakelog.runtime.lazy import Lazy

driver_manager = Lazy("adbc_driver_manager")


class AdbcConnection:
    """A connection in autocommit mode. Methods raise adbc_driver_manager.Error."""

    def __init__(self, database: Any) -> None:
        """Connect to a database, which is closed with the connection."""
        self._database = database
        try:
            self._connection: Any = driver_manager.AdbcConnection(database)
        except BaseException:
            database.close()
            raise

    def fetch(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement; return its rows."""
        # Read to the end also where there are no rows: SQLite runs the statement meanwhile.
        batches = self.fetch_batches(statement)
        columns = ([column.to_pylist() for column in batch.columns] for batch in batches)
        return [row for batch in columns for row in zip(*batch, strict=True)]

    def fetch_batches(self, statement: str) -> Iterator[pa.RecordBatch]:
        """Run a statement; yield its rows as they come."""
        with self._statement() as handle:
            handle.set_sql_query(statement)
            stream, _ = handle.execute_query()
            # Batch by batch: a table that is checked may be larger than memory.
            yield from pa.RecordBatchReader.from_stream(stream)

    def execute_many(self, statement: str, rows: pa.Table) -> None:
        """Run a statement once for each row, its parameters being the columns in order."""
        with self._statement() as handle:
            handle.set_sql_query(statement)
            handle.prepare()
            handle.bind_stream(rows)
            handle.execute_update()

    def append(self, table: str, rows: pa.Table, schema: str = "", temporary: bool = False) -> None:
        """Insert rows into a table in bulk."""
        options = driver_manager.StatementOptions
        with self._statement() as handle:
            handle.set_options(
                **{
                    options.INGEST_TARGET_TABLE.value: table,
                    options.INGEST_MODE.value: "adbc.ingest.mode.append",
                }
            )
            if schema:
                handle.set_options(**{options.INGEST_TARGET_DB_SCHEMA.value: schema})
            if temporary:
                handle.set_options(**{options.INGEST_TEMPORARY.value: "true"})
            handle.bind_stream(rows)
            handle.execute_update()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
        self._database.close()

    def _statement(self) -> Any:
        return contextlib.closing(driver_manager.AdbcStatement(self._connection))
