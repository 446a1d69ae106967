"""An OCI registry as a remote: `oci://HOST[:PORT]/REPOSITORY`.

    tag                       what
    _lakelog                  lakelog.json
    <branch>_m<number>        a move; never replaced
    <branch>                  the newest move, for other clients, and the hint of its number
    <name>                    a tag
    <owner>_s<16 hex>         a signature of a tag, or of `_40` and the digest of a state
    _l<64 hex>                a manifest that a move or tag names, by its digest
    _x<file>                  a document of `erasures/`

In names, bytes that registries do not take are `_<2 hex>`, and `_` is `__`; so no two keys share a
tag. An object is the blob with the digest of its name; a state's file has one of its own. A move or
tag is an image index: its first manifest holds the document, the others list all objects that it
needs, about 64 each, so a registry keeps them and a push sends only the lists that changed. They
have tags of their own, since some registries collect a manifest without a tag although an index
names it. An index needs no other tag to be read: what is copied alone can be cloned. A signature
names what it signs as its subject, too, so that clients find it as a referrer. What a registry
lacks is a way to create a tag only if it is new: see docs/remotes.md.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from lakelog import document
from lakelog.disk import NotIntact
from lakelog.errors import InvalidName, TransferRefused
from lakelog.paths import CHUNK, KEYS, FileName, encode_name
from lakelog.remotes import oci_erasing
from lakelog.remotes import remote as remotes
from lakelog.remotes.oci_manifests import (
    CHUNK_MEDIA,
    CONFIG,
    CONFIG_TAG,
    ERASURE_TAG,
    HINT,
    INDEX_MEDIA,
    KEY,
    KIND,
    LAKE_TAG,
    MOVE,
    NEXT_CONFIG,
    OBJECT_MEDIA,
    PLAIN,
    SIGNATURE,
    SNAPSHOT,
    TAG,
    TITLE,
    Descriptor,
    OciManifests,
    annotation,
    decoded,
    descriptor,
    digest_of,
    encoded,
    list_tag,
    lists,
    tag_for,
    tag_of,
)
from lakelog.remotes.registry import INDEX_TYPE, MANIFEST_TYPE, Repository, divide
from lakelog.remotes.remote import DOCUMENT_MAX, SETTLING

ERASED_STATES = f"{KEYS.erasures}/states.json"
REF, OBJECTS, DOCUMENT = (
    f"application/vnd.lakelog.{content}.v1" for content in ("ref", "objects", "document")
)
_DOCUMENT_TYPE = f"{DOCUMENT}+json"
_CREATED = "org.opencontainers.image.created"
_LISTED_FOLDERS = ("segments", "manifests")
_WORKERS = 8
_TAGS_READ = 200
"""Tags in which a state's file is looked for, before it counts as missing."""
_OBJECT = re.compile(r"(segments|ids|manifests)/../([0-9a-f]{64})\.")


@dataclass(frozen=True)
class _Ref:
    """What a tag names: the document's key and descriptor, those of documents beside it by key, and
    its own descriptor."""

    key: str
    document: Descriptor
    further: dict[str, Descriptor]
    itself: Descriptor


def checked(url: str) -> str:
    """Return an address that names a repository. Raises TransferRefused."""
    divide(url)
    return url


