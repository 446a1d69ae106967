"""A state of a lake as a table of Apache Iceberg, in any catalog that pyiceberg knows.

The procedure, of which each step may be the last one that a killed publish did:

1. compact the branch; its newest state is what is published
2. make the table, or refuse one that is not of this lake and branch
3. add columns of members that the table lacks
4. tag the state, so that gc keeps its files
5. write copies of what is no file of the table as it is
6. commit one snapshot: files added, files taken out, the state's id as a property of it
7. make tags of the table of the lake's tags of that state, and remove the tag of the state before

A snapshot that names the state is there or not, so a publish that is repeated commits nothing. Who
loses a race for the commit, or gets no answer, loads the table again and looks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lakelog.erased.copies import note as note_copy
from lakelog.errors import ExportRefused, MissingPackage, SnapshotGone, Unreachable
from lakelog.maintain import compact
from lakelog.open_tables import field_columns, published_state
from lakelog.open_tables.field_columns import NumberConflict
from lakelog.open_tables.published_state import COPY, PublishResult, TableSource
from lakelog.runtime.lazy import Lazy
from lakelog.segments import typed
from lakelog.store.entry import SegmentEntry

if TYPE_CHECKING:
    from pyiceberg import catalog as catalogs
    from pyiceberg import conversions, exceptions, manifest, typedef, types
    from pyiceberg.catalog import Catalog
    from pyiceberg.manifest import DataFile
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table
    from pyiceberg.table import update as updates
    from pyiceberg.types import PrimitiveType

    from lakelog.lake import Lake
    from lakelog.store.manifest import Manifest
else:
    catalogs, conversions = Lazy("pyiceberg.catalog"), Lazy("pyiceberg.conversions")
    exceptions, manifest = Lazy("pyiceberg.exceptions"), Lazy("pyiceberg.manifest")
    typedef, types = Lazy("pyiceberg.typedef"), Lazy("pyiceberg.types")
    updates = Lazy("pyiceberg.table.update")

_STATE, _LAKE, _BRANCH, _SQL = (f"lakelog.{name}" for name in ("state", "lake", "branch", "query"))
"""Properties: of a snapshot the state, of a table whose it is and what it has."""
_SETTINGS = {"format-version": "2", "commit.retry.num-retries": "0"}
"""Of tables. pyiceberg (0.12) commits files once more where another commit was faster, as if that
could not be of the same files."""
_ATTEMPTS = 5


@dataclass
class _FilePlan:
    """What a commit changes: entries of segments to add, and files to take out."""

    added: list[SegmentEntry]
    removed: list[DataFile]


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
    source = source or TableSource()
    if lake.store.paths.keys is not None and not source.sql:
        refusal = f"the lake at {lake.path} is encrypted, and other systems cannot read its files"
        raise ExportRefused(f"{refusal}: publish rows of it with a query, which copies them")
    with _one_line(f"Iceberg catalog {catalog}"):
        client = catalogs.load_catalog(catalog, **(properties or {}))
        state = published_state.state_of(lake, source.ref)
        note_copy(lake.store.paths, "table", f"{target} of the catalog {catalog}")
        for _ in range(_ATTEMPTS):
            table = _table(client, lake, target, source)
            with contextlib.suppress(
                exceptions.CommitFailedException, exceptions.CommitStateUnknownException
            ):
                return _publish(client, lake, table, target, state, source)
        raise Unreachable(f"{target}: its catalog refused {_ATTEMPTS} commits: publish again")


@contextlib.contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Raise what a catalog or its storage says as one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        install = "pip install 'lakelog[iceberg]'"
        hint = install if (error.name or "").startswith("pyiceberg") else f"it needs {error.name}"
        raise MissingPackage(f"publish iceberg: {hint}") from None
    except Exception as error:
        module = type(error).__module__.partition(".")[0]
        if module == "lakelog" or isinstance(error, (NameError, TypeError, AttributeError)):
            raise
        line = " ".join(str(error).split()) or type(error).__name__
        raise Unreachable(f"{name}: {line[:300]}") from error


def _table(catalog: Catalog, lake: Lake, target: str, source: TableSource) -> Table:
    """Return the table, made where there is none. Raises ExportRefused for another's."""
    if "." not in target:
        raise ExportRefused(f"{target}: name a table as NAMESPACE.TABLE")
    identity = {_LAKE: lake.store.lake_id, _BRANCH: lake.branch_name, _SQL: source.sql}
    try:
        table = catalog.load_table(target)
    except exceptions.NoSuchTableError:
        catalog.create_namespace_if_not_exists(target.rpartition(".")[0])
        schema = _schema_of_rows(lake, source) if source.sql else field_columns.event_columns()
        return catalog.create_table(target, schema, properties={**identity, **_SETTINGS})
    if any(table.properties.get(name) != value for name, value in identity.items()):
        raise ExportRefused(
            f"{target} is not a table of this lake, branch and query: name another table"
        )
    if table.properties.get("commit.retry.num-retries") != "0":
        with table.transaction() as transaction:
            transaction.set_properties(_SETTINGS)
    snapshot = table.current_snapshot()
    if snapshot is not None and _property(snapshot, _STATE) is None:
        raise ExportRefused(
            f"{target}: its newest snapshot was not made by lakelog: roll it back, or name another"
            " table"
        )
    return table


