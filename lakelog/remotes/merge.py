"""Merge: two branches that were only appended to since a state that both had become one.

    1 prove that neither side lost or changed anything since the state that both had
    2 join the entries, of which each key may have changed on one side alone
    3 write the rows that are only there, and their identity keys
    4 publish all as one move, which names the state whose events it brought (F7.14)

What is written is used again for a later head of the branch while it is right there: events may
come meanwhile, but none with an id of these, and nothing that joins in another way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakelog.errors import Diverged, TransferRefused
from lakelog.ingest.batch import Job
from lakelog.lake import Lake
from lakelog.maintain.row_removal import dedupes
from lakelog.maintain.seal import open_run
from lakelog.remotes import merge_rows
from lakelog.remotes.ancestry import merged_message, refusal
from lakelog.remotes.known import Place
from lakelog.remotes.merge_records import (
    Conflict,
    LiveEntries,
    join_quarantine,
    join_records,
    live_entries,
)
from lakelog.remotes.merge_rows import ForeignReader, ForeignRows, RowSpan
from lakelog.segments import identity_run, segment
from lakelog.store import disk
from lakelog.store.bootstrap import Store
from lakelog.store.entry import IdRun, Record, Removal, SegmentEntry
from lakelog.store.manifest import Manifest
from lakelog.store.publish import Change, publish
from lakelog.store.ref import Head

if TYPE_CHECKING:
    import pyarrow as pa

_HARMLESS = {"seal", "ingest", "compact", "maintain"}
"""Moves that may come while a merge is written: they add, or change no event."""


@dataclass(frozen=True)
class Merged:
    """How many events a merge brought, and how many that are new there were here."""

    events: int
    known: int


@dataclass(frozen=True)
class _Joined:
    """What brings entries of the others here: `records`, those that remove first, and segments of
    `quarantined` lines that are only there."""

    records: tuple[Record | Removal, ...]
    quarantined: tuple[SegmentEntry, ...]


@dataclass(frozen=True)
class _Written:
    """What was written for a merge onto a state."""

    state: Manifest
    joined: _Joined
    rows: ForeignRows
    quarantined: tuple[SegmentEntry, ...]
    keys: Any
    runs: tuple[IdRun, ...]

    def fits(self, store: Store, state: Manifest, joined: _Joined) -> bool:
        """Whether it is right on a later state, too, which joins as given."""
        had = {run.digest for run in self.state.ids}
        fresh = [open_run(store, run) for run in state.ids if run.digest not in had]
        return joined == self.joined and _share_none(self.keys, fresh)


class Merge:
    """The merge of a state of a remote's branch into a branch of a lake."""

    def __init__(
        self, lake: Lake, url: str, name: str, base: Manifest, place: Place, theirs: Manifest
    ) -> None:
        """`base` is a state whose events both have, `place` that of `theirs`, and `name` what the
        remote's branch is called here."""
        self._store, self._branch = lake.store, lake.branch_name
        self._url, self._name, self._place = url, name, place
        self._base, self._theirs = base, theirs
        self._shared = live_entries(lake.store, base)
        self._there = live_entries(lake.store, theirs)
        fresh = (e for e in self._there.events.values() if e.seq[1] >= base.next_seq)
        self._span = RowSpan(theirs, tuple(fresh), base.next_seq)
        self._reader = ForeignReader(lake.store, url, lake.engine)
        self._tail = Job(lake.store, lake.branch_name, lake.engine)
        self._written: _Written | None = None

    def preview(self, head: Head) -> Merged:
        """Count what a merge onto a head would bring. Raises Diverged, TransferRefused."""
        state = self._store.manifests.of(head.move)
        ours = live_entries(self._store, state)
        self._join(state, ours)
        rows = ForeignRows()
        for _ in self._unknown(state, ours, self._pending(), rows):
            pass
        return self._counts(rows)

    def publish(self, judged: Head) -> Merged | None:
        """Merge onto the head that was `judged`, or one that follows it; None if the branch changed
        in another way meanwhile. Raises Diverged, TransferRefused, StaleFiles, OSError."""

        def plan(head: Head, state: Manifest) -> Change | None:
            return self._change(state) if self._follows(head, judged) else None

        head = publish(self._store, self._branch, plan, discard=self._discard)
        if head is None or self._written is None:
            return None
        # Just written and synced by us: the first query need not hash them.
        keys, paths = [entry.key for entry in self._written.rows.entries], self._store.paths
        self._store.verified.add_all([(key, paths.object("segments", key)) for key in keys])
        return self._counts(self._written.rows)

    def _discard(self) -> None:
        self._written = None

    def _counts(self, rows: ForeignRows) -> Merged:
        return Merged(rows.events, self._span.count - rows.events)

    def _follows(self, head: Head, judged: Head) -> bool:
        """Whether only harmless moves came since the head that was judged."""
        for move in self._store.refs.newest_first(self._branch):
            if move.number <= judged.move.number:
                break
            if move.number <= head.move.number and move.op not in _HARMLESS:
                return False
        return head.move.generation == judged.move.generation

    def _change(self, state: Manifest) -> Change:
        """Return the change that merges onto a state. Raises Diverged, TransferRefused."""
        ours = live_entries(self._store, state)
        joined = self._join(state, ours)
        if not (self._written and self._written.fits(self._store, state, joined)):
            self._written = self._write(state, ours, joined)
        written, counts = self._written, self._counts(self._written.rows)
        removals = [entry for entry in joined.records if isinstance(entry, Removal)]
        records = [entry for entry in joined.records if isinstance(entry, Record)]
        return Change(
            "merge",
            merged_message(self._name, counts.events, counts.known, self._place),
            entries=(*removals, *written.rows.entries, *written.quarantined, *records),
            ids_add=written.runs,
            is_right=lambda: _share_none(written.keys, self._pending()),
        )

    def _join(self, state: Manifest, ours: LiveEntries) -> _Joined:
        """Return what joins the entries that are no events with those of a state. Raises
        Diverged, TransferRefused."""
        for side, present in (("here", state), ("there", self._theirs)):
            reason = removed_since(self._store, self._base, present)
            if reason:
                raise self._refused(f"{reason} {side} since both had the same events")
        self._require_counted()
        try:
            records = join_records(self._shared.records, ours.records, self._there.records)
        except Conflict as conflict:
            raise self._refused(str(conflict)) from None
        removals, quarantined = join_quarantine(self._shared, ours, self._there)
        return _Joined((*removals, *records), tuple(quarantined))

    def _require_counted(self) -> None:
        """Refuse a state that contradicts itself, or that wrote rows which both had again."""
        events, totals = self._there.events, self._theirs.totals
        if sum(entry.events for entry in events.values()) != totals.events:
            raise TransferRefused(
                f"{self._url}: its state does not count the events of its segments: refused,"
                " nothing was changed; run `lakelog verify` on it"
            )
        old = (e for e in events.values() if e.seq[0] < self._base.next_seq)
        if any(e.key not in self._shared.events and not e.made_from for e in old):
            raise self._refused("events were written again there since both had the same ones")

    def _write(self, state: Manifest, ours: LiveEntries, joined: _Joined) -> _Written:
        """Write rows, quarantined lines and identity keys that are only there."""
        store, pending, commit = self._store, self._pending(), disk.random_hex()
        target = segment.rows_target(store.settings, state.totals.events)
        rows = ForeignRows()
        unknown = self._unknown(state, ours, pending, rows)
        rows.entries = merge_rows.write_rows(store, unknown, commit, target)
        fresh = [e for key, e in ours.quarantine.items() if key not in self._shared.quarantine]
        quarantined = self._reader.quarantined(joined.quarantined, fresh, commit)
        keys = merge_rows.new_keys(store, self._theirs, self._base, state, pending, rows.keys)
        high, low = keys
        runs = (identity_run.write(store.paths, high, low, commit),) if len(high) else ()
        return _Written(state, joined, rows, tuple(quarantined), keys, runs)

    def _unknown(
        self, state: Manifest, ours: LiveEntries, pending: list[Any], rows: ForeignRows
    ) -> Iterator[pa.Table]:
        """Yield the rows that are only there, and count them."""
        fresh = [e for key, e in ours.events.items() if key not in self._shared.events]
        tables = self._reader.unknown(self._span, fresh)
        return merge_rows.count_unknown(self._store, tables, state.ids, pending, rows)

    def _pending(self) -> list[Any]:
        """The identity keys of events that are acknowledged and not sealed yet."""
        return self._tail.keys_of_tail()

    def _refused(self, reason: str) -> Diverged:
        return refusal(self._url, self._branch, reason)


def _share_none(keys: Any, others: list[Any]) -> bool:
    """Whether none of the keys is among others."""
    return not any(identity_run.contains(run, *keys).any() for run in others)


def removed_since(store: Store, base: Manifest, state: Manifest) -> str:
    """Return what took events away since a base, "" if nothing did.

    Numbers are never given twice without a rewind, so that a state that lost no event has as many
    numbers without one as its base.
    """
    if state.retention != base.retention:
        return "a retention removed events"
    if dedupes(store, state) != dedupes(store, base):
        return "a dedupe removed events"
    holes = state.next_seq - state.totals.events
    if holes != base.next_seq - base.totals.events or state.next_seq < base.next_seq:
        return "events were removed, or lost in a repair,"
    return ""
