"""Compaction: small neighbours become one segment, sorted by type and time, at zstd 11.

Reading gets cheaper and the lake smaller; no event changes. The policy is pure (`choose`). Each
group is one publish {remove inputs, add output}; if an input is gone or the branch was rewound
meanwhile, the output is abandoned to gc.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakelog.errors import DamagedSegment, Outlived
from lakelog.settings import Settings
from lakelog.store import disk, manifest, segment, sql
from lakelog.store.manifest import Entry, Manifest
from lakelog.store.marks import hash_file
from lakelog.store.opening import Store
from lakelog.store.publish import Change, publish
from lakelog.store.refs import Head

if TYPE_CHECKING:
    import duckdb

LEVEL = 11
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
        fits = rows + entry["events"] <= target
        if current and not (fits and size + entry["bytes"] <= settings.segment_bytes):
            groups.append(current)
            current, rows, size = [], 0, 0
        current.append(entry)
        rows, size = rows + entry["events"], size + entry["bytes"]
    groups.append(current)
    return [g for g in groups if len(g) > 1 or (g and g[0]["layout"] == "arrival")]


def compact(
    store: Store, branch: str, connect: Callable[[], Any], progress: Progress | None = None
) -> Compaction:
    """Merge what `choose` finds. Raises DamagedSegment, SnapshotGone, OSError."""
    done = Compaction()
    with disk.claim(f"{store.layout.cache}/compact.lock") as alone:
        if not alone:
            return done
        head = store.refs.head(branch)
        state = store.manifests.load(head.move.snapshot)
        groups = choose(store.manifests.entries(state), store.settings)
        for index, group in enumerate(groups):
            output = merge(store, connect(), group)
            if _swap(store, branch, head, group, [output]):
                done = Compaction(
                    done.removed + len(group), done.added + 1,
                    done.bytes_before + sum(e["bytes"] for e in group),
                    done.bytes_after + output["bytes"],
                )  # fmt: skip
            if progress:
                progress(index + 1, len(groups))
    return done


def merge(store: Store, connection: duckdb.DuckDBPyConnection, group: list[Entry]) -> Entry:
    """Write one sorted segment of all rows of a group."""
    return rewrite(store, connection, group, "true", LEVEL)


def rewrite(
    store: Store, connection: duckdb.DuckDBPyConnection, group: list[Entry], where: str, level: int,
    tables: dict[str, Any] | None = None,
) -> Entry:  # fmt: skip
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
    entry = segment.write(
        store.layout, table, kind="events", order="sorted", commit=disk.random_hex(), level=level
    )
    store.marks.add(entry["key"], store.layout.object("segments", entry["key"]))
    span = [min(e["seq"][0] for e in group), max(e["seq"][1] for e in group)]
    return {**entry, "seq": span, "from": [e["key"] for e in group]}


def rows_sql(store: Store, group: list[Entry]) -> str:
    """Return SQL that reads segments as rows with seq."""
    columns = ", ".join(segment.EVENT_COLUMNS)
    parts = []
    for entry in group:
        source = sql.parquet([store.layout.object("segments", entry["key"])])
        seq = "seq" if entry["layout"] == "sorted" else f"{entry['seq'][0]} + file_row_number"
        parts.append(f"SELECT {columns}, ({seq})::BIGINT AS seq FROM {source}")
    return " UNION ALL ".join(parts)


def check(store: Store, group: list[Entry]) -> None:
    """Verify segments before their rows are written anew. Raises DamagedSegment."""
    for entry in group:
        path = store.layout.object("segments", entry["key"])
        try:
            intact = store.marks.holds(entry["key"], path) or hash_file(path) == entry["key"]
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
        entries = (*map(manifest.removal, group), *outputs)
        return Change("compact", entries=entries, message=f"{len(group)} segments into one")

    try:
        return publish(store, branch, plan) is not None
    except Outlived:
        return False