def _schema_of_rows(lake: Lake, source: TableSource) -> object:
    state = lake.at(source.ref) if source.ref else lake
    return state.sql(source.sql).limit(0).to_arrow_table().schema


def _property(snapshot: object, name: str) -> str | None:
    summary = getattr(snapshot, "summary", None)
    value: str | None = summary.additional_properties.get(name) if summary else None
    return value


def _publish(
    catalog: Catalog, lake: Lake, table: Table, target: str, state: Manifest, source: TableSource
) -> PublishResult:
    """Commit what a table lacks of a state; nothing where it has the state."""
    events = state.totals.events
    snapshot = table.current_snapshot()
    before = _property(snapshot, _STATE) if snapshot else None
    if before == state.digest:
        _map_tags(lake, table, state)
        return PublishResult(target, state.digest, events, is_new=False)
    tag_name = published_state.keep(lake, target, state.digest)
    if source.sql:
        rows = lake.at(state.digest).sql(source.sql).to_arrow_table()
        with table.update_schema() as update:
            update.union_by_name(rows.schema)
        write = table.overwrite if snapshot else table.append
        write(rows, snapshot_properties={_STATE: state.digest})
        result = PublishResult(target, state.digest, rows.num_rows, added=1, copied=1)
    else:
        result = _publish_files(catalog, lake, table, state, before)
        result = replace(result, table=target)
    _map_tags(lake, table, state)
    published_state.let_go(lake, target, tag_name)
    return result


def _publish_files(
    catalog: Catalog, lake: Lake, table: Table, state: Manifest, before: str | None
) -> PublishResult:
    """Commit the files that a table lacks, and take out those that the state has not."""
    plan = _plan(lake, table, state, before)
    compact.check(lake.store, plan.added)
    schema, conflicts = _schema_with(lake, table, plan.added)
    if schema is not table.schema():
        _evolve(catalog, table, schema)
        table.refresh()
    copies = {
        entry.key: _write_copy(lake, table, entry)
        for entry in plan.added
        if not entry.has_numbers or entry.fields in conflicts
    }
    files = _data_files(lake, plan.added, copies)
    with table.transaction() as transaction:
        update = transaction.update_snapshot(snapshot_properties={_STATE: state.digest})
        with update.overwrite() if plan.removed else update.fast_append() as producer:
            for data_file in files:
                producer.append_data_file(data_file)
            for data_file in plan.removed:
                producer.delete_data_file(data_file)
    copied_bytes = sum(size for _, size in copies.values())
    counts = len(files), len(plan.removed), len(copies), copied_bytes
    return PublishResult("", state.digest, state.totals.events, *counts)


