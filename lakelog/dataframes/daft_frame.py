"""A state as a Daft DataFrame, a task for each share; Daft hands columns and filters to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakelog.dataframes import event_scan
from lakelog.dataframes.event_scan import EventScan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import daft
    from daft.io.pushdowns import Pushdowns
    from daft.io.source import DataSource
    from pyarrow import dataset as ds


def to_daft(scan: EventScan) -> daft.DataFrame:
    """Return the events as a Daft DataFrame. Raises QueryFailed without Daft."""
    event_scan.require("daft", ".to_daft()", "pip install daft")
    return _source(scan).read()


def _source(scan: EventScan) -> DataSource:
    """Return a source of Daft: its classes are made here, as their bases are there only with
    Daft."""
    from daft.io.source import DataSource, DataSourceTask
    from daft.recordbatch import RecordBatch
    from daft.schema import Schema

    of_events = Schema.from_pyarrow_schema(event_scan.schema())

    class LakeTask(DataSourceTask):  # type: ignore[misc, unused-ignore]
        """One share."""

        def __init__(
            self, share: EventScan, columns: list[str] | None, condition: ds.Expression | None
        ) -> None:
            self._share, self._columns, self._condition = share, columns, condition

        @property
        def schema(self) -> Schema:
            return of_events

        async def read(self) -> AsyncIterator[RecordBatch]:
            rows = event_scan.read_rows(self._share, self._columns, self._condition)
            for batch in rows.to_batches():
                yield RecordBatch.from_arrow_record_batches([batch], rows.schema)

    class LakeSource(DataSource):  # type: ignore[misc, unused-ignore]
        """The shares of a scan."""

        @property
        def name(self) -> str:
            return "lakelog"

        @property
        def schema(self) -> Schema:
            return of_events

        async def get_tasks(self, pushdowns: Pushdowns) -> AsyncIterator[DataSourceTask]:
            condition, columns = None, pushdowns.columns
            if pushdowns.filters is not None:
                condition = pushdowns.filters.to_arrow_expr()
                if columns is not None:  # Daft (0.7) filters what it gets once more
                    needed = {*columns, *pushdowns.filter_required_column_names()}
                    columns = [name for name in event_scan.COLUMNS if name in needed]
            for share in scan.shares():
                yield LakeTask(share, columns, condition)

    return LakeSource()
