"""The manifests of a repository: each that is read is checked, and each is stored once.

Descriptors, by which the manifests of a registry name blobs and each other.

The tags of a registry for the documents of a lake, and back (F8.12).
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from lakelog.errors import TransferRefused
from lakelog.paths import FileName
from lakelog.remotes.registry import MANIFEST_TYPE, Repository
from lakelog.values import JsonObject

KIND, KEY = "vnd.lakelog.kind", "vnd.lakelog.key"
SNAPSHOT = "application/vnd.lakelog.snapshot.v1"
"""The type of a move or tag."""
LIST_TAG, ERASURE_TAG, NEXT_CONFIG_TAG = "_l", "_x", "_n"
"""How the tags of manifests that an index names begin, and those of documents of erasures."""
_EMPTY = b"{}"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_VALUES_MAX, _CONTAINERS_MAX = 400_000, 100_000
_LISTED, _LISTED_MAX = 64, 512
"""Objects of one list: on average, since it ends where a digest says so, and at most."""


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
        # A list that has a tag is kept by the registry: its bytes are there, too.
        if list_tag(digest) not in (self._tagged or ()):
            self._repository.put_manifest(list_tag(digest), data, MANIFEST_TYPE)
            if self._tagged is not None:
                self._tagged.add(list_tag(digest))
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
        # OCI wants a config in every manifest; the empty one is stored once.
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

    def forget_tags(self) -> None:
        """Some tags were deleted."""
        self._tagged = None


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
    # Registries and clients leave out empty annotations, which would change the digest.
    return {**members, "annotations": {TITLE: title}} if title else members


def is_descriptor(value: Any) -> bool:
    """Whether something that a registry gave can be used as a descriptor."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("digest"), str)
        and bool(_DIGEST.fullmatch(value["digest"]))
        # A bool is an int to Python, and no size.
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


CONFIG, CONFIG_TAG = "lakelog.json", "_lakelog"
_TAG_MAX = 128
TAG = re.compile(
    r"(?P<name>(?:[A-Za-z0-9.-]|__|_[0-9a-f]{2})+)(?:_m(?P<move>\d{1,12})|_s(?P<key>[0-9a-f]{16}))?"
)
PLAIN = re.compile(r"(?:[A-Za-z0-9.-]|__|_[0-9a-f]{2})+")
MOVE = re.compile(r"refs/heads/([^/]+)/(\d{12})\.json")
HINT = re.compile(r"refs/heads/([^/]+)/hint")
SIGNATURE = re.compile(r"refs/signatures/([^/]+)\.([0-9a-f]{16})\.json")
LAKE_TAG = re.compile(r"refs/tags/([^/]+)\.json")
ERASURE = re.compile(r"erasures/([0-9a-z.]+)")
NEXT_CONFIG = re.compile(r"gc/config-([0-9a-f]{64})\.json")


def tag_of(key: str) -> str:
    """Return the tag of a document's key. Raises TransferRefused for a name that is too long."""
    if key == CONFIG:
        return CONFIG_TAG
    if match := ERASURE.fullmatch(key):
        return f"{ERASURE_TAG}{match[1]}"
    if match := NEXT_CONFIG.fullmatch(key):
        return f"{NEXT_CONFIG_TAG}{match[1]}"
    if match := MOVE.fullmatch(key):
        return tag_for(FileName(match[1]).ref, f"_m{int(match[2])}")
    if match := HINT.fullmatch(key) or LAKE_TAG.fullmatch(key):
        return tag_for(FileName(match[1]).ref)
    match = SIGNATURE.fullmatch(key)
    if match is None:
        raise ValueError(key)
    return tag_for(FileName(match[1]).ref, f"_s{match[2]}")


def list_tag(digest: str) -> str:
    """Return the tag of a manifest that an index names, or named, by its digest."""
    return f"{LIST_TAG}{digest.removeprefix('sha256:')}"


def tag_for(name: str, suffix: str = "") -> str:
    """Return the tag of a branch, tag or signature. Raises TransferRefused for one too long."""
    tag = encoded(name) + suffix
    if len(tag) > _TAG_MAX:
        raise TransferRefused(f"{name[:40]!r}… is too long a name for a registry: choose another")
    return tag


def encoded(name: str) -> str:
    """Return a name in the characters that registries take."""
    # _ followed by hex, where registries allow letters, digits, dots and dashes only.
    encoded_name = re.sub(
        r"[^A-Za-z0-9.-]",
        lambda m: "__" if m[0] == "_" else "".join(f"_{byte:02x}" for byte in m[0].encode()),
        name,
    )
    return (
        # A tag of a registry may not begin with a dot or a dash.
        f"_{ord(encoded_name[0]):02x}{encoded_name[1:]}"
        if encoded_name[0] in ".-"
        else encoded_name
    )


def decoded(encoded_name: str) -> str:
    """Return the name that `encoded` was given. Raises UnicodeDecodeError."""
    # As latin-1 byte by byte: the escapes are of UTF-8 bytes, which decode together.
    raw = re.sub(r"__|_([0-9a-f]{2})", lambda m: chr(int(m[1], 16)) if m[1] else "_", encoded_name)
    return raw.encode("latin-1").decode()


def lists(objects: Iterable[tuple[str, Descriptor]]) -> Iterator[tuple[str, list[Descriptor]]]:
    """Yield objects, each with its kind, in lists of one kind that end where a digest says so: what
    is new in one place of a lake changes the list there and no other."""
    group: list[Descriptor] = []
    kind = ""
    for object_type, layer in objects:
        # One kind of objects in each list, so that clients can leave out what they do not need.
        if group and object_type != kind:
            yield kind, group
            group = []
        group.append(layer)
        kind = object_type
        ends = int(layer["digest"][-4:], 16) % _LISTED == 0
        if ends or len(group) >= _LISTED_MAX:
            yield kind, group
            group = []
    if group:
        yield kind, group
