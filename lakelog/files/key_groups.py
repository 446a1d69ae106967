"""Keys of cursors by what they have in common: an inode, a beginning, a name."""

from __future__ import annotations

from collections.abc import Hashable

Groups = dict[Hashable, str | dict[str, None]]
"""Keys that have something in common, in the order they came; most groups are of one key, and a
dict for each would be most of what a cursor costs."""


def join(groups: Groups, name: Hashable, key: str) -> None:
    """Append a key to its group."""
    members = groups.get(name)
    if not members:
        groups[name] = key
    elif isinstance(members, str):
        groups[name] = {members: None, key: None}
    else:
        members[key] = None


def part(groups: Groups, name: Hashable, key: str) -> None:
    """Remove a key from its group; an empty group stays."""
    members = groups.get(name)
    if isinstance(members, dict):
        members.pop(key, None)
    elif members == key:
        groups[name] = {}


def keys_of(groups: Groups, name: Hashable) -> tuple[str, ...] | dict[str, None]:
    """The keys of a group, in the order they came."""
    members = groups.get(name, ())
    return (members,) if isinstance(members, str) else members
