"""Keys of cursors by what they have in common: an inode, a beginning, a name."""

from __future__ import annotations

from typing import Any

Groups = dict[Any, str | dict[str, None]]
"""Keys that have something in common, in the order they came; most groups are of one key, and a
dict for each would be most of what a cursor costs."""


def join(groups: Groups, name: Any, key: str) -> None:
    """Append a key to its group."""
    there = groups.get(name)
    if not there:
        groups[name] = key
    elif isinstance(there, str):
        groups[name] = {there: None, key: None}
    else:
        there[key] = None


def part(groups: Groups, name: Any, key: str) -> None:
    """Remove a key from its group; an empty group stays."""
    there = groups.get(name)
    if isinstance(there, dict):
        there.pop(key, None)
    elif there == key:
        groups[name] = {}


def keys_of(groups: Groups, name: Any) -> tuple[str, ...] | dict[str, None]:
    """The keys of a group, in the order they came."""
    there = groups.get(name, ())
    return (there,) if isinstance(there, str) else there
