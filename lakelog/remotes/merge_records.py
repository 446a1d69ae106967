"""Entries of two states that share a base, joined: what one side alone changed is taken.

A three-way merge by key, of everything that is no event segment. Of a source that is read on, the
key is not enough: a cursor gets another key as its file grows, so those are compared by the origin
of their rows, too, and by the file itself where both are of one machine. What differs only in where
or when a source was looked at is no change.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from lakelog.store.bootstrap import Store
from lakelog.store.entry import Entry, Record, Removal, SegmentEntry, tombstone
from lakelog.store.manifest import Manifest

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
        key = entry.what, entry.key
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
    here, there = _changed(base, ours), _changed(base, theirs)
    # Equal changes on both sides are no conflict, such as one file ingested in two clones.
    for key in here & there:
        if _content(ours.get(key)) != _content(theirs.get(key)):
            raise Conflict(_words(key, theirs.get(key) or ours.get(key)))
    # A file that both read on would be ingested twice, under two cursors.
    read_here, read_there = _sources(here, base, ours), _sources(there, base, theirs)
    for source, keys in read_there.items():
        if read_here.get(source, keys) != keys:
            key = min(keys)
            raise Conflict(_words(key, theirs.get(key) or base.get(key)))
    own = sorted(key for key in (base.keys() | ours.keys()) - there)
    removals = [Removal(*key) for key in own if key not in ours and key in theirs]
    return [*removals, *(ours[key] for key in own if key in ours and ours[key] != theirs.get(key))]


def subscription_beyond(entries: Iterable[Record | Removal], seq: int) -> str:
    """Return the name of a subscription of ours that stands behind an event that a merge gives
    another number; "" if there is none."""
    for entry in entries:
        if isinstance(entry, Record) and entry.what == "subscription":
            places = entry.members["positions"]
            # `upto` is how far a batch reaches that is being handled now.
            if any(place["seq"] > seq or place.get("upto", 0) > seq for place in places):
                return entry.key
    return ""


def join_quarantine(
    base: LiveEntries, ours: LiveEntries, theirs: LiveEntries
) -> tuple[list[Removal], list[SegmentEntry]]:
    """Return what takes quarantined lines from theirs that we settled, and our new segments."""
    settled = (base.quarantine.keys() - ours.quarantine.keys()) & theirs.quarantine.keys()
    removals = [tombstone(theirs.quarantine[key]) for key in sorted(settled)]
    had = base.quarantine.keys() | theirs.quarantine.keys()
    return removals, [entry for key, entry in ours.quarantine.items() if key not in had]


def _changed(base: dict[EntryKey, Record], records: dict[EntryKey, Record]) -> set[EntryKey]:
    """Return the keys whose content is not that of the base."""
    keys = base.keys() | records.keys()
    return {key for key in keys if _content(base.get(key)) != _content(records.get(key))}


def _content(record: Record | None) -> dict[str, object] | None:
    """Return what of a record says more than where and when; None where it is not there."""
    # The clock and the host of a look are no content: they differ for each machine.
    if record is None:
        return None
    status = _STATUS.get(record.what, _CLOCK)
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
    done = _CHANGED.get(key[0], f"the {key[0]} {{name}} was changed")
    return f"{done.format(name=repr(name or key[1]))} on both sides, each in its own way"
