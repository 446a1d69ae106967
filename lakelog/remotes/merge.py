"""Merge: two branches that were only appended to since a state that both had become one.

    1 prove that neither side lost or changed anything since the state that both had
    2 join the entries, of which each key may have changed on one side alone
    3 write our rows since that state again, to follow theirs
    4 publish all as one move, which names their state (F7.14)

Theirs stay as they are, with their numbers, for other lakes have them: a push of the merge goes on
from what is there, and only here do rows get new numbers, which the generation tells (F7.5).

Everything that is no event segment is merged by key: what one side alone changed is taken. Of a
source that is read on, the key is not enough: a cursor gets another key as its file grows, so those
are compared by the origin of their rows, too, and by the file itself where both are of one machine.
What differs only in where or when a source was looked at is no change.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

from lakelog import manifest
from lakelog.appends import StreamLock
from lakelog.disk import disk
from lakelog.entries import Entry, IdRun, Record, Removal, SegmentEntry
from lakelog.errors import Diverged, TransferRefused
from lakelog.lake import Lake
from lakelog.maintain import DedupeNote
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.refs import Head, MergeNote
from lakelog.remotes import merge_rows
from lakelog.remotes.ancestry import refusal
from lakelog.remotes.carry import Merged
from lakelog.remotes.known import MovePosition
from lakelog.remotes.merge_rows import OwnRows, QuarantineChange, RowSieve, RowSpan, has_erasures
from lakelog.segments import rows_target
from lakelog.store import Store

_HARMLESS = {"seal", "ingest", "compact", "maintain"}
"""Moves that may come while a merge is written: they add, or change no event."""


class Merge:
    """The merge of a state of a remote's branch into a branch of a lake."""

    def __init__(
        self, lake: Lake, url: str, name: str, base: Manifest, place: MovePosition, theirs: Manifest
    ) -> None:
        """`base` is a state that both grew from, `place` that of `theirs`, and `name` what the
        remote's branch is called here."""
        self._store, self._branch = lake.store, lake.branch_name
        self._url, self._name, self._place = url, name, place
        self._base, self._theirs = base, theirs
        self._shared = live_entries(lake.store, base)
        self._there = live_entries(lake.store, theirs)
        self._span = self._since(theirs, self._there, base.next_seq)
        self._sieve = RowSieve(lake.store, url, lake.engine)
        self._found, self._next = OwnRows(), base.next_seq

    def preview(self, head: Head) -> Merged:
        """Count what a merge onto a head would bring. Raises Diverged, TransferRefused."""
        # A dry run counts on the state as it is, without writing a row.
        state = self._store.manifests.of(head.move)
        ours, own_rows = live_entries(self._store, state), OwnRows()
        self._join(state, ours)
        span = self._since(state, ours, self._base.next_seq)
        self._sieve.require_no_fork(span, self._span)
        for _ in self._sieve.unknown(span, self._span, own_rows):
            pass
        return self._counts(state, own_rows)

    def publish(self, judged: Head) -> Merged | None:
        """Merge onto the head that was `judged`, or one that follows it; None if the branch changed
        in another way meanwhile. Raises Diverged, TransferRefused, Damaged, StaleFiles, OSError."""
        counts: Merged | None = None

        def plan(head: Head, state: Manifest) -> Change | None:
            nonlocal counts
            if not self._follows(head, judged):
                return None
            change, counts = self._change(state)
            return change

        # With the stream's lock, so that no version is given between the look and the move.
        with StreamLock(self._store, self._branch).held():
            if StreamLock(self._store, self._branch).has_pending():
                return None  # versions were given since it was settled
            if publish(self._store, self._branch, plan, discard=self._discard) is None:
                return None
        self._store.verified.add_written("segments", (e.key for e in self._found.entries))
        return counts

    def _discard(self) -> None:
        # Rows written for another base have wrong numbers: all of it begins again.
        self._found, self._next = OwnRows(), self._base.next_seq

    def _follows(self, head: Head, judged: Head) -> bool:
        """Whether only harmless moves came since the head that was judged."""
        for move in self._store.refs.newest_first(self._branch):
            if move.number <= judged.move.number:
                break
            if move.number <= head.move.number and move.op not in _HARMLESS:
                return False
        return head.move.generation == judged.move.generation

    def _since(self, state: Manifest, entries: LiveEntries, start: int) -> RowSpan:
        """The rows of a state from a number on."""
        # By their last number: a compacted segment may reach over the base.
        fresh = (entry for entry in entries.events.values() if entry.seq[1] >= start)
        return RowSpan(state, tuple(fresh), start)

    def _counts(self, state: Manifest, own_rows: OwnRows) -> Merged:
        # By what is there: numbers of erased events are left out.
        before = self._base.totals.events
        present_events = state.totals.events - before - own_rows.events
        return Merged(self._theirs.totals.events - before - present_events, present_events)

    def _join(self, state: Manifest, ours: LiveEntries) -> list[Record | Removal]:
        """Return what joins our records with theirs. Raises Diverged, TransferRefused."""
        # Both sides are judged alike: an event that one removed would come back by the other.
        for place, present, live in (("here", state, ours), ("there", self._theirs, self._there)):
            reason = removed_since(self._store, self._base, present)
            if reason or not self._grew(live):
                reason = reason or "events got other numbers"
                raise self._refused(f"{reason} {place} since both had the same events")
        self._require_counted()
        try:
            records = join_records(self._shared.records, ours.records, self._there.records)
        except Conflict as conflict:
            raise self._refused(str(conflict)) from None
        if name := subscription_beyond(records, self._base.next_seq):
            raise self._refused(
                f"the subscription {name!r} handled events here that would get other numbers"
            )
        return records

    def _require_counted(self) -> None:
        """Refuse a state that contradicts itself."""
        events = sum(entry.events for entry in self._there.events.values())
        # A state whose totals lie could make our numbers overlap with theirs.
        if events != self._theirs.totals.events:
            raise TransferRefused(
                f"{self._url}: its state does not count the events of its segments: refused,"
                " nothing was changed; run `lakelog verify` on it"
            )
        self._sieve.require_whole(self._span)

    def _grew(self, entries: LiveEntries) -> bool:
        """Whether the events of the base still have their numbers, as far as entries tell: what is
        in another segment was compacted, or written again without what was erased."""
        shared = self._shared.events
        old = (e for e in entries.events.values() if e.seq[0] < self._base.next_seq)
        # Each side writes them again for itself, as segments of the same numbers.
        spans = {e.seq for e in shared.values()} if has_erasures(self._store) else set()
        return all(e == shared.get(e.key) or e.made_from or e.seq in spans for e in old)

    def _write(self, state: Manifest, ours: LiveEntries, commit: str) -> None:
        """Write our rows that are not there, but those that were written for an earlier head."""
        # A later head only adds rows: what was written stays, and the rest follows behind it.
        store, span = self._store, self._since(state, ours, self._next)
        self._sieve.require_no_fork(span, self._span)
        target = rows_target(store.settings, self._theirs.totals.events)
        tables = self._sieve.unknown(span, self._span, self._found)
        self._found.entries += merge_rows.write_rows(store, tables, commit, target, span.entries)
        self._next = state.next_seq

    def _change(self, state: Manifest) -> tuple[Change, Merged]:
        """Return the change that adds ours to theirs, and what it counts. Raises Diverged,
        TransferRefused, Damaged."""
        ours, commit = live_entries(self._store, state), disk.random_hex()
        joined = self._join(state, ours)
        removals = [entry for entry in joined if isinstance(entry, Removal)]
        records = [entry for entry in joined if isinstance(entry, Record)]
        self._write(state, ours, commit)
        lines = self._sieve.quarantined(
            quarantine_change(self._shared, ours),
            quarantine_change(self._shared, self._there),
            commit,
        )
        counts, place = self._counts(state, self._found), self._place
        start, count = self._base.next_seq, self._span.count
        note = MergeNote(start, count, place.number, place.generation, place.snapshot)
        # The entries of theirs are the base of the new state, and ours follow as its newest.
        change = Change(
            "merge",
            note.message(self._name, counts.known),
            entries=(*self._found.entries, *lines.written, *records),
            ids_add=self._runs(state, commit),
            # Segments that are as they were, which no publish need look for.
            onto=_with(self._theirs, (*removals, *lines.removals, *lines.retained)),
            rewind=True,
        )
        return change, counts

    def _runs(self, state: Manifest, commit: str) -> tuple[IdRun, ...]:
        """Write our identity keys that are not there."""
        keys = merge_rows.own_keys(self._store, state, self._base, self._theirs)
        return keys.write(self._store.paths, commit)

    def _refused(self, reason: str) -> Diverged:
        return refusal(self._url, self._branch, reason)


