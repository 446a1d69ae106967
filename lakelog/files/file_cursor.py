"""How far a file was ingested, as a manifest has it (FORMAT.md 18).

Earlier places in a file, [bytes, crc] pairs, of which a cursor remembers a few.
"""

from __future__ import annotations

import builtins
import functools
import hashlib
import sys
from dataclasses import dataclass, field, fields, replace

from lakelog.entries import Record, Removal
from lakelog.store.bootstrap import Store
from lakelog.store.manifest import Manifest

WHAT = "cursor"
WINDOW = 4096
RELEASED = -1
"""The inode of a cursor whose file was truncated or replaced: no file is it any more."""


@dataclass(frozen=True, slots=True)
class FileCursor:
    """How far one file was ingested; `origin` is that of its rows.

    `forms` says in which format, from which byte on: [byte, name] pairs. `inode` is 0 where it is
    not known: of what came through a pipe, or was ingested before inodes were kept. `mtime` is in
    ns, and so is `looked`, when it was read. `crc` is the CRC-32 of the first `bytes` bytes, None
    where it is not known, and `places` are earlier [bytes, crc] pairs. The first `shared` bytes are
    rows of the origin `shares`, for the file is a copy of that one. The `unfinished` bytes after
    the place are a last line without newline that is no event: it stands in quarantine, in the
    segment `tail_key`, until its rest comes. `apart` are origins of files that were equal to this
    one and existed beside it when it was first read, at `begun` (ns).
    """

    key: str
    origin: str
    bytes: int
    head_len: int
    tail: str
    lines: int
    name: str
    size: int = 0
    forms: tuple[tuple[int, str], ...] = ()
    device: int = 0
    inode: int = 0
    mtime: int = 0
    crc: int | None = None
    places: tuple[tuple[int, int], ...] = ()
    head: str = ""
    label: str | None = None
    shares: str = ""
    shared: int = 0
    unfinished: int = 0
    tail_key: str = ""
    looked: int = 0
    apart: tuple[str, ...] = ()
    begun: int = 0
    host: str = field(default="", compare=False)  # alone no change: each start of a pod has its own

    @classmethod
    def from_entry(cls, record: Record) -> FileCursor:
        """Return the cursor that an entry holds. Raises TypeError, ValueError where it is
        malformed."""
        members = record.members
        values = {name: members[name] for name in _NAMES if name in members}
        values["key"] = record.key
        values["forms"] = _shared(
            tuple((int(position), str(n)) for position, n in members.get("forms", ()))
        )
        values["places"] = tuple(
            (int(position), int(crc)) for position, crc in members.get("places", ())
        )
        values["apart"] = tuple(members.get("apart", ()))
        values["origin"] = members.get("origin") or record.key
        values["host"] = sys.intern(str(members.get("host", "")))
        return cls(**values)

    @staticmethod
    def of_state(store: Store, state: Manifest) -> list[FileCursor]:
        """Return the cursors of a state. Raises DamagedManifest."""
        return store.manifests.read_records(state, WHAT, FileCursor.from_entry)

    def entry(self) -> Record:
        """The manifest entry of the cursor."""
        body = {name: getattr(self, name) for name in _NAMES}
        left_out = {name for name, value in _DEFAULTS.items() if body[name] == value}
        pairs = {"forms": _listed(self.forms), "places": [list(p) for p in self.places]}
        body = {name: v for name, v in {**body, **pairs}.items() if name not in left_out}
        return Record(WHAT, body.pop("key"), body)

    def removal(self) -> Removal:
        """The manifest entry that removes the cursor."""
        return Removal(WHAT, self.key)

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return self.device, self.inode

    @property
    def stem(self) -> tuple[int, str]:
        """Length and digest of the remembered beginning, with the label."""
        return self.head_len, self.head or self.key.rpartition("-")[0].partition("-")[0]

    @property
    def is_copy(self) -> bool:
        """Whether all that is known of the file are rows of another one."""
        return bool(self.shares) and self.shared >= self.bytes

    def read_as(self, form: str, place: int) -> FileCursor:
        """The cursor with a format that applies from a place on."""
        if self.forms and self.forms[-1][1] == form:
            return self
        return replace(self, forms=_shared((*self.forms, (place, form))))

    def moved(self, place: int, before: builtins.bytes, crc: int | None) -> FileCursor:
        """The cursor at a later place: the bytes before it, and the CRC-32 of all of them."""
        places = self.places
        if place > self.bytes and self.crc is not None and self.bytes:
            # The place of the last publish becomes an earlier one: a copy made then may end exactly
            # there.
            places = thin((*places, (self.bytes, self.crc)))
        return replace(
            self,
            bytes=place,
            tail=digest(before),
            crc=crc,
            places=places,
            unfinished=0,
            tail_key="",
        )

    def released(self) -> FileCursor:
        """The cursor of content whose file is another one now."""
        return replace(self, inode=RELEASED)


@dataclass(frozen=True)
class Start:
    """Where to begin in a file: its cursor, and the entry it replaces.

    `head` is the file's beginning and `before` the bytes up to the place, 4,096 at most.
    `released` are cursors that this file's inode had before. `note` is what its reader has to say
    of how it was recognised.
    """

    cursor: FileCursor
    replaced: FileCursor | None
    head: bytes
    before: bytes
    released: tuple[FileCursor, ...] = ()
    note: str = ""
    ended: str = ""
    """The segment of an unfinished last line that is read again with what came after it."""
    is_touched: bool = False
    """Whether the file was written since without a change, and only its times tell it apart."""

    def is_due(self, *, follows: bool) -> bool:
        """Whether the cursor has to be published though nothing was read: its file has another
        inode, or (for who `follows` files) another name or time, or is a copy that grew."""
        old, current = self.replaced, self.cursor
        if old is None:
            return bool(self.released or current.shares)
        is_moved = old.identity != current.identity and current.inode != 0
        is_renamed = follows and (old.name != current.name or self.is_touched)
        return (
            is_moved
            or is_renamed
            or bool(self.released)
            or (current.shared, current.shares) != (old.shared, old.shares)
        )


_NAMES = tuple(field.name for field in fields(FileCursor))
# Members with these values are left out of an entry: most cursors have most of them.
_DEFAULTS = {field.name: field.default for field in fields(FileCursor)[_NAMES.index("device") :]}


@functools.lru_cache(1024)
def _shared(forms: tuple[tuple[int, str], ...]) -> tuple[tuple[int, str], ...]:
    """The same for all cursors of which it says the same, as it does for most."""
    return forms


@functools.lru_cache(1024)
def _listed(forms: tuple[tuple[int, str], ...]) -> list[list[int | str]]:
    """The same as a manifest has it, one list for all entries that say so."""
    return [list(pair) for pair in forms]


def digest(data: bytes) -> str:
    """Return what a cursor keeps of the bytes before its place."""
    return hashlib.sha256(data[-WINDOW:]).hexdigest()[:32]


PLACES_MAX = 12
"""Earlier places that a cursor remembers; old ones lie further apart."""


def thin(places: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Drop one earlier place where there are too many: the one whose neighbours are nearest to
    each other, relative to their distance from the newest."""
    if len(places) <= PLACES_MAX:
        return places
    end = places[-1][0]
    gaps = [
        (places[n + 1][0] - places[n - 1][0]) / (end - places[n - 1][0] + 1)
        for n in range(1, len(places) - 1)
    ]
    drop = gaps.index(min(gaps)) + 1
    return places[:drop] + places[drop + 1 :]
