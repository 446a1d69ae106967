"""Manifests: one immutable state of the lake, complete in itself, cheap at any size.

A manifest (manifests/<digest>.json.zst, zstd of one JSON object) names its parent and holds
totals, at most 16 recent entries (the JSON key `tail`), the id runs, and `pages`: older entries in
files of their own. Pages form a log-structured tree of fan-out 16, oldest first: the recent
entries, once there are 16, become a page of level 0; sixteen such pages become one of at most 256
entries (level 1); sixteen of those, or 32 of levels 0 and 1, one of at most 4096 (level 2), which
only maintenance writes; sixteen of at most half as many become as few as they need.
Once the pages of levels 0 to 2 hold half as many entries as those of level 3, maintenance writes
all live entries as pages of level 3. Read the pages from oldest to newest, then the recent ones:

    {"add": what, "key": k, ...}   adds k, replacing any older entry of that what and key
    {"del": what, "key": k, ...}   a tombstone: deletes k; dropped once no page is older

A segment's key is its digest. The digest covers the compressed bytes; `commit` makes the bytes of
every attempt unique. A manifest of at most CARRIED_MAX bytes has no file: the move that names it
carries its text (refs.py), and the digest is that of the text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson

from lakelog.entries import Entry, IdRun, Record, Removal, RetentionEntry, SegmentEntry, parse
from lakelog.manifest.manifest_text import FILE_FORMAT
from lakelog.values import JsonObject

# Small enough that a publish writes about 4 kB, large enough that 10,000 segments are two levels.
FAN = 16
LEVEL_MAX = 2
BOTTOM = LEVEL_MAX + 1
"""The level of pages that have only entries that were live when they were written."""
_ON_DISK = {"recent": "tail"}
"""Keys of a manifest that are not the name of their attribute."""


@dataclass(frozen=True)
class Page:
    """A file of entries, with its keys on disk (F6.3): `time` is None where it adds no events,
    `removals` counts its tombstones, `what` are those of its entries, None where unknown."""

    digest: str
    bytes: int
    level: int
    entries: int
    removals: int
    events: int
    time: list[int] | None
    what: list[str] | None = None

    @property
    def is_large(self) -> bool:
        """Whether it has more than half of the entries that one may have, and so stays until all
        are merged."""
        # Commits of twenty entries make pages of level 2 of a few hundred, in a large lake of a
        # thousand.
        return 2 * self.entries > int(FAN**BOTTOM)

    def is_near(self, low: int, high: int) -> bool:
        """Whether it may add an event of a time in [low, high] (us)."""
        return self.time is not None and self.time[0] <= high and low <= self.time[1]


@dataclass(frozen=True)
class Totals:
    """Sums over the live segments."""

    events: int = 0
    bytes: int = 0
    segments: int = 0
    quarantined: int = 0


@dataclass(frozen=True)
class Manifest:
    """One state of the lake. `digest` is its name ("" until written)."""

    parent: str
    commit: str
    time: int
    author: str
    op: str
    message: str
    next_seq: int
    totals: Totals
    pages: tuple[Page, ...]
    recent: tuple[Entry, ...]
    """The newest entries, which are in no page yet; `tail` on disk."""
    ids: tuple[IdRun, ...]
    retention: RetentionEntry | None
    digest: str = field(default="", compare=False)

    @property
    def key(self) -> str:
        """That of caches of what is made of it: an erasure leaves its digest, and takes rows."""
        return f"{self.digest} {self.totals.events} {self.totals.quarantined}"


@dataclass(frozen=True)
class Outline:
    """What gc needs of a manifest: `pages` as (digest, length), oldest first, the digests of the
    segments that the recent entries add and remove, and those of the id runs."""

    pages: list[tuple[str, int]]
    added: list[str]
    removed: list[str]
    runs: list[str]
    states: dict[str, str]
    """Indices of state directories that the recent entries add, by label; "" for removed ones."""


def of_json(body: JsonObject, digest: str) -> Manifest:
    """Return the manifest of a JSON object; any error of types and values for another object."""
    members = {k: v for k, v in body.items() if k not in ("format", "tail")} | {
        "totals": Totals(**body["totals"]),
        "pages": tuple(Page(**p) for p in body["pages"]),
        "recent": parse(body["tail"]),
        "ids": tuple(IdRun(r["digest"], r["bytes"], r["count"]) for r in body["ids"]),
        "retention": body["retention"] and RetentionEntry(**body["retention"]),
    }
    return Manifest(**members, digest=digest)


def empty(commit: str, time: int, author: str) -> Manifest:
    """Return the state of a new lake."""
    return Manifest("", commit, time, author, "init", "", 0, Totals(), (), (), (), None)


def level_of(entries: int) -> int:
    """Return the level of a page with this many entries."""
    level = 0
    while entries > FAN ** (level + 1) and level < LEVEL_MAX:
        level += 1
    return level


def describe(entries: tuple[Entry, ...], digest: str, size: int, level: int) -> Page:
    """Return what a manifest says of a page."""
    adds = [e for e in entries if isinstance(e, SegmentEntry)]
    times = [e.time for e in adds if e.kind == "events"]
    span = [min(t[0] for t in times), max(t[1] for t in times)] if times else None
    removals, events = sum(isinstance(e, Removal) for e in entries), sum(e.events for e in adds)
    entry_types = sorted({e.entry_type for e in entries})
    return Page(digest, size, level, len(entries), removals, events, span, entry_types)


def add_up(totals: Totals, entries: Iterable[Entry]) -> Totals:
    """Return the totals after a change; tombstones carry the counts that they subtract."""
    events, size, segments = totals.events, totals.bytes, totals.segments
    quarantined = totals.quarantined
    for entry in entries:
        if isinstance(entry, Record) or entry.entry_type != "segment":
            continue
        sign = -1 if isinstance(entry, Removal) else 1
        size, segments = size + sign * entry.bytes, segments + sign
        if entry.kind == "events":
            events += sign * entry.events
        else:
            quarantined += sign * entry.events
    return Totals(events, size, segments, quarantined)


def encode(manifest: Manifest) -> bytes:
    """Return the JSON object of a manifest."""
    # Not asdict, which copies every entry and so takes longer than all else here.
    names = (member.name for member in dataclasses.fields(manifest) if member.name != "digest")
    body = {_ON_DISK.get(name, name): getattr(manifest, name) for name in names}
    body["tail"] = [entry.to_json() for entry in manifest.recent]
    return orjson.dumps({"format": FILE_FORMAT, **body})


def fold(runs: list[tuple[Entry, ...]], oldest: bool) -> tuple[Entry, ...]:
    """Merge runs of entries, oldest first: the newest entry of a key wins. The `oldest` run of a
    manifest needs no tombstones."""
    newest: dict[tuple[str, str], Entry] = {}
    for run in runs:
        for entry in run:
            key = (entry.entry_type, entry.key)
            # A dict keeps the place of a key that is set again; live entries go by the last `add`.
            newest.pop(key, None)
            newest[key] = entry
    # Below any other page a tombstone may still hide something, so only the oldest run drops it.
    return tuple(e for e in newest.values() if not (oldest and isinstance(e, Removal)))