def _with(state: Manifest, entries: Iterable[Entry]) -> Manifest:
    """Return a state with more entries, to grow from."""
    added = tuple(entries)
    totals = manifest.add_up(state.totals, added)
    return replace(state, recent=(*state.recent, *added), totals=totals)


def removed_since(store: Store, base: Manifest, state: Manifest) -> str:
    """Return what took events away since a base, "" if nothing did.

    Numbers are never given twice without a rewind, so that a state that lost no event has as many
    numbers without one as its base; but what was erased from both was no more from one of them.
    """
    if state.retention != base.retention:
        return "a retention removed events"
    if DedupeNote.all_of(store, state) != DedupeNote.all_of(store, base):
        return "a dedupe removed events"
    # Erasures take rows out of both without a trace in the log: then holes say nothing.
    holes = state.next_seq - state.totals.events
    is_short = holes != base.next_seq - base.totals.events and not has_erasures(store)
    if is_short or state.next_seq < base.next_seq:
        return "events were removed, or lost in a repair,"
    return ""


EntryKey = tuple[str, str]
"""The `what` and the key of an entry."""
_STATUS = {
    "cursor": frozenset(
        "device inode mtime looked host size name begun apart places tail_key".split()
    ),
    "stream": frozenset(("host", "time", "marks")),
}
"""Members that say where and when a source was read, or follow from how far it was."""
_CLOCK = frozenset(("time",))
_CHANGED = {
    "cursor": "the file {name} was read on",
    "stream": "the stream {name} was read on",
    "view": "the view {name} was defined",
    "format": "the format {name} was defined",
    "contract": "the contract of {name} was pinned",
    "state": "the directory {name} was saved",
    "subscription": "the subscription {name} handled events",
    "artifact": "{name} was trained or noted",
    "alert": "the alert rule {name} was changed",
}
"""What was done on both sides, by what the entry is."""


