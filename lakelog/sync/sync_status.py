"""How far a table is behind its lake."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from lakelog.lake import Lake
from lakelog.store import disk
from lakelog.sync import delta
from lakelog.sync.target import TableShape, Watermark

EMPTIED = "the table was emptied by somebody else"


@dataclass(frozen=True)
class SyncStatus:
    """How far a table is behind its lake: events to add or remove, and seconds between the states.

    Both are None where the table is of another lake or branch. `note` says what is wrong with it,
    such as that the next sync has to fill it again, and why.
    """

    target: str
    table: str
    mode: str
    rows: int
    synced_at: int
    events_behind: int | None
    seconds_behind: float | None
    note: str = ""


def status_of(
    lake: Lake, address: str, table: str, mark: Watermark, shape: TableShape | None
) -> SyncStatus:
    """Compare a table with the lake as it is now, its unpublished events included."""
    events = seconds = None
    rows, note = mark.rows, ""
    if is_emptied(mark, shape):
        rows, note = 0, EMPTIED if shape else "the table is gone"
    if (mark.lake_id, mark.branch) != (lake.store.lake_id, lake.branch_name):
        note = "the table is of another lake or branch"
    else:
        head = lake.store.refs.head(lake.branch_name)
        state = lake.store.manifests.of(head.move)
        with contextlib.closing(lake.engine().cursor()) as cursor:
            change = delta.delta_between(lake.store, cursor, mark, state, head.move.generation)
            lacking = sum(delta.size(lake.store, cursor, step) for step in change.steps)
        if note:
            lacking = state.totals.events
        events = lacking + max(0, lake.count() - state.totals.events)
        note = note or change.reason
        is_same = mark.snapshot == state.digest and not note
        age = max(0.0, (disk.now_us() - mark.state_time) / 1e6)
        seconds = 0.0 if is_same and not events else age
    return SyncStatus(address, table, mark.mode, rows, mark.synced_at, events, seconds, note)


def is_emptied(mark: Watermark, shape: TableShape | None) -> bool:
    """Whether somebody deleted all rows of a table behind the sync's back."""
    return mark.rows > 0 and (shape is None or (shape.is_empty and not shape.expires))
