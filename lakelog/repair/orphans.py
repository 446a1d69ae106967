"""Segments that no kept state names although they were sealed: found again, and proved.

Each tells which frames of which writers are in it. It is taken back only if its frames follow,
writer by writer, on what is known to be sealed; if no kept state ever named it; if gc had not
condemned it before the state it is to stand on; and if no event of it is in that state. Whatever
else lies on disk are leftovers of lost races, and inputs of compactions.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any

from lakelog.lazy import Lazy
from lakelog.repair import recover
from lakelog.repair.recover import SealedBatch, Watermarks
from lakelog.store import disk, document, identity_run, rows, segment, sql
from lakelog.store.bootstrap import Store
from lakelog.store.manifest import Entry
from lakelog.store.refs import Move
from lakelog.store.tail import Tail

if TYPE_CHECKING:
    import numpy as np
else:
    np = Lazy("numpy")


Connect = Callable[[], Any]


def adopt(
    store: Store,
    connect: Connect,
    base: Move,
    known: Container[str],
    watermarks: Watermarks,
    is_doubtful: bool,
) -> tuple[list[SealedBatch], Watermarks]:
    """Return what can be proved to have been sealed after a move, in order, and the watermarks
    that it raises. Of two sealings of the same frames the larger counts. Where it `is_doubtful`
    whether all watermarks are known, a writer without one has to be left out."""
    condemned = _condemned(store)
    loose = [
        s
        for s in recover.sealings(store, known)
        if s.ranges
        and s.branch == base.branch
        and not any(condemned.get(f"segments/{key}", base.time) < base.time for key in s.segments)
    ]
    if is_doubtful:
        loose = [s for s in loose if s.ranges.keys() <= watermarks.keys()]
    held = in_wals(store, base.branch)
    way: list[SealedBatch] = []
    while True:
        ahead = [s for s in loose if _follows(s, watermarks, held)]
        ahead.sort(key=lambda s: (_gap(s, watermarks), -_frames(s), s.commit))
        found = next((s for s in ahead if not _is_there(store, connect, base, way, s)), None)
        if found is None:
            return way, watermarks
        way.append(found)
        loose.remove(found)
        watermarks = recover.raised(watermarks, [found])


def in_wals(store: Store, branch: str) -> dict[str, set[int]]:
    """Return the sequences of each writer that can still be read in its WAL files."""
    tail = Tail(store.paths, store.refs, branch)
    return {
        writer: {frame.sequence for file in files for frame in (*file.frames, *file.resumed)}
        for writer, files in tail.scan().items()
    }


def _follows(sealed: SealedBatch, watermarks: Watermarks, held: dict[str, set[int]]) -> bool:
    """Whether frames are above the watermarks, with nothing between that a WAL still holds."""
    for writer, (first, _) in sealed.ranges.items():
        mark = watermarks.get(writer, -1)
        if first <= mark or not held.get(writer, set()).isdisjoint(range(mark + 1, first)):
            return False
    return True


def _gap(sealed: SealedBatch, watermarks: Watermarks) -> int:
    return sum(first - watermarks.get(w, -1) - 1 for w, (first, _) in sealed.ranges.items())


def _frames(sealed: SealedBatch) -> int:
    return sum(last - first + 1 for first, last in sealed.ranges.values())


def _is_there(
    store: Store, connect: Connect, base: Move, way: list[SealedBatch], sealed: SealedBatch
) -> bool:
    """Whether an event of a sealing, or one with its id, is in a state already or taken back: it
    was compacted, or one of the two was rolled back."""
    state = store.manifests.load(base.snapshot)
    held = [e["key"] for e in store.manifests.entries(state) if e["kind"] == "events"]
    held = [key for key in held if recover.intact(store, "segments", key)]
    held += [key for step in way for key in _events(store, step)]
    mine = _events(store, sealed)
    if not held or not mine:
        return False
    ours, theirs = (sql.parquet(_paths(store, keys)) for keys in (mine, held))
    query = f"""SELECT EXISTS (SELECT 1 FROM {theirs} AS a JOIN {ours} AS b
        ON a.origin = b.origin AND a.position = b.position)
        OR EXISTS (SELECT 1 FROM {theirs} AS a JOIN {ours} AS b
        ON a.id = b.id AND coalesce(a.source, '') = coalesce(b.source, '') WHERE a.id <> '')"""
    return bool(connect().cursor().execute(query).fetchone()[0])


def _events(store: Store, sealed: SealedBatch) -> list[str]:
    """The segments of a sealing that hold events."""
    kinds = {key: segment.metadata(store.paths, key)["kind"] for key in sealed.segments}
    return [key for key, kind in kinds.items() if kind == "events"]


def with_runs(store: Store, connect: Connect, way: list[SealedBatch]) -> list[Entry]:
    """Return the id runs of sealings; one that is lost is made of the ids in the segments."""
    runs = []
    for step in way:
        runs += step.runs
        if not step.runs:
            high, low = ids_in(store, connect, _events(store, step))
            if len(high):
                runs.append(identity_run.write(store.paths, high, low, disk.random_hex()))
    return runs


def ids_in(store: Store, connect: Connect, keys: list[str]) -> tuple[Any, Any]:
    """Return the identity keys of the ids in event segments; content keys are not there."""
    if not keys:
        return np.zeros(0, "<u8"), np.zeros(0, "<u4")
    query = (
        f"SELECT DISTINCT {sql.id_key()} AS key"
        f" FROM {sql.parquet(_paths(store, keys))} WHERE id <> ''"
    )
    return rows.key_arrays(connect().cursor().sql(query).to_arrow_table()["key"])


def _paths(store: Store, keys: list[str]) -> list[str]:
    return [store.paths.object("segments", key) for key in keys]


def _condemned(store: Store) -> dict[str, int]:
    try:
        return dict(document.decode(disk.read(store.paths.condemned))["names"])
    except (OSError, document.NotIntact):
        return {}
