"""Which places can hold a shared lake: those that decide who takes a name (F22.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lakelog import document
from lakelog.errors import TransferRefused
from lakelog.keys import KeyRing
from lakelog.paths import FORMAT, KEYS, FileName
from lakelog.remotes import conditions, known
from lakelog.remotes.directory import DirectoryRemote
from lakelog.remotes.object_store import SINGLE_WRITER, ObjectStoreRemote
from lakelog.remotes.remote import Remote
from lakelog.remotes.site import Site
from lakelog.store import AttachmentRegistry

Bucket = ObjectStoreRemote | DirectoryRemote
_ELSEWHERE = ("ssh://", "oci://")


def checked_address(url: str) -> str:
    """Return the address of a bucket as it is stored. Raises TransferRefused."""
    address = known.checked_url(url)
    if address.startswith(_ELSEWHERE):
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


def join(remote: Remote, new_ring: NewRing = None) -> tuple[str, dict[str, Any]]:
    """Return what to remember of the service of a bucket, and what the lakelog.json there says; a
    bucket that is no shared lake becomes one, with the keys of a ring if it is new. Raises
    TransferRefused, Unreachable."""
    config = Site(remote).config()
    is_shared = AttachmentRegistry.MEMBER in (config.get("requires") or [])
    is_known = is_shared and config.get("proven") == remote.deciding
    # Once at least, as an address may be another service here; who made the lake tried it often.
    if remote.deciding and not (
        (is_known and conditions.decides(remote, 1, 2)) or conditions.decides(remote)
    ):
        raise TransferRefused(
            f"{remote.url}: {remote.deciding} does not refuse a name that is taken (If-None-Match):"
            " machines would overwrite what others have published; use a store that does"
        )
    is_current = is_shared and config["format"] >= FORMAT
    return remote.deciding, config if is_current else claim(remote, new_ring)


def claim(remote: Remote, new_ring: NewRing = None) -> dict[str, Any]:
    """Make a bucket a shared lake, which may have states that were pushed there; return what its
    lakelog.json says then. Raises TransferRefused, Unreachable."""
    site, member = Site(remote), AttachmentRegistry.MEMBER
    config = site.config()
    members = new_ring().config_members() if new_ring and not config else dict[str, Any]()
    members |= {"requires": [member, *members.get("requires", ())], "proven": remote.deciding}
    site.create(FORMAT, members)
    folders = (f"{KEYS.wals}/{name}" for name in site.volume.names(KEYS.wals))
    if any(FileName(name).wal for folder in folders for name in site.volume.names(folder)):
        raise TransferRefused(
            f"{remote.url} is a lake that programs append to: choose an empty place, and bring its"
            " states there by `lakelog push`"
        )
    body = document.decode(site.volume.read(KEYS.config))
    requires = body.get("requires") or []
    if member not in requires:
        # Else a program could open a directory of files as a lake of its own, and drop the
        # watermarks of all machines.
        body |= {"requires": [*requires, member], "proven": remote.deciding}
        site.volume.replace(KEYS.config, document.encode(body))
    return body
