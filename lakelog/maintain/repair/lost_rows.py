"""Rows of lost segments that other files still have: segments of a copy, and WALs.

A copy that was made before a compaction has the same rows in other segments, under the same seq
(F6.12). Rows may have been removed here since, or other ones have got these numbers after a rewind.
So they are taken only if there are as many of them, of the same statistics; or if the lost segment
had a row of every number in its span, and no rewind came between.

A WAL outlives the seal of its frames here while its writer goes on in the file, and for good in a
copy that was made before. The move of the seal tells which group commits were in the segment: those
between the watermarks before it and its own. Only segments that a seal made, and that are live in
the newest state, are made again: whatever removes rows leaves other segments.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from dataclasses import dataclass
from typing import Any

from lakelog import database, frame_rows
from lakelog.database import Connect
from lakelog.disk import disk
from lakelog.entries import IdRun, SegmentEntry
from lakelog.errors import Damaged, UnknownRef
from lakelog.identities import unique_rows
from lakelog.libraries import pa, pc
from lakelog.maintain import compact
from lakelog.maintain.repair import recover
from lakelog.maintain.repair.lost_moves import Ranges
from lakelog.manifest import Manifest
from lakelog.protect import sealed_blocks
from lakelog.segments import describe_rows, rows_sql, write_segment
from lakelog.store import Store
from lakelog.wal import Frame, PendingFrames, Tail, WalFile

_LEVEL = 3


@dataclass(frozen=True)
class _Seal:
    """What one move sealed: group commits by writer, and the id runs that it added."""

    branch: str
    ranges: Ranges
    runs: set[IdRun]


def seal_again(
    store: Store,
    state: Manifest,
    lost_entries: list[SegmentEntry],
    sources: list[Store],
    connect: Connect,
) -> dict[str, SegmentEntry]:
    """Write what WALs of these lakes have of lost segments of a state; return the new segments by
    the keys of the lost ones. One that has all rows, in their order, has the seq of that one."""
    wanted_entries = {e.key: e for e in lost_entries if e.kind == "events" and not e.made_from}
    sealed: dict[str, SegmentEntry] = {}
    for key, seal in _seals(store, set(wanted_entries)).items() if wanted_entries else ():
        frames, is_ordered = _frames(sources, seal)
        if not frames:
            continue
        with contextlib.closing(connect().cursor()) as engine:
            flat = [frame for group in frames.values() for frame in group]
            table = _rows(store, state, seal, flat, engine)
        # More than there were: some had been dropped as duplicates of what nobody knows any more.
        if 0 < table.num_rows <= wanted_entries[key].events:
            entry = write_segment(
                store.paths,
                table,
                kind="events",
                layout="arrival",
                commit=disk.random_hex(),
                wal=PendingFrames.sealed_ranges(frames),
                branch=seal.branch,
                lake=store.lake_id,
            )
            whole = is_ordered and entry.events == wanted_entries[key].events
            sealed[key] = (
                dataclasses.replace(entry, seq=wanted_entries[key].seq) if whole else entry
            )
    return sealed


def take_from_copy(
    store: Store, branch: str, lost_entries: list[SegmentEntry], copy: Store, connect: Connect
) -> dict[str, SegmentEntry]:
    """Write segments with the rows of lost ones that the newest state of a copy has in others;
    return these by the keys of the lost ones. Rows have the seq that they had."""
    copied: dict[str, SegmentEntry] = {}
    copy_entries: list[SegmentEntry] = []
    with contextlib.suppress(Damaged, UnknownRef):
        copy_entries = copy.manifests.segments(copy.state(branch), "events")
    for entry in (e for e in lost_entries if e.kind == "events"):
        low, high = entry.seq
        group = [e for e in copy_entries if e.seq[0] <= high and e.seq[1] >= low]
        group = [e for e in group if recover.is_intact(copy, "segments", e.key)]
        if not group:
            continue
        if fields := sealed_blocks.of_lake(store.paths):
            fields.expect((e.key for e in group), copy.paths)
        with contextlib.closing(connect().cursor()) as engine:
            source = rows_sql(copy.paths, group)
            query = f"SELECT * FROM ({source}) WHERE seq BETWEEN {low} AND {high}"
            table = engine.cursor().sql(query).to_arrow_table()
            described = describe_rows("", 0, table, "events", "sorted")
            is_full = entry.events == high - low + 1 and _has_same_seq(store, branch, copy, entry)
            if table.num_rows and (_statistics(described) == _statistics(entry) or is_full):
                # Their schemas are in the copy, and none of them is asked for.
                plain = [dataclasses.replace(e, fields="", text_rows=0) for e in group]
                new = compact.write_sorted(store, engine, table, plain, _LEVEL)
                span = pc.min_max(table["seq"]).as_py()
                seq = span["min"], span["max"]
                copied[entry.key] = dataclasses.replace(new, seq=seq, made_from=())
    return copied


def _statistics(entry: SegmentEntry) -> tuple[object, ...]:
    return entry.events, entry.time, entry.types, entry.sources, entry.levels, entry.subject


def _has_same_seq(store: Store, branch: str, copy: Store, entry: SegmentEntry) -> bool:
    """Whether the copy's newest move is one of the lake, and a move without a rewind since, or one
    before it, names a segment: then a seq in it means the same row in both."""
    own_moves, newest = recover.moves(store, branch)[0], copy.refs.head(branch)
    number = newest.move.number
    if number not in own_moves or own_moves[number][0].commit != newest.move.commit:
        return False
    for _, (move, _) in sorted(own_moves.items(), reverse=True):
        if move.generation == newest.move.generation:
            with contextlib.suppress(Damaged):
                segments = store.manifests.segments(store.manifests.of(move))
                if any(e.key == entry.key for e in segments):
                    return True
    return False


def _seals(store: Store, keys: set[str]) -> dict[str, _Seal]:
    """Return what the moves sealed that added these segments, as far as it is known."""
    seals: dict[str, _Seal] = {}
    for branch in store.refs.all_branches():
        marks: dict[str, int] = {}
        previous: tuple[set[str], set[IdRun]] | None = set(), set()
        for _, (move, _) in sorted(recover.moves(store, branch)[0].items()):
            state, before = None, previous
            with contextlib.suppress(Damaged):
                manifest = store.manifests.of(move)
                state = {e.key for e in store.manifests.segments(manifest)}, set(manifest.ids)
            if move.op == "seal" and state is not None and before is not None:
                ranges = {
                    writer: (marks.get(writer, -1) + 1, mark)
                    for writer, mark in move.wal.items()
                    if mark > marks.get(writer, -1)
                }
                for key in keys & state[0] - before[0]:
                    seals.setdefault(key, _Seal(branch, ranges, state[1] - before[1]))
            # After a lost move nobody knows what of the next ranges it had sealed.
            previous = state if move.op != "lost" else None
            marks = recover.highest([marks, move.wal])
    return seals


def _frames(sources: list[Store], seal: _Seal) -> tuple[dict[str, list[Frame]], bool]:
    """Return the frames of a seal that WALs have, in the order in which they are sealed, and
    whether that order is certain: a writer's first file tells when it started (F12.5)."""
    frames: dict[str, dict[int, Frame]] = {}
    starts: dict[str, int] = {}
    whole_writers: set[str] = set()
    for source in sources:
        for writer, files in Tail(source.paths, source.refs, seal.branch).scan().items():
            low, high = seal.ranges.get(writer, (0, -1))
            starts[writer] = min(WalFile.start_time(files), starts.get(writer, sys.maxsize))
            whole_writers |= {writer} if files[0].n == 0 else set()
            for frame in (f for file in files for f in (*file.frames, *file.resumed)):
                if low <= frame.sequence <= high and not frame.flags & Frame.QUARANTINED:
                    frames.setdefault(writer, {}).setdefault(frame.sequence, frame)
    order = sorted(frames, key=lambda writer: (starts[writer], writer))
    by_writer = {w: [frames[w][n] for n in sorted(frames[w])] for w in order}
    return by_writer, len(order) == 1 or whole_writers.issuperset(order)


