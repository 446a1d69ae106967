"""Compaction: small neighbours become one segment, sorted by type and time, at zstd 11.

Reading gets cheaper and the lake smaller; no event changes. The policy is pure (`choose`,
`portions`). Each group is one publish {remove inputs, add output}; if an input is gone or the
branch was rewound meanwhile, the output is abandoned to gc. A step takes at most FILES_MAX files
and so many bytes of rows, uncompressed, as the memory setting allows; rows are merged as Arrow
tables, for the engine's vectors of 2,048 rows are gigabytes where an event is a megabyte.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakelog.errors import Damaged, DamagedSegment, StaleFiles
from lakelog.lazy import Lazy
from lakelog.settings import Settings
from lakelog.store import disk, manifest, segment, sql
from lakelog.store.bootstrap import Store
from lakelog.store.manifest import Entry, Manifest
from lakelog.store.paths import Paths
from lakelog.store.publish import Change, publish
from lakelog.store.refs import Head
from lakelog.store.verified_files import hash_file

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    np = Lazy("numpy")
    pa = Lazy("pyarrow")
    pc = Lazy("pyarrow.compute")

LEVEL = 11
FILES_MAX = 256
"""Segments that one step merges at most."""
DUE = 64
"""So many segments that could be merged start a run in the background."""
_SHARE, _ROW = 8, 256
"""Rows in memory are this part of what the settings allow, for sorting and encoding copy them;
and a row takes so much besides its long texts."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Compaction:
    """What one run did: segments read and written, and their bytes."""

    removed: int = 0
    added: int = 0
    bytes_before: int = 0
    bytes_after: int = 0


def choose(entries: list[Entry], settings: Settings) -> list[list[Entry]]:
    """Return groups of neighbours to merge: each fits the target; full sorted ones stay."""
    groups: list[list[Entry]] = []
    current: list[Entry] = []
    rows = size = 0
    target = segment.rows_target(settings, sum(e["events"] for e in entries))
    ordered = sorted((e for e in entries if e["kind"] == "events"), key=lambda e: e["seq"])
    for entry in ordered:
        fits = rows + entry["events"] <= target and len(current) < FILES_MAX
        if current and not (fits and size + entry["bytes"] <= settings.segment_bytes):
            groups.append(current)
            current, rows, size = [], 0, 0
        current.append(entry)
        rows, size = rows + entry["events"], size + entry["bytes"]
    groups.append(current)
    return [group for group in groups if _is_worth_it(group)]


def portions(group: list[Entry], weights: list[int], limit: int) -> list[list[Entry]]:
    """Cut a group into parts of at most `limit` bytes of rows; what is longer alone is left out."""
    parts: list[list[Entry]] = [[]]
    size = 0
    for entry, weight in zip(group, weights, strict=True):
        if size + weight > limit:
            parts.append([])
            size = 0
        if weight <= limit:
            parts[-1].append(entry)
            size += weight
    return [part for part in parts if _is_worth_it(part)]


def is_due(entries: list[Entry], settings: Settings) -> bool:
    """Whether enough small segments have come together for a run in the background."""
    return sum(len(group) for group in choose(entries, settings)) >= DUE


def _is_worth_it(group: list[Entry]) -> bool:
    return len(group) > 1 or bool(group and group[0]["layout"] == "arrival")


def compact(store: Store, branch: str, progress: Progress | None = None) -> Compaction:
    """Merge what `choose` finds. A group that cannot be read does not stop the others: what is
    wrong with the first one is raised at the end, a DamagedSegment. Raises OSError at once."""
    done, failed = Compaction(), list[Damaged]()
    with disk.claim(f"{store.paths.cache}/compact.lock") as alone:
        again = alone
        while again:
            head = store.refs.head(branch)
            state = store.manifests.load(head.move.snapshot)
            groups = choose(store.manifests.entries(state), store.settings)
            # Groups cut short by the number of files leave some that can be merged once more.
            again = not failed and any(len(group) == FILES_MAX for group in groups)
            for index, group in enumerate(groups):
                try:
                    merged = _merge_group(store, branch, head, group)
                except Damaged as error:
                    failed.append(error)
                else:
                    again, done = again and bool(merged.removed), _sum(done, merged)
                if progress:
                    progress(index + 1, len(groups))
    if failed:
        raise failed[0]
    return done


