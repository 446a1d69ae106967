"""States as users see them: a snapshot, its entry in a log, and what separates two of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lakelog.entries import SegmentEntry
from lakelog.manifest import Manifest
from lakelog.refs import Move
from lakelog.runtime.lazy import LazyProperty
from lakelog.store import Store


@dataclass(frozen=True)
class Snapshot:
    """One state of the lake: `id` (64 hex digits), time (us), author, message, op, counts."""

    id: str
    time: int
    author: str
    op: str
    message: str
    events: int
    bytes: int
    segments: int
    quarantined: int
    parent: str
    SHORT: ClassVar[int] = 12
    """Digits of an id that are enough to name it."""

    @property
    def short(self) -> str:
        """The first `SHORT` digits of the id."""
        return self.id[: self.SHORT]

    @classmethod
    def of(cls, state: Manifest) -> Snapshot:
        """Return a manifest as a snapshot."""
        totals = state.totals
        return cls(
            state.digest,
            state.time,
            state.author,
            state.op,
            state.message,
            totals.events,
            totals.bytes,
            totals.segments,
            totals.quarantined,
            state.parent,
        )


@dataclass(frozen=True)
class HistoryEntry:
    """One move with the counts of its state; None where the manifest is gone."""

    move: Move
    tags: tuple[str, ...]
    events: int | None
    segments: int | None


@dataclass(frozen=True)
class Diff:
    """What separates snapshot `a` from `b`: segments only in one, event and type counts.

    Type counts are of the segments that differ; a type is None where a segment has too many.
    `behaviour` (query/behaviour.py) is computed on first use.
    """

    a: Snapshot
    b: Snapshot
    added: tuple[SegmentEntry, ...]
    removed: tuple[SegmentEntry, ...]
    events: int
    types: dict[str, int] | None
    moves: tuple[Move, ...]
    look: Callable[[Diff], Any] | None = field(default=None, repr=False, compare=False)

    @LazyProperty
    def behaviour(self) -> Any:
        """New and vanished types and fields, changed types, shifts by source: one scan of either
        side. None without a `look` function. Raises Damaged."""
        return None if self.look is None else self.look(self)

    @classmethod
    def between(
        cls, store: Store, a: str, b: str, look: Callable[[Diff], Any] | None = None
    ) -> Diff:
        """Compare two manifests, given by their digests, by their segments."""
        before, after = store.manifests.load(a), store.manifests.load(b)
        old = {e.key: e for e in store.manifests.segments(before)}
        new = {e.key: e for e in store.manifests.segments(after)}
        added = tuple(e for k, e in new.items() if k not in old)
        removed = tuple(e for k, e in old.items() if k not in new)
        # Only where they differ: a lake of 10,000 segments is compared by its few new ones.
        # Compaction cancels out, as it adds and removes the same events.
        sums, is_known = dict[str, int](), True
        for sign, entries in ((1, added), (-1, removed)):
            for entry in (e for e in entries if e.kind == "events"):
                if isinstance(entry.types, str):  # MANY
                    is_known = False
                    continue
                for name, count in entry.types.items():
                    sums[name] = sums.get(name, 0) + sign * count
        types = {name: n for name, n in sorted(sums.items()) if n} if is_known else None
        events = after.totals.events - before.totals.events
        return cls(Snapshot.of(before), Snapshot.of(after), added, removed, events, types, (), look)
