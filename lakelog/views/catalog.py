"""Which views there are: those that lakelog brings, and those a lake's manifest defines.

A lake's own definition is an entry of kind `view` in its manifest, so it is part of every
snapshot after it: an older state has the definition it had, and a rollback takes it back.
"""

from __future__ import annotations

import functools
from importlib import resources

from lakelog.closest import did_you_mean
from lakelog.errors import InvalidView
from lakelog.store import disk
from lakelog.store.bootstrap import Store
from lakelog.store.manifest import Entry, Manifest
from lakelog.store.publish import Change, publish
from lakelog.store.refs import Head
from lakelog.views.definition import Definition, parse

BUILT_IN = (
    "status items throughput errors failures reliability health rates percentiles cardinality"
    " sessions funnel stuck durations"
).split()


@functools.cache
def built_in() -> dict[str, Definition]:
    """The views that lakelog brings, by name."""
    folder = resources.files("lakelog.views") / "sql"
    texts = {name: (folder / f"{name}.sql").read_text("utf-8") for name in BUILT_IN}
    return {name: parse(text, name) for name, text in texts.items()}


def own(store: Store, state: Manifest) -> dict[str, Entry]:
    """The entries of the views that a state defines, by name."""
    return {e["key"]: e for e in store.manifests.entries(state, "view")}


def find(name: str, entries: dict[str, Entry]) -> Definition:
    """Return a view's definition. Raises InvalidView where there is none of the name."""
    if name in entries:
        return parse(entries[name]["sql"], name)
    if name in built_in():
        return built_in()[name]
    near = did_you_mean(name, [*built_in(), *entries])
    raise InvalidView(f"no view {name!r}: {near or 'see `lakelog views`'}")


def check_free(store: Store, branch: str, name: str, replace: bool = False) -> None:
    """Raise InvalidView if a view of that name cannot be made."""
    if name in built_in():
        raise InvalidView(f"{name!r} is a built-in view: choose another name")
    state = store.state(branch)
    if name in own(store, state) and not replace:
        raise InvalidView(f"view {name!r} exists: `lakelog view drop {name}` first, or --replace")


def create(store: Store, branch: str, definition: Definition, *, replace: bool = False) -> Head:
    """Publish a checked definition. Raises InvalidView where the name is taken."""
    entry: Entry = {
        "add": "view",
        "key": definition.name,
        "sql": definition.text,
        "version": definition.version,
        "time": disk.now_us(),
    }

    def plan(_: Head, state: Manifest) -> Change:
        check_free(store, branch, definition.name, replace)
        return Change("view", f"{definition.name} {definition.version}", entries=(entry,))

    head = publish(store, branch, plan)
    assert head is not None
    return head


def drop(store: Store, branch: str, name: str) -> Head:
    """Publish that a view is no more. Raises InvalidView where there is none."""

    def plan(_: Head, state: Manifest) -> Change:
        if name not in own(store, state):
            if name in built_in():
                raise InvalidView(f"the view {name!r} is built in and cannot be dropped")
            near = did_you_mean(name, own(store, state))
            raise InvalidView(f"no view {name!r}: {near or 'see `lakelog views`'}")
        return Change("view", f"drop {name}", entries=({"del": "view", "key": name},))

    head = publish(store, branch, plan)
    assert head is not None
    return head
