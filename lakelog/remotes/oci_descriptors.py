"""Descriptors, by which the manifests of a registry name blobs and each other."""

from __future__ import annotations

import hashlib
import re
from typing import Any

TITLE = "org.opencontainers.image.title"
"""The annotation with the path that a layer has in a lake."""
OBJECT_MEDIA = {
    "segments": "application/vnd.apache.parquet",
    "ids": "application/vnd.lakelog.ids.v1",
    "manifests": "application/vnd.lakelog.manifest.v1+zstd",
}
"""The types of objects; those of the files of saved states follow."""
INDEX_MEDIA, CHUNK_MEDIA = (
    f"application/vnd.lakelog.state-{file_type}.v1+zstd" for file_type in ("index", "chunk")
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
Descriptor = dict[str, Any]


def descriptor(media_type: str, digest: str, size: int, title: str = "") -> Descriptor:
    """Return the descriptor of a blob or manifest, with its path in a lake as title."""
    members = {"mediaType": media_type, "digest": digest, "size": size}
    return {**members, "annotations": {TITLE: title}} if title else members


def is_descriptor(value: Any) -> bool:
    """Whether something that a registry gave can be used as a descriptor."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("digest"), str)
        and bool(_DIGEST.fullmatch(value["digest"]))
        and type(value.get("size")) is int
        and 0 <= value["size"] < 1 << 44
        and isinstance(value.get("annotations", {}), dict)
    )


def annotation(descriptor: Descriptor, name: str) -> str:
    """Return an annotation of a descriptor or manifest, "" where it has none."""
    members = descriptor.get("annotations")
    return str(members.get(name, "")) if isinstance(members, dict) else ""


def digest_of(data: bytes | bytearray) -> str:
    """Return the digest of bytes as registries write it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
