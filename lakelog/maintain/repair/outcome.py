"""The outcome of a repair, and setting files aside: moved to cache/damaged, never deleted."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from lakelog import document
from lakelog.disk import File, Folder, NotIntact, disk
from lakelog.maintain.reachability import path_of
from lakelog.maintain.repair.checker import Report
from lakelog.store import Store


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
        if os.path.isfile(path):
            name = self._unused_name(store, path)
            File(path).rename(name)
            Folder(os.path.dirname(path)).sync()

    def replace(self, store: Store, path: str, data: bytes) -> None:
        """Replace a damaged or missing file in one step."""
        # Linked, not moved, so that there is a file of that name at every moment.
        if os.path.isfile(path):
            File(path).link(self._unused_name(store, path))
        Folder(os.path.dirname(path)).make_all()
        File(path).replace(data)

    def give_up(self, store: Store, names: list[str]) -> None:
        """Set files aside for good, and note them in gc/lost.json (F8.2): objects by
        `kind/digest`, chunks and indices of state directories by their paths in the lake."""
        if not names:
            return
        try:
            lost_names = document.decode(File(store.paths.lost).read())["names"]
        except (FileNotFoundError, NotIntact):
            lost_names = {}
        for name in names:
            self.set_aside(store, path_of(store, name))
            lost_names[name] = disk.now_us()
        File(store.paths.lost).replace(document.encode({"names": lost_names}))

    def _unused_name(self, store: Store, path: str) -> str:
        """Note and return a path in cache/damaged for a file."""
        # With the time: a file of one name may be damaged more than once.
        Folder(store.paths.damaged).make_all()
        name = f"{store.paths.damaged}/{os.path.basename(path)}-{disk.now_us()}"
        self.aside.append(os.path.relpath(name, store.paths.root))
        return name
