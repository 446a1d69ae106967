"""Which places can hold a shared lake: those that decide who takes a name (F22.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lakelog.errors import TransferRefused
from lakelog.keys import KeyRing
from lakelog.paths import FORMAT, KEYS, FileName
from lakelog.remotes import conditions, known
from lakelog.remotes.directory import DirectoryRemote
from lakelog.remotes.object_store import SINGLE_WRITER, ObjectStoreRemote
from lakelog.remotes.remote import Remote
from lakelog.remotes.site import Site, requiring
from lakelog.store import AttachmentRegistry

Bucket = ObjectStoreRemote | DirectoryRemote


def checked_address(url: str) -> str:
    """Return the address of a bucket as it is stored. Raises TransferRefused."""
    address = known.checked_url(url)
    if not issubclass(known.class_of(address), Bucket):
        raise TransferRefused(
            f"{url}: a shared lake is in a bucket (s3://BUCKET/PREFIX, az://, gs://), or in a"
            " directory; to copy states there use `lakelog push`"
        )
    if address.endswith(f"?{SINGLE_WRITER}"):
        raise TransferRefused(f"{url}: a shared lake has many writers: leave out ?{SINGLE_WRITER}")
    return address


def open_bucket(url: str) -> Bucket:
    """Connect to a bucket. Raises MissingPackage, TransferRefused, Unreachable."""
    remote = known.open_remote(url)
    assert isinstance(remote, Bucket)
    return remote


NewRing = Callable[[], KeyRing] | None


def join(remote: Remote, new_ring: NewRing = None) -> tuple[dict[str, Any], bool]:
    """Return what the lakelog.json of a bucket says, and whether there was none before; a bucket
    that is no shared lake becomes one, with the keys of a ring if it is new. Raises
    TransferRefused, Unreachable."""
    config = Site(remote).config()
    is_known = _is_shared(config) and config.get("proven") == remote.deciding
    # Once at least, as an address may be another service here; who made the lake tried it often.
    if remote.deciding and not conditions.decides(remote, *((1, 2) if is_known else ())):
        raise TransferRefused(
            f"{remote.url}: {remote.deciding} does not refuse a name that is taken (If-None-Match):"
            " machines would overwrite what others have published; use a store that does"
        )
    return _claim(remote, config, new_ring), not config


def _is_shared(config: dict[str, Any]) -> bool:
    return AttachmentRegistry.MEMBER in (config.get("requires") or [])


def _claim(remote: Remote, config: dict[str, Any], new_ring: NewRing) -> dict[str, Any]:
    """Make a bucket a shared lake, which may have states that were pushed there; return what its
    lakelog.json says then."""
    site, member = Site(remote), AttachmentRegistry.MEMBER
    # A store of objects has writers' files only where somebody copied a lake with its lakelog.json.
    if (config or not remote.deciding) and not _is_shared(config):
        _refuse_writers(site)
    if not config:
        members = new_ring().config_members() if new_ring else dict[str, Any]()
        members |= {"requires": [member, *members.get("requires", ())], "proven": remote.deciding}
        config = site.make_lake(FORMAT, members)
    if not _is_shared(config):
        # Else a program could open a directory of files as a lake of its own, and drop the
        # watermarks of all machines.
        proven = {"proven": remote.deciding}
        config = site.change_config(lambda body: requiring(body, member) | proven)
    if config["format"] < FORMAT:
        config = site.change_config(lambda _: {"format": FORMAT})
    return config


def _refuse_writers(site: Site) -> None:
    folders = (f"{KEYS.wals}/{name}" for name in site.volume.names(KEYS.wals))
    if any(FileName(name).wal for folder in folders for name in site.volume.names(folder)):
        raise TransferRefused(
            f"{site.url} is a lake that programs append to: choose an empty place, and bring its"
            " states there by `lakelog push`"
        )
