"""The files of segments before the engine reads them: each is hashed once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakelog.errors import DamagedSegment, SnapshotGone
from lakelog.runtime.lazy import Lazy
from lakelog.store.bootstrap import Store
from lakelog.store.entry import SegmentEntry
from lakelog.store.verified_files import hash_file

if TYPE_CHECKING:
    from lakelog.maintain import reachability
else:
    reachability = Lazy("lakelog.maintain.reachability")


def verify(store: Store, branch: str, entries: list[SegmentEntry]) -> None:
    """Hash segments not yet verified as they are. Raises DamagedSegment, SnapshotGone."""
    fresh = []
    for entry in entries:
        path = store.paths.object("segments", entry.key)
        try:
            if store.verified.holds(entry.key, path):
                continue
            if hash_file(path) != entry.key:
                raise DamagedSegment(path, "the content does not match its name")
        except FileNotFoundError:
            raise _missing(store, branch, entry, path) from None
        fresh.append((entry.key, path))
    if fresh:
        store.verified.add_all(fresh)


def _missing(store: Store, branch: str, entry: SegmentEntry, path: str) -> Exception:
    """A segment is not there: collected behind a slow reader's back, or lost."""
    if f"segments/{entry.key}" in reachability.lost_names(store):
        return DamagedSegment(path, "it was lost, and a repair has given it up")
    state = store.state(branch)
    if any(e.key == entry.key for e in store.manifests.segments(state)):
        return DamagedSegment(path, "the segment is missing")
    return SnapshotGone(f"segment {entry.key[:12]} was collected by gc: run the query again")