def _merge_group(store: Store, branch: str, head: Head, group: list[Entry]) -> Compaction:
    """Merge one group, in as many steps as its rows need. Raises DamagedSegment, OSError."""
    done = Compaction()
    check(store, group)
    weights = [_weight(store, entry) for entry in group]
    for part in portions(group, weights, store.settings.memory_bytes // _SHARE):
        output = merge(store, part)
        if _swap(store, branch, head, part, [output]):
            size = sum(e["bytes"] for e in part)
            done = _sum(done, Compaction(len(part), 1, size, output["bytes"]))
    return done


def _sum(one: Compaction, other: Compaction) -> Compaction:
    pairs = zip(dataclasses.astuple(one), dataclasses.astuple(other), strict=True)
    return Compaction(*(a + b for a, b in pairs))


def _weight(store: Store, entry: Entry) -> int:
    """How many bytes the rows of a segment take in memory, about. Raises DamagedSegment."""
    size = _readable(store, entry, segment.uncompressed)
    return int(size + entry["events"] * _ROW)


def merge(store: Store, group: list[Entry]) -> Entry:
    """Write one sorted segment of all rows of a group. Raises DamagedSegment, OSError."""
    columns = [*segment.EVENT_COLUMNS, "seq"]
    tables = []
    for entry in group:
        table = _readable(store, entry, segment.read)
        if entry["layout"] == "arrival":
            seq = np.arange(table.num_rows, dtype=np.int64) + entry["seq"][0]
            table = table.append_column("seq", pa.array(seq))
        tables.append(table.select(columns).cast(segment.schema("events", "sorted")))
    table = pa.concat_tables(tables)
    del tables
    order = _sorted(table)
    builder = segment.SegmentEncoder("events", "sorted", disk.random_hex(), LEVEL)
    for at in range(0, len(order), segment.ROW_GROUP):
        builder.add(table.take(order[at : at + segment.ROW_GROUP]))
    return _put(store, builder.finish(), table, group)


def _sorted(table: pa.Table) -> Any:
    """Return the order of rows by type, time and seq."""
    types = pc.unique(table["type"])
    ranks = np.empty(len(types), dtype=np.int32)
    ranks[np.asarray(pc.sort_indices(types))] = np.arange(len(types), dtype=np.int32)
    kind = ranks[np.asarray(pc.index_in(table["type"], value_set=types))]
    time, seq = (np.asarray(table[name].cast("int64")) for name in ("time", "seq"))
    return pa.array(np.lexsort((seq, time, kind)))


def _readable(store: Store, entry: Entry, read: Callable[[Paths, str], Any]) -> Any:
    """Read something of a segment. Raises DamagedSegment if it is no Parquet file of ours."""
    try:
        return read(store.paths, entry["key"])
    except (FileNotFoundError, pa.ArrowException) as error:
        path = store.paths.object("segments", entry["key"])
        raise DamagedSegment(path, f"it cannot be read ({' '.join(str(error).split())})") from None


def rewrite(
    store: Store,
    connection: duckdb.DuckDBPyConnection,
    group: list[Entry],
    where: str,
    level: int,
    tables: dict[str, Any] | None = None,
) -> Entry:
    """Write the rows of `group` for which the SQL condition holds, with seq, sorted.

    `tables` are Arrow tables that the condition names.
    """
    check(store, group)
    cursor = connection.cursor()
    try:
        for name, held in (tables or {}).items():
            cursor.register(name, held)
        query = f"SELECT * FROM ({rows_sql(store, group)}) WHERE {where} ORDER BY type, time, seq"
        table = cursor.sql(query).to_arrow_table()
    finally:
        cursor.close()
    data = segment.encode(table, "events", "sorted", disk.random_hex(), level, {})
    return _put(store, data, table, group)


def _put(store: Store, data: bytes, table: pa.Table, group: list[Entry]) -> Entry:
    """Write an encoded sorted segment of the rows of a group; return its entry."""
    entry = segment.put(store.paths, data, table, "events", "sorted")
    store.verified.add(entry["key"], store.paths.object("segments", entry["key"]))
    span = [min(e["seq"][0] for e in group), max(e["seq"][1] for e in group)]
    return {**entry, "seq": span, "from": [e["key"] for e in group]}


def rows_sql(store: Store, group: list[Entry]) -> str:
    """Return SQL that reads segments as rows with seq: two scans, however many they are."""
    columns = ", ".join(segment.EVENT_COLUMNS)
    parts = []
    for layout in ("arrival", "sorted"):
        listed = [e for e in group if e["layout"] == layout]
        if listed:
            source = sql.parquet(store.paths.object("segments", e["key"]) for e in listed)
            parts.append(f"SELECT {columns}, {seq_sql(listed, layout)} AS seq FROM {source}")
    return " UNION ALL ".join(parts)


def seq_sql(group: list[Entry], layout: str) -> str:
    """SQL for seq: a column of sorted segments, first plus row number of the others.

    One file is treated as many are: a plain sum trips the engine's late materialization where a
    bound on seq meets an ORDER BY with a LIMIT (an internal error of 2.0).
    """
    if layout == "sorted":
        return "seq"
    firsts = ", ".join(str(e["seq"][0]) for e in group)
    return f"(([{firsts}]::BIGINT[])[(file_index + 1)::BIGINT] + file_row_number)::BIGINT"


def check(store: Store, group: list[Entry]) -> None:
    """Verify segments before their rows are written anew. Raises DamagedSegment."""
    for entry in group:
        path = store.paths.object("segments", entry["key"])
        try:
            intact = store.verified.holds(entry["key"], path) or hash_file(path) == entry["key"]
        except FileNotFoundError:
            raise DamagedSegment(path, "the segment is missing") from None
        if not intact:
            raise DamagedSegment(path, "the content does not match its name")


def _swap(store: Store, branch: str, base: Head, group: list[Entry], outputs: list[Entry]) -> bool:
    """Publish the exchange if every input is still there and no rewind came."""
    keys = {e["key"] for e in group}

    def plan(head: Head, state: Manifest) -> Change | None:
        if head.move.generation != base.move.generation:
            return None
        present = {e["key"] for e in store.manifests.entries(state)}
        if not keys <= present:
            return None
        entries = (*map(manifest.tombstone, group), *outputs)
        return Change("compact", entries=entries, message=f"{len(group)} segments into one")

    try:
        return publish(store, branch, plan) is not None
    except StaleFiles:
        return False