class Conflict(ValueError):
    """Raised where both sides changed one thing in different ways; says which."""


@dataclass(frozen=True)
class LiveEntries:
    """The live entries of a state: records by what and key, and segments of each kind by key."""

    records: dict[EntryKey, Record]
    events: dict[str, SegmentEntry]
    quarantine: dict[str, SegmentEntry]


def live_entries(store: Store, state: Manifest) -> LiveEntries:
    """Return the live entries of a state; opens every page. Raises DamagedManifest."""
    live: dict[EntryKey, Entry] = {}
    pages = map(store.manifests.page, state.pages)
    # In order, the last entry of a key wins, and a removal ends it.
    for entry in itertools.chain(*pages, state.recent):
        key = entry.entry_type, entry.key
        live.pop(key, None)
        if not isinstance(entry, Removal):
            live[key] = entry
    segments = [entry for entry in live.values() if isinstance(entry, SegmentEntry)]
    return LiveEntries(
        {key: entry for key, entry in live.items() if isinstance(entry, Record)},
        {entry.key: entry for entry in segments if entry.kind == "events"},
        {entry.key: entry for entry in segments if entry.kind != "events"},
    )


def join_records(
    base: dict[EntryKey, Record], ours: dict[EntryKey, Record], theirs: dict[EntryKey, Record]
) -> list[Record | Removal]:
    """Return the entries that bring our changes since `base` to theirs, removals first; also where
    and when we looked at what neither changed. Raises Conflict."""
    our_keys, their_keys = _changed(base, ours), _changed(base, theirs)
    # Equal changes on both sides are no conflict, such as one file ingested in two clones.
    for key in our_keys & their_keys:
        if _content(ours.get(key)) != _content(theirs.get(key)):
            raise Conflict(_words(key, theirs.get(key) or ours.get(key)))
    # A file that both read on would be ingested twice, under two cursors.
    our_sources = _sources(our_keys, base, ours)
    for source, keys in _sources(their_keys, base, theirs).items():
        if our_sources.get(source, keys) != keys:
            key = min(keys)
            raise Conflict(_words(key, theirs.get(key) or base.get(key)))
    stable = sorted((base.keys() | ours.keys()) - their_keys)
    removals = [Removal(*key) for key in stable if key not in ours and key in theirs]
    changed = (key for key in stable if key in ours and ours[key] != theirs.get(key))
    return [*removals, *(ours[key] for key in changed)]


