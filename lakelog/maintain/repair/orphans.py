"""Orphans: segments that were sealed, though no kept state names them.

Each names the frames of writers that are in it (F4.4). It is taken back only if its frames follow,
writer by writer, on the watermarks; if no kept state ever named it; if gc had not condemned it
before the state that it is added to; and if no event of it is in that state (F14.5). All other
unnamed segments are left over from lost races, or inputs of compactions.
"""

from __future__ import annotations

from collections.abc import Container

from lakelog import database, document, identities
from lakelog.database import Connect
from lakelog.disk import File, NotIntact, disk
from lakelog.entries import IdRun, Record
from lakelog.identities import IdentityKeys
from lakelog.maintain.repair import recover
from lakelog.maintain.repair.recover import SealedBatch, Watermarks
from lakelog.manifest import Manifest
from lakelog.refs import Move
from lakelog.segments import Segment
from lakelog.store import Hosts, Store


def adopt(
    store: Store,
    connect: Connect,
    base: Move,
    excluded: Container[str],
    watermarks: Watermarks,
    is_doubtful: bool,
) -> tuple[list[SealedBatch], Watermarks]:
    """Return the seals that can be proved to have happened after a move, in order, and the
    watermarks raised by them. Of two seals of the same frames the larger counts. Where it
    `is_doubtful` whether all watermarks are known, writers without one are left out."""
    condemned = _read_condemned(store)
    # What was condemned before the state was made had been removed from the branch by then, or had
    # lost its race: adding it would bring removed rows back.
    candidates = [
        s
        for s in recover.sealed_batches(store, excluded)
        if s.ranges
        and s.branch == base.branch
        and not any(condemned.get(f"segments/{key}", base.time) < base.time for key in s.segments)
    ]
    if is_doubtful:
        candidates = [s for s in candidates if s.ranges.keys() <= watermarks.keys()]
    in_wals = recover.wal_sequences(store, base.branch)
    adopted: list[SealedBatch] = []
    while True:
        following = [s for s in candidates if _follows(s, watermarks, in_wals)]
        # The nearest first, as each raises the watermarks for the next. A gap is allowed: its
        # frames may have been sealed by a segment that is lost.
        following.sort(key=lambda s: (_gap(s, watermarks), -_frames(s), s.commit))
        batch = next(
            (s for s in following if not _is_present(store, connect, base, adopted, s)), None
        )
        if batch is None:
            return adopted, watermarks
        adopted.append(batch)
        candidates.remove(batch)
        watermarks = recover.raise_watermarks(watermarks, [batch])


def _follows(sealed: SealedBatch, watermarks: Watermarks, in_wals: dict[str, set[int]]) -> bool:
    """Whether frames are above the watermarks, and no WAL has any in between: a watermark that is
    raised past those would lose them."""
    for writer, (low, _) in sealed.ranges.items():
        mark = watermarks.get(writer, -1)
        if low <= mark or not in_wals.get(writer, set()).isdisjoint(range(mark + 1, low)):
            return False
    return True


def _gap(sealed: SealedBatch, watermarks: Watermarks) -> int:
    return sum(low - watermarks.get(w, -1) - 1 for w, (low, _) in sealed.ranges.items())


def _frames(sealed: SealedBatch) -> int:
    return sum(high - low + 1 for low, high in sealed.ranges.values())


def _is_present(
    store: Store, connect: Connect, base: Move, adopted: list[SealedBatch], sealed: SealedBatch
) -> bool:
    """Whether an event of a seal, or one with its id, is in the state or was taken back already: it
    was compacted, or one of the two was rolled back."""
    state = store.manifests.of(base)
    present = [e.key for e in store.manifests.segments(state, "events")]
    present = [key for key in present if recover.is_intact(store, "segments", key)]
    present += [key for batch in adopted for key in _events(store, batch)]
    own_keys = _events(store, sealed)
    if not present or not own_keys:
        return False
    ours, present_rows = (database.parquet_sql(_paths(store, keys)) for keys in (own_keys, present))
    # By content, as compaction changes names and digests, but no origin, position or id.
    query = f"""SELECT EXISTS (SELECT 1 FROM {present_rows} AS a JOIN {ours} AS b
        ON a.origin = b.origin AND a.position = b.position)
        OR EXISTS (SELECT 1 FROM {present_rows} AS a JOIN {ours} AS b
        ON a.id = b.id AND coalesce(a.source, '') = coalesce(b.source, '') WHERE a.id <> '')"""
    return bool(connect().cursor().execute(query).fetchall()[0][0])


def _events(store: Store, sealed: SealedBatch) -> list[str]:
    """The segments of a seal that have events, not quarantined lines."""
    kinds = {key: Segment(store.paths, key).metadata()["kind"] for key in sealed.segments}
    return [key for key, rows_kind in kinds.items() if rows_kind == "events"]


def identity_runs(store: Store, connect: Connect, batches: list[SealedBatch]) -> list[IdRun]:
    """Return the id runs of seals; one that is lost is rebuilt from the ids in the segments."""
    runs: list[IdRun] = []
    for batch in batches:
        runs += batch.runs
        if not batch.runs:
            keys = keys_of(store, connect, _events(store, batch))
            runs += keys.write(store.paths, disk.random_hex())
    return runs


def host_records(store: Store, state: Manifest, batches: list[SealedBatch]) -> tuple[Record, ...]:
    """Return the entries of the hosts of seals which a state does not know yet."""
    hosts = Hosts(item for batch in batches for item in batch.hosts.items())
    return hosts.records(Hosts.of_state(store.manifests, state))


def keys_of(store: Store, connect: Connect, keys: list[str]) -> IdentityKeys:
    """Return the identity keys of the ids in event segments; content keys are in no segment."""
    if not keys:
        return IdentityKeys.merged([])
    query = (
        f"SELECT DISTINCT {identities.id_key(of_streams=True)} AS key"
        f" FROM {database.parquet_sql(_paths(store, keys))} WHERE key IS NOT NULL"
    )
    return IdentityKeys.of(connect().cursor().sql(query).to_arrow_table()["key"])


def _paths(store: Store, keys: list[str]) -> list[str]:
    return [store.paths.object("segments", key) for key in keys]


def _read_condemned(store: Store) -> dict[str, int]:
    try:
        return dict(document.decode(File(store.paths.condemned).read())["names"])
    except (OSError, NotIntact):
        return {}
