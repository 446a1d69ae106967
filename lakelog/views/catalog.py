"""Which views there are: those that lakelog brings, and those a lake's manifest defines.

A lake's own definition is an entry of kind `view` in its manifest, so it is part of every
snapshot after it: an older state has the definition it had, and a rollback takes it back.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lakelog.disk import disk
from lakelog.entries import Record, Removal
from lakelog.errors import InvalidView
from lakelog.manifest import Manifest
from lakelog.refs import Head
from lakelog.runtime.closest import did_you_mean
from lakelog.runtime.lazy import Lazy
from lakelog.store import Store
from lakelog.views.definition import ViewDefinition, parse

if TYPE_CHECKING:
    from lakelog import moves
else:
    moves = Lazy("lakelog.moves")

WHAT = "view"
_FOLDER = Path(__file__).parent / "sql"
BUILT_IN = sorted(file.stem for file in _FOLDER.glob("*.sql"))
"""The views that lakelog brings: the files of a folder."""


@functools.cache
def built_in() -> dict[str, ViewDefinition]:
    """The views that lakelog brings, by name."""
    return {name: parse((_FOLDER / f"{name}.sql").read_text("utf-8"), name) for name in BUILT_IN}


@dataclass(frozen=True, slots=True)
class StoredView:
    """A view as a manifest defines it: the text of the definition, its version, and when it was
    created (us)."""

    name: str
    sql: str
    version: str
    time: int

    def entry(self) -> Record:
        """The manifest entry of the view (F6.14)."""
        members = {"sql": self.sql, "version": self.version, "time": self.time}
        return Record(WHAT, self.name, members)

    @classmethod
    def from_entry(cls, record: Record) -> StoredView:
        """Return the view that an entry holds. Raises KeyError where it is malformed."""
        members = record.members
        return cls(record.key, members["sql"], members["version"], members["time"])


def stored_views(store: Store, state: Manifest) -> dict[str, StoredView]:
    """The views that a state defines, by name. Raises DamagedManifest."""
    views = store.manifests.read_records(state, WHAT, StoredView.from_entry)
    return {view.name: view for view in views}


def find(name: str, views: dict[str, StoredView]) -> ViewDefinition:
    """Return the definition of a view of this name, or with this text, which has several lines.

    Raises InvalidView where there is none of the name.
    """
    if "\n" in name:
        return parse(name)
    if name in views:
        return parse(views[name].sql, name)
    if name in built_in():
        return built_in()[name]
    near = did_you_mean(name, [*built_in(), *views])
    raise InvalidView(f"no view {name!r}: {near or 'see `lakelog views`'}")


def check_free(store: Store, branch: str, name: str, replace: bool = False) -> None:
    """Raise InvalidView if a view of that name cannot be made."""
    if name in built_in():
        raise InvalidView(f"{name!r} is a built-in view: choose another name")
    state = store.state(branch)
    if name in stored_views(store, state) and not replace:
        raise InvalidView(f"view {name!r} exists: `lakelog view drop {name}` first, or --replace")


def create(store: Store, branch: str, definition: ViewDefinition, *, replace: bool = False) -> Head:
    """Publish a checked definition, and return the head that has it. Raises InvalidView where the
    name is taken, also by another process since `check_free`."""
    view = StoredView(definition.name, definition.text, definition.version, disk.now_us())

    def plan(_: Head, state: Manifest) -> moves.Change:
        # Again within the turn of the head that takes it: another process may have made one
        # meanwhile.
        check_free(store, branch, definition.name, replace)
        return moves.Change(
            "view", f"{definition.name} {definition.version}", entries=(view.entry(),)
        )

    head = moves.publish(store, branch, plan)
    assert head is not None
    return head


def drop(store: Store, branch: str, name: str) -> Head:
    """Publish that a view is no more. Raises InvalidView where there is none."""

    def plan(_: Head, state: Manifest) -> moves.Change:
        if name not in stored_views(store, state):
            if name in built_in():
                raise InvalidView(f"the view {name!r} is built in and cannot be dropped")
            near = did_you_mean(name, stored_views(store, state))
            raise InvalidView(f"no view {name!r}: {near or 'see `lakelog views`'}")
        return moves.Change("view", f"drop {name}", entries=(Removal(WHAT, name),))

    head = moves.publish(store, branch, plan)
    assert head is not None
    return head
