"""Whether one side of a push or pull contains all that the other one has.

States are thinned, so parents cannot be followed far. What can be relied on: a branch that was not
rewound since a move contains that move's events, and a rewind raises its generation (F7.5). So a
move that both sides had in common is remembered (known.py), and from there each side is judged by
its own log.
"""

from __future__ import annotations

from dataclasses import replace

from lakelog.errors import TransferRefused
from lakelog.lake import Lake
from lakelog.remotes import known
from lakelog.remotes.known import KnownBranch, KnownRemote, Place
from lakelog.remotes.site import Site
from lakelog.store.bootstrap import Store
from lakelog.store.ref import Head, Move

MAINTENANCE = {"compact", "maintain"}
"""Moves that change files and no events."""
_MOVES_MAX = 1_000


def settled(lake: Lake, branch: str) -> Head:
    """Publish what is pending on a branch and return its newest move. Raises UnknownRef."""
    if branch == lake.branch_name:
        return lake.settle()
    if branch not in lake.store.refs.branches():
        raise lake.store.refs.no_branch(branch)
    with Lake(lake.store, branch) as other:
        return other.settle()


def same_lake(store: Store, remote: KnownRemote, lake: str, dry_run: bool = False) -> KnownRemote:
    """Return what is known of a remote; of its branches nothing if another lake is there now.
    Raises TransferRefused."""
    if lake == store.lake_id:
        raise TransferRefused(f"{remote.url}: that is this lake, or a backup of it: choose another")
    if lake == remote.lake:
        return remote
    # What an earlier lake at that address had says nothing about this one.
    remote = replace(remote, lake=lake, branches={})
    if not dry_run:
        known.save(store, remote)
    return remote


def is_contained(store: Store, site: Site, branch: KnownBranch, local: Move, remote: Move) -> bool:
    """Whether the local branch has all events of the remote one, as far as can be told."""
    common = branch.common
    if (
        common
        and common.local.generation == local.generation
        and common.local.number <= local.number
        and common.remote.generation == remote.generation
        and _is_in_log(site, common.remote, remote)
        and _is_maintained(site, remote, common.remote.number)
    ):
        return True
    return _names(store, local, remote.snapshot)


def is_ahead(store: Store, site: Site, branch: KnownBranch, local: Move, remote: Move) -> bool:
    """Whether the remote branch has all events of the local one, as far as can be told."""
    common = branch.common
    if (
        common
        and common.remote.generation == remote.generation
        and common.remote.number <= remote.number
        and _is_in_log(site, common.remote, remote)
        and common.local.generation == local.generation
        and _is_unchanged(store, local, common.local.number)
    ):
        return True
    return _is_empty(store, local) or _is_named(site, local.snapshot, remote)


def _is_in_log(site: Site, place: Place, remote: Move) -> bool:
    """Whether the remote branch still has a move: a registry may keep one of two that were made at
    once, and have acknowledged both."""
    if place.number >= remote.number:
        return place.snapshot == remote.snapshot
    head = site.move(remote.branch, place.number)
    return head is None or head.move.snapshot == place.snapshot


def _is_maintained(site: Site, remote: Move, since: int) -> bool:
    """Whether the remote branch was only maintained since a move."""
    if not since <= remote.number < since + _MOVES_MAX:
        return False
    numbers = range(since + 1, remote.number + 1)
    found = (site.move(remote.branch, number) for number in numbers)
    return all(head is not None and head.move.op in MAINTENANCE for head in found)


def _is_unchanged(store: Store, local: Move, since: int) -> bool:
    """Whether the local branch was only maintained since a move."""
    for move in store.refs.newest_first(local.branch):
        if move.number <= since:
            break
        if move.number <= local.number and move.op not in MAINTENANCE:
            return False
    return since <= local.number


def _names(store: Store, local: Move, snapshot: str) -> bool:
    """Whether a move of the local branch since the last rewind names a state."""
    for move in store.refs.newest_first(local.branch):
        if move.generation != local.generation:
            return False
        if move.snapshot == snapshot:
            return True
    return False


def _is_named(site: Site, snapshot: str, remote: Move) -> bool:
    """Whether a late move of the remote branch since the last rewind names a state."""
    lowest = max(remote.number - _MOVES_MAX, 0)
    for number in range(remote.number, lowest, -1):
        head = site.move(remote.branch, number)
        if head is None or head.move.generation != remote.generation:
            return False
        if head.move.snapshot == snapshot:
            return True
    return False


def _is_empty(store: Store, local: Move) -> bool:
    """Whether nothing was ever published on the local branch."""
    state = store.manifests.of(local)
    return not (state.next_seq or state.pages or state.recent or state.ids)