def _plan(lake: Lake, table: Table, state: Manifest, before: str | None) -> _FilePlan:
    """Compare a state with what the table has: by the lake where only segments came, otherwise by
    the files of the table."""
    entries = {e.key: e for e in lake.store.manifests.segments(state, "events")}
    if before is None:
        return _FilePlan([*entries.values()], [])
    with contextlib.suppress(SnapshotGone):
        earlier = lake.store.manifests.segments(lake.store.manifests.load(before), "events")
        keys = {entry.key for entry in earlier}
        if keys <= entries.keys():
            return _FilePlan([e for key, e in entries.items() if key not in keys], [])
    present = {_key_of(file.file_path): file for file in _files(table)}
    return _FilePlan(
        [e for key, e in entries.items() if key not in present],
        [file for key, file in present.items() if key not in entries],
    )


def _files(table: Table) -> Iterator[DataFile]:
    """Yield the files of a table's newest snapshot."""
    snapshot = table.current_snapshot()
    for manifest_file in snapshot.manifests(table.io) if snapshot else ():
        for entry in manifest_file.fetch_manifest_entry(table.io, discard_deleted=True):
            yield entry.data_file


def _key_of(path: str) -> str:
    """Return the digest of the segment that a file is, or is a copy of."""
    return path.rpartition("/")[2].removesuffix(".parquet").removeprefix(COPY)


def _schema_with(lake: Lake, table: Table, entries: list[SegmentEntry]) -> tuple[Schema, set[str]]:
    """Return the table's schema with the members of segments, and the keys of the schemas of those
    that do not fit it."""
    schema, conflicts = table.schema(), set[str]()
    distinct = {e.fields: e for e in entries if e.fields and e.has_numbers}
    for key, entry in distinct.items():
        try:
            payloads = typed.of_entry(lake.store.paths, entry)
            schema = field_columns.with_members(schema, payloads)
        except NumberConflict:
            conflicts.add(key)
    return schema, conflicts


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


def _write_copy(lake: Lake, table: Table, entry: SegmentEntry) -> tuple[str, int]:
    """Write a copy of a segment below the table; return its path and its length."""
    path = f"{table.location()}/data/{COPY}{entry.key}.parquet"
    data = published_state.copy_of(lake, entry)
    with table.io.new_output(path).create(overwrite=True) as file:
        file.write(data)
    return path, len(data)


def _data_files(
    lake: Lake, entries: list[SegmentEntry], copies: Mapping[str, tuple[str, int]]
) -> list[DataFile]:
    """Return what a table says of files, from the manifest alone: to open 100,000 files and read
    what they say of themselves takes a minute."""
    from_args, to_bytes = manifest.DataFile.from_args, conversions.to_bytes
    timestamps, numbers, strings = types.TimestamptzType(), types.LongType(), types.StringType()
    content, form = manifest.DataFileContent.DATA, manifest.FileFormat.PARQUET
    unpartitioned = typedef.Record()
    files: list[DataFile] = []
    for entry in entries:
        path, size = copies.get(entry.key) or (_path(lake, entry), entry.bytes)
        bounds: list[tuple[int, PrimitiveType, tuple[int, int] | tuple[str, str]]] = [
            (1, timestamps, entry.time),
            (13, numbers, entry.seq),
        ]
        if isinstance(entry.types, dict) and entry.types:
            bounds.append((2, strings, (min(entry.types), max(entry.types))))
        if entry.subject:
            bounds.append((5, strings, entry.subject))
        data_file = from_args(
            content=content,
            file_path=path,
            file_format=form,
            partition=unpartitioned,
            record_count=entry.events,
            file_size_in_bytes=size,
            lower_bounds={number: to_bytes(t, pair[0]) for number, t, pair in bounds},
            upper_bounds={number: to_bytes(t, pair[1]) for number, t, pair in bounds},
        )
        data_file.spec_id = 0
        files.append(data_file)
    return files


def _path(lake: Lake, entry: SegmentEntry) -> str:
    """The URI of a segment: ClickHouse takes every path for one, and cuts off its beginning."""
    return "file://" + lake.store.paths.object("segments", entry.key)


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
    stale = [n for n in names & present.keys() if present[n].snapshot_id != snapshot.snapshot_id]
    fresh = names - present.keys()
    if not (stale or fresh):
        return
    with table.manage_snapshots() as manage:
        for name in stale:
            manage = manage.remove_tag(name)
        for name in sorted({*stale, *fresh}):
            manage = manage.create_tag(snapshot.snapshot_id, name)
