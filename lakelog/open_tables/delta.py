"""A Delta table in a directory or a bucket, by deltalake.

Readers look for its files below the table: a path of elsewhere, which the protocol allows, is read
by deltalake's own scan and by neither Polars nor pyarrow. So a segment gets a second name there, a
hard link, and where that cannot be, a copy. Commits name the state; no other program is asked.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import orjson

from lakelog import typed_columns
from lakelog.disk import File, disk
from lakelog.entries import SegmentEntry
from lakelog.errors import ExportRefused
from lakelog.libraries import pa
from lakelog.open_tables import published_state, publishing, struct_columns
from lakelog.open_tables.published_state import COPY, PublishResult, TableSource
from lakelog.open_tables.publishing import STATE, LostCommit, TableChange, TableFile
from lakelog.open_tables.table_folder import TableFolder
from lakelog.runtime.lazy import Lazy
from lakelog.values import from_micros

if TYPE_CHECKING:
    import deltalake
    from deltalake import exceptions, transaction

    from lakelog.lake import Lake
    from lakelog.manifest import Manifest
else:
    deltalake, exceptions = Lazy("deltalake"), Lazy("deltalake.exceptions")
    transaction = Lazy("deltalake.transaction")

_QUIET = ("VACUUM", "SET TBLPROPERTIES", "CREATE TABLE", "ADD COLUMN")
"""How operations begin that change no row."""
_NO_BOUNDS = {"delta.dataSkippingNumIndexedCols": "0"}
"""Has deltalake write no least and greatest values of rows into the log, which names subjects that
are erased later."""
_CAST = "cast what Delta cannot hold, as in CAST(x AS VARCHAR)"


def publish_delta(
    lake: Lake,
    target: str,
    source: TableSource | None = None,
    *,
    options: Mapping[str, str] | None = None,
) -> PublishResult:
    """Bring the Delta table at a path or an address to a state of the lake.

    `options` are those that deltalake takes for storage. Raises MissingPackage, ExportRefused for a
    table of something else, Unreachable for storage that does not answer or refuses, UnknownRef,
    DamagedSegment.
    """
    rows = source or TableSource()
    publishing.require_plain(lake, rows)
    local = target.removeprefix("file://")
    uri = target if "://" in local else os.path.abspath(local)
    with publishing.one_line(f"Delta table {target}", "deltalake", "delta"):
        storage = dict(options or {}) or None
        return publishing.publish(
            lake, uri, rows, uri, lambda: _DeltaTable(lake, uri, rows, storage)
        )


class _DeltaTable:
    """A table at an address; `uri` is a path where it is on this machine."""

    def __init__(
        self, lake: Lake, uri: str, source: TableSource, options: dict[str, str] | None
    ) -> None:
        self._lake, self._uri, self._options = lake, uri, options
        self._folder = TableFolder(uri, options or {})
        try:
            self._table = deltalake.DeltaTable(uri, storage_options=options)
        except exceptions.TableNotFoundError:
            self._table = self._create(source)
        self._is_query = bool(source.sql)
        self._renamed: dict[str, pa.DataType] = {}
        properties = self._table.metadata().configuration
        publishing.require_ours(lake, source, uri, properties)

    def _create(self, source: TableSource) -> deltalake.DeltaTable:
        of_rows = publishing.schema_of_rows
        schema = of_rows(self._lake, source) if source.sql else struct_columns.event_columns()
        columns = _columns(schema)
        self._folder.make()
        with _lost():
            return deltalake.DeltaTable.create(
                self._uri,
                columns,
                mode="ignore",  # who was faster made the same table
                configuration=publishing.identity(self._lake, source) | _NO_BOUNDS,
                storage_options=self._options,
                raise_if_key_not_exists=False,
            )

    @property
    def id(self) -> str:
        return str(self._table.metadata().id)

    def state(self) -> str | None:
        table, version = self._table, self._table.version()
        for limit in (1, None):
            commits = {commit["version"]: commit for commit in table.history(limit)}
            while commit := commits.get(version):
                if STATE in commit:
                    return str(commit[STATE])
                operation, params = commit["operation"], commit.get("operationParameters", {})
                if operation == "RESTORE" and "version" in params:
                    version = int(params["version"])
                elif operation.startswith(_QUIET):
                    version -= 1
                else:
                    return None
        return ""  # so the files tell what it has

    @cached_property
    def _paths(self) -> dict[str, str]:
        """The paths of its files by the digests of their segments."""
        return {publishing.key_of(path): path for path in _paths(self._table)}

    def keys(self) -> set[str]:
        return {*self._paths}

    def add_columns(self, schemas: Mapping[str, typed_columns.Schema]) -> set[str]:
        before = pa.schema(self._table.schema())
        schema = before
        for key, payloads in schemas.items():
            schema, renamed = struct_columns.with_members(schema, payloads)
            if renamed is not None:
                self._renamed[key] = renamed
        if not schema.equals(before):
            columns = deltalake.Schema.from_arrow(pa.schema([schema.field(typed_columns.COLUMN)]))
            with _lost():
                self._table.alter.add_columns(columns.fields, commit_properties=_properties())
        return set()

    def file_of(self, entry: SegmentEntry, copy: bytes | None) -> TableFile:
        if copy is None and entry.fields in self._renamed:
            copy = published_state.renamed(self._lake, entry, self._renamed[entry.fields])
        name = f"{COPY if copy else ''}{entry.key}.parquet"
        segment = self._lake.store.paths.object("segments", entry.key)
        # A hard link costs no bytes, and outlives the gc of the lake.
        if copy is None and self._folder.link(segment, name):
            return TableFile(entry, name, entry.bytes)
        data = File(segment).read() if copy is None else copy
        self._folder.put(name, data)
        return TableFile(entry, name, len(data), len(data))

    def commit(self, state: str, change: TableChange) -> None:
        now_ms = disk.now_us() // 1000
        # First, for a log that names a file which a power cut took is a broken table.
        self._folder.sync()
        # A second name is no change, and to read all segments again takes minutes.
        self._lake.store.verified.renew("segments", (file.entry.key for file in change.added))
        removed = (self._paths[key] for key in change.removed)
        actions: list[transaction.AddAction | transaction.RemoveAction] = [
            *(_addition(file, now_ms, not change.is_same) for file in change.added),
            *(transaction.RemoveAction(path, not change.is_same, now_ms) for path in removed),
        ]
        with _lost():
            self._table.create_write_transaction(
                actions, "append", self._table.schema(), commit_properties=_properties(state)
            )

    def commit_rows(self, state: str, rows: pa.Table) -> None:
        _columns(rows.schema)
        # Delta has lists of any length alone, which is what readers ask the files for.
        plain = pa.schema([field.with_type(_without_arrays(field.type)) for field in rows.schema])
        with _lost():
            deltalake.write_deltalake(
                self._table,
                rows.cast(plain),
                mode="overwrite",
                schema_mode="overwrite",
                commit_properties=_properties(state),
            )

    def finish(self, state: Manifest) -> None:
        """Delete files of segments that an erasure rewrote: no version may have them."""
        rewritten = published_state.rewritten(self._lake)
        if not rewritten or self._is_query:
            return
        names = {f"{begin}{key}.parquet" for key in rewritten for begin in ("", COPY)}
        # The names of all erasures come again with each publish: few of them are still there.
        if stale := names & self._folder.names():
            table = deltalake.DeltaTable(self._uri, storage_options=self._options)
            for name in stale.difference(_paths(table)):
                self._folder.delete(name)


@contextlib.contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except exceptions.CommitFailedError as error:
        raise LostCommit from error


def _columns(schema: pa.Schema) -> deltalake.Schema:
    """Return columns as Delta has them. Raises ExportRefused for a type that it lacks."""
    try:
        columns = deltalake.Schema.from_arrow(schema)
    except Exception as error:
        # After it stands where in deltalake that was.
        raise ExportRefused(f"{str(error).splitlines()[0]}: {_CAST}") from None
    # deltalake (1.6) writes such tables, and reads none.
    if "timestamp_nanos" in columns.to_json():
        raise ExportRefused(f"a column has times in nanoseconds: {_CAST}")
    return columns


def _without_arrays(arrow_type: pa.DataType) -> pa.DataType:
    """Return a type with lists for arrays of a fixed length."""
    kinds = pa.types
    if kinds.is_fixed_size_list(arrow_type) or kinds.is_list(arrow_type):
        return pa.list_(arrow_type.value_field.with_type(_without_arrays(arrow_type.value_type)))
    if kinds.is_struct(arrow_type):
        return pa.struct([f.with_type(_without_arrays(f.type)) for f in arrow_type])
    if kinds.is_map(arrow_type):
        item = arrow_type.item_field
        return pa.map_(arrow_type.key_field, item.with_type(_without_arrays(item.type)))
    return arrow_type


def _paths(table: deltalake.DeltaTable) -> list[str]:
    paths: list[str] = pa.table(table.get_add_actions())["path"].to_pylist()
    return paths


def _properties(state: str = "") -> deltalake.CommitProperties:
    # Who lost a race looks at what is there, and does not commit the same files once more.
    names = {STATE: state} if state else None
    return deltalake.CommitProperties(custom_metadata=names, max_commit_retries=0)


def _addition(file: TableFile, now_ms: int, is_change: bool) -> transaction.AddAction:
    """Return what the table says of a file, from the manifest alone. It names no subject: the log
    keeps for good what it says."""
    entry = file.entry
    bounds: list[tuple[str, Any, Any]] = [
        ("seq", *entry.seq),
        ("time", _iso(entry.time[0]), _iso(entry.time[1])),
    ]
    # Where types are too many a manifest has their number alone, and a bound would be a guess.
    if isinstance(entry.types, dict) and entry.types:
        bounds.append(("type", min(entry.types), max(entry.types)))
    stats = {
        "numRecords": entry.events,
        "minValues": {name: low for name, low, _ in bounds},
        "maxValues": {name: high for name, _, high in bounds},
    }
    stats_json = orjson.dumps(stats).decode()
    return transaction.AddAction(file.path, file.bytes, {}, now_ms, is_change, stats_json)


def _iso(time: int) -> str:
    return f"{from_micros(time).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
