"""The outcome of a repair, and setting files aside: moved to cache/damaged, never deleted."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from lakelog.maintain.repair.checker import Report
from lakelog.store import disk, document
from lakelog.store.bootstrap import Store


@dataclass
class RepairOutcome:
    """What a repair did: files fetched from the copy and set aside (`aside`), and as lines of text
    what else was done, what is lost, and what each branch has now (`kept`)."""

    fetched: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    after: Report | None = None

    def set_aside(self, store: Store, path: str) -> None:
        """Move a damaged file out of the way, keeping its bytes."""
        set_aside(store, path, self)

    def replace(self, store: Store, path: str, data: bytes) -> None:
        """Replace a damaged or missing file in one step."""
        replace(store, path, data, self)


def set_aside(store: Store, path: str, outcome: RepairOutcome) -> None:
    """Move a damaged file out of the way, keeping its bytes."""
    if os.path.isfile(path):
        name = _unused_name(store, path, outcome)
        disk.rename(path, name)
        disk.sync_dir(os.path.dirname(path))


def replace(store: Store, path: str, data: bytes, outcome: RepairOutcome) -> None:
    """Replace a damaged or missing file in one step."""
    # Linked, not moved, so that there is a file of that name at every moment.
    if os.path.isfile(path):
        disk.link(path, _unused_name(store, path, outcome))
    disk.make_dirs(os.path.dirname(path))
    disk.replace_whole(path, data)


def give_up(store: Store, object_type: str, digests: list[str], outcome: RepairOutcome) -> None:
    """Set objects aside for good, and note them in gc/lost.json (F8.2)."""
    names = {
        f"{object_type}/{digest}": store.paths.object(object_type, digest) for digest in digests
    }
    _give_up_files(store, names, outcome)


def give_up_states(store: Store, names: list[str], outcome: RepairOutcome) -> None:
    """Do so with chunks and indices of state directories, named by their paths in the lake."""
    _give_up_files(store, {name: f"{store.paths.root}/{name}" for name in names}, outcome)


def _give_up_files(store: Store, paths: dict[str, str], outcome: RepairOutcome) -> None:
    try:
        names = document.decode(disk.read(store.paths.lost))["names"]
    except (FileNotFoundError, document.NotIntact):
        names = {}
    for name, path in paths.items():
        set_aside(store, path, outcome)
        names[name] = disk.now_us()
    if paths:
        disk.replace_whole(store.paths.lost, document.encode({"names": names}))


def _unused_name(store: Store, path: str, outcome: RepairOutcome) -> str:
    """Note and return a path in cache/damaged for a file."""
    # With the time: a file of one name may be damaged more than once.
    disk.make_dirs(store.paths.damaged)
    name = f"{store.paths.damaged}/{os.path.basename(path)}-{disk.now_us()}"
    outcome.aside.append(os.path.relpath(name, store.paths.root))
    return name
