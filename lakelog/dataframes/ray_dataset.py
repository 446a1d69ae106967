"""A state as a Ray Dataset, a read task for each share; Ray hands columns and filters to them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from lakelog.dataframes import event_scan
from lakelog.dataframes.event_scan import EventScan
from lakelog.libraries import pa

if TYPE_CHECKING:
    import ray.data
    from pyarrow import dataset as ds
    from ray.data.datasource import Datasource, ReadTask

_ROW_BYTES = 256
"""What a row is assumed to take in memory, by which Ray plans."""


def to_ray(scan: EventScan) -> ray.data.Dataset:
    """Return the events as a Ray Dataset. Raises QueryFailed without Ray,
    ExportRefused for an encrypted lake."""
    event_scan.require("ray", ".to_ray()", "pip install 'lakelog[ray]'")
    event_scan.require_plain(scan, ".to_ray()", "Ray writes rows to disk when its memory is full")
    import ray.data

    return ray.data.read_datasource(_source(scan))


def _source(scan: EventScan) -> Datasource:
    """Return a source of Ray: its class is made here, as its base is there only with Ray."""
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    class LakeSource(Datasource):  # type: ignore[misc, unused-ignore]
        """The shares of a scan."""

        def __init__(self) -> None:
            super().__init__()
            self._projection_map = None  # which Ray's base class reads, and leaves to its sources

        def supports_projection_pushdown(self) -> bool:
            return True

        def supports_predicate_pushdown(self) -> bool:
            return True

        def estimate_inmemory_data_size(self) -> int:
            return scan.rows * _ROW_BYTES

        def get_read_tasks(
            self, parallelism: int, *args: object, **options: object
        ) -> list[ReadTask]:
            projection, predicate = self.get_projection_map(), self.get_current_predicate()
            columns = None if projection is None else list(projection)
            condition = None if predicate is None else predicate.to_pyarrow()
            schema = event_scan.schema()
            tasks = []
            for share in scan.shares():
                # Ray counts by it without reading, and nobody knows how many a condition leaves.
                rows = share.rows if condition is None else None
                metadata = BlockMetadata(rows, share.rows * _ROW_BYTES, None, None)
                reader = functools.partial(_read, share, columns, condition)
                tasks.append(ReadTask(reader, metadata, schema=None if columns else schema))
            return tasks

    return LakeSource()


def _read(
    scan: EventScan, columns: list[str] | None, condition: ds.Expression | None
) -> list[pa.Table]:
    return [event_scan.read_rows(scan, columns, condition)]
