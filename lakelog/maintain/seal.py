"""Sealing: any process turns frames of any writers, living or dead, into a segment.

`seal` takes frames above the head's watermarks, drops events whose id is stored already, writes one
segment (and one id run where events have ids), and publishes it. Its preconditions: the watermarks
it started from are unchanged, no id run was added since that has one of its keys, and the branch
was not rewound. Of two sealers of the same frames one links the move, the other finds its
watermarks changed. `settle` seals everything that was pending when it was called.
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, field
from typing import Any

from lakelog import bloom, frame_rows, identities
from lakelog.appends import StreamLock, StreamSubject
from lakelog.database import Connect
from lakelog.disk import Begun, File, disk
from lakelog.entries import IdRun, Record, SegmentEntry
from lakelog.erased import Refusal
from lakelog.errors import StaleFiles
from lakelog.event import EncodedBatch, Event
from lakelog.identities import IdentityKeys
from lakelog.libraries import pa, pc
from lakelog.manifest import Manifest
from lakelog.moves import Change, Follow, publish, run_maintenance
from lakelog.refs import Head
from lakelog.segments import SegmentEncoder, rows_sql, write_segment
from lakelog.store import Hosts, SealerProcess, Store
from lakelog.wal import Frame, PendingFrames, Tail, trim

_SAMPLE = 2_000
"""Events that are sealed as those of a busy second are."""
_NEWEST = 256
"""Segments in which the published event is looked for, the newest of a state."""
_LINES = """
SELECT DISTINCT ON (d.origin, d.position) d.ingested_at, d.origin, d.position,
    '{taken}' AS reason,
    CAST(json_object('id', d.id, 'type', d.type, 'source', d.source, 'subject', d.subject,
        'time', d.time, 'data', CAST(d.data AS JSON)) AS VARCHAR) AS line, d.writer, d.sequence
