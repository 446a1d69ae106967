"""stats: counts and sizes of a branch or a state, and the size of each column."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from lakelog.cli.app import App, state_option, verb
from lakelog.cli.options import flag
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit, emit_record
from lakelog.cli.render.tables import Count, Share, cell, clock
from lakelog.cli.render.terminal import many, size, width
from lakelog.maintain import Stats
from lakelog.render import micros
from lakelog.segments import Segment
from lakelog.store import Store

_SHOWN = {"type": 10, "source": 5, "level": 6}
_BARS = 20


@verb()
def stats(
    app: App,
    columns: bool = flag("--columns", "Bytes of each column in the segments."),
    at: str | None = state_option(),
    target: OutputTarget = OUTPUT,
) -> None:
    """Count what the lake holds: events, segments, bytes.

    Reads only manifests and directory listings, so that it is fast at any size.
    """
    with app.open() as lake:
        counts = lake.at(at).stats() if at else lake.stats()
        if columns:
            sizes = column_sizes(lake.store, counts)
            emit(sizes, target, [_table_row(s) for s in sizes])
        else:
            record = as_record(counts)
            emit_record(record, target, lambda: "\n".join(panel(counts, bool(at))) + "\n")


def as_record(counts: Stats) -> dict[str, Any]:
    """Return the numbers as an object; times as ISO 8601."""
    record = dataclasses.asdict(counts)
    record["snapshot_time"] = micros(counts.snapshot_time)
    record["time"] = [micros(t) for t in counts.time] if counts.time else None
    return record


def panel(counts: Stats, past: bool) -> Iterator[str]:
    """Yield the counts as text, line by line."""
    heading = "state" if past else "branch"
    yield f"{cell(counts.path)}, {heading} {counts.snapshot[:12] if past else counts.branch}"
    yield ""
    yield from (f"  {label:<12}{fact}" for label, fact in _facts(counts, past))
    for title, values in (
        ("type", counts.types),
        ("source", counts.sources),
        ("level", counts.levels),
    ):
        # An empty name stands for events that have none: alone it says nothing.
        if values and set(values) != {""}:
            yield ""
            yield from _ranking(title, values, counts.events)
        if missing := counts.events - sum(values.values()):
            yield f"  {many(missing, 'event')} more, of too many {title}s to list"


def _facts(counts: Stats, past: bool) -> Iterator[tuple[str, str]]:
    tail = f"; {counts.pending:,} more in the tail" if counts.pending else ""
    yield "events", f"{counts.events:,} in {many(counts.segments, 'segment')}{tail}"
    if counts.time:
        yield "time", f"{clock(counts.time[0])} to {clock(counts.time[1])}"
    average = f", {counts.bytes / counts.events:.1f} bytes an event" if counts.events else ""
    yield "stored", f"{size(counts.bytes)}{average}"
    if counts.words_bytes:
        average = f", {counts.words_bytes / max(counts.events, 1):.1f} bytes an event"
        yield "words", f"{size(counts.words_bytes)} of indexes for searches{average}"
    if not past:
        files = many(counts.wal_files, "file")
        yield "WAL", f"{size(counts.wal_bytes)} in {files} of {many(counts.writers, 'writer')}"
    if counts.ids:
        yield "ids", f"{counts.ids:,} known, {size(counts.ids_bytes)}"
    if counts.quarantined:
        yield "quarantine", many(counts.quarantined, "line")
    yield "snapshot", f"{counts.snapshot[:12]} of {clock(counts.snapshot_time)}"
    moves, tags = many(counts.moves, "move"), many(counts.tags, "tag")
    yield "history", f"{moves}, {tags}, {many(counts.branches, 'branch', 'branches')}"
    if counts.cut:
        yield "cut", f"{many(counts.cut, 'torn frame')} of dead writers, saved in cache/cut"


def _ranking(title: str, counts: dict[str, int], total: int) -> Iterator[str]:
    """Return the most frequent values with bars, as shares of all events."""
    top = list(counts.items())[: _SHOWN[title]]
    room = max(min(width() - 48, 36), 12)
    yield f"  {title:<{room}}{'events':>12}"
    for name, count in top:
        label = cell(name) if name else "-"
        label = label if len(label) <= room - 2 else label[: room - 3] + "…"
        # At least one: a rare value is not an absent one.
        bar = "▪" * max(round(count / total * _BARS), 1)
        yield f"  {label:<{room}}{count:>12,}  {count / total:6.1%}  {bar}".rstrip()
    if len(counts) > len(top):
        remainder = sum(list(counts.values())[len(top) :])
        yield f"  {many(len(counts) - len(top), 'other'):<{room}}{remainder:>12,}"


def column_sizes(store: Store, stats: Stats) -> list[dict[str, Any]]:
    """Return each column's bytes over the segments of a state, largest first, then the total."""
    state = store.manifests.load(stats.snapshot)
    segments = store.manifests.segments(state, "events")
    paths = store.paths
    store.verified.obtain([(e.key, paths.object("segments", e.key)) for e in segments])
    sizes: dict[str, int] = {}
    for entry in segments:
        for name, count in Segment(paths, entry.key).column_bytes():
            sizes[name] = sizes.get(name, 0) + count
    # What belongs to no column, so that the sum is the size of the files.
    sizes["footers and headers"] = sum(e.bytes for e in segments) - sum(sizes.values())
    sizes = dict(sorted(sizes.items(), key=lambda pair: -pair[1]))
    sizes["all"] = sum(e.bytes for e in segments)
    # An empty lake has shares, too.
    total, events = sizes["all"] or 1, sum(e.events for e in segments) or 1
    return [
        {
            "column": name,
            "bytes": count,
            "share": round(count / total, 4),
            "bytes_per_event": round(count / events, 2),
        }
        for name, count in sizes.items()
    ]


def _table_row(sizes: dict[str, Any]) -> dict[str, Any]:
    return {
        "column": sizes["column"],
        "bytes": Count(sizes["bytes"]),
        "share": Share(sizes["share"]),
        "bytes/event": Decimal(f"{sizes['bytes_per_event']:.2f}"),
    }
