"""A lake as it was at one snapshot: read-only, fixed for good."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import lakelog.dataframes as dataframes
import lakelog.export as exports
import lakelog.search as searches
import lakelog.streams as streams
import lakelog.trace as traces
from lakelog.libraries import pa
from lakelog.runtime.lazy import Lazy
from lakelog.store.bootstrap import Store

if TYPE_CHECKING:
    import daft
    import dask.dataframe
    import polars
    import pyspark.sql
    import ray.data

    from lakelog.export import ExportResult
    from lakelog.query.relation import Relation
    from lakelog.store import history, stats
    from lakelog.views import ledger
    from lakelog.views.tables import ViewTables
else:
    history, stats = Lazy("lakelog.store.history"), Lazy("lakelog.store.stats")
    ledger = Lazy("lakelog.views.ledger")


class PinnedLake:
    """One past state of a branch. `id` is the snapshot's 64 hex digits."""

    def __init__(self, store: Store, branch: str, views: ViewTables, digest: str) -> None:
        self._store, self._branch = store, branch
        self._views, self._session = views, views.session
        self.id = digest

    def sql(
        self, query: str, params: object = None, *, variables: Mapping[str, object] | None = None
    ) -> Relation:
        """Run SQL over this state; see `Lake.sql`. Raises QueryFailed, SnapshotGone, Damaged."""
        scope = sys._getframe(1) if variables is None else variables
        return self._session.ask(query, params, self.id, scope)

    def search(
        self,
        query: str,
        *,
        since: str | None = None,
        until: str | None = None,
        limit: int | None = None,
        oldest: bool = False,
    ) -> Relation:
        """Find events of this state by words; see `Lake.search`."""
        statement = searches.Search.of(query, since, until).events(limit, oldest=oldest)
        return self._session.ask(statement, None, self.id)

    def stream(
        self, subject: str, *, after: int = 0, limit: int | None = None
    ) -> streams.EventStream:
        """The versioned events of a subject in this state; see `Lake.stream`."""
        manifests, session = self._store.manifests, self._session
        source = streams.StreamSource(
            *(self._store, self._branch),
            lambda query: session.ask(query, None, self.id),
            lambda: manifests.load(self.id),
        )
        return streams.read(source, subject, after, limit)

    def trace(self, id: str) -> traces.TraceTree:
        """What one request caused, as of this state; see `Lake.trace`."""
        return traces.trace_of(self.sql, id)

    def export(
        self,
        query: str,
        out: str | os.PathLike[str],
        *,
        format: str | None = None,
        params: object = None,
        partition_by: Sequence[str] = (),
        shard_rows: int = 1_000_000,
        progress: Callable[[int], None] | None = None,
    ) -> ExportResult:
        """Write rows of this state to files; see `Lake.export`."""
        # Here and not deeper: variables of the caller's frame may be named as tables.
        scope = sys._getframe(1)
        return exports.export(
            lambda query, values: self._session.ask(query, values, self.id, scope),
            query,
            exports.destination(out, format, partition_by),
            params=params,
            shard_rows=shard_rows,
            progress=progress,
        )

    def to_polars(self) -> polars.LazyFrame:
        """The events of this state as a Polars LazyFrame, which reads what a query needs when it is
        collected. It and the following raise QueryFailed where the engine is not installed,
        Damaged, SnapshotGone; a tag keeps the files from gc until they are read."""
        return dataframes.to_polars(self._scan())

    def to_dask(self) -> dask.dataframe.DataFrame:
        """The events of this state as a Dask DataFrame of Arrow types; columns are read as used."""
        return dataframes.to_dask(self._scan())

    def to_ray(self) -> ray.data.Dataset:
        """The events of this state as a Ray Dataset; filters and columns are left to the tasks."""
        return dataframes.to_ray(self._scan())

    def to_daft(self) -> daft.DataFrame:
        """The events of this state as a Daft DataFrame; filters and columns are left to the
        tasks."""
        return dataframes.to_daft(self._scan())

    def to_spark(self, spark: pyspark.sql.SparkSession) -> pyspark.sql.DataFrame:
        """The events of this state as a DataFrame of a Spark session, which reads the files."""
        return dataframes.to_spark(self._scan(), spark)

    def _scan(self) -> dataframes.EventScan:
        return dataframes.scan_of(self._session, self.id)

    def count(self) -> int:
        """Number of events."""
        return self._session.count(self.id)

    def explain(self, query: str, params: object = None) -> tuple[int, int]:
        """Return (segments the query opens, segments of this state)."""
        return self._session.plan(query, params, self.id)

    def schema(self, type: str | None = None) -> pa.Table:
        """The fields of this state's payloads; see `Lake.schema`."""
        return ledger.table(self._views, type, self.id)

    def snapshot(self) -> history.Snapshot:
        """This state's id, time, author, message and counts."""
        return history.describe(self._store.manifests.load(self.id))

    def stats(self) -> stats.Stats:
        """What this state holds, in numbers."""
        tail = self._session.tail(self._branch)
        return stats.measure(self._store, self._branch, tail, self.id)

    def __repr__(self) -> str:
        return f"PinnedLake({self._store.paths.root!r}, {self.id[:12]!r})"
