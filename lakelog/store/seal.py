"""Sealing: any process turns any writers' complete prefixes, living or dead, into a segment.

`seal` takes what lies above the head's watermarks, drops events whose id is known, writes one
segment (and one id run where events carry ids), and publishes it. Its preconditions: the
watermarks it started from still hold, no id run came since that holds one of its keys, and no
rewind happened. Two sealers of the same frames: one links, the other finds its watermark moved.
`settle` seals everything that was pending when it was called.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lakelog.errors import DamagedIds, StaleFiles
from lakelog.lazy import Lazy
from lakelog.store import disk, identity_run, rows, sealer_process, segment, wal
from lakelog.store.bootstrap import Store
from lakelog.store.manifest import Entry, Manifest
from lakelog.store.publish import Change, publish, run_maintenance
from lakelog.store.refs import Head
from lakelog.store.tail import Tail, WalFile, pick, started, summary
from lakelog.store.trim import trim
from lakelog.store.verified_files import hash_file

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
else:
    np = Lazy("numpy")
    pa = Lazy("pyarrow")

RAW_MAX = 256_000_000
"""JSON bytes one seal takes at most; more is sealed in several."""
Frames = dict[str, list[wal.Frame]]


@dataclass
class _Work:
    """What one attempt wrote, and what it stands on."""

    base: dict[str, int]
    generation: int
    taken: Frames
    files: dict[str, list[str]]
    entries: list[Entry] = field(default_factory=list)
    ids: list[Entry] = field(default_factory=list)
    keys: Any = None
    checked: frozenset[str] = frozenset()


class Sealer:
    """Seals the tail of one branch; `connect` gives a database when rows must be made."""

    def __init__(self, store: Store, branch: str, tail: Tail, connect: Any) -> None:
        self._store, self._branch, self._tail, self._connect = store, branch, tail, connect
        self._helper: Any = None

    def settle(self) -> Head:
        """Publish everything pending now; return the head that holds it.

        Raises DamagedWal when a WAL cannot be read to its end, OSError.
        """
        pending = self._tail.collect()
        goal = {w: fs[-1].sequence for w, fs in pending.frames.items()}
        sealed = False
        while any(goal.get(w, -1) >= fs[0].sequence for w, fs in pending.frames.items()):
            self.seal()
            sealed = True
            pending = self._tail.collect()
        if sealed:
            with contextlib.suppress(OSError):  # it is published; the rest is tried again later
                trim(self._store, self._branch, self._tail)
                self.maintain()
            return self._store.refs.head(self._branch)
        return pending.head

    def seal(self) -> Head | None:
        """Seal what one segment may take; None if nothing was pending."""
        work: list[_Work] = []

        def plan(head: Head, state: Manifest) -> Change | None:
            if not work or not self._holds(work[-1], head, state):
                work[:] = [self._prepare(head, state)]
            made = work[-1]
            if not made.taken:
                return None
            marks = {w: fs[-1].sequence for w, fs in made.taken.items()}
            return Change(
                "seal", entries=tuple(made.entries), sealed=marks, ids_add=tuple(made.ids)
            )

        head = publish(self._store, self._branch, plan, anew=work.clear)
        if head is not None:
            self._remember("segments", [e["key"] for e in work[-1].entries])
            self._remember("ids", [run["digest"] for run in work[-1].ids])
        return head

    def maintain(self) -> None:
        """Merge pages that have become many; have id runs merged beside us, where helpers may be
        started, as that takes as long as reading all their keys."""
        run_maintenance(self._store, self._branch)
        if self._store.settings.seal != "auto":
            self.merge_ids()
        elif identity_run.due(list(self._head_state().ids)) and not disk.is_locked(
            sealer_process.maintenance_path(self._store)
        ):
            self._helper = sealer_process.start_sealer(self._store, self._branch)

    def merge_ids(self) -> None:
        """Merge id runs that have become many, each merge as a move of its own."""
        while self._merge_ids():
            pass

    def _holds(self, work: _Work, head: Head, state: Manifest) -> bool:
        """Whether an earlier attempt's files still fit this head (protocol 5.5)."""
        if work.generation != head.move.generation:
            return False
        for writer in work.taken:
            if head.move.wal.get(writer, -1) != work.base.get(writer, -1):
                return False
            if writer not in head.move.wal and not all(map(disk.exists, work.files[writer])):
                return False  # sealed by another, trimmed and dropped, though the writer may live
        fresh = [r for r in state.ids if r["digest"] not in work.checked]
        if work.keys is not None and any(self._hits(r, work.keys) for r in fresh):
            return False
        work.checked |= {r["digest"] for r in state.ids}
        return True

    def _hits(self, run: Entry, keys: tuple[Any, Any]) -> bool:
        return bool(identity_run.found(open_run(self._store, run), *keys).any())

    def _prepare(self, head: Head, state: Manifest) -> _Work:
        """Pick frames above this head's watermarks and write them as a segment."""
        files = self._tail.scan()
        taken = choose(files, head.move.wal, self._store.settings.segment_rows)
        base = {w: head.move.wal.get(w, -1) for w in taken}
        paths = {w: [f.path for f in files[w]] for w in taken}
        work = _Work(base, head.move.generation, taken, paths)
        work.checked = frozenset(r["digest"] for r in state.ids)
        frames = [f for fs in taken.values() for f in fs]
        if frames:
            self._write(work, frames, state)
        return work

    def _write(self, work: _Work, frames: list[wal.Frame], state: Manifest) -> None:
        commit, store = disk.random_hex(), self._store
        notes = summary(work.taken)
        connection = self._connect()
        if any(not f.flags & wal.QUARANTINED for f in frames):
            table = rows.events(connection, frames)
            if any(f.flags & wal.KEYED for f in frames):
                table = drop_known(store, table, state.ids)
                work.keys = rows.key_arrays(table["key"].drop_null())
                if len(work.keys[0]):
                    work.ids.append(
                        identity_run.write(store.paths, work.keys[0], work.keys[1], commit)
                    )
            if table.num_rows:
                work.entries.append(
                    segment.write(
                        store.paths,
                        table,
                        kind="events",
                        layout="arrival",
                        commit=commit,
                        wal=notes,
                        branch=self._branch,
                    )
                )
        if any(f.flags & wal.QUARANTINED for f in frames):
            bad = rows.quarantined(connection, frames)
            work.entries.append(
                segment.write(
                    store.paths,
                    bad,
                    kind="quarantine",
                    layout="arrival",
                    commit=commit,
                    wal=notes,
                    branch=self._branch,
                )
            )

    def _remember(self, kind: str, digests: list[str]) -> None:
        """Mark what was just written as verified, so that the next query does not hash it."""
        paths = [(digest, self._store.paths.object(kind, digest)) for digest in digests]
        if paths:
            self._store.verified.add_all(paths)

    def _head_state(self) -> Manifest:
        return self._store.state(self._branch)

    def _merge_ids(self) -> bool:
        """Replace eight runs of one size by one, if all are still there; True if it did."""
        due = identity_run.due(list(self._head_state().ids))
        if not due:
            return False
        paths = self._store.paths
        made = identity_run.join(
            paths, [open_run(self._store, run) for run in due], disk.random_hex()
        )
        self._remember("ids", [made["digest"]])
        names = tuple(run["digest"] for run in due)

        def plan(_: Head, now: Manifest) -> Change | None:
            there = {run["digest"] for run in now.ids}
            if not there.issuperset(names):
                return None
            return Change("maintain", ids_add=(made,), ids_drop=names)

        try:
            return publish(self._store, self._branch, plan) is not None
        except StaleFiles:
            return False