def subscription_beyond(entries: Iterable[Record | Removal], seq: int) -> str:
    """Return the name of a subscription of ours that stands behind an event that a merge gives
    another number; "" if there is none."""
    for entry in entries:
        if isinstance(entry, Record) and entry.entry_type == "subscription":
            places = entry.members["positions"]
            # `upto` is how far a batch reaches that is being handled now.
            if any(place["seq"] > seq or place.get("upto", 0) > seq for place in places):
                return entry.key
    return ""


def quarantine_change(base: LiveEntries, live: LiveEntries) -> QuarantineChange:
    """Return the segments of quarantined lines that are no more there since a base, and the new."""
    before, after = base.quarantine, live.quarantine
    return QuarantineChange(
        [before[key] for key in sorted(before.keys() - after.keys())],
        [after[key] for key in sorted(after.keys() - before.keys())],
    )


def _changed(base: dict[EntryKey, Record], records: dict[EntryKey, Record]) -> set[EntryKey]:
    """Return the keys whose content is not that of the base."""
    keys = base.keys() | records.keys()
    return {key for key in keys if _content(base.get(key)) != _content(records.get(key))}


def _content(record: Record | None) -> dict[str, object] | None:
    """Return what of a record says more than where and when; None where it is not there."""
    # The clock and the host of a look are no content: they differ for each machine.
    if record is None:
        return None
    status = _STATUS.get(record.entry_type, _CLOCK)
    return {name: value for name, value in record.members.items() if name not in status}


def _sources(
    changed: Iterable[EntryKey], base: dict[EntryKey, Record], records: dict[EntryKey, Record]
) -> dict[str, set[EntryKey]]:
    """Return the changed cursors of each origin of rows, and of each file of a machine."""
    sources: dict[str, set[EntryKey]] = {}
    for key in changed:
        if key[0] == "cursor":
            for record in filter(None, (base.get(key), records.get(key))):
                members = record.members
                sources.setdefault(str(members.get("origin") or key[1]), set()).add(key)
                if members.get("inode") and members.get("host"):
                    file = [members.get(name) for name in ("host", "device", "inode", "name")]
                    sources.setdefault(repr(file), set()).add(key)
    return sources


def _words(key: EntryKey, record: Record | None) -> str:
    name = record.members.get("name") if record and key[0] in _STATUS else None
    change = _CHANGED.get(key[0], f"the {key[0]} {{name}} was changed")
    return f"{change.format(name=repr(name or key[1]))} on both sides, each in its own way"
