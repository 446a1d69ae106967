"""Which file is this, and how far was it taken in? Never by name or inode alone.

A file's key is the SHA-256 of its first 4,096 decompressed bytes (fewer while it is shorter; the
length is part of the key) with an ordinal for files that share that beginning. Its cursor, an
entry of the manifest, says how many bytes were taken in and the SHA-256 of the 4,096 before that
place. The same file renamed, rotated, copied or compressed matches; one truncated and rewritten
under the same banner does not. Equal whole copies are one file; `--source` keeps them apart.

While a file is shorter than 4,096 bytes its key changes as it grows, and the entry is replaced;
`origin`, what its rows carry, stays the first key it had.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from lakelog.ingest.source import Source
from lakelog.store.manifest import Entry

WINDOW = 4096


@dataclass(frozen=True)
class Cursor:
    """How far one file was taken in; `origin` is that of its rows.

    `forms` says in which format, from which byte on: [byte, name] pairs.
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

    def entry(self) -> Entry:
        """The manifest entry that says so."""
        return {"add": "cursor", **self.__dict__, "forms": [list(pair) for pair in self.forms]}

    def read_as(self, form: str, place: int) -> Cursor:
        """The cursor with a format that goes for what comes from a place on."""
        if self.forms and self.forms[-1][1] == form:
            return self
        return replace(self, forms=(*self.forms, (place, form)))


@dataclass(frozen=True)
class Start:
    """Where to begin in a file: its cursor, with the key it has now, and the entry it replaces.

    `head` is the file's beginning and `before` the bytes up to the place, 4,096 at most.
    """

    cursor: Cursor
    replaced: Cursor | None
    head: bytes
    before: bytes


def of_entry(entry: Entry) -> Cursor:
    """Return the cursor that a manifest entry holds."""
    names = ("key", "bytes", "head_len", "tail", "lines", "name", "size")
    forms = tuple((int(at), str(name)) for at, name in entry.get("forms", ()))
    origin = entry.get("origin") or entry["key"]
    return Cursor(origin=origin, forms=forms, **{n: entry[n] for n in names})


def stem(head: bytes, source: str | None) -> str:
    """Return the key of a file that begins with `head`, without its ordinal."""
    mark = b"" if source is None else b"\0" + source.encode("utf-8", "surrogateescape")
    return f"{hashlib.sha256(head + mark).hexdigest()[:32]}-{len(head)}"


def digest(data: bytes) -> str:
    """Return what a cursor keeps of the bytes before its place."""
    return hashlib.sha256(data[-WINDOW:]).hexdigest()[:32]


def find(source: Source, known: list[Entry], label: str | None) -> Start:
    """Return where to start in a file. The source is left standing there.

    A new file starts at 0 and replaces no entry. Of a file shorter than its key's window no more
    is read than that key was made of, or what is being written now would have no key.
    """
    head = source.read(WINDOW)
    if len(head) < WINDOW and not source.compression:
        source.limit = len(head)
    for entry in sorted(of_head(known, head, label), key=lambda e: -int(e["bytes"])):
        before = _before(source, entry)
        if before is not None:
            old = of_entry(entry)
            now = replace(old, name=printable(source.name), size=source.size)
            if old.head_len < len(head):
                key = _free_key(head, known, label)
                now = replace(now, key=key, head_len=len(head))
            return Start(now, old, head, before)
    source.seek(0)
    key = _free_key(head, known, label)
    name = printable(source.name)
    made = Cursor(key, key, 0, len(head), digest(b""), 0, name, source.size)
    return Start(made, None, head, b"")


def holds(start: Start, then: list[Entry], now: list[Entry], label: str | None) -> bool:
    """Whether what `find` said among the entries `then` is still so among those `now`.

    It is not if the cursor moved or went, or another came that may be of the same file: that of
    a process which saw the file when it was shorter, or longer.
    """
    places = {e["key"]: e["bytes"] for e in then}
    old = start.replaced
    if old is not None and all(e["key"] != old.key or e["bytes"] != old.bytes for e in now):
        return False
    fresh = [e for e in now if places.get(e["key"]) != e["bytes"]]
    short = len(start.head) < WINDOW
    if short and any(e["head_len"] > len(start.head) for e in fresh):
        return False
    return not of_head(fresh, start.head, label)


def printable(name: str) -> str:
    """A file's name as text that can be written anywhere; bytes that are no text are escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def of_head(known: list[Entry], head: bytes, label: str | None) -> list[Entry]:
    """The entries of files that begin as this one does."""
    lengths = {e["head_len"] for e in known}
    stems = {n: stem(head[:n], label) for n in lengths if 0 < n <= len(head)}
    return [e for e in known if e["key"].rpartition("-")[0] == stems.get(e["head_len"])]


def _before(source: Source, entry: Entry) -> bytes | None:
    """The bytes before a cursor's place, None unless they are those that were there then."""
    start = max(entry["bytes"] - WINDOW, 0)
    source.seek(start)
    before = source.read(entry["bytes"] - start)
    whole = len(before) == entry["bytes"] - start
    return before if whole and digest(before) == entry["tail"] else None


def _free_key(head: bytes, known: list[Entry], label: str | None) -> str:
    """A key that no file has now, or had at first."""
    taken = {e["key"] for e in known} | {e.get("origin", "") for e in known}
    name, ordinal = stem(head, label), 0
    while f"{name}-{ordinal}" in taken:
        ordinal += 1
    return f"{name}-{ordinal}"


def removal(cursor: Cursor) -> dict[str, Any]:
    """The manifest entry that takes a cursor away."""
    return {"del": "cursor", "key": cursor.key}
