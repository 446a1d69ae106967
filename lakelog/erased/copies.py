"""Where rows of the lake went: `copies/<16 hex>.json`, one document for each place.

Exports, backups of the lake, targets of syncs, published tables, receivers of replays and alerts,
and subscriptions that hand events to a program are noted, so that an erasure can name what is to be
cleaned. So are directories of training sets, whose states have tags; remotes have documents of
their own, and are noted once they are removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass

from lakelog import document
from lakelog.disk import DOCUMENT_MAX, File, Folder, NotIntact, disk
from lakelog.paths import Paths


@dataclass(frozen=True)
class CopyNote:
    """A place that got rows. `place` is `export`, `backup`, `logs` (copies of log files), `sync`,
    `table`, `training set`, `replay`, `alert`, `subscription` or `remote`, `name` a path, an
    address without a password, a table, a program or a subscription, `time` (us) when it got some
    last. A path that is no UTF-8 is escaped in `name`, and `path_bytes` has it in hex."""

    place: str
    name: str
    time: int
    path_bytes: str = ""

    @staticmethod
    def of(place: str, name: str) -> CopyNote:
        """The note of a place that gets rows now."""
        path_bytes = os.fsencode(name)
        printable = path_bytes.decode("utf-8", "backslashreplace")
        escaped = path_bytes.hex() if printable != name else ""
        return CopyNote(place, printable, disk.now_us(), escaped)

    @property
    def path(self) -> str:
        """The path, of a place that has one."""
        return os.fsdecode(bytes.fromhex(self.path_bytes)) if self.path_bytes else self.name

    def file(self, paths: Paths) -> File:
        """The document of the note."""
        # One for each place, so that two writers of different ones do not meet.
        key = hashlib.sha256(self.place.encode() + b"\0" + os.fsencode(self.path)).hexdigest()[:16]
        return File(f"{paths.copies}/{key}.json")


def note(paths: Paths, place: str, name: str) -> None:
    """Note that a place gets rows, before it has any: who is killed afterwards does not come to it.
    Does nothing where the lake cannot be written to."""
    copy = CopyNote.of(place, name)
    body = {name: value for name, value in vars(copy).items() if value}
    with contextlib.suppress(OSError):
        Folder(paths.copies).make_all()
        copy.file(paths).replace(document.encode(body))


def listing(paths: Paths) -> list[CopyNote]:
    """Return the places that got rows, in the order of their names; a damaged note is left out,
    which `verify` names."""
    notes = []
    for name in Folder(paths.copies).names():
        if name.endswith(".json") and not name.startswith("."):
            with contextlib.suppress(FileNotFoundError, NotIntact, TypeError):
                data = File(f"{paths.copies}/{name}").read(DOCUMENT_MAX)
                notes.append(CopyNote(**document.decode(data)))
    return sorted(notes, key=lambda copy: (copy.place, copy.name))
