"""Whose a saved state is: this machine's, or another's that was fetched, pulled or copied.

A record names its machine and proves it (F21.1). One of an earlier version does neither, as anybody
could have written it: it is this machine's once such records were adopted.
"""

from __future__ import annotations

import datetime
import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any

from lakelog import chunks
from lakelog.chunks import StateRecord
from lakelog.disk import File, Folder, disk
from lakelog.errors import StateRefused
from lakelog.store import Machine, Store

OPS = ("state", "container")
"""What a save may be: of directories, or of containers with theirs."""


class Origins:
    """Tells one's own records, as far as it was settled whose lake this is when it was made."""

    def __init__(self, store: Store) -> None:
        self._paths = store.paths
        self.machine = Machine.read(store.paths)

    def is_own(self, record: StateRecord) -> bool:
        """Whether this machine saved a directory."""
        return record.is_of(self.machine)

    def require_own(self, record: StateRecord) -> None:
        """Raise StateRefused for a directory of another machine: its path is anybody's word. Raises
        Damaged for one that could not be restored anywhere."""
        if not self.is_own(record):
            # Damage is told first: no other target would help against that.
            for digest, _ in chunks.StateFiles(self._paths).read_index(record.index).chunks:
                chunks.StateFiles(self._paths).read_chunk(digest)
            raise StateRefused(
                f"{record.label!r} was saved by another machine"
                f" ({Machine.short(record.machine)}), at {record.path!r}: choose where it goes with"
                " --to"
            )


def suffix(store: Store, id: str) -> str:
    """Return what tells the names that this machine gives from those of others with which the lake
    exchanges states: two may save in one second."""
    # Lakes that never meet another one keep the short names.
    return f"-{Machine.short(id)}" if store.remote_names() else ""


def stamps(prefix: str, time: int, end: str, start: int = 1) -> Iterator[str]:
    """Yield names of a time, such as state-20250403-123456, all but the first with a number."""
    stamp = (
        f"{prefix}-{datetime.datetime.fromtimestamp(time // 1_000_000, datetime.UTC):%Y%m%d-%H%M%S}"
    )
    # From the second on: a state of the same second has the name already.
    for number in itertools.count(start):
        yield f"{stamp}{end}" if number == 1 else f"{stamp}{end}-{number}"


def place(store: Store) -> dict[str, Any]:
    """Return what a note of something unfinished names, so that nobody else carries it out: whose
    lake it is, where it lies, and the directory's own number, which a copy has not."""
    return {"machine": Machine.settle(store.paths).id, **_site(store)}


def _site(store: Store) -> dict[str, Any]:
    # A copy has the same content, and perhaps even the same path on another machine: not the inode.
    return {"lake": Machine.place(store.paths), "inode": os.stat(store.paths.root).st_ino}


def is_here(store: Store, note: Mapping[str, Any]) -> bool:
    """Whether a note is of this lake, by the members of `place`; one that has none is not."""
    # By any id of this lake: another may have been taken over since.
    is_own = note.get("machine") in Machine.read(store.paths).keys
    return is_own and all(note.get(name) == value for name, value in _site(store).items())


def set_aside(store: Store, path: str, file_type: str, note: Mapping[str, Any]) -> str:
    """Move a note of another lake to cache/aside; return what to tell about it."""
    folder = f"{store.paths.cache}/aside"
    Folder(folder).make_all()
    # Two notes may have one name.
    target = f"{folder}/{disk.random_hex(4)}-{os.path.basename(path)}"
    File(path).rename(target)
    # The name is gone from where it would be carried out before anything else happens.
    Folder(os.path.dirname(path)).sync()
    whose = f"in {str(note['lake'])!r}" if note.get("lake") else "in a lake that it does not name"
    return f"{file_type} that was interrupted {whose} is not finished here: its note is {target}"
