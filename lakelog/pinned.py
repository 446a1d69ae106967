"""What can be asked of a lake, and a lake as it was at one snapshot: read-only, fixed for good."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import lakelog.dataframes as dataframes
import lakelog.export as exports
import lakelog.search as searches
import lakelog.streams as streams
import lakelog.trace as traces
from lakelog import history, maintain, views
from lakelog import query as queries
from lakelog.erased import copies
from lakelog.errors import InvalidSearch
from lakelog.libraries import pa
from lakelog.store import Store

if TYPE_CHECKING:
    import daft
    import dask.dataframe
    import polars
    import pyspark.sql
    import ray.data

    from lakelog.export import ExportResult
    from lakelog.query import Relation, Session
    from lakelog.views import ViewTables


class LakeState(ABC):
    """What can be asked of a state: a past one, or that of a branch as it is now, with its tail."""

    @property
    @abstractmethod
    def _views(self) -> ViewTables:
        """The tables of this process's views."""

    @property
    def _digest(self) -> str | None:
        """The digest of the state; None for the branch as it is now."""
        return None

    @property
    def _session(self) -> Session:
        """The session that answers this process's queries."""
        return self._views.session

    def sql(
        self, query: str, params: object = None, *, variables: Mapping[str, object] | None = None
    ) -> Relation:
        """Run SQL; return a relation over the state as of this call, evaluated when it is read.

        Tables: `events` (one snapshot and the live tail), `quarantine`, and `"ref".events` for
        every tag and branch; then pandas, Polars and Arrow tables in variables of the caller, or in
        `variables` where they are given. Raises QueryFailed, SnapshotGone, Damaged.
        """
        scope = sys._getframe(1) if variables is None else variables
        return self._session.ask(query, params, self._digest, scope)

    def search(
        self,
        query: str,
        *,
        since: str | None = None,
        until: str | None = None,
        limit: int | None = None,
        oldest: bool = False,
        rank: bool = False,
    ) -> Relation:
        """Find events by words: the newest first, or the `oldest`. docs/search.md has the language.

        `since` and `until` are times, or spans before now such as `2h`. With `rank` those come
        first that match best, with a column `score`, 100 of them without a `limit`; it needs the
        extra `search`. Raises InvalidSearch, MissingPackage, QueryFailed, SnapshotGone, Damaged.
        """
        search = searches.Search.of(query, since, until)
        if rank and oldest:
            raise InvalidSearch("a search is ranked or the oldest come first, not both")
        if rank:
            return self._session.ranked(search, limit, self._digest)
        return self._session.ask(search.events(limit, oldest=oldest), None, self._digest)

    def stream(
        self, subject: str, *, after: int = 0, limit: int | None = None
    ) -> streams.EventStream:
        """The versioned events of a subject from version `after` + 1 on: see docs/streams.md.

        Raises InvalidEvent for a subject that no stream can have, SnapshotGone, Damaged.
        """
        session, digest = self._session, self._digest
        store, branch = session.store, session.tables.branch
        source = streams.StreamSource(
            *(store, branch),
            lambda query, params: session.ask(query, params, digest),
            lambda: store.state(branch) if digest is None else store.manifests.load(digest),
            lambda name: session.subject_tail(name, digest),
        )
        return streams.read(source, subject, after, limit)

    def trace(self, id: str) -> traces.TraceTree:
        """What an event, trace, span or correlation id caused, as a tree. Raises UnknownRef."""
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
        """Write the rows of a query, a table or a view to files: see `lakelog export --help`.

        `out` is a file (.parquet .csv .jsonl .arrow, .csv.gz, .jsonl.zst) or a directory of shards
        of `shard_rows` each, which appears whole or not at all; `format` is parquet, csv, ndjson or
        arrow. `progress` is called with the rows written. Raises ExportRefused, QueryFailed,
        OSError.
        """
        # Here, not in the function below: the query may name tables in variables of our caller.
        scope = sys._getframe(1)
        copies.note(self._session.store.paths, "export", os.path.abspath(out))
        return exports.export(
            lambda query, values: self._session.ask(query, values, self._digest, scope),
            query,
            exports.destination(out, format, partition_by),
            params=params,
            shard_rows=shard_rows,
            progress=progress,
        )

    def to_polars(self) -> polars.LazyFrame:
        """The events as a Polars LazyFrame, which reads what a query needs when it is
        collected. It and the following raise QueryFailed where the engine is not installed,
        Damaged, SnapshotGone; a tag keeps the files from gc until they are read."""
        return dataframes.to_polars(self._scan())

    def to_dask(self) -> dask.dataframe.DataFrame:
        """The events as a Dask DataFrame of Arrow types; columns are read as used."""
        return dataframes.to_dask(self._scan())

    def to_ray(self) -> ray.data.Dataset:
        """The events as a Ray Dataset; filters and columns are left to the tasks."""
        return dataframes.to_ray(self._scan())

    def to_daft(self) -> daft.DataFrame:
        """The events as a Daft DataFrame; filters and columns are left to the
        tasks."""
        return dataframes.to_daft(self._scan())

    def to_spark(self, spark: pyspark.sql.SparkSession) -> pyspark.sql.DataFrame:
        """The events as a DataFrame of a Spark session, which reads the files."""
        return dataframes.to_spark(self._scan(), spark)

    def _scan(self) -> dataframes.EventScan:
        return dataframes.scan_of(self._session, self._digest)

    def count(self) -> int:
        """Number of events, live ones included."""
        return self._session.count(self._digest)

    def explain(self, query: str, params: object = None) -> tuple[int, int]:
        """Return (segments the query opens, segments of the state)."""
        return self._session.plan(query, params, self._digest)

    def schema(self, type: str | None = None) -> pa.Table:
        """The fields of payloads, live events included: see docs/schema.md."""
        return self._views.fields(type, self._digest)


class PinnedLake(LakeState):
    """One past state of a branch. `id` is the snapshot's 64 hex digits."""

    def __init__(self, store: Store, branch: str, views: ViewTables, digest: str) -> None:
        self._store, self._branch, self._tables = store, branch, views
        self.id = digest

    @property
    def _views(self) -> ViewTables:
        return self._tables

    @property
    def _digest(self) -> str:
        return self.id

    def snapshot(self) -> history.Snapshot:
        """This state's id, time, author, message and counts."""
        return history.Snapshot.of(self._store.manifests.load(self.id))

    def stats(self) -> maintain.Stats:
        """What this state holds, in numbers."""
        tail = self._session.tail(self._branch)
        return maintain.Stats.measure(self._store, self._branch, tail, self.id)

    def without_protected_fields(self) -> PinnedLake:
        """The same state, of which no answer has protected fields: what is made of it may be kept
        where no key of a subject seals it."""
        session = queries.Session(self._store, self._branch, keeps_sealed=True)
        return PinnedLake(self._store, self._branch, views.ViewTables(session), self.id)

    def __repr__(self) -> str:
        return f"PinnedLake({self._store.paths.root!r}, {self.id[:12]!r})"