class OciRemote(remotes.Remote):
    """The blobs and tags of a repository."""

    # Registries collect by themselves what no tag needs, and the lists here name everything.
    collects = is_lake_directory = False
    lists_objects = True

    def __init__(self, url: str) -> None:
        self.url = url
        self._repository = Repository(url)
        self._manifests = OciManifests(self._repository)
        self._lock = threading.RLock()
        self._needed: Mapping[str, int] = {}
        self._lists: set[str] = set()
        self._unread: list[Descriptor] = []
        self._subjects: dict[str, Descriptor] = {}
        self._has_all = False
        self._is_copied = False
        """Whether moves or tags were copied here without the documents of the lake."""
        self._states: dict[str, tuple[str, int]] = {}
        self._references: oci_erasing.TagReferences | None = None
        """What the tags here name, since it was last read for a listing of objects."""

    def stream(self, key: str, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes of an object or document."""
        if match := _OBJECT.match(key):
            yield from self._repository.blob(f"sha256:{match[2]}", start)
        elif key.startswith("states/"):
            digest, _ = self._state(key) or _raise(FileNotFoundError(key))
            yield from self._repository.blob(digest, start)
        elif match := HINT.fullmatch(key):
            yield self._hint(match[1])[start:]
        else:
            ref = self._ref(key) or _raise(FileNotFoundError(key))
            yield self._document(ref)[start:]

    def names(self, folder: str) -> Iterator[str]:
        """Yield the names of refs, of documents of erasures, and of objects that a list names: the
        latter cost a request for each tag."""
        if folder.startswith(_LISTED_FOLDERS):
            yield from self._tag_references().names(folder)
            return
        tags = list(self._repository.tags())
        if folder == "":
            # Tags without a lake are those of somebody else.
            yield from ("refs", CONFIG) if CONFIG_TAG in tags else tags
            return
        if folder == KEYS.erasures:
            yield from (t.removeprefix(ERASURE_TAG) for t in tags if t.startswith(ERASURE_TAG))
            return
        matches = [match for match in map(TAG.fullmatch, tags) if match]
        if folder.startswith("refs/heads"):
            yield from self._names_of_moves(folder, matches)
            return
        for match in matches:
            with contextlib.suppress(InvalidName, UnicodeDecodeError):
                name = decoded(match["name"])
                file = name if name.startswith("@") else encode_name(name)
                if folder == "refs/signatures" and match["key"]:
                    yield f"{file}.{match['key']}.json"
                elif folder == "refs/tags" and not (match["key"] or match["move"]):
                    yield f"{file}.json"

    def _tag_references(self) -> oci_erasing.TagReferences:
        # Once only: it costs a request for each tag.
        with self._lock:
            if self._references is None:
                self._references = oci_erasing.tag_references(self._repository, self._manifests)
            return self._references

    def _names_of_moves(self, folder: str, matches: list[re.Match[str]]) -> Iterator[str]:
        """Yield the names of branches, or of the moves of one."""
        moves = {(match["name"], int(match["move"])) for match in matches if match["move"]}
        having = {name for name, _ in moves}
        # Of a branch that was copied alone its own tag is all there is.
        alone = [m[0] for m in matches if not (m["key"] or m["move"]) and m["name"] not in having]
        for tag in alone[:_TAGS_READ]:
            ref = self._ref_of_tag(tag)
            if match := ref and MOVE.fullmatch(ref.key):
                with contextlib.suppress(InvalidName, UnicodeDecodeError):
                    moves.add((encoded(FileName(match[1]).ref), int(match[2])))
        branches = set()
        for name, number in sorted(moves):
            with contextlib.suppress(InvalidName, UnicodeDecodeError):
                file = encode_name(decoded(name))
                branches.add(file)
                if folder == f"refs/heads/{file}":
                    yield f"{number:012d}.json"
        if folder == "refs/heads":
            yield from branches

    def size(self, key: str) -> int | None:
        """The length of an object or document, None if it is not there."""
        if match := _OBJECT.match(key):
            return self._repository.blob_size(f"sha256:{match[2]}")
        if key.startswith("states/"):
            state = self._state(key)
            return state and state[1]
        ref = self._ref(key)
        return int(ref.document["size"]) if ref else None

    def put(self, key: str, read_chunks: Callable[[], Iterator[bytes]], size: int) -> None:
        """Store an object; the registry checks its digest."""
        if match := _OBJECT.match(key):
            self._repository.put_blob(f"sha256:{match[2]}", read_chunks(), size)
            return
        # The digest of a state's file is of its content, so that of its compressed blob is learnt
        # here.
        blob = self._manifests.put_blob(b"".join(read_chunks()), "")
        with self._lock:
            self._states[key] = (blob["digest"], blob["size"])

    def put_new(self, key: str, data: bytes) -> bool:
        """Store a document that must not exist, with the lists of what it needs."""
        tag = tag_of(key)
        # A branch and a tag of one name would share a tag of the registry.
        if (match := MOVE.fullmatch(key)) and int(match[2]) == 1:
            self._refuse_tag(match[1])
        body, media_type = self._written(key, data)
        # As late as can be, so that little time is between the look and the write.
        if self._repository.has_manifest(tag):
            self._refuse_branch(key)
            return False
        if not self._repository.put_manifest(tag, body, media_type, new=True):
            return False
        # Fischer's algorithm: whoever found no tag either has written by then, and the last one of
        # them has it. What hangs on a lake's tag is not worth a second for each.
        if match or NEXT_CONFIG.fullmatch(key):
            time.sleep(SETTLING)
        return self._repository.manifest(tag) == body

    def replace(self, key: str, data: bytes) -> None:
        """Store a document in the place of another; a hint makes the branch's tag name a move."""
        if match := HINT.fullmatch(key):
            self._point(match[1], int(document.decode(data)["number"]))
            return
        body, media_type = self._written(key, data)
        self._repository.put_manifest(tag_of(key), body, media_type)

    def without(self, needed: Mapping[str, str]) -> list[str]:
        """Return those of the moves and tags that do not list the object that each needs."""
        references = self._tag_references()
        return [k for k, object_key in needed.items() if not references.lists_object(k, object_key)]

    def rewrite(self, key: str, data: bytes) -> None:
        """Store a move or tag in its own place with other objects, which `publishing` says; what
        its tag named before has one of its own until it is purged."""
        ref = self._ref(key)
        body, media_type = self._written(key, data)
        if ref and ref.itself["digest"] != digest_of(body):
            before = self._repository.manifest(ref.itself["digest"])
            tag = list_tag(ref.itself["digest"])
            self._repository.put_manifest(tag, before or b"", ref.itself["mediaType"])
        self._repository.put_manifest(tag_of(key), body, media_type)

    def purge(self, erased: Collection[str], is_old: Callable[[bytes], bool]) -> bool:
        """Delete objects, documents that are old, and whatever names them."""
        for branch in self.names("refs/heads"):
            with contextlib.suppress(FileNotFoundError):
                self._point(branch, int(document.decode(self._hint(branch))["number"]))
        self._references = None
        return oci_erasing.purge(self._repository, self._manifests, erased, is_old)

    def remove(self, key: str) -> None:
        """Remove a ref; registries remove what no tag needs, by themselves."""
        ref = self._ref(key)
        if ref is None or not self._repository.delete(f"manifests/{ref.itself['digest']}"):
            tag = tag_of(key)
            raise TransferRefused(f"{self.url}: remove tag {tag} with the registry's own tools")

    @contextlib.contextmanager
    def publishing(self, objects: Mapping[str, int]) -> Iterator[None]:
        """Have the next ref list these objects."""
        self._needed = objects
        try:
            yield
        # For the next ref only: a list of objects belongs to one state.
        finally:
            self._needed = {}

    def close(self) -> None:
        """Close the connections."""
        self._repository.close()

    # --- reading ----------------------------------------------------------------------------------

    def _ref(self, key: str) -> _Ref | None:
        """Return what the tag of a key names, None where it is another key's, or nobody's."""
        ref = self._ref_of_tag(tag_of(key))
        if ref is None and (match := MOVE.fullmatch(key)):
            ref = self._ref_of_tag(tag_for(FileName(match[1]).ref))
        if ref is None and (key == CONFIG or (key == ERASED_STATES and self._is_copied)):
            return self._beside_a_ref(key)
        return ref if ref and ref.key == key else None

    def _ref_of_tag(self, tag: str) -> _Ref | None:
        data = self._repository.manifest(tag)
        return self._parsed_ref(data) if data else None

    def _beside_a_ref(self, key: str) -> _Ref | None:
        """Return a document of the lake as a move or tag has it, where those were copied alone."""
        names = (tag for tag in self._repository.tags() if PLAIN.fullmatch(tag))
        # At most so many tags are read: a repository of somebody else may have thousands.
        for tag in itertools.islice(names, _TAGS_READ):
            ref = self._ref_of_tag(tag)
            if ref and key in ref.further:
                self._is_copied = True
                return _Ref(key, ref.further[key], {}, ref.itself)
        return None

    def _parsed_ref(self, data: bytes) -> _Ref | None:
        body = self._manifests.parsed(data)
        is_index = oci_erasing.is_index(body)
        media_type = INDEX_TYPE if is_index else MANIFEST_TYPE
        itself = {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}
        lists: list[Descriptor] = []
        if is_index:
            document_manifest, *lists = self._manifests.descriptors(body, "manifests") or _raise(
                # An image whose config alone says so may be somebody else's: only our types are
                # believed.
                self._manifests.malformed()
            )
            body = self._manifests.read(document_manifest)
        elif body.get("artifactType") != DOCUMENT:
            return None
        document_layer, *layers = self._manifests.descriptors(body, "layers") or _raise(
            self._manifests.malformed()
        )
        with self._lock:
            fresh = [item for item in lists if item["digest"] not in self._lists]
            self._lists.update(item["digest"] for item in fresh)
            self._unread += [item for item in fresh if annotation(item, KIND) == "states"]
        further = {annotation(layer, TITLE): layer for layer in layers}
        return _Ref(annotation(document_layer, TITLE), document_layer, further, itself)

    def _document(self, ref: _Ref) -> bytes:
        if ref.document["size"] > DOCUMENT_MAX:
            # No read before its length is known: a descriptor may claim anything.
            raise TransferRefused(f"{self.url}: {ref.key} is too long: refused")
        data = bytearray()
        for chunk in self._repository.blob(ref.document["digest"]):
            data += chunk
            if len(data) > ref.document["size"]:
                break
        if digest_of(data) != ref.document["digest"]:
            raise TransferRefused(
                f"{self.url}: {ref.key} does not have the bytes of its digest: refused"
            )
        self._note_subject(bytes(data), ref.itself)
        return bytes(data)

    def _note_subject(self, data: bytes, itself: Descriptor) -> None:
        """Remember which manifest a state has here, for its signatures."""
        with contextlib.suppress(NotIntact):
            self._subjects[str(document.decode(document.split(data)[0]).get("snapshot"))] = itself

    def _hint(self, branch: str) -> bytes:
        data = self._repository.manifest(encoded(FileName(branch).ref))
        ref = data and self._parsed_ref(data)
        match = ref and MOVE.fullmatch(ref.key)
        if not match or match[1] != branch:
            raise FileNotFoundError(f"refs/heads/{branch}/hint")
        return document.encode({"branch": FileName(branch).ref, "number": int(match[2])})

    def _state(self, key: str) -> tuple[str, int] | None:
        """Return digest and length of the blob of a state's file, from the lists of refs that were
        read, or else of all tags; None where none lists it."""
        # Once only: it costs a request for each tag.
        with self._lock:
            self._read_lists(key)
            if key not in self._states and not self._has_all:
                names = (tag for tag in self._repository.tags() if PLAIN.fullmatch(tag))
                for tag in itertools.islice(names, _TAGS_READ):
                    if data := self._repository.manifest(tag):
                        self._parsed_ref(data)
                self._has_all = True
                self._read_lists(key)
            return self._states.get(key)

    def _read_lists(self, key: str) -> None:
        while self._unread and key not in self._states:
            for layer in self._manifests.descriptors(
                self._manifests.read(self._unread[-1]), "layers"
            ):
                self._states[annotation(layer, TITLE)] = (layer["digest"], layer["size"])
            self._unread.pop()

    # --- writing ----------------------------------------------------------------------------------

    def _written(self, key: str, data: bytes) -> tuple[bytes, str]:
        """Store all of a document but its tag; return what the tag has to name, and its type."""
        document_layer = self._manifests.put_blob(data, _DOCUMENT_TYPE, key)
        if not key.startswith(("refs/heads/", "refs/tags/")):
            return self._manifests.encoded(
                DOCUMENT, [document_layer], self._subject(key)
            ), MANIFEST_TYPE
        # With lakelog.json, so that whoever pulls all files has a lake.
        refs = filter(None, map(self._ref, (CONFIG, ERASED_STATES)))
        layers = [document_layer, *(ref.document for ref in refs)]
        self._manifests.list_tags()
        objects = ((k.partition("/")[0], self._layer(k, size)) for k, size in self._needed.items())
        groups = [(REF, "", layers), *((OBJECTS, *objects_list) for objects_list in lists(objects))]
        # Together: a state of many objects has hundreds of lists.
        with ThreadPoolExecutor(_WORKERS) as pool:
            manifests = list(pool.map(lambda group: self._manifests.put_list(*group), groups))
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "artifactType": SNAPSHOT,
            "manifests": manifests,
            "annotations": {_CREATED: created, KEY: key},
        }
        index = orjson.dumps(body)
        itself = {"mediaType": INDEX_TYPE, "digest": digest_of(index), "size": len(index)}
        self._note_subject(data, itself)
        return index, INDEX_TYPE

    def _subject(self, key: str) -> Descriptor | None:
        """Return what a signature is of, as far as it is known."""
        match = SIGNATURE.fullmatch(key)
        if match is None:
            return None
        if match[1].startswith("@"):
            return self._subjects.get(match[1][1:])
        ref = self._ref_of_tag(tag_for(FileName(match[1]).ref))
        return ref.itself if ref else None

    def _layer(self, key: str, size: int) -> Descriptor:
        if match := _OBJECT.match(key):
            return descriptor(OBJECT_MEDIA[match[1]], f"sha256:{match[2]}", size, key)
        state = self._state(key)
        if state is None:
            raise TransferRefused(f"{self.url}: {key} is missing there: push again")
        _, ending = FileName.of(key).state or _raise(ValueError(key))
        return descriptor(CHUNK_MEDIA if ending == CHUNK else INDEX_MEDIA, *state, key)

    def _point(self, branch: str, number: int) -> None:
        """Make the tag of a branch name a move, or a newer one that somebody made meanwhile."""
        name = FileName(branch).ref
        # Another push may have been faster: the tag must not go back to an older move.
        while data := self._repository.manifest(f"{encoded(name)}_m{number}"):
            self._repository.put_manifest(tag_for(name), data, INDEX_TYPE)
            number += 1

    def _refuse_branch(self, key: str) -> None:
        match = LAKE_TAG.fullmatch(key)
        if match and self._ref(key) is None:
            raise TransferRefused(
                f"{self.url}: {FileName(match[1]).ref!r} is the name of a branch there, or of"
                " somebody else's tag: name the tag differently"
            )

    def _refuse_tag(self, branch: str) -> None:
        name = FileName(branch).ref
        if self._repository.has_manifest(tag_for(name)):
            raise TransferRefused(
                f"{self.url}: {name!r} is the name of a tag there: name the branch differently"
            )


REMOTE_CLASS = OciRemote


def _raise(error: Exception) -> Any:
    raise error