FROM dropped_rows AS d JOIN ({rows}) AS e ON {same}
ORDER BY d.origin, d.position"""
_SAME_ID = """e.id = d.id AND e.source IS NOT DISTINCT FROM d.source AND e.origin <> d.origin
AND (e.type, e.subject, CAST(e.data AS VARCHAR))
    IS DISTINCT FROM (d.type, d.subject, CAST(d.data AS VARCHAR))"""
_SAME_VERSION = """e.origin = d.origin AND e.position = d.position
AND e.ingested_at <> d.ingested_at"""


@dataclass
class _Attempt:
    """What one attempt wrote (`entries`, `ids`), of which `frames` (read from `files`), and
    the watermarks (`base`), generation and id runs (`checked`) for which that is right."""

    base: dict[str, int]
    generation: int
    frames: dict[str, list[Frame]]
    files: dict[str, list[str]]
    entries: list[SegmentEntry] = field(default_factory=list)
    hosts: tuple[Record, ...] = ()
    ids: list[IdRun] = field(default_factory=list)
    keys: IdentityKeys | None = None
    checked: frozenset[str] = frozenset()
    erased: object = None
    """What had been erased by then, as `ErasedStates.looked` gives it."""
    pending_writes: list[Begun] = field(default_factory=list)
    refused: int = 0
    """Events and quarantined lines that were left out because they were erased."""


class Sealer:
    """Seals the tail of one branch; `connect` opens a database when rows have to be made."""

    TAKEN = "another event with its id was published first, by another machine"
    TAKEN_VERSION = "another event with its version was published first, by another machine"
    """Why an event is quarantined that cannot be published."""

    def __init__(self, store: Store, branch: str, tail: Tail, connect: Any) -> None:
        self._store, self._branch, self._tail, self._connect = store, branch, tail, connect

    def settle(self, *, hint: bool = True, follow: Follow | None = None) -> Head:
        """Publish everything pending now; return the head that holds it, or that of `follow`.

        `hint` is that of `publish`. `follow` is made with the last of it, if that succeeds at once.
        Raises DamagedWal when a WAL cannot be read to its end, OSError.
        """
        pending = self._tail.collect()
        # What is appended from now on is not waited for: else a busy writer would never let us end.
        goal = {w: fs[-1].sequence for w, fs in pending.frames.items()}
        if follow is not None:
            follow.is_due = lambda head: _covers(head, goal)
        has_sealed = False
        while any(goal.get(w, -1) >= fs[0].sequence for w, fs in pending.frames.items()):
            head, has_sealed = self.seal(hint=hint, follow=follow), True
            # As a rule one segment takes all of it: then nothing has to be read again.
            if head and (_covers(head, goal) or (follow is not None and follow.head)):
                break
            pending = self._tail.collect()
        if has_sealed:
            with contextlib.suppress(OSError):  # all is published; the rest is tried again later
                trim(self._store, self._branch, self._tail)
                self.maintain()
            return self._store.refs.head(self._branch)
        return pending.head

    def prepare(self) -> None:
        """Run once, in memory, what seals a tail of some size: the first time takes ten times as
        long as the next, which whoever waits for an event would notice."""
        events: list[Event] = [{"type": "x", "data": {}}] * _SAMPLE
        place = len(events), 0, 0, disk.now_us()
        frame = Frame.unwritten(disk.random_hex(), EncodedBatch.of(events).text, *place)
        table = frame_rows.events(self._connect, [frame])
        encoder = SegmentEncoder("events", "arrival", disk.random_hex())
        encoder.add(table)
        encoder.finish()

    def seal(self, *, hint: bool = True, follow: Follow | None = None) -> Head | None:
        """Seal what one segment may take; None if nothing was pending. `hint` and `follow` are
        those of `publish`."""
        attempts: list[_Attempt] = []

        def plan(head: Head, state: Manifest) -> Change | None:
            # After a lost race the files of the attempt before are used again if they still fit.
            if not attempts or not self._holds(attempts[-1], head, state):
                attempts[:] = [self._prepare(head, state)]
            attempt = attempts[-1]
            if not attempt.frames:
                return None
            # Also of frames that gave no row, all of them duplicates: they are sealed as well.
            marks = {w: fs[-1].sequence for w, fs in attempt.frames.items()}
            return Change(
                "seal",
                f"{attempt.refused} erased events refused" if attempt.refused else "",
                entries=(*attempt.entries, *attempt.hosts),
                sealed=marks,
                ids_add=tuple(attempt.ids),
                pending_files=attempt.pending_writes,
            )

        head = publish(self._store, self._branch, plan, attempts.clear, hint=hint, follow=follow)
        if head is not None:
            verified = self._store.verified
            verified.add_written("segments", (e.key for e in attempts[-1].entries))
            verified.add_written("ids", (run.digest for run in attempts[-1].ids))
        return head

    def maintain(self) -> None:
        """Merge pages that have become many, and id runs: in a helper process where one may be
        started, as that takes as long as reading all their keys."""
        run_maintenance(self._store, self._branch)
        if self._store.settings.seal != "auto":
            self.merge_ids()
        elif identities.runs_to_merge(self._head_state().ids):
            process = SealerProcess(self._store, self._branch)
            if not process.maintenance_lock.is_held():
                process.start()

    def merge_ids(self) -> None:
        """Merge id runs that have become many, each merge as a move of its own."""
        while self._merge_ids():
            pass

    def _holds(self, attempt: _Attempt, head: Head, state: Manifest) -> bool:
        """Whether the files of an earlier attempt still fit this head (F9.4)."""
        # After a rewind a row that was dropped as a duplicate may have lost its original.
        if attempt.generation != head.move.generation:
            return False
        if attempt.erased != self._store.erased.looked():
            return False  # rows of it may be refused since
        for writer in attempt.frames:
            if head.move.wal.get(writer, -1) != attempt.base.get(writer, -1):
                return False
            files = map(File, attempt.files[writer])
            if writer not in head.move.wal and not all(file.exists() for file in files):
                return False  # sealed by another process, trimmed, and its watermark omitted
        # Only the new runs: the attempt dropped what was in the others.
        fresh = [r for r in state.ids if r.digest not in attempt.checked]
        if attempt.keys is not None and any(
            IdentityKeys.read(self._store, r).overlaps([attempt.keys]) for r in fresh
        ):
            return False
        attempt.checked |= {r.digest for r in state.ids}
        return True

    def _prepare(self, head: Head, state: Manifest) -> _Attempt:
        """Pick frames above this head's watermarks and write them as a segment."""
        files = StreamLock(self._store, self._branch).scan(self._tail)
        pending = PendingFrames.above(head, files)
        selected = next(pending.batches(self._store.settings.segment_rows), {})
        base = {w: head.move.wal.get(w, -1) for w in selected}
        paths = {w: [f.path for f in files[w]] for w in selected}
        attempt = _Attempt(base, head.move.generation, selected, paths)
        attempt.checked = frozenset(r.digest for r in state.ids)
        attempt.erased = self._store.erased.looked()
        frames = [f for fs in selected.values() for f in fs]
        try:
            if frames:
                headers = (file.header for w in selected for file in files[w] if file.header)
                host_names = Hosts.named_in((header.writer, header.host) for header in headers)
                self._write(attempt, frames, state, host_names)
        except BaseException:
            self._store.volume.abandon(attempt.pending_writes)
            raise
        return attempt

    def _write(
        self, attempt: _Attempt, frames: list[Frame], state: Manifest, hosts_by_key: Hosts
    ) -> None:
        # One commit for segment and id run: repair finds the run of a lost segment by it.
        commit, store = disk.random_hex(), self._store
        write = functools.partial(
            write_segment,
            store.paths,
            layout="arrival",
            commit=commit,
            wal=PendingFrames.sealed_ranges(attempt.frames),
            branch=self._branch,
            lake=store.lake_id,
            pending_writes=attempt.pending_writes,
        )
        lines = list[pa.Table]()
        # Of a buffer, or of a writer that began before an erasure: others are refused at once.
        refusal = Refusal(store.paths, by_arrival=store.attachment is not None)
        if any(not f.flags & Frame.QUARANTINED for f in frames):
            table = frame_rows.events(self._connect, frames)
            protection = store.paths.protection if store.attachment is not None else None
            table = refusal.without(table, protection)
            if protection is not None:  # of which this machine may have heard after it stored them
                columns = (table[name].to_pylist() for name in ("type", "data"))
                protection.require_sealable(*columns)
            if any(f.flags & Frame.KEYED for f in frames):
                # The keys of rows that stay: those of duplicates are in another run already.
                unique, attempt.keys = identities.unique_rows(store, table, state.ids)
                lines += _repeated(store, self._connect, state, table, unique)
                table = unique
                attempt.ids += attempt.keys.write(store.paths, commit, attempt.pending_writes)
            # All rows may have been duplicates; an empty segment would serve nobody.
            if table.num_rows:
                state_hosts = Hosts.of_state(store.manifests, state)
                attempt.hosts = hosts_by_key.records(state_hosts)
                attempt.entries.append(write(table, kind="events", hosts=hosts_by_key))
        if any(f.flags & Frame.QUARANTINED for f in frames):
            lines.append(refusal.without(frame_rows.quarantined(self._connect, frames)))
        attempt.refused = refusal.count
        if any(map(len, lines)):
            # In the same move as the events: one watermark stands for both.
            table = pa.concat_tables(lines, promote_options="permissive")
            attempt.entries.append(write(table, kind="quarantine"))

    def _head_state(self) -> Manifest:
        return self._store.state(self._branch)

    def _merge_ids(self) -> bool:
        """Replace eight runs of one size by one, if all are still there; True if it did."""
        runs = identities.runs_to_merge(self._head_state().ids)
        if not runs:
            return False
        joined = identities.join(self._store, runs, disk.random_hex())
        self._store.verified.add_written("ids", [joined.digest])
        names = tuple(run.digest for run in runs)

        def plan(_: Head, present_state: Manifest) -> Change | None:
            # Another process merged them, or a rewind took one away with its events.
            present = {run.digest for run in present_state.ids}
            if not present.issuperset(names):
                return None
            return Change("maintain", ids_add=(joined,), ids_drop=names)

        try:
            return publish(self._store, self._branch, plan) is not None
        except StaleFiles:
            return False


