"""What a repair did, and damaged files set aside: moved to cache/damaged, never to nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from lakelog.repair.checker import Report
from lakelog.store import disk, document
from lakelog.store.bootstrap import Store


@dataclass
class RepairOutcome:
    """What a repair did: files fetched from the copy, set aside, and in words what else was done,
    what is lost, and what each branch holds now (`kept`)."""

    fetched: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    after: Report | None = None


def set_aside(store: Store, path: str, outcome: RepairOutcome) -> None:
    """Move a damaged file out of the way, keeping its bytes."""
    if os.path.isfile(path):
        name = _aside(store, path, outcome)
        disk.rename(path, name)
        disk.sync_dir(os.path.dirname(path))


def replace(store: Store, path: str, data: bytes, outcome: RepairOutcome) -> None:
    """Put a whole file in the place of a damaged or missing one, in one step."""
    if os.path.isfile(path):
        disk.link(path, _aside(store, path, outcome))
    disk.make_dirs(os.path.dirname(path))
    disk.replace_whole(path, data)


def give_up(store: Store, kind: str, digests: list[str], outcome: RepairOutcome) -> None:
    """Set objects aside for good, and note that they are gone."""
    try:
        names = document.decode(disk.read(store.paths.lost))["names"]
    except (FileNotFoundError, document.NotIntact):
        names = {}
    for digest in digests:
        set_aside(store, store.paths.object(kind, digest), outcome)
        names[f"{kind}/{digest}"] = disk.now_us()
    if digests:
        disk.replace_whole(store.paths.lost, document.encode({"names": names}))


def _aside(store: Store, path: str, outcome: RepairOutcome) -> str:
    disk.make_dirs(store.paths.aside)
    name = f"{store.paths.aside}/{os.path.basename(path)}-{disk.now_us()}"
    outcome.aside.append(os.path.relpath(name, store.paths.root))
    return name
