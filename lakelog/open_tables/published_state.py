"""The segments of a state as files of a table, whatever the format of that.

A compacted segment whose columns have numbers is a file of the table as it lies in the lake. Any
other one, and one with a number that means something else in the table, is copied: the same rows
with `seq`, payloads as text. The name of either has the segment's digest, so what a table has is
known by its files, and a copy that a killed publish left is written again under its name.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

from lakelog import sql, typed_columns
from lakelog.entries import SegmentEntry
from lakelog.history import remove_tag, resolve
from lakelog.lake import Lake
from lakelog.libraries import pa, pq
from lakelog.manifest import Manifest
from lakelog.query import Relation
from lakelog.segments import Segment, rows_sql, segment_schema

COPY = "lakelog-"
"""What the names of copies begin with."""


@dataclass(frozen=True)
class TableSource:
    """What of a lake a table has: all events, those of a `type`, or the rows of a `query`, as of
    `ref`, or else of now. Types and queries are copied."""

    ref: str | None = None
    type: str | None = None
    query: str | None = None

    @property
    def sql(self) -> str:
        """The query whose rows are copied, "" where the table has the segments."""
        if self.query or not self.type:
            return self.query or ""
        return f"SELECT * FROM types.{sql.identifier(self.type)}"


@dataclass(frozen=True)
class PublishResult:
    """What a publish did: files that were added and taken out, those of them that were copied and
    their bytes, and the events of the state."""

    table: str
    state: str
    events: int
    added: int = 0
    removed: int = 0
    copied: int = 0
    copied_bytes: int = 0
    is_new: bool = True
    """False where the table had the state already."""


def state_of(lake: Lake, ref: str | None) -> Manifest:
    """Return the state to publish; that of now is sealed and compacted first. Raises UnknownRef."""
    if ref is None:
        lake.compact()
        return lake.store.state(lake.branch_name)
    return lake.store.manifests.load(resolve(lake.store, lake.branch_name, ref))


def rows_of(lake: Lake, source: TableSource, ref: str) -> Relation:
    """The rows of the query of a table, without protected fields: a table keeps its older versions,
    and its state is the same when a key is destroyed."""
    return lake.at(ref).without_protected_fields().sql(source.sql, variables={})


def keep(lake: Lake, target: str, table_id: str, state: str) -> str:
    """Tag a state that a table has, so that gc keeps its files; return the name of the tag."""
    # By the table itself: machines, and catalogs of one, may have two of the same target.
    name = f"{_prefix(table_id, 16)}{state[:12]}"
    if name not in {tag.name for tag in lake.tags()}:
        lake.tag(name, state, f"published as {target}")
    return name


def let_go(lake: Lake, target: str, tag_name: str, before: str) -> None:
    """Remove the tags of states that a table had before the one that is tagged, which is `before`
    where an earlier version tagged it by the target."""
    prefix, earlier_prefix = tag_name.rpartition("-")[0], _prefix(target, 8)
    for tag in lake.tags():
        is_earlier = tag.name.startswith(earlier_prefix) and tag.snapshot == before
        if (tag.name.startswith(f"{prefix}-") and tag.name != tag_name) or is_earlier:
            remove_tag(lake.store, tag.name)


def _prefix(name: str, length: int) -> str:
    return f"published-{hashlib.sha256(name.encode()).hexdigest()[:length]}-"


def copy_of(lake: Lake, entry: SegmentEntry) -> bytes:
    """Return the bytes of a copy of a segment. Raises DamagedSegment."""
    rows = lake.engine().cursor().sql(rows_sql(lake.store.paths, [entry]))
    schema = segment_schema("events", "sorted")
    table = rows.to_arrow_table().select(schema.names).cast(schema)
    return _encoded(table)


def renamed(lake: Lake, entry: SegmentEntry, struct: pa.DataType) -> bytes:
    """Return the bytes of a copy of a typed segment, the members of its structs under the names of
    a type."""
    table, _ = Segment(lake.store.paths, entry.key).read_stored()
    table = table.replace_schema_metadata(None)
    place = table.column_names.index(typed_columns.COLUMN)
    # A view renames, and copies no value.
    chunks = [chunk.view(struct) for chunk in table[typed_columns.COLUMN].chunks]
    column = pa.chunked_array(chunks, struct)
    return _encoded(table.set_column(place, typed_columns.COLUMN, column))


def _encoded(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", store_schema=False, version="2.6")
    return sink.getvalue()


def rewritten(lake: Lake) -> set[str]:
    """Return the digests of segments that erasures rewrote."""
    return {key for key, new in lake.store.erased.segments().items() if new != key}
