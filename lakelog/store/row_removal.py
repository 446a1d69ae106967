"""Removal: chosen rows leave the branch as one move, and nothing else does.

Rows are named by seq, which no compaction changes and no publish gives twice in one generation.
So a choice made on one state holds on every later one until a rewind: segments that hold chosen
rows are rewritten without them, whatever came, or was merged, in between. The others keep their
seq. Like retention it can be undone; files go later, by gc.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakelog.errors import StalePlan
from lakelog.lazy import Lazy
from lakelog.store import compact, manifest
from lakelog.store.bootstrap import Store
from lakelog.store.manifest import Entry, Manifest
from lakelog.store.publish import Change, publish
from lakelog.store.refs import Head

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
else:
    np = Lazy("numpy")
    pa = Lazy("pyarrow")

_LEVEL = 3


@dataclass(frozen=True)
class RowRemoval:
    """What a removal did: segments that went or were rewritten, and events taken off."""

    removed: int
    rewritten: int
    events: int


def holding(entries: list[Entry], chosen: np.ndarray) -> list[tuple[Entry, np.ndarray]]:
    """Return the event segments that hold chosen rows, each with its part of them.

    `chosen` is sorted; segments of one state share no seq.
    """
    found = []
    for entry in (e for e in entries if e["kind"] == "events"):
        low, high = np.searchsorted(chosen, [entry["seq"][0], entry["seq"][1] + 1])
        if low < high:
            found.append((entry, chosen[low:high]))
    return found


def apply(
    store: Store,
    branch: str,
    chosen: np.ndarray,
    generation: int,
    note: Entry,
    message: str,
    connect: Callable[[], Any],
    progress: compact.Progress | None = None,
) -> RowRemoval:
    """Take rows off a branch: those of the sorted seqs `chosen`, as one `dedupe` move.

    `note` is the artifact entry that says so in the manifest. Raises StalePlan if the branch was
    rewound since `generation` or lacks a chosen row, DamagedSegment, OSError.
    """
    made: dict[str, Entry | None] = {}
    counts = {"removed": 0, "rewritten": 0}

    def plan(head: Head, state: Manifest) -> Change | None:
        found = holding(store.manifests.entries(state), chosen)
        present = sum(len(part) for _, part in found)  # holes are looked for in _rest
        if head.move.generation != generation or present != len(chosen):
            raise StalePlan(f"{branch!r} was rewound, or its rows removed, meanwhile: plan again")
        for number, (entry, part) in enumerate(found):
            if entry["key"] not in made:
                made[entry["key"]] = _rest(store, connect, entry, part)
            if progress:
                progress(number + 1, len(found))
        kept = [k for e, _ in found if (k := made[e["key"]])]
        counts.update(removed=len(found) - len(kept), rewritten=len(kept))
        removals = (manifest.tombstone(e) for e, _ in found)
        return Change("dedupe", message, entries=(*removals, *kept, note))

    publish(store, branch, plan, anew=made.clear)
    return RowRemoval(**counts, events=len(chosen))


def _rest(store: Store, connect: Callable[[], Any], entry: Entry, part: np.ndarray) -> Entry | None:
    """Write what stays of a segment; None if that is nothing. Raises StalePlan."""
    compact.check(store, [entry])
    gone, query = pa.table({"seq": pa.array(part)}), compact.rows_sql(store, [entry])
    cursor = connect().cursor()
    cursor.register("gone", gone)
    with contextlib.closing(cursor):
        query = f"SELECT count(*) FROM ({query}) WHERE seq IN (SELECT seq FROM gone)"
        if cursor.execute(query).fetchone()[0] != len(part):
            raise StalePlan("some of the rows are not on the branch any more: plan again")
    if len(part) == entry["events"]:
        return None
    where = "seq NOT IN (SELECT seq FROM gone)"
    return compact.rewrite(store, connect(), [entry], where, _LEVEL, {"gone": gone})
