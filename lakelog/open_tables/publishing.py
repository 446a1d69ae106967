"""The procedure that brings a table to a state, whatever its format.

Each step may be the last one that a killed publish did:

1. make the table, or refuse one that is not of this lake and branch
2. compact the branch; its newest state is what is published
3. tag the state, so that gc keeps its files
4. add columns of members that the table lacks
5. give the table the files that it lacks; write copies of what fits it only as text
6. commit once: files added, files taken out, the state's id as a property of the commit
7. make tags of the table of the lake's tags of that state, and remove the tag of the state before

A commit that names the state is there or not, so a publish that is repeated commits nothing. Who
loses a race for the commit, or gets no answer, loads the table again and looks.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from lakelog import typed_columns
from lakelog.entries import SegmentEntry
from lakelog.erased.copies import note as note_copy
from lakelog.errors import Damaged, ExportRefused, MissingPackage, Unreachable
from lakelog.lake import Lake
from lakelog.libraries import pa
from lakelog.manifest import Manifest
from lakelog.open_tables import published_state
from lakelog.open_tables.published_state import COPY, PublishResult, TableSource

STATE, LAKE, BRANCH, SQL = (f"lakelog.{name}" for name in ("state", "lake", "branch", "query"))
"""Properties: of a commit the state, of a table whose it is and what it has."""
_ATTEMPTS = 5
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class LostCommit(Exception):
    """Raised where another commit came first, or nobody knows whether this one is there."""


@dataclass(frozen=True)
class TableFile:
    """A segment as a file of a table, and the bytes that were copied for it."""

    entry: SegmentEntry
    path: str
    bytes: int
    copied_bytes: int = 0


@dataclass(frozen=True)
class TableChange:
    """What one commit does: files to add, and those to take out by the digests of their segments.
    `is_same` where the rows stay what they are."""

    added: list[TableFile]
    removed: list[str]
    is_same: bool


class OpenTable(Protocol):
    """A table as it was when it was loaded. What commits raises LostCommit."""

    @property
    def id(self) -> str:
        """What no other table has, of the same name neither."""

    def state(self) -> str | None:
        """The state that its newest commit names, "" where it has no rows yet, None where another
        program made the commit."""

    def keys(self) -> set[str]:
        """The digests of the segments that it has."""

    def add_columns(self, schemas: Mapping[str, typed_columns.Schema]) -> set[str]:
        """Add what members of payloads need, whose schemas come by their keys; return the keys of
        those that do not fit."""

    def file_of(self, entry: SegmentEntry, copy: bytes | None) -> TableFile:
        """Give the table a segment as it is, or a copy of its rows."""

    def commit(self, state: str, change: TableChange) -> None:
        """Add files and take files out, at once."""

    def commit_rows(self, state: str, rows: pa.Table) -> None:
        """Put rows in the place of all that it has."""

    def finish(self, state: Manifest) -> None:
        """Do what belongs to a state that the table has, again where it was done."""


def identity(lake: Lake, source: TableSource) -> dict[str, str]:
    """Return the properties that say whose a table is, and what it has."""
    return {LAKE: lake.store.lake_id, BRANCH: lake.branch_name, SQL: source.sql}


def require_ours(
    lake: Lake, source: TableSource, target: str, properties: Mapping[str, str]
) -> None:
    """Raise ExportRefused for a table with the properties of another one."""
    if any(properties.get(name) != value for name, value in identity(lake, source).items()):
        raise ExportRefused(
            f"{target} is not a table of this lake, branch and query: name another table"
        )


def schema_of_rows(lake: Lake, source: TableSource) -> pa.Schema:
    """Return the columns of the query of a table."""
    relation = published_state.rows_of(lake, source, source.ref or lake.settle().move.snapshot)
    return relation.limit(0).to_arrow_table().schema


def require_plain(lake: Lake, source: TableSource) -> None:
    """Raise ExportRefused for an encrypted lake, but for a query whose rows are copied."""
    if lake.store.paths.keys is not None and not source.sql:
        refusal = f"the lake at {lake.path} is encrypted, and other systems cannot read its files"
        raise ExportRefused(f"{refusal}: publish rows of it with a query, which copies them")


def publish(
    lake: Lake, target: str, source: TableSource, place: str, load: Callable[[], OpenTable]
) -> PublishResult:
    """Bring a table to a state of a lake. `load` makes the table or loads it, and may be called
    again; `place` is where it is, in words. Raises ExportRefused, Unreachable, DamagedSegment."""
    past = published_state.state_of(lake, source.ref) if source.ref is not None else None
    note_copy(lake.store.paths, "table", place)
    for _ in range(_ATTEMPTS):
        # Planned anew from what the other commit left: its files may be ours.
        with contextlib.suppress(LostCommit):
            table = load()
            # After the table, which another publish may have brought to a newer state than before.
            state = past or published_state.state_of(lake, None)
            with lake.store.manifests.without_collections():
                return _publish(lake, table, target, state, source)
    raise Unreachable(f"{target}: {_ATTEMPTS} commits to it were refused: publish again")


@contextlib.contextmanager
def one_line(name: str, package: str, extra: str) -> Iterator[None]:
    """Raise what a catalog, a table or its storage says as one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        install = f"pip install 'lakelog[{extra}]'"
        hint = install if (error.name or "").startswith(package) else f"it needs {error.name}"
        raise MissingPackage(f"publish {extra}: {hint}") from None
    except Exception as error:
        module = type(error).__module__.partition(".")[0]
        # Faults of our own keep their traceback.
        if module == "lakelog" or isinstance(error, (NameError, TypeError, AttributeError)):
            raise
        line = " ".join(_COLOUR.sub("", str(error)).split()) or type(error).__name__
        raise Unreachable(f"{name}: {line[:300]}") from error


