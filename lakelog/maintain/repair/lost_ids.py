"""The ids of events that a repair gave up: free again, so that their events can be sent again.

No segment has them any more, so they are those of the id runs that were published with the lost
segments, without those of events that are in the lake. Such a run is found by the moves, where the
state before and that after are kept, or by its commit, where the footer of the segment can be read
(F4.4). It may be merged by now: its keys are taken out of whichever runs have them. Where neither
tells, the ids stay: what dedupe or retention removed on purpose must not come back (F13.4).

A version of a stream is not free again while a later one is there: to whoever looks from version 0
on the stream would end before it, and the next event be taken for one that is stored.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from lakelog import database
from lakelog.appends import KnownKeys, StreamSubject
from lakelog.database import Connect
from lakelog.disk import disk
from lakelog.entries import IdRun, SegmentEntry
from lakelog.errors import Damaged
from lakelog.identities import IdentityKeys
from lakelog.libraries import pa
from lakelog.maintain.repair import orphans, recover
from lakelog.maintain.repair.outcome import RepairOutcome
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.segments import Segment
from lakelog.store import Store
from lakelog.wal import PendingFrames, Tail

_PUBLISHING = ("seal", "ingest")
"""Moves that add the ids of the very segments that they add."""


@dataclass(frozen=True)
class Freed:
    """The id runs of a state that have keys of lost events, and those that take their place."""

    dropped: tuple[str, ...] = ()
    added: tuple[IdRun, ...] = ()


def free(
    store: Store,
    state: Manifest,
    lost_segments: list[SegmentEntry],
    present: list[str],
    connect: Connect,
) -> Freed:
    """Write the id runs of a state without the keys of lost segments, but for those of events in
    the segments that are `present`. Call it before the files of the lost ones are set aside."""
    keys = {entry.key for entry in lost_segments if entry.kind == "events"}
    published = _published_with(store, keys)
    published |= {run for _, run in recover.runs_of(store, _commits(store, keys))}
    runs = [run for run in published if recover.is_intact(store, "ids", run.digest)]
    if not runs:
        return Freed()
    keys_lost = IdentityKeys.merged(IdentityKeys.read(store, run) for run in runs)
    is_present = orphans.keys_of(store, connect, present).contains(keys_lost)
    return _without(store, state, keys_lost.where(~is_present))


def _without(store: Store, state: Manifest, keys_lost: IdentityKeys) -> Freed:
    """Write the runs of a state again that have any of these keys, without them."""
    dropped, added = list[str](), list[IdRun]()
    for run in state.ids:
        if not recover.is_intact(store, "ids", run.digest):
            continue  # it is rebuilt from the events and from what can be read of it
        keys = IdentityKeys.read(store, run)
        is_lost = keys_lost.contains(keys)
        if is_lost.any():
            dropped.append(run.digest)
            added += keys.where(~is_lost).write(store.paths, disk.random_hex())
    return Freed(tuple(dropped), tuple(added))


def _published_with(store: Store, keys: set[str]) -> set[IdRun]:
    """Return the runs that moves added together with segments, as far as both states are kept."""
    runs: set[IdRun] = set()
    for branch in store.refs.all_branches() if keys else ():
        moves = [move for _, (move, _) in sorted(recover.moves(store, branch)[0].items())]
        for previous, move in itertools.pairwise(moves):
            # Over a gap the runs of other segments would count as well.
            if move.op not in _PUBLISHING or move.number != previous.number + 1:
                continue
            try:
                before, after = map(store.manifests.of, (previous, move))
                old, new = ({e.key for e in store.manifests.segments(s)} for s in (before, after))
            except Damaged:
                continue
            if keys & new - old:
                runs |= set(after.ids) - set(before.ids)
    return runs


def _commits(store: Store, keys: set[str]) -> set[str]:
    """Return the commits of the attempts that wrote segments, as far as these can tell."""
    commits = set()
    for key in keys:
        try:
            commits.add(Segment(store.paths, key).metadata()["commit"])
        except Exception:  # whatever Arrow says of a damaged footer: that segment names no commit
            continue
    return commits


def complete_streams(store: Store, branch: str, connect: Connect, outcome: RepairOutcome) -> None:
    """Give a branch the keys that it lacks of versions before one that is there."""
    try:
        pending = Tail(store.paths, store.refs, branch).collect()
    except Damaged:  # a writer holds a damaged file, so that all is repaired again
        return
    state = store.manifests.of(pending.head.move)
    known_keys, keys = KnownKeys(store).of(state.ids), list[str]()
    for origin, newest in _known_versions(store, state, pending, connect).items():
        subject = StreamSubject(origin.removeprefix(StreamSubject.ORIGIN))
        fresh = (k for k in map(subject.key, range(1, newest + 1)) if not known_keys.holds(k))
        keys += map(bytes.hex, fresh)
    if keys:
        added = IdentityKeys.of(pa.chunked_array([keys])).write(store.paths, disk.random_hex())
        message = f"versions of {len(keys)} lost events of streams stay given"
        publish(store, branch, lambda *_: Change("repair", message, ids_add=added))
        outcome.done.append(f"branch {branch}: {message}")


def _known_versions(
    store: Store, state: Manifest, pending: PendingFrames, connect: Connect
) -> dict[str, int]:
    """Return the version, by its origin, of each stream that may lack some before it."""
    keys = [entry.key for entry in store.manifests.segments(state, "events")]
    versions = dict[str, int]()
    if keys:
        rows = database.parquet_sql([store.paths.object("segments", key) for key in keys])
        query = f"""SELECT origin, max(position) FROM {rows}
            WHERE starts_with(origin, '{StreamSubject.ORIGIN}')
            GROUP BY origin HAVING max(position) > count(*)"""
        versions |= dict(connect().cursor().execute(query).fetchall())
    frames = itertools.chain.from_iterable(pending.frames.values())
    lines = (line for f in frames if f.is_versioned for line in f.lines()[:-1].split(b"\n"))
    places = sorted(filter(None, map(StreamSubject.place_of, lines)), reverse=True)
    # Those of the tail get their keys when they are sealed: the first of each counts.
    return versions | {origin: version - 1 for origin, version in places}