def choose(files: dict[str, list[WalFile]], marks: dict[str, int], rows_max: int) -> Frames:
    """Pick frames for one segment: of each writer a prefix above its watermark.

    What does not fit is cut by arrival, so that of two equal ids the first is sealed first and
    readers go on seeing the event they saw. Writers stand in the order of their start.
    """
    frames = {w: pick(group, marks.get(w, -1))[0] for w, group in files.items()}
    return first_batch(frames, {w: started(files[w]) for w in files}, rows_max)


def first_batch(pending: Frames, starts: dict[str, int], rows_max: int) -> Frames:
    """Pick what one segment takes of frames above the watermarks; see `choose`."""
    arrived = []
    for writer, frames in pending.items():
        came = itertools.accumulate((f.ingested_at for f in frames), max)
        arrived += [(at, writer, f.sequence, f) for at, f in zip(came, frames, strict=True)]
    taken: Frames = {}
    events = size = 0
    for _, writer, _, frame in sorted(arrived, key=lambda a: a[:3]):
        events, size = events + frame.events, size + frame.raw
        if taken and (events > rows_max or size > RAW_MAX):
            break
        taken.setdefault(writer, []).append(frame)
    return {w: taken[w] for w in sorted(taken, key=lambda w: (starts[w], w))}


def batches(pending: Frames, starts: dict[str, int], rows_max: int) -> Iterator[Frames]:
    """Yield what each of the next segments would take if nothing else came."""
    left = {w: frames for w, frames in pending.items() if frames}
    while left:
        taken = first_batch(left, starts, rows_max)
        yield taken
        left = {w: fs[len(taken.get(w, ())) :] for w, fs in left.items()}
        left = {w: fs for w, fs in left.items() if fs}


