"""Which file is this, and how far was it taken in? Never by name or inode alone.

A file's key is the SHA-256 of its first 4,096 decompressed bytes (fewer while it is shorter; the
length is part of the key) with an ordinal for files that share that beginning. Its cursor, an
entry of the manifest, says how many bytes were taken in and the SHA-256 of the 4,096 before that
place. The same file renamed, rotated, copied or compressed matches; one truncated and rewritten
under the same banner does not. Equal whole copies are one file; `--source` keeps them apart.
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
    """How far one file was taken in; `key` is also the origin of its rows."""

    key: str
    bytes: int
    head_len: int
    tail: str
    lines: int
    name: str
    size: int = 0

    def entry(self) -> Entry:
        """The manifest entry that says so."""
        return {"add": "cursor", **self.__dict__}


def of_entry(entry: Entry) -> Cursor:
    """Return the cursor that a manifest entry holds."""
    names = ("key", "bytes", "head_len", "tail", "lines", "name", "size")
    return Cursor(**{name: entry[name] for name in names})


def head_key(head: bytes, ordinal: int, source: str | None) -> str:
    """Return the key of a file that begins with `head`."""
    mark = b"" if source is None else b"\0" + source.encode()
    return f"{hashlib.sha256(head + mark).hexdigest()[:32]}-{len(head)}-{ordinal}"


def digest(data: bytes) -> str:
    """Return what a cursor keeps of the bytes before its place."""
    return hashlib.sha256(data[-WINDOW:]).hexdigest()[:32]


def find(
    source: Source, known: dict[str, Cursor], label: str | None
) -> tuple[Cursor, Cursor | None]:
    """Return where to start in a file: its cursor now, and the one it replaces in the manifest.

    The source is left standing at the cursor's place. A new file starts at 0, replacing none.
    """
    head = source.read(WINDOW)
    matches = [c for c in known.values() if _same_head(c, head, label)]
    for cursor in sorted(matches, key=lambda c: -c.bytes):
        if _stands_at(source, cursor):
            grown = cursor
            if cursor.head_len < len(head):
                key = _free_key(head, known, label)
                grown = replace(cursor, key=key, head_len=len(head))
            return replace(grown, name=source.name, size=source.size), cursor
    source.seek(0)
    key = _free_key(head, known, label)
    return Cursor(key, 0, len(head), digest(b""), 0, source.name, source.size), None


def tail_at(path: str, place: int) -> str:
    """Return the digest of the bytes before a place, read from the file."""
    source = Source(path)
    try:
        start = max(place - WINDOW, 0)
        source.seek(start)
        return digest(source.read(place - start))
    finally:
        source.close()


def _same_head(cursor: Cursor, head: bytes, label: str | None) -> bool:
    part = head[: cursor.head_len]
    stem = head_key(part, 0, label).rsplit("-", 1)[0]
    return len(part) == cursor.head_len and cursor.key.rsplit("-", 1)[0] == stem


def _stands_at(source: Source, cursor: Cursor) -> bool:
    """Whether the file holds, just before the cursor's place, what was there then."""
    start = max(cursor.bytes - WINDOW, 0)
    source.seek(start)
    before = source.read(cursor.bytes - start)
    return len(before) == cursor.bytes - start and digest(before) == cursor.tail


def _free_key(head: bytes, known: dict[str, Cursor], label: str | None) -> str:
    ordinal = 0
    while head_key(head, ordinal, label) in known:
        ordinal += 1
    return head_key(head, ordinal, label)


def removal(cursor: Cursor) -> dict[str, Any]:
    """The manifest entry that takes a cursor away."""
    return {"del": "cursor", "key": cursor.key}
