"""stats: what a branch or a state holds, in numbers, and which columns take the room."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from lakelog.cli.app import App, complete_ref, verb
from lakelog.cli.render.output import Target, emit, emit_record, with_output
from lakelog.cli.render.tables import Count, Share, cell
from lakelog.cli.render.terminal import many, size, width
from lakelog.export.formats import of_records
from lakelog.export.values import clock, micros
from lakelog.lazy import Lazy
from lakelog.store.bootstrap import Store
from lakelog.store.paths import Paths
from lakelog.store.stats import Stats

if TYPE_CHECKING:
    import pyarrow.parquet as pq
else:
    pq = Lazy("pyarrow.parquet")


_SHOWN = {"type": 10, "source": 5, "level": 6}
_BARS = 20


@verb(
    examples="""
    lakelog stats
    lakelog stats --columns
    lakelog stats --at v1 --json
"""
)
@click.option("--columns", is_flag=True, help="Bytes of each column in the segments.")
@click.option(
    "--at",
    metavar="REF",
    shell_complete=complete_ref,
    help="Use a tag, branch, snapshot or time instead of now.",
)
@with_output
def stats(app: App, columns: bool, at: str | None, target: Target) -> None:
    """Count what the lake holds: events, segments, bytes.

    Reads only manifests and directory listings, so that it is fast at any size.
    """
    with app.open() as lake:
        found = lake.at(at).stats() if at else lake.stats()
        if columns:
            sizes = column_sizes(lake.store, found)
            emit(of_records(sizes), target, of_records([_shown(s) for s in sizes]))
        else:
            record = as_record(found)
            emit_record(record, target, lambda: "\n".join(panel(found, bool(at))) + "\n")


def as_record(found: Stats) -> dict[str, Any]:
    """Return the numbers as an object; times as ISO 8601."""
    record = dataclasses.asdict(found)
    record["snapshot_time"] = micros(found.snapshot_time)
    record["time"] = [micros(t) for t in found.time] if found.time else None
    return record


def panel(found: Stats, past: bool) -> Iterator[str]:
    """Return the numbers for people, line by line."""
    where = "state" if past else "branch"
    yield f"{cell(found.path)}, {where} {found.snapshot[:12] if past else found.branch}"
    yield ""
    yield from (f"  {label:<12}{words}" for label, words in _facts(found, past))
    for title, counts in (
        ("type", found.types),
        ("source", found.sources),
        ("level", found.levels),
    ):
        if counts and set(counts) != {""}:
            yield ""
            yield from _ranking(title, counts)
    if found.uncounted:
        yield f"  {many(found.uncounted, 'event')} more in segments with too many types to list"


def _facts(found: Stats, past: bool) -> Iterator[tuple[str, str]]:
    tail = f"; {found.pending:,} more in the tail" if found.pending else ""
    yield "events", f"{found.events:,} in {many(found.segments, 'segment')}{tail}"
    if found.time:
        yield "time", f"{clock(found.time[0])} to {clock(found.time[1])}"
    each = f", {found.bytes / found.events:.1f} bytes an event" if found.events else ""
    yield "stored", f"{size(found.bytes)}{each}"
    if not past:
        files = many(found.wal_files, "file")
        yield "WAL", f"{size(found.wal_bytes)} in {files} of {many(found.writers, 'writer')}"
    if found.ids:
        yield "ids", f"{found.ids:,} known, {size(found.ids_bytes)}"
    if found.quarantined:
        yield "quarantine", many(found.quarantined, "line")
    yield "snapshot", f"{found.snapshot[:12]} of {clock(found.snapshot_time)}"
    moves, tags = many(found.moves, "move"), many(found.tags, "tag")
    yield "history", f"{moves}, {tags}, {many(found.branches, 'branch', 'branches')}"
    if found.cut:
        yield "cut", f"{many(found.cut, 'torn frame')} of dead writers, saved in cache/cut"


def _ranking(title: str, counts: dict[str, int]) -> Iterator[str]:
    """Return the most frequent values with bars."""
    total = sum(counts.values())
    shown = list(counts.items())[: _SHOWN[title]]
    room = max(min(width() - 48, 36), 12)
    yield f"  {title:<{room}}{'events':>12}"
    for name, count in shown:
        label = cell(name) if name else "-"
        label = label if len(label) <= room - 2 else label[: room - 3] + "…"
        bar = "▪" * max(round(count / total * _BARS), 1)
        yield f"  {label:<{room}}{count:>12,}  {count / total:6.1%}  {bar}".rstrip()
    if len(counts) > len(shown):
        rest = sum(list(counts.values())[len(shown) :])
        yield f"  {many(len(counts) - len(shown), 'other'):<{room}}{rest:>12,}"


def column_sizes(store: Store, found: Stats) -> list[dict[str, Any]]:
    """Return each column's bytes over the segments of a state, largest first, then the total."""
    state = store.manifests.load(found.snapshot)
    live = [e for e in store.manifests.entries(state) if e["kind"] == "events"]
    sizes: dict[str, int] = {}
    for entry in live:
        for name, count in _columns_of(store.paths, entry["key"]):
            sizes[name] = sizes.get(name, 0) + count
    sizes["footers and headers"] = sum(e["bytes"] for e in live) - sum(sizes.values())
    sizes = dict(sorted(sizes.items(), key=lambda pair: -pair[1]))
    sizes["all"] = sum(e["bytes"] for e in live)
    whole, events = sizes["all"] or 1, sum(e["events"] for e in live) or 1
    return [
        {
            "column": name,
            "bytes": count,
            "share": round(count / whole, 4),
            "bytes_per_event": round(count / events, 2),
        }
        for name, count in sizes.items()
    ]


def _columns_of(paths: Paths, digest: str) -> Iterator[tuple[str, int]]:
    meta = pq.read_metadata(paths.object("segments", digest))
    for group in range(meta.num_row_groups):
        for place in range(meta.num_columns):
            column = meta.row_group(group).column(place)
            yield column.path_in_schema, column.total_compressed_size


def _shown(sizes: dict[str, Any]) -> dict[str, Any]:
    return {
        "column": sizes["column"],
        "bytes": Count(sizes["bytes"]),
        "share": Share(sizes["share"]),
        "bytes/event": Decimal(f"{sizes['bytes_per_event']:.2f}"),
    }
