"""How far a file was ingested, as a manifest has it (FORMAT.md 18)."""

from __future__ import annotations

import builtins
import functools
import hashlib
import re
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar

from lakelog.entries import Record, Removal
from lakelog.files.rotation import printable
from lakelog.lines import Hole, Source
from lakelog.manifest import Manifest
from lakelog.store import Hosts, Store

WHAT = "cursor"
WHOLE_MAX = 1 << 16
"""Up to so many bytes, all that was consumed is compared when a file is opened again."""
_HEAD_MIN = 64
"""Beginnings are remembered at 64, 128 … 4,096 bytes, so that few lengths have to be looked up."""
_DIGITS, _LINES = 8, 2
# Linux stamps files with the coarse clock; comparing its times with a finer one would order events
# wrongly within a tick.
_FILE_CLOCK = getattr(time, "CLOCK_REALTIME_COARSE", time.CLOCK_REALTIME)
"""The clock of the times of files."""


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

    RELEASED: ClassVar = -1
    """The inode of a cursor whose file was truncated or replaced: no file is it any more."""

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

    def earlier_origins(self, head: builtins.bytes) -> Iterator[str]:
        """Yield origins that rows of this file may have had, if it was first read when it was
        shorter, and a rollback took that cursor. `head` is its beginning."""
        length = head_length(head)
        line_ends = (place + 1 for place in range(min(length, _HEAD_MIN) - 1) if head[place] == 10)
        for size in (*line_ends, *(_HEAD_MIN << n for n in range(7))):
            if size < length:
                yield f"{stem(head[:size], self.label)}-{size}-0"

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
            tail=self.digest(before),
            crc=crc,
            places=places,
            unfinished=0,
            tail_key="",
        )

    def released(self) -> FileCursor:
        """The cursor of content whose file is another one now."""
        return replace(self, inode=self.RELEASED)

    @staticmethod
    def digest(data: builtins.bytes) -> str:
        """Return what a cursor keeps of the bytes before its place."""
        return hashlib.sha256(data[-Source.WINDOW :]).hexdigest()[:32]

    @staticmethod
    def is_distinctive(data: builtins.bytes) -> bool:
        """Whether no other file is likely to begin so: it is long, or says times or numbers."""
        # The thresholds of FORMAT.md F18.4.
        if len(data) >= Source.WINDOW or sum(48 <= byte <= 57 for byte in data) >= _DIGITS:
            return True
        lines = {line for line in data.split(b"\n")[:-1] if re.search(rb"\d", line)}
        return len(lines) >= _LINES

    def with_status(self, source: Source) -> FileCursor:
        """The cursor with the present name, size, inode and times of its file."""
        host = Hosts.own_name()
        updated = replace(self, name=printable(source.name), size=source.size, host=host)
        if source.piped:
            return updated
        device, inode = source.identity
        looked = time.clock_gettime_ns(_FILE_CLOCK)
        return replace(updated, device=device, inode=inode, mtime=source.mtime, looked=looked)

    def with_head(self, head: builtins.bytes, label: str | None) -> FileCursor:
        """The cursor with as much of its file's beginning as there is: more by now, or less in
        another file that holds what was consumed."""
        length = head_length(head)
        if length <= self.head_len <= len(head):
            return self
        return replace(self, head_len=length, head=stem(head[:length], label), label=label)

    def before_place(
        self, source: Source, head: builtins.bytes, label: str | None
    ) -> builtins.bytes | None:
        """The bytes before the place, if the file holds there what was consumed; else None.

        The beginning and the last bytes are compared, and all of it up to WHOLE_MAX. The source
        then stands at the place.
        """
        length, head_digest = self.stem
        if len(head) < length or stem(head[:length], label) != head_digest:
            return None
        # A file cut and written again may agree in its head and its last window; below WHOLE_MAX
        # comparing everything costs one read.
        whole = self.bytes <= WHOLE_MAX and self.crc is not None
        start = 0 if whole else max(self.bytes - Source.WINDOW, 0)
        source.seek(start)
        before = source.read(self.bytes - start)
        if len(before) != self.bytes - start or self.digest(before) != self.tail:
            return None
        if whole and zlib.crc32(before) != self.crc:
            return None
        return before[-Source.WINDOW :]

    def holds_all(
        self, source: Source, head: builtins.bytes, label: str | None
    ) -> builtins.bytes | None:
        """As `before_place`, with every byte compared by the sum of all, where there is one.

        What was copied before a line was finished need not have the beginning of that line.
        """
        if self.crc is not None and source.crc(self.bytes) != self.crc:
            return None
        # The cursor remembers the beginning of an unfinished line that the copy lacks (F18.3).
        if 0 < self.bytes <= len(head) < self.head_len:
            source.seek(self.bytes)
            before = head[: self.bytes]
            return before if self.digest(before) == self.tail else None
        return self.before_place(source, head, label)


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


@functools.lru_cache(256)
def stem(head: bytes, label: str | None) -> str:
    """Return the digest of a file's beginning, with the label of who ingests it."""
    mark = b"" if label is None else b"\0" + label.encode("utf-8", "surrogateescape")
    return hashlib.sha256(head + mark).hexdigest()[:32]


def head_length(head: bytes) -> int:
    """How much of a beginning is remembered: not the room at its end, written later."""
    size = len(head) - Hole.at_end_of(head) or len(head)
    return size if size < _HEAD_MIN else min(Source.WINDOW, 1 << (size.bit_length() - 1))


@functools.lru_cache(1024)
def _shared(forms: tuple[tuple[int, str], ...]) -> tuple[tuple[int, str], ...]:
    """The same for all cursors of which it says the same, as it does for most."""
    return forms


@functools.lru_cache(1024)
def _listed(forms: tuple[tuple[int, str], ...]) -> list[list[int | str]]:
    """The same as a manifest has it, one list for all entries that say so."""
    return [list(pair) for pair in forms]


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