def _covers(head: Head, goal: dict[str, int]) -> bool:
    """Whether frames up to these are sealed."""
    return all(head.move.wal.get(writer, -1) >= sequence for writer, sequence in goal.items())


def _repeated(
    store: Store, connect: Connect, state: Manifest, sealed: pa.Table, unique: pa.Table
) -> list[pa.Table]:
    """Return the quarantined lines of what was `sealed` and is not `unique`, where another machine
    of a shared lake has published the id first, with other content (F22.7), or a push has brought
    another event with the version of a stream (F13.6).

    Who sends an event again to another machine says the same again: that is no news. Raises
    Damaged, Unreachable.
    """
    if unique.num_rows == sealed.num_rows:
        return []
    names, lines = ["origin", "position"], []
    is_versioned = pc.starts_with(sealed["origin"], StreamSubject.ORIGIN)
    looked_for = [("subject", sealed.filter(is_versioned))]
    if store.attachment is not None:
        looked_for.append(("id", sealed.filter(pc.invert(is_versioned))))
    for column, rows in looked_for:
        if rows.num_rows:
            dropped_rows = rows.join(unique.select(names), names, join_type="left anti")
            lines.append(_taken(store, connect, state, dropped_rows, column))
    return [table for table in lines if table is not None]


def _taken(
    store: Store, connect: Connect, state: Manifest, dropped_rows: pa.Table, column: str
) -> pa.Table | None:
    """Return the quarantined lines of rows whose id, or version where `column` is the subject, has
    another event among the newest of a state."""
    names = pc.unique(dropped_rows[column].drop_null())
    newest = sorted(store.manifests.segments(state, "events"), key=lambda e: e.seq)[-_NEWEST:]
    files = [(entry.key, store.paths.object("segments", entry.key)) for entry in newest]
    if not len(names) or not files:
        return None
    store.verified.obtain(files)
    hashed = [int(value) for value in bloom.hashes(names)]
    keys = bloom.Filters(store.paths).containing([key for key, _ in files], column, hashed)
    entries = [entry for entry in newest if entry.key in keys]
    if not entries:
        return None
    by_id = column == "id"
    taken_by, same = (Sealer.TAKEN, _SAME_ID) if by_id else (Sealer.TAKEN_VERSION, _SAME_VERSION)
    query = _LINES.format(taken=taken_by, rows=rows_sql(store.paths, entries), same=same)
    with contextlib.closing(connect().cursor()) as cursor:
        cursor.register("dropped_rows", dropped_rows)
        return cursor.sql(query).to_arrow_table()
