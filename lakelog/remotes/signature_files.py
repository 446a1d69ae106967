"""Signatures on their way: those of a tag travel with the tag, those of a state with its branch.

They are stored as they came, since whoever carries them may have no key to check them. A signature
that is here stays, unless it has expired: a remote must not put an invalid one in its place.
"""

from __future__ import annotations

import functools
import os

from lakelog.disk import DOCUMENT_MAX, File, Folder, NotRegular, disk
from lakelog.errors import TransferRefused
from lakelog.paths import FileName
from lakelog.remotes import untrusted
from lakelog.remotes.carry import believing
from lakelog.remotes.site import Site
from lakelog.remotes.untrusted import NotBelieved
from lakelog.store import SignatureFile, Signatures, Store

_SIGNATURES_MAX = 100
"""Signatures of one tag or state at a remote at most."""


def send(store: Store, site: Site, tag: str, snapshot: str) -> int:
    """Send the signatures of a tag, or where it is "" of a state, which are not there or older
    there; return how many. Raises DamagedRef."""
    signatures = Signatures(store.paths)
    own_files = signatures.of_tag(tag) if tag else signatures.of_state(snapshot)
    count = 0
    for file in own_files:
        SignatureFile.read(file.path)
        name, data = os.path.basename(file.path), _own(file.path)
        remote_data = site.signature(name)
        # Newer by the time that it says, so that a renewal replaces what it renews.
        if remote_data is None or (remote_data != data and _time(remote_data) < _time(data)):
            site.put_signature(name, data, replace=remote_data is not None)
            count += 1
    return count


class SignedThere:
    """The signatures at a remote, which is asked once for their names."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def receive(self, store: Store, tag: str, snapshot: str) -> int:
        """Store the signatures of a tag, or where it is "" of a state, which are not here; return
        how many. Raises TransferRefused."""
        count = 0
        for name in self._names.get(tag or f"@{snapshot}", ()):
            path = f"{store.paths.signatures}/{name}"
            # What is here and valid is not even asked for.
            if File(path).exists() and not _has_expired(_own(path)):
                continue
            data = self._site.signature(name)
            if data is None:
                continue
            with believing(self._site.remote):
                untrusted.signature(data)
            # An expired one there is of no use; an older one must not replace a newer.
            if File(path).exists() and (_has_expired(data) or _time(_own(path)) >= _time(data)):
                continue
            Folder(store.paths.signatures).make_all()
            File(path).replace(data)
            count += 1
        return count

    @functools.cached_property
    def _names(self) -> dict[str, list[str]]:
        """File names by what they are of: a tag, or @ and the digest of a state."""
        names: dict[str, list[str]] = {}
        for name in sorted(self._site.signatures()):
            file = SignatureFile.parse(name)
            # A name becomes a path, so it has to be the one that a lake gives.
            if file is None or "/" in name or not (file.state or _is_tag(name, file)):
                continue
            owner_names = names.setdefault(file.tag or f"@{file.state}", [])
            owner_names.append(name)
            if len(owner_names) > _SIGNATURES_MAX:
                raise TransferRefused(
                    f"{self._site.url}: {owner_names[0]} is one of too many signatures"
                )
        return names


def _own(path: str) -> bytes:
    """Return the bytes of a signature here, b"" of what is no file."""
    try:
        return File(path).read(DOCUMENT_MAX)
    except NotRegular:
        return b""


def _is_tag(name: str, file: SignatureFile) -> bool:
    encoded = name.removesuffix(f".{file.key}.json")
    return FileName(encoded).is_ref and FileName(encoded).ref == file.tag


def _time(data: bytes) -> int:
    """When a signature was made (us), 0 for one that cannot be read."""
    try:
        return untrusted.signature(data).time
    except NotBelieved:
        return 0


def _has_expired(data: bytes) -> bool:
    """Whether a signature here says so, or cannot be read."""
    try:
        expires = untrusted.signature(data).expires
    except NotBelieved:
        return True
    return expires is not None and expires <= disk.now_us()
