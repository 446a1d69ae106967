"""Statistics of a lake, from manifests and directory listings alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

from lakelog.disk import Folder
from lakelog.entries import MANY, Counts, SegmentEntry
from lakelog.store import Store
from lakelog.wal import Frame, Tail

# Of types and sources without bound only the most frequent are of use to a reader.
_NAMES_MAX = 1000


@dataclass(frozen=True)
class Stats:
    """Counts of one branch or snapshot; times in us, sizes in bytes.

    `pending` are events of the tail before dedupe; `types`, `sources`, `levels` count published
    events by value, with "" for null, and lack the segments that hold too many values
    (`uncounted` events of types). `words_bytes` are those of the word indexes of segments.
    """

    path: str
    lake: str
    branch: str
    snapshot: str
    snapshot_time: int
    events: int
    pending: int
    quarantined: int
    bytes: int
    segments: int
    wal_files: int
    wal_bytes: int
    writers: int
    ids: int
    ids_bytes: int
    words_bytes: int
    time: tuple[int, int] | None
    types: dict[str, int]
    sources: dict[str, int]
    levels: dict[str, int]
    uncounted: int
    moves: int
    generation: int
    tags: int
    branches: int
    cut: int

    @classmethod
    def measure(cls, store: Store, branch: str, tail: Tail, snapshot: str | None = None) -> Stats:
        """Measure a branch, or one `snapshot` of it by its digest. Raises UnknownRef, Damaged."""
        # A snapshot has no tail: its numbers do not change. Else the head is that of the tail:
        # what is sealed between two looks would be in neither.
        pending = None if snapshot else tail.collect()
        head = pending.head if pending else store.refs.head(branch)
        state = store.manifests.load(snapshot or head.move.snapshot)
        entries = store.manifests.segments(state)
        wals = tail.scan()
        files = [file for group in wals.values() for file in group]
        live = [e for e in entries if e.kind == "events"]
        quarantined = state.totals.quarantined
        if pending:
            frames = [f for fs in pending.frames.values() for f in fs]
            # Unlike pending events, which duplicates may still reduce, each of these will be a row.
            quarantined += sum(f.events for f in frames if f.flags & Frame.QUARANTINED)
        return cls(
            path=store.paths.root,
            lake=store.lake_id,
            branch=branch,
            snapshot=state.digest,
            snapshot_time=state.time,
            events=state.totals.events,
            pending=pending.events if pending else 0,
            quarantined=quarantined,
            bytes=state.totals.bytes,
            segments=state.totals.segments,
            wal_files=len(files),
            wal_bytes=sum(file.used for file in files),
            writers=len(wals),
            ids=sum(r.count for r in state.ids),
            ids_bytes=sum(r.bytes for r in state.ids),
            words_bytes=sum(_size(store.paths.words(e.key)) for e in live),
            time=_span(live),
            types=_sum(e.types for e in live),
            sources=_sum(e.sources for e in live),
            levels=_sum(e.levels for e in live),
            uncounted=sum(e.events for e in live if e.types == MANY),
            moves=head.move.number,
            generation=head.move.generation,
            tags=len(store.refs.tags()),
            branches=len(store.refs.branches()),
            cut=len(Folder(store.paths.cut).names()),
        )

    @staticmethod
    def disk_bytes(store: Store) -> int:
        """Return the bytes that all files of a lake take on disk: of earlier states and caches,
        too."""
        total = 0
        for folder, _, names in os.walk(store.paths.root):
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    total += os.lstat(f"{folder}/{name}").st_blocks * 512
        return total


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _span(entries: list[SegmentEntry]) -> tuple[int, int] | None:
    if not entries:
        return None
    return min(e.time[0] for e in entries), max(e.time[1] for e in entries)


def _sum(columns: Iterable[Counts]) -> dict[str, int]:
    total: dict[str, int] = {}
    for counts in columns:
        if isinstance(counts, dict):
            for name, count in counts.items():
                total[name] = total.get(name, 0) + count
    ranked = sorted(total.items(), key=lambda pair: (-pair[1], pair[0]))
    return dict(ranked[:_NAMES_MAX])
