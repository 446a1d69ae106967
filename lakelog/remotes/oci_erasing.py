"""Deleting erased objects from a registry, and the lists that name them.

A registry keeps a blob while a manifest names it. So a move or tag that listed erased objects was
written again first, with a tag `_l` for what it named before; then blobs, indexes and lists are
deleted by their digests. What is left is the registry's: its garbage collection frees the bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from lakelog.errors import TransferRefused
from lakelog.paths import FileName
from lakelog.remotes import remote as remotes
from lakelog.remotes.oci_manifests import (
    KEY,
    LIST_TAG,
    MOVE,
    SNAPSHOT,
    TITLE,
    Descriptor,
    OciManifests,
    annotation,
    digest_of,
    tag_for,
    tag_of,
)
from lakelog.remotes.registry import Repository
from lakelog.values import JsonObject


@dataclass
class TagReferences:
    """What the tags of a repository name, by digest: the lists of each index, the layers of each
    list, the indexes of each move and tag, and the layers of all else."""

    indexes: dict[str, set[str]] = field(default_factory=dict)
    lists: dict[str, list[Descriptor]] = field(default_factory=dict)
    in_use: dict[str, set[str]] = field(default_factory=dict)
    strangers: set[str] = field(default_factory=set)

    def names(self, folder: str) -> set[str]:
        """The names in a folder of objects that some list names."""
        prefix = f"{folder}/"
        keys = (annotation(layer, TITLE) for layers in self.lists.values() for layer in layers)
        return {k.removeprefix(prefix).partition("/")[0] for k in keys if k.startswith(prefix)}

    def lists_object(self, key: str, object_key: str) -> bool:
        """Whether a move or tag lists an object."""
        layers = (
            layer
            for i in self.in_use.get(key, ())
            for x in self.indexes[i]
            for layer in self.lists[x]
        )
        return any(annotation(layer, TITLE) == object_key for layer in layers)


def is_index(body: JsonObject) -> bool:
    """Whether a manifest is the index of a move or tag."""
    # Older clients that copy an index leave its artifactType out.
    return body.get("artifactType") == SNAPSHOT or bool(annotation(body, KEY))


def purge(
    repository: Repository,
    manifests: OciManifests,
    erased: Collection[str],
    is_old: Callable[[bytes], bool],
) -> bool:
    """Delete the objects `erased`, documents that are old, and whatever names them; return whether
    the registry deleted all. Raises TransferRefused where a move or tag still needs one."""
    references = tag_references(repository, manifests)
    stale = {
        digest
        for digest, layers in references.lists.items()
        if any(annotation(layer, TITLE) in erased for layer in layers)
        or _is_of_old_ref(repository, layers, is_old)
    }
    indexes = {digest for digest, lists in references.indexes.items() if lists & stale}
    if not all(map(indexes.isdisjoint, references.in_use.values())):
        raise TransferRefused(f"{repository.url}: somebody pushed meanwhile: push again")
    needed = set[str]().union(*(references.indexes[i] for i in references.indexes.keys() - indexes))
    lists = stale.union(*(references.indexes[i] for i in indexes)) - needed
    needed_blobs = references.strangers | _blobs(references, references.lists.keys() - lists)
    # Blobs first: later nobody could tell which they were. Some registries want it the other way.
    waiting = [
        b for b in _blobs(references, lists) - needed_blobs if not repository.delete(f"blobs/{b}")
    ]
    deletions = [repository.delete(f"manifests/{digest}") for digest in (*indexes, *lists)]
    manifests.forget_tags()
    for blob in waiting:
        repository.delete(f"blobs/{blob}")  # many leave that to their garbage collection
    return all(deletions)


def _blobs(references: TagReferences, lists: Collection[str]) -> set[str]:
    return {layer["digest"] for digest in lists for layer in references.lists[digest]}


def _is_of_old_ref(
    repository: Repository, layers: list[Descriptor], is_old: Callable[[bytes], bool]
) -> bool:
    """Whether a list begins with a move or tag that is old, or gone since a purge was cut off."""
    if not layers or not annotation(layers[0], TITLE).startswith("refs/"):
        return False
    with contextlib.suppress(FileNotFoundError):
        return is_old(b"".join(repository.blob(layers[0]["digest"])))
    return True


def tag_references(repository: Repository, manifests: OciManifests) -> TagReferences:
    """Return what the tags of a repository name, by a request for each."""
    references = TagReferences()
    for tag, digest, body in _read(repository, manifests):
        if is_index(body):
            references.indexes[digest] = {
                d["digest"] for d in manifests.descriptors(body, "manifests")
            }
            if tag in _own_tags(annotation(body, KEY)):
                references.in_use.setdefault(annotation(body, KEY), set()).add(digest)
        elif tag.startswith(LIST_TAG):
            references.lists[digest] = manifests.descriptors(body, "layers")
        else:
            references.strangers |= {layer["digest"] for layer in body.get("layers", ())}
    # Of an index that another client copied, lists have no tags.
    for digest in set[str]().union(*references.indexes.values()) - references.lists.keys():
        if data := repository.manifest(digest):
            references.lists[digest] = manifests.descriptors(manifests.parsed(data), "layers")
        else:
            references.lists[digest] = []
    return references


def _read(repository: Repository, manifests: OciManifests) -> Iterator[tuple[str, str, JsonObject]]:
    """Yield each tag with the digest and the content of what it names."""

    def read(tag: str) -> bytes | None:
        return remotes.retrying(lambda: repository.manifest(tag))

    for tag, data in remotes.in_parallel(read, list(repository.tags())):
        if data:
            yield tag, digest_of(data), manifests.parsed(data)


def _own_tags(key: str) -> tuple[str, ...]:
    """The tags by which lakelog finds a move or tag."""
    with contextlib.suppress(ValueError, TransferRefused):
        match = MOVE.fullmatch(key)
        return tag_of(key), *([tag_for(FileName(match[1]).ref)] if match else ())
    return ()
