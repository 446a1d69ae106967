"""A lake and its remote, where they are encrypted: both have one ring, so that what one encrypts
opens for the other.

The ring stands in the lakelog.json of either, and its data keys are wrapped by a master key that
neither has. A plain lake and an encrypted one exchange nothing: what is plain in one would be so in
the other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from lakelog import erasure
from lakelog.disk import disk
from lakelog.errors import InvalidKey, TransferRefused
from lakelog.keys import VAULT, KeyRing
from lakelog.protect import Protection
from lakelog.remotes.site import Site
from lakelog.store import AttachmentRegistry, Store
from lakelog.values import JsonObject

_T = TypeVar("_T")
_RING = "encryption", KeyRing.of_json
_PROTECTION = "protect", Protection.of_json


def ring_of(site: Site) -> KeyRing | None:
    """Return the ring of the lake at a remote, None for a plain lake or none. Raises
    TransferRefused."""
    return _member_of(site.config(), site, *_RING)


def _member_of(body: JsonObject, site: Site, name: str, parse: Callable[[Any], _T]) -> _T | None:
    """Return what a member of the lakelog.json there says, None where it has none. Raises
    TransferRefused."""
    try:
        return parse(body[name]) if name in body else None
    except InvalidKey as error:
        raise TransferRefused(f"{site.url}: {error}: refused, nothing was changed") from None


def config_members(store: Store) -> dict[str, Any]:
    """Return what the lakelog.json of a new remote of a lake gets besides."""
    # In this order: protected fields stand beside the ring, whose keys they may be wrapped by.
    members = store.paths.keys.ring.config_members() if store.paths.keys else {}
    protection = store.paths.protection
    return members | (protection.config_members(members) if protection else {})


def _protection_of(site: Site) -> Protection | None:
    """Return the protected fields of the lake at a remote. Raises TransferRefused."""
    return _member_of(site.config(), site, *_PROTECTION)


def _require_same_keys(store: Store, far_protection: Protection | None, site: Site) -> None:
    protection = store.paths.protection
    if protection and far_protection and protection.id != far_protection.id:
        raise TransferRefused(
            f"{site.url}: its fields are sealed with keys of other subjects"
            f" ({far_protection.id}, here {protection.id}): choose another place, or clone it"
        )


def share_with(store: Store, site: Site) -> None:
    """Give a remote the data keys of the lake, and say there which fields are protected, before it
    is pushed to. Raises TransferRefused."""
    body = site.config()
    # What a clone learnt since this lake last looked there holds for both, also where this one
    # protected nothing: what it has plain is noted there.
    _adopt(store, _member_of(body, site, *_PROTECTION), site)
    # What others pushed under a newer data key is read to tell that it is not here.
    adopt_keys(store, site, only_looks=True)
    # The remote has to say it before the first row is there that needs it.
    if _shared_members(store, site, body):
        site.change_config(functools.partial(_shared_members, store, site))


def _shared_members(store: Store, site: Site, body: JsonObject) -> JsonObject:
    """Return what the lakelog.json of a remote lacks of the keys and protected fields of the lake,
    as members of it. Raises TransferRefused."""
    members: JsonObject = {}
    protection, far_protection = store.paths.protection, _member_of(body, site, *_PROTECTION)
    if protection is not None and far_protection is not None:
        # A clone knows of none, and the lake there goes on refusing an older file of keys.
        destroyed = max(protection.destroyed, far_protection.destroyed)
        protection = replace(far_protection.joined(protection, disk.now_us()), destroyed=destroyed)
    if protection is not None and protection != far_protection:
        members = protection.config_members(body)
    ring = store.paths.keys.ring if store.paths.keys else None
    far_ring = _member_of(body, site, *_RING)
    if ring is not None and far_ring is not None:
        joined = _ring_for(ring, far_ring, site)
        members |= joined.config_members({**body, **members}) if joined != far_ring else {}
    if members and AttachmentRegistry.MEMBER in (body.get("requires") or ()):
        # Other machines would not learn of it.
        raise TransferRefused(
            f"{site.url}: keys and protected fields of a shared lake are changed on a machine that"
            " is attached to it, and this lake has others: nothing was pushed"
        )
    return members


def _ring_for(ring: KeyRing, far_ring: KeyRing, site: Site) -> KeyRing:
    """Return the ring that a remote has to have before it is pushed to. Raises TransferRefused."""
    lacks_nothing = ring.keys.keys() <= far_ring.keys.keys()
    if ring.master == far_ring.master and lacks_nothing:
        return far_ring
    if far_ring.master not in (ring.master, *ring.former) and ring.master in far_ring.former:
        # The master key was rotated there, and a key that was made here since is wrapped by the
        # former one: rows under it could be read by nobody else.
        if not lacks_nothing:
            raise _other_master(ring, far_ring, site)
        return far_ring
    # Both have keys that the other lacks after each made a new one: then the remote gets all.
    return ring if far_ring.keys.keys() <= ring.keys.keys() else _joined(ring, far_ring, site)


def adopt_protection(store: Store, site: Site, *, dry_run: bool) -> None:
    """Protect what a remote does from now on, before something is fetched. Raises
    TransferRefused."""
    far_protection = _protection_of(site)
    if dry_run:
        _require_same_keys(store, far_protection, site)
    else:
        _adopt(store, far_protection, site)


def _adopt(store: Store, far_protection: Protection | None, site: Site) -> None:
    _require_same_keys(store, far_protection, site)
    if far_protection is not None:
        erasure.adopt_protection(store, far_protection)


def adopt_keys(store: Store, site: Site, *, only_looks: bool) -> None:
    """Take over the data keys of a remote before something is read; where it `only_looks`, for
    this process alone. Raises TransferRefused, InvalidKey."""
    ring, far_ring = _rings(store, site)
    if ring is None or far_ring is None or far_ring.keys.keys() <= ring.keys.keys():
        return
    # Data keys of the remote encrypt what is about to come: without them it could not be read.
    joined = _joined(ring, far_ring, site)
    try:
        if only_looks:
            VAULT.learn({name: key.hex() for name, key in joined.unlocked().items()})
        else:
            store.change_keys(joined)
    except InvalidKey as error:
        raise TransferRefused(f"{site.url}: {error}") from None


def _joined(ring: KeyRing, far_ring: KeyRing, site: Site) -> KeyRing:
    """Return the ring with the data keys of the one there, too. Raises TransferRefused."""
    if ring.master != far_ring.master:
        raise _other_master(ring, far_ring, site)
    return ring.joined(far_ring)


def _other_master(ring: KeyRing, far_ring: KeyRing, site: Site) -> TransferRefused:
    return TransferRefused(
        f"{site.url}: the master key {far_ring.master} wraps data keys there, and {ring.master}"
        " others here: give both the same one by `lakelog key rotate FILE`, then run it again"
    )


def _rings(store: Store, site: Site) -> tuple[KeyRing | None, KeyRing | None]:
    """Return the rings of both. Raises TransferRefused where they do not fit."""
    ring, far_ring = store.paths.keys.ring if store.paths.keys else None, ring_of(site)
    if ring is None and far_ring is not None:
        raise TransferRefused(f"{site.url}: the lake there is encrypted, this one is not: clone it")
    if ring is not None and far_ring is None:
        raise TransferRefused(
            f"{site.url}: the lake there is not encrypted, this one is: choose another place"
        )
    if ring is not None and far_ring is not None and ring.ring != far_ring.ring:
        raise TransferRefused(
            f"{site.url}: the lake there is encrypted with other keys: choose another place, or"
            " clone it"
        )
    return ring, far_ring
