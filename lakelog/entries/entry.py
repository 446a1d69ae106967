"""Entries of manifests and pages as values, and their JSON (FORMAT.md F6.5 to F6.16).

    SegmentEntry   {"add": "segment", ...}   a segment, with the statistics that prune it
    Record         {"add": type, ...}        anything else; its members are for their owner alone
    Removal        {"del": type, ...}        the tombstone of either

Only this module knows the JSON: `parse` reads it, and `to_json` writes that of an entry. Members
that this version does not know stay with their entry, so that a page is merged without losing them
(F15.2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from sys import intern
from typing import Any, ClassVar

from lakelog.values import JsonObject

Pair = tuple[int, int]
Counts = dict[str, int] | str
"""Rows by value, null counted as ""; or MANY."""
MANY = "many"
"""The counts of a column of too many values, or of too long ones."""
UNNUMBERED: Pair = (0, -1)
"""The seq of rows that have none."""


class MalformedEntry(ValueError):
    """JSON that is no entry: it lacks a member, or one has the wrong type."""


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """A segment: `bytes` is the length of its file, `events` the number of its rows, `time` the
    lowest and highest of them (us), `seq` their first and last.

    `types`, `sources` and `levels` are empty and `subject` is None in quarantine. `seq` is
    UNNUMBERED there, and until the segment is published.
    """

    entry_type: ClassVar[str] = "segment"
    key: str
    bytes: int
    kind: str
    events: int
    layout: str
    time: Pair
    types: Counts = field(default_factory=dict)
    sources: Counts = field(default_factory=dict)
    levels: Counts = field(default_factory=dict)
    subject: tuple[str, str] | None = None
    seq: Pair = UNNUMBERED
    made_from: tuple[str, ...] = ()
    """Digests of the segments that it was compacted from (F6.15)."""
    fields: str = ""
    """The key of the schema of a typed segment (`typed`), "" of any other."""
    text_rows: int = 0
    """In a typed segment, the number of rows whose payload is text in `data`."""
    has_numbers: bool = False
    """Whether the columns of a sorted segment have the numbers of F4.9."""
    blocks: str = ""
    """The root of the hashes of its blocks, by which it is read by ranges (F22.16); or ""."""
    unknown: JsonObject | None = None
    """Members that this version does not know."""

    def tombstone(self) -> Removal:
        """Return the entry that removes it."""
        return Removal("segment", self.key, self.events, self.bytes, self.kind)

    def to_json(self) -> JsonObject:
        """Return its JSON object: the members of F6.7 in its order, and no others. Of what is left
        out readers know the default."""
        body: JsonObject = {
            "add": "segment",
            "key": self.key,
            "bytes": self.bytes,
            "kind": self.kind,
            "events": self.events,
            "layout": self.layout,
            "time": self.time,
        }
        if self.kind == "events":
            body["types"] = self.types
            body["sources"] = self.sources
            body["levels"] = self.levels
            body["subject"] = self.subject
            body["seq"] = self.seq
            if self.made_from:
                body["from"] = self.made_from
            if self.fields:
                body["fields"] = self.fields
                body["texts"] = self.text_rows
            if self.has_numbers:
                body["numbers"] = True
            if self.blocks:
                body["blocks"] = self.blocks
        return body if self.unknown is None else body | self.unknown


@dataclass(frozen=True, slots=True)
class Record:
    """A live entry that is no segment: a cursor, artifact, view or format, or one of a type that
    this version does not know. `members` are all but its type and `key`."""

    entry_type: str
    key: str
    members: JsonObject

    def tombstone(self) -> Removal:
        """Return the entry that removes it."""
        return Removal(self.entry_type, self.key)

    def to_json(self) -> JsonObject:
        """Return its JSON object."""
        return {"add": self.entry_type, "key": self.key, **self.members}


@dataclass(frozen=True, slots=True)
class Removal:
    """A tombstone; that of a segment has the counts that the totals lose."""

    entry_type: str
    key: str
    events: int = 0
    bytes: int = 0
    kind: str = ""
    unknown: JsonObject | None = None

    def to_json(self) -> JsonObject:
        """Return its JSON object."""
        body: JsonObject = {"del": self.entry_type, "key": self.key}
        if self.entry_type == "segment":
            body |= {"events": self.events, "bytes": self.bytes, "kind": self.kind}
        return body if self.unknown is None else body | self.unknown


Entry = SegmentEntry | Record | Removal


@dataclass(frozen=True, slots=True)
class IdRun:
    """An id run of a state: its file, the length of that, and the number of keys (F6.11)."""

    digest: str
    bytes: int
    count: int


@dataclass(frozen=True, slots=True)
class RetentionEntry:
    """The last retention: events before `before` were removed at `time`, both in us (F6.2)."""

    before: int
    time: int


# Constructing a frozen dataclass takes twice as long as one that is not, and a large lake has ten
# thousand segments: so each is constructed as this twin, of the same slots, and then made frozen.
_Draft: Any = dataclasses.make_dataclass(
    "_Draft", [column.name for column in dataclasses.fields(SegmentEntry)], slots=True
)
_QUARANTINE = frozenset("add key bytes kind events layout time".split())
_EVENTS = _QUARANTINE | frozenset(
    "types sources levels subject seq from fields texts numbers blocks".split()
)
_REMOVAL = frozenset(("del", "key"))
_SEGMENT_REMOVAL = _REMOVAL | {"events", "bytes", "kind"}


def parse(bodies: Iterable[JsonObject]) -> tuple[Entry, ...]:
    """Return the entries that JSON objects stand for; records take over their objects. Raises
    MalformedEntry."""
    try:
        return tuple([_from_json(body) for body in bodies])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MalformedEntry(f"an entry in it is malformed ({error!r})") from None


def _from_json(body: JsonObject) -> Entry:
    entry_type = body.get("add")
    if entry_type == "segment":
        return _segment(body)
    if entry_type is None:
        return _removal(body)
    del body["add"]
    return Record(intern(entry_type), body.pop("key"), body)


def _segment(body: JsonObject) -> SegmentEntry:
    key, rows_kind, size, events = body["key"], body["kind"], body["bytes"], body["events"]
    if not (isinstance(key, str) and isinstance(size, int) and isinstance(events, int)):
        raise TypeError("key, bytes or events")
    low, high = body["time"]
    # One look-up by name after the unknown: a loop over the fields takes several times as long.
    if rows_kind == "events":
        oldest, newest = body["seq"]
        types, sources, levels = body["types"], body["sources"], body["levels"]
        subject, made_from, members = body["subject"], body.get("from", ()), _EVENTS
        fields = body.get("fields", "")
        text_rows = body["texts"] if fields else 0
        has_numbers, blocks = body.get("numbers", False), body.get("blocks", "")
        absent = (not made_from) + 2 * (not fields) + (not has_numbers) + (not blocks)
        is_known = len(body) == len(_EVENTS) - absent
    else:
        oldest, newest = UNNUMBERED
        types, sources, levels = {}, {}, {}
        subject, made_from, members = None, (), _QUARANTINE
        fields, text_rows, has_numbers, blocks = "", 0, False, ""
        is_known = len(body) == len(_QUARANTINE)
    entry = _Draft(
        key,
        size,
        intern(rows_kind),
        events,
        intern(body["layout"]),
        (low, high),
        types,
        sources,
        levels,
        subject and (subject[0], subject[1]),
        (oldest, newest),
        tuple(made_from),
        intern(fields),
        text_rows,
        has_numbers,
        blocks,
        None if is_known else _others(body, members),
    )
    entry.__class__ = SegmentEntry
    return entry  # type: ignore[no-any-return]


def _removal(body: JsonObject) -> Removal:
    entry_type = intern(body["del"])
    if entry_type != "segment":
        return Removal(entry_type, body["key"], unknown=_others(body, _REMOVAL))
    counts = body["events"], body["bytes"], intern(body["kind"])
    return Removal(entry_type, body["key"], *counts, _others(body, _SEGMENT_REMOVAL))


def _others(body: JsonObject, members: frozenset[str]) -> JsonObject | None:
    """The members that this version does not know, None for none."""
    return None if body.keys() <= members else {k: v for k, v in body.items() if k not in members}


def assign_seq(entries: Iterable[Entry], next_seq: int) -> tuple[list[Entry], int]:
    """Assign `seq` to new arrival segments; return the entries and the next free number."""
    numbered: list[Entry] = []
    for entry in entries:
        # One that has a seq already was compacted or taken back: rows are never renumbered (F6.12).
        if isinstance(entry, SegmentEntry) and (entry.kind, entry.seq) == ("events", UNNUMBERED):
            entry = dataclasses.replace(entry, seq=(next_seq, next_seq + entry.events - 1))
            next_seq += entry.events
        numbered.append(entry)
    return numbered, next_seq


def changes(bodies: Iterable[JsonObject]) -> tuple[list[str], list[str], dict[str, str]]:
    """Return the digests of segments that JSON objects add and remove, each by its last entry, and
    the indices of state directories by label, "" for one that they remove: what gc needs of the
    many thousand states that it reads once."""
    live, states = dict[str, bool](), dict[str, str]()
    for body in bodies:
        entry_type = body.get("add") or body.get("del")
        if entry_type == "segment":
            live[body["key"]] = "add" in body
        elif entry_type == "state":
            states[body["key"]] = body["index"] if "add" in body else ""
    added = [key for key, is_added in live.items() if is_added]
    return added, [key for key, is_added in live.items() if not is_added], states