def open_run(store: Store, run: Entry) -> tuple[Any, Any]:
    """Return the keys of a run, hashed once as it is now: a flipped key would let a duplicate in.

    Raises DamagedIds.
    """
    keys = identity_run.read(store.paths, run)
    path = store.paths.object("ids", run["digest"])
    if not store.verified.holds(run["digest"], path):
        if hash_file(path) != run["digest"]:
            raise DamagedIds(path, "the content does not match its name")
        store.verified.add(run["digest"], path)
    return keys


def drop_known(
    store: Store, table: pa.Table, runs: tuple[Entry, ...], held: list[Any] | None = None
) -> pa.Table:
    """Drop rows whose key came earlier in the table, or is in an id run or in one of `held`."""
    keyed = np.flatnonzero(np.asarray(table["key"].is_valid()))
    high, low = rows.key_arrays(table["key"].drop_null())
    order = np.argsort(high, kind="stable")
    ordered = high[order], low[order]
    keep = np.ones(len(high), dtype=bool)
    if bool((ordered[0][1:] == ordered[0][:-1]).any()):
        _unmark_repeats(keep, precedence(table, keyed, high, low), high, low)
    known = np.zeros(len(high), dtype=bool)
    for keys in (*(open_run(store, run) for run in runs), *(held or ())):
        known |= identity_run.found(keys, *ordered)
    keep[order[known]] = False
    if keep.all():
        return table
    mask = np.ones(table.num_rows, dtype=bool)
    mask[keyed] = keep
    return table.filter(pa.array(mask))


def precedence(table: pa.Table, keyed: Any, high: Any, low: Any) -> Any:
    """Return the order of keyed rows by key, then (ingested_at, writer, sequence, row); rows that
    come from no WAL are in the order of the table."""
    place = np.arange(len(high))
    if "writer" not in table.column_names:
        return np.lexsort((place, low, high))
    when = np.asarray(table["ingested_at"].cast("int64"))[keyed]
    who = np.asarray(table["writer"].cast("string").to_pylist())[keyed]
    sequence = np.asarray(table["sequence"])[keyed]
    return np.lexsort((place, sequence, who, when, low, high))


def _unmark_repeats(keep: Any, order: Any, high: Any, low: Any) -> None:
    """Unmark every key that stands behind an equal one in this order."""
    same = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
    keep[order[1:][same]] = False
