"""Signatures: documents beside the tags and states that they sign.

    refs/signatures/<tag>.<key>.json       of a tag; <tag> is encoded as in refs/tags
    refs/signatures/@<digest>.<key>.json   of a state; <key>: 16 digits of the key's id

A signature is a DSSE envelope (payloadType, payload, signatures) with the checksum of a document.
This module stores envelopes and does not judge them: that takes cryptography, and keys. gc removes
a signature whose tag or state is gone; a signature keeps neither.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from lakelog import document
from lakelog.disk import DOCUMENT_MAX, File, Folder, NotIntact
from lakelog.errors import DamagedRef
from lakelog.paths import FileName, Paths, encode_name
from lakelog.values import JsonObject

_NAME = re.compile(r"(?:@([0-9a-f]{64})|([a-z0-9._%-]+))\.([0-9a-f]{16})\.json")
_SHORT = 16


@dataclass(frozen=True)
class SignatureFile:
    """Where a signature is, and what its name says: of a `tag`, or of a `state` (digest), by the
    key whose id begins with `key`. The other one of both is ""."""

    MEMBERS: ClassVar[set[str]] = {"payloadType", "payload", "signatures"}

    path: str
    tag: str
    state: str
    key: str

    @staticmethod
    def parse(path: str) -> SignatureFile | None:
        """Return what the name of a file says, None for one that is no signature's."""
        match = _NAME.fullmatch(path.rpartition("/")[2])
        return (
            SignatureFile(path, FileName(match[2] or "").ref, match[1] or "", match[3])
            if match
            else None
        )

    @staticmethod
    def read(path: str) -> JsonObject:
        """Return the envelope in a file. Raises DamagedRef, FileNotFoundError."""
        try:
            body = document.decode(File(path).read(DOCUMENT_MAX))
        except NotIntact as error:
            raise DamagedRef(path, f"the signature is damaged: {error}") from None
        if body.keys() != SignatureFile.MEMBERS:
            raise DamagedRef(path, "it is another document")
        return body


class Signatures:
    """The signatures of a lake."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def listing(self) -> list[SignatureFile]:
        """Return the signatures of a lake, ordered by path."""
        names = sorted(Folder(self._paths.signatures).names())
        parsed = (SignatureFile.parse(f"{self._paths.signatures}/{name}") for name in names)
        return [file for file in parsed if file is not None]

    def of_tag(self, tag: str) -> list[SignatureFile]:
        """Return the signatures of a tag."""
        return [file for file in self.listing() if file.tag == tag]

    def of_state(self, digest: str) -> list[SignatureFile]:
        """Return the signatures of a state that name no tag."""
        return [file for file in self.listing() if file.state == digest]

    def write(self, tag: str, digest: str, key: str, envelope: JsonObject) -> str:
        """Store the signature of a tag, or where `tag` is "" of a state, by the key with an id;
        replace an older one of that key. Durable when this returns the path."""
        name = encode_name(tag) if tag else f"@{digest}"
        path = f"{self._paths.signatures}/{name}.{key[:_SHORT]}.json"
        Folder(self._paths.signatures).make_all()
        File(path).replace(document.encode(envelope))
        return path

    def remove(self, files: list[SignatureFile]) -> None:
        """Remove signatures, durably."""
        for file in files:
            File(file.path).remove()
        if files:
            Folder(self._paths.signatures).sync()

    def remove_of_tag(self, tag: str) -> None:
        """Remove the signatures of a tag, durably."""
        self.remove(self.of_tag(tag))

    def unowned(self, has_state: Callable[[str], bool]) -> Iterator[SignatureFile]:
        """Yield the signatures whose tag, or state by `has_state` of its digest, is gone."""
        for file in self.listing():
            tag = File(self._paths.tag(file.tag)) if file.tag else None
            if not (tag.exists() if tag else has_state(file.state)):
                yield file
