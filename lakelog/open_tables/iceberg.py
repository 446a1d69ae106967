"""A table of Apache Iceberg, in any catalog that pyiceberg knows.

Its files are the segments where they lie in the lake, by their numbered columns; of a shared lake,
copies of them beside the table. Its commits are
snapshots with the state as a property.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from lakelog import typed_columns
from lakelog.disk import File
from lakelog.entries import SegmentEntry
from lakelog.errors import ExportRefused
from lakelog.libraries import pa
from lakelog.open_tables import field_columns, publishing
from lakelog.open_tables.field_columns import NumberConflict
from lakelog.open_tables.published_state import COPY, PublishResult, TableSource
from lakelog.open_tables.publishing import STATE, LostCommit, TableChange, TableFile
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    from pyiceberg import catalog as catalogs
    from pyiceberg import exceptions, manifest, typedef
    from pyiceberg.catalog import Catalog
    from pyiceberg.io import pyarrow as arrow_types
    from pyiceberg.manifest import DataFile
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table, Transaction
    from pyiceberg.table import update as updates

    from lakelog.lake import Lake
    from lakelog.manifest import Manifest
else:
    catalogs, exceptions = Lazy("pyiceberg.catalog"), Lazy("pyiceberg.exceptions")
    manifest, typedef = Lazy("pyiceberg.manifest"), Lazy("pyiceberg.typedef")
    updates, arrow_types = Lazy("pyiceberg.table.update"), Lazy("pyiceberg.io.pyarrow")

_SETTINGS = {"format-version": "2", "commit.retry.num-retries": "0"}
"""Of tables. pyiceberg (0.12) commits files once more where another commit was faster, as if that
could not be of the same files."""


def publish_iceberg(
    lake: Lake,
    target: str,
    source: TableSource | None = None,
    *,
    catalog: str = "default",
    properties: Mapping[str, str] | None = None,
) -> PublishResult:
    """Bring the table `NAMESPACE.TABLE` of a catalog to a state of the lake.

    `catalog` and `properties` are those of pyiceberg. Raises MissingPackage, ExportRefused for a
    table of something else, Unreachable for a catalog that does not answer or refuses, UnknownRef,
    DamagedSegment.
    """
    rows = source or TableSource()
    publishing.require_plain(lake, rows)
    with (
        publishing.one_line(f"Iceberg catalog {catalog}", "pyiceberg", "iceberg"),
        catalogs.load_catalog(catalog, **(properties or {})) as client,
    ):
        place = f"{target} of the catalog {catalog}"
        return publishing.publish(
            lake, target, rows, place, lambda: _IcebergTable(client, lake, target, rows)
        )


class _IcebergTable:
    """A table of a catalog."""

    def __init__(self, catalog: Catalog, lake: Lake, target: str, source: TableSource) -> None:
        self._catalog, self._lake = catalog, lake
        self._table = _table(catalog, lake, target, source)

    @property
    def id(self) -> str:
        return str(self._table.metadata.table_uuid)

    def state(self) -> str | None:
        snapshot = self._table.current_snapshot()
        if snapshot is None:
            return ""
        return snapshot.summary.additional_properties.get(STATE) if snapshot.summary else None

    def keys(self) -> set[str]:
        return {*self._files}

    @cached_property
    def _files(self) -> dict[str, DataFile]:
        """The files of the newest snapshot, by the digests of their segments."""
        snapshot, io = self._table.current_snapshot(), self._table.io
        return {
            publishing.key_of(entry.data_file.file_path): entry.data_file
            for manifest_file in (snapshot.manifests(io) if snapshot else ())
            for entry in manifest_file.fetch_manifest_entry(io, discard_deleted=True)
        }

    def add_columns(self, schemas: Mapping[str, typed_columns.Schema]) -> set[str]:
        schema, unfit = self._table.schema(), set[str]()
        for key, payloads in schemas.items():
            try:
                schema = field_columns.with_members(schema, payloads)
            except NumberConflict:
                # Its segments are copied under numbers of this table.
                unfit.add(key)
        if schema is not self._table.schema():
            with _lost():
                _evolve(self._catalog, self._table, schema)
            self._table.refresh()
        return unfit

    def file_of(self, entry: SegmentEntry, copy: bytes | None) -> TableFile:
        segment = self._lake.store.paths.object("segments", entry.key)
        if copy is None and self._lake.store.attachment is None:
            # A URI: ClickHouse takes every path for one, and cuts off its beginning.
            return TableFile(entry, f"file://{segment}", entry.bytes)
        # The directory of a machine that shares a lake is no place for others to read, and drops
        # what the bucket has.
        copy = File(segment).read() if copy is None else copy
        path = f"{self._table.location()}/data/{COPY}{entry.key}.parquet"
        with self._table.io.new_output(path).create(overwrite=True) as file:
            file.write(copy)
        return TableFile(entry, path, len(copy), len(copy))

    def commit(self, state: str, change: TableChange) -> None:
        with _lost(), self._table.transaction() as transaction:
            update = transaction.update_snapshot(snapshot_properties={STATE: state})
            with update.overwrite() if change.removed else update.fast_append() as producer:
                for data_file in _data_files(change.added):
                    producer.append_data_file(data_file)
                for key in change.removed:
                    producer.delete_data_file(self._files[key])

    def commit_rows(self, state: str, rows: pa.Table) -> None:
        # One commit, and rows come whole: readers see no column without its values.
        with _lost(), self._table.transaction() as transaction:
            _fit_columns(transaction, rows.schema)
            is_new = self._table.current_snapshot() is None
            write = transaction.append if is_new else transaction.overwrite
            write(rows, snapshot_properties={STATE: state})

    def finish(self, state: Manifest) -> None:
        """Give the newest snapshot the tags that the lake has of the same rows."""
        with _lost():
            _map_tags(self._lake, self._table, state)


@contextlib.contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except (exceptions.CommitFailedException, exceptions.CommitStateUnknownException) as error:
        raise LostCommit from error


@contextlib.contextmanager
def _castable() -> Iterator[None]:
    """Raise ExportRefused for a type that Iceberg lacks."""
    try:
        yield
    except arrow_types.UnsupportedPyArrowTypeException as error:
        cast = "cast what Iceberg cannot hold, as in CAST(x AS VARCHAR)"
        raise ExportRefused(f"{error}: {cast}") from None


def _table(catalog: Catalog, lake: Lake, target: str, source: TableSource) -> Table:
    """Return the table, made where there is none. Raises ExportRefused for another's."""
    if "." not in target:
        raise ExportRefused(f"{target}: name a table as NAMESPACE.TABLE")
    try:
        table = catalog.load_table(target)
    except exceptions.NoSuchTableError:
        catalog.create_namespace_if_not_exists(target.rpartition(".")[0])
        of_rows = publishing.schema_of_rows
        schema = of_rows(lake, source) if source.sql else field_columns.event_columns()
        properties = publishing.identity(lake, source) | _SETTINGS
        with _castable():
            return catalog.create_table(target, schema, properties=properties)
    publishing.require_ours(lake, source, target, table.properties)
    # A retry of pyiceberg would commit files of a state that another publish has replaced by then.
    if table.properties.get("commit.retry.num-retries") != "0":
        with table.transaction() as transaction:
            transaction.set_properties(_SETTINGS)
    return table


