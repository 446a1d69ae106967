"""A lake and its remote, where they are encrypted: both have one ring, so that what one encrypts
opens for the other.

The ring stands in the lakelog.json of either, and its data keys are wrapped by a master key that
neither has. A plain lake and an encrypted one exchange nothing: what is plain in one would be so in
the other.
"""

from __future__ import annotations

from typing import Any

from lakelog.errors import InvalidKey, TransferRefused
from lakelog.keys.keyring import KeyRing
from lakelog.remotes.site import Site
from lakelog.store.bootstrap import Store


def ring_of(site: Site) -> KeyRing | None:
    """Return the ring of the lake at a remote, None for a plain lake or none. Raises
    TransferRefused."""
    body = site.config()
    if "encryption" not in body:
        return None
    try:
        return KeyRing.of_json(body["encryption"])
    except InvalidKey as error:
        raise TransferRefused(f"{site.url}: {error}: refused, nothing was changed") from None


def config_members(store: Store) -> dict[str, Any]:
    """Return what the lakelog.json of a new remote of a lake gets besides."""
    return store.paths.keys.ring.config_members() if store.paths.keys else {}


def share_with(store: Store, site: Site) -> None:
    """Give a remote the data keys of the lake, before it is pushed to. Raises TransferRefused."""
    own, far = _rings(store, site)
    if (
        own is None
        or far is None
        or (own.master == far.master and own.keys.keys() <= far.keys.keys())
    ):
        return
    if far.master not in (own.master, *own.former) and own.master in far.former:
        return  # the master key was rotated there
    try:
        joined = own if far.keys.keys() <= own.keys.keys() else own.joined(far)
    except InvalidKey as error:
        raise TransferRefused(f"{site.url}: {error}") from None
    site.change_config(joined.config_members(site.config()))


def adopt_from(store: Store, site: Site) -> None:
    """Take over the data keys of a remote, before something is fetched. Raises TransferRefused,
    InvalidKey."""
    own, far = _rings(store, site)
    if own is None or far is None or far.keys.keys() <= own.keys.keys():
        return
    try:
        store.change_keys(own.joined(far))
    except InvalidKey as error:
        raise TransferRefused(f"{site.url}: {error}") from None


def _rings(store: Store, site: Site) -> tuple[KeyRing | None, KeyRing | None]:
    """Return the rings of both. Raises TransferRefused where they do not fit."""
    own, far = store.paths.keys.ring if store.paths.keys else None, ring_of(site)
    if own is None and far is not None:
        raise TransferRefused(f"{site.url}: the lake there is encrypted, this one is not: clone it")
    if own is not None and far is None:
        raise TransferRefused(
            f"{site.url}: the lake there is not encrypted, this one is: choose another place"
        )
    if own is not None and far is not None and own.ring != far.ring:
        raise TransferRefused(
            f"{site.url}: the lake there is encrypted with other keys: choose another place, or"
            " clone it"
        )
    return own, far
