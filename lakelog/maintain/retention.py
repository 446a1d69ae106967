"""Retention by age: events older than a cutoff leave the branch, as one move that can be undone.

Segments wholly before the cutoff are deleted, those that straddle it are rewritten with the newer
rows (which keep their seq). The WAL is never touched: settle first. gc deletes the files later,
once no move in the window names them.
"""

from __future__ import annotations

from dataclasses import dataclass

from lakelog.database import Connect
from lakelog.disk import disk
from lakelog.entries import RetentionEntry, SegmentEntry
from lakelog.maintain import compact
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.refs import Head
from lakelog.store import Store
from lakelog.values import from_micros

EARLIEST_US = -62_135_596_800_000_000
"""The beginning of the year 1, before which there are no events."""
_LEVEL = 9


@dataclass(frozen=True)
class RetentionResult:
    """Numbers of deleted and rewritten segments, and of removed events: an upper bound unless
    `exact`."""

    before: int
    removed: int
    rewritten: int
    events: int
    exact: bool
    applied: bool


def choose(
    entries: list[SegmentEntry], before: int
) -> tuple[list[SegmentEntry], list[SegmentEntry]]:
    """Return the segments wholly before a cutoff (us), and those that straddle it."""
    # A quarantine segment is not rewritten: it goes once all of its lines are older.
    old = [e for e in entries if e.time[1] < before]
    straddling = [e for e in entries if e.kind == "events" and e.time[0] < before <= e.time[1]]
    return old, straddling


def preview(store: Store, branch: str, before: int) -> RetentionResult:
    """Return what `apply` would remove; an upper bound where segments straddle the cutoff."""
    state = store.state(branch)
    old, straddling = choose(store.manifests.segments(state), before)
    events = sum(e.events for e in (*old, *straddling) if e.kind == "events")
    return RetentionResult(before, len(old), len(straddling), events, not straddling, False)


def apply(store: Store, branch: str, before: int, connect: Connect) -> RetentionResult:
    """Remove events before the cutoff. Raises DamagedSegment, OSError."""
    rewritten: dict[str, SegmentEntry | None] = {}
    counts = {"removed": 0, "rewritten": 0, "events": 0}

    def plan(head: Head, state: Manifest) -> Change | None:
        old, straddling = choose(store.manifests.segments(state), before)
        if not old and not straddling:
            return None
        # Planned again after a lost race: a segment is rewritten once, whatever is published
        # beside.
        for entry in straddling:
            if entry.key not in rewritten:
                rewritten[entry.key] = _rest(store, connect, entry, before)
        remainders = [r for e in straddling if (r := rewritten[e.key])]
        events = sum(e.events for e in (*old, *straddling) if e.kind == "events")
        counts.update(removed=len(old), rewritten=len(straddling))
        counts["events"] = events - sum(r.events for r in remainders)
        numbers = compact.number_entries(store, state, remainders)
        line = from_micros(before).strftime("%Y-%m-%dT%H:%M:%SZ")
        return Change(
            "retention",
            f"{counts['events']} events before {line}",
            entries=(*(entry.tombstone() for entry in (*old, *straddling)), *remainders, *numbers),
            retention=RetentionEntry(before, disk.now_us()),
        )

    head = publish(store, branch, plan, discard=rewritten.clear)
    return RetentionResult(before, **counts, exact=True, applied=head is not None)


def _rest(store: Store, connect: Connect, entry: SegmentEntry, before: int) -> SegmentEntry | None:
    """Write the rows of a straddling segment that stay."""
    condition = f"epoch_us(time) >= {before}"
    return compact.rewrite(store, connect(), [entry], condition, _LEVEL)