def _publish(
    lake: Lake, table: OpenTable, target: str, state: Manifest, source: TableSource
) -> PublishResult:
    """Commit what a table lacks of a state; nothing where it has the state."""
    before = table.state()
    if before is None:
        raise ExportRefused(
            f"{target}: its newest commit was not made by lakelog: roll it back, or name another"
            " table"
        )
    erased = lake.store.erased  # which leave a state its name, and put other segments into it
    state_name = erased.of(state.digest)
    if before == state_name:
        table.finish(state)
        return PublishResult(target, state.digest, state.totals.events, is_new=False)
    tag_name = published_state.keep(lake, target, table.id, state.digest)
    if source.sql:
        relation = published_state.rows_of(lake, source, state.digest)
        # As the schema has them, where names differ: no table has two columns of one name.
        rows = relation.to_arrow_table().rename_columns(relation.limit(0).columns)
        table.commit_rows(state_name, rows)
        result = PublishResult(target, state.digest, rows.num_rows, added=1, copied=1)
    else:
        earlier = before if erased.of(before) == before else ""
        change = _change(lake, table, state, earlier)
        table.commit(state_name, change)
        sizes = [file.copied_bytes for file in change.added if file.copied_bytes]
        counts = len(change.added), len(change.removed), len(sizes), sum(sizes)
        result = PublishResult(target, state.digest, state.totals.events, *counts)
    table.finish(state)
    published_state.let_go(lake, target, tag_name, before)
    return result


def _change(lake: Lake, table: OpenTable, state: Manifest, before: str) -> TableChange:
    """Compare a state with what the table has, and give the table the files that it lacks."""
    entries = {e.key: e for e in lake.store.manifests.segments(state, "events")}
    earlier = _earlier(lake, before)
    # By the lake where only segments came, otherwise by the files of the table.
    has_all = earlier and earlier.keys() <= entries.keys()
    present = earlier.keys() if has_all else table.keys()
    added = [entry for key, entry in entries.items() if key not in present]
    removed = sorted(present - entries.keys())
    lake.store.verified.require(added)
    typed_entries = {e.fields: e for e in added if e.fields and e.has_numbers}
    paths = lake.store.paths
    unfit = table.add_columns(
        {key: typed_columns.Schema.of_entry(paths, e) for key, e in typed_entries.items()}
    )
    files = [
        table.file_of(
            entry,
            published_state.copy_of(lake, entry)
            if not entry.has_numbers or entry.fields in unfit
            else None,
        )
        for entry in added
    ]
    sources = {key for entry in added for key in entry.made_from}
    is_same = bool(removed) and sources == {*removed} <= earlier.keys()
    if is_same:
        is_same = sum(e.events for e in added) == sum(earlier[key].events for key in removed)
    return TableChange(files, removed, is_same)


def _earlier(lake: Lake, state: str) -> dict[str, SegmentEntry]:
    """Return the segments of a state by their digests; none where it is unknown or gone."""
    if not state:
        return {}
    try:
        manifest = lake.store.manifests.load(state)
        return {e.key: e for e in lake.store.manifests.segments(manifest, "events")}
    except Damaged:  # collected, or never there: the lake came back from a backup
        return {}


def key_of(path: str) -> str:
    """Return the digest of the segment that a file is, or is a copy of."""
    return path.rpartition("/")[2].removesuffix(".parquet").removeprefix(COPY)