def _rows(store: Store, state: Manifest, seal: _Seal, frames: list[Frame], engine: Any) -> pa.Table:
    """Return the rows of frames, without those that the seal dropped, or that are there."""
    table = frame_rows.events(lambda: engine, frames)
    if any(f.flags & Frame.KEYED for f in frames):
        # The run of the seal has the keys of these very rows; once it is merged no run tells.
        is_own = seal.runs <= set(state.ids)
        runs = set(state.ids) - seal.runs if is_own else set()
        intact = [run for run in runs if recover.is_intact(store, "ids", run.digest)]
        table, _ = unique_rows(store, table, intact)
    keys = [e.key for e in store.manifests.segments(state, "events")]
    keys = [key for key in keys if recover.is_intact(store, "segments", key)]
    if not keys or not table.num_rows:
        return table
    relation = database.parquet_sql(store.paths.object("segments", key) for key in keys)
    cursor = engine.cursor()
    cursor.register("again", table.append_column("row", pa.array(range(table.num_rows))))
    query = f"""WITH there AS (SELECT origin, position, id, source FROM {relation})
        SELECT "row" FROM again AS a
        WHERE NOT EXISTS (FROM there AS t WHERE t.origin = a.origin AND t.position = a.position)
        AND NOT EXISTS (FROM there AS t WHERE a.id <> '' AND t.id = a.id
            AND coalesce(t.source, '') = coalesce(a.source, '')) ORDER BY ALL"""
    return table.take(pa.array([n for (n,) in cursor.execute(query).fetchall()], pa.int64()))
