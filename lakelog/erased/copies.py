"""Where rows of the lake went: `copies/<16 hex>.json`, one document for each place.

Exports, backups of the lake, targets of syncs and published tables are noted, so that an erasure
can name what is to be cleaned. Remotes have documents of their own, and training sets are tags.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass

from lakelog.store import disk, document, regular_file
from lakelog.store.paths import Paths


@dataclass(frozen=True)
class CopyNote:
    """A place that got rows: `place` is `export`, `backup`, `sync` or `table`, `name` a path, an
    address without a password, or a table, `time` (us) when it got some last."""

    place: str
    name: str
    time: int


def note(paths: Paths, place: str, name: str) -> None:
    """Note that a place got rows; does nothing where the lake cannot be written to."""
    copy = CopyNote(place, name, disk.now_us())
    key = hashlib.sha256(f"{place}\0{name}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    with contextlib.suppress(OSError, UnicodeError):
        disk.make_dirs(paths.copies)
        disk.replace_whole(f"{paths.copies}/{key}.json", document.encode(vars(copy)), sync=False)


def listing(paths: Paths) -> list[CopyNote]:
    """Return the places that got rows, in the order of their names; a damaged note is left out,
    which `verify` names."""
    notes = []
    for name in disk.listing(paths.copies):
        if name.endswith(".json") and not name.startswith("."):
            with contextlib.suppress(FileNotFoundError, document.NotIntact, TypeError):
                data = disk.read(f"{paths.copies}/{name}", regular_file.DOCUMENT_MAX)
                notes.append(CopyNote(**document.decode(data)))
    return sorted(notes, key=lambda copy: (copy.place, copy.name))
