"""The manifests of a repository: each that is read is checked, and each is stored once."""

from __future__ import annotations

import contextlib
import threading

import orjson

from lakelog.errors import TransferRefused
from lakelog.event.types import JsonObject
from lakelog.remotes.oci_descriptors import Descriptor, descriptor, digest_of, is_descriptor
from lakelog.remotes.registry import MANIFEST_TYPE, Repository

KIND = "vnd.lakelog.kind"
_EMPTY = b"{}"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_VALUES_MAX, _CONTAINERS_MAX = 400_000, 100_000


class OciManifests:
    """Reads and writes the manifests of one repository. Safe for threads."""

    def __init__(self, repository: Repository) -> None:
        self._repository, self._url = repository, repository.url
        self._lock = threading.Lock()
        self._tagged: set[str] | None = None
        self._has_empty = False

    def read(self, described: Descriptor) -> JsonObject:
        """Return the manifest of a descriptor. Raises TransferRefused."""
        data = self._repository.manifest(described["digest"])
        if data is None or digest_of(data) != described["digest"]:
            raise TransferRefused(
                f"{self._url}: the manifest {described['digest']} is missing or forged: refused"
            )
        return self.parsed(data)

    def parsed(self, data: bytes) -> JsonObject:
        """Return a manifest as an object. Raises TransferRefused."""
        # Few bytes of JSON can take many of memory.
        if data.count(b",") <= _VALUES_MAX and data.count(b"{") + data.count(b"[") <= (
            _CONTAINERS_MAX
        ):
            with contextlib.suppress(orjson.JSONDecodeError):
                body = orjson.loads(data)
                if isinstance(body, dict):
                    return body
        raise self.malformed()

    def descriptors(self, body: JsonObject, member: str) -> list[Descriptor]:
        """Return the descriptors that a manifest lists as one of its members. Raises
        TransferRefused."""
        descriptors = body.get(member)
        if not isinstance(descriptors, list) or not all(map(is_descriptor, descriptors)):
            raise self.malformed()
        return descriptors

    def malformed(self) -> TransferRefused:
        """Return the error for a manifest that is not as those of lakelog are."""
        return TransferRefused(f"{self._url}: a manifest is malformed: refused")

    def put_list(self, artifact: str, object_type: str, layers: list[Descriptor]) -> Descriptor:
        """Store a list of layers under a tag of its digest, unless it is there."""
        data = self.encoded(artifact, layers)
        digest = digest_of(data)
        tag = f"_l{digest.removeprefix('sha256:')}"
        if tag not in (self._tagged or ()):
            self._repository.put_manifest(tag, data, MANIFEST_TYPE)
            if self._tagged is not None:
                self._tagged.add(tag)
        list_descriptor = {"mediaType": MANIFEST_TYPE, "digest": digest, "size": len(data)}
        return {
            **list_descriptor,
            "artifactType": artifact,
            "annotations": {KIND: object_type or "ref"},
        }

    def encoded(
        self, artifact: str, layers: list[Descriptor], subject: Descriptor | None = None
    ) -> bytes:
        """Return the bytes of a manifest of some layers."""
        config = descriptor(_EMPTY_TYPE, digest_of(_EMPTY), len(_EMPTY))
        with self._lock:
            if not self._has_empty:
                self.put_blob(_EMPTY, _EMPTY_TYPE)
            self._has_empty = True
        return orjson.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "artifactType": artifact,
                "config": config,
                "layers": layers,
                **({"subject": subject} if subject else {}),
            }
        )

    def put_blob(self, data: bytes, media_type: str, title: str = "") -> Descriptor:
        """Store bytes, unless they are there."""
        digest = digest_of(data)
        if self._repository.blob_size(digest) is None:
            self._repository.put_blob(digest, iter([data]), len(data))
        return descriptor(media_type, digest, len(data), title)

    def list_tags(self) -> None:
        """Learn which tags there are: lists that have one are not stored again."""
        if self._tagged is None:
            self._tagged = set(self._repository.tags())