def _evolve(catalog: Catalog, table: Table, schema: Schema) -> None:
    # Not by update_schema of pyiceberg, which gives columns numbers of its properties.
    requirements = (
        updates.AssertTableUUID(uuid=table.metadata.table_uuid),
        updates.AssertCurrentSchemaId.model_validate(
            {"current-schema-id": table.schema().schema_id}
        ),
    )
    changes = (updates.AddSchemaUpdate(schema=schema), updates.SetCurrentSchemaUpdate())
    catalog.commit_table(table, requirements, changes)


def _fit_columns(transaction: Transaction, schema: pa.Schema) -> None:
    """Give a table the columns of rows that replace all of its rows. A column that is gone, or
    whose type Iceberg does not let become the new one, ends; one of its name has a new number."""
    with transaction.update_schema(allow_incompatible_changes=True) as update:
        for column in transaction.table_metadata.schema().fields:
            if not _is_kept(transaction, column.name, schema):
                update.delete_column((column.name,))
    with transaction.update_schema() as update:
        update.union_by_name(schema)


def _is_kept(transaction: Transaction, name: str, schema: pa.Schema) -> bool:
    if name not in schema.names:
        return False
    try:  # what is never committed
        transaction.update_schema().union_by_name(pa.schema([schema.field(name)]))
    except (ValueError, exceptions.ValidationError):
        return False
    return True


def _data_files(added: Sequence[TableFile]) -> list[DataFile]:
    """Return what a table says of files, from the manifest alone: to open 100,000 files and read
    what they say of themselves takes a minute."""
    from_args, packed = manifest.DataFile.from_args, struct.Struct("<q").pack
    content, form = manifest.DataFileContent.DATA, manifest.FileFormat.PARQUET
    unpartitioned = typedef.Record()
    files: list[DataFile] = []
    for file in added:
        entry = file.entry
        # By the numbers of columns. Iceberg has the bytes of a bound, not its value.
        bounds = [
            (1, packed(entry.time[0]), packed(entry.time[1])),
            (13, packed(entry.seq[0]), packed(entry.seq[1])),
        ]
        if isinstance(entry.types, dict) and entry.types:
            bounds.append((2, min(entry.types).encode(), max(entry.types).encode()))
        if entry.subject:
            bounds.append((5, entry.subject[0].encode(), entry.subject[1].encode()))
        data_file = from_args(
            content=content,
            file_path=file.path,
            file_format=form,
            partition=unpartitioned,
            record_count=entry.events,
            file_size_in_bytes=file.bytes,
            lower_bounds={number: low for number, low, _ in bounds},
            upper_bounds={number: high for number, _, high in bounds},
        )
        data_file.spec_id = 0
        files.append(data_file)
    return files


def _map_tags(lake: Lake, table: Table, state: Manifest) -> None:
    """Give the newest snapshot the tags that the lake has of the same rows."""
    snapshot = table.current_snapshot()
    if snapshot is None:
        return
    present = table.metadata.refs
    names = {
        tag.name
        for tag in lake.tags()
        if tag.snapshot == state.digest and not tag.name.startswith("published-")
    }
    # Iceberg moves a tag by taking it away first.
    stale = [n for n in names & present.keys() if present[n].snapshot_id != snapshot.snapshot_id]
    fresh = names - present.keys()
    if not (stale or fresh):
        return
    with table.manage_snapshots() as manage:
        for name in stale:
            manage = manage.remove_tag(name)
        for name in sorted({*stale, *fresh}):
            manage = manage.create_tag(snapshot.snapshot_id, name)
