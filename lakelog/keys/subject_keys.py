"""The keys of subjects, in one small file outside of every lake.

The file has no key of any subject, but secrets from which the keys of all subjects are derived that
were not destroyed: nodes of a binary tree of 64 levels (Goldreich, Goldwasser and Micali, 1986).

    leaf(subject)     the first 8 bytes of HMAC-SHA256(id, u16 generation, subject)
    child(node, bit)  SHA-256("lakelog subject key" bit, secret of the node)

It begins with the root alone. To destroy a key, each node above its leaf gives way to its other
child, so that everything but the leaf can still be derived. New subjects need no write, a million
of them no byte, and a destroyed key up to 64 nodes of 41 bytes. What a subject does after its key
was destroyed has the key of the next generation.

The file is a line of JSON and an envelope under a key of its own, which the line has wrapped by a
master key; while another one comes to wrap the lake, by both. The associated data is the line, and
each rewrite has another key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import orjson

from lakelog.errors import InvalidKey
from lakelog.keys import envelope, key_file, master
from lakelog.keys.master import Master

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

DEPTH = 64
GENERATIONS = 1 << 16
_HEAD, _NODE = struct.Struct("<II"), struct.Struct("<BQ32s")
_CHILD = b"lakelog subject key"
_FILE_MAX = 1 << 30
_TreeNodes = dict[tuple[int, int], bytes]
"""Secrets by depth in the tree and path from its root, as a number of so many bits."""


@dataclass(frozen=True)
class SubjectKeys:
    """What the file of a lake holds. `id` has 16 hex digits, `destroyed` counts the keys that were
    destroyed, and `master_id` is the key that opened it."""

    id: str
    destroyed: int
    nodes: _TreeNodes
    master_id: str

    @staticmethod
    def generate(key_id: str, with_master: Master) -> SubjectKeys:
        """Return the keys of all subjects, none of them destroyed."""
        return SubjectKeys(key_id, 0, {(0, 0): os.urandom(32)}, with_master.id)

    @staticmethod
    def load(path: str, key_id: str) -> SubjectKeys:
        """Return what a file holds. Raises FileNotFoundError, InvalidKey, MissingPackage."""
        try:
            with open(path, "rb") as file:
                line, _, sealed = file.read(_FILE_MAX).partition(b"\n")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise InvalidKey(
                f"{path}: the keys of subjects cannot be read: {error.strerror}"
            ) from None
        try:
            head = orjson.loads(line)
            file_id, heads = str(head["id"]), [head, *filter(None, [head.get("former")])]
            wrappings = [(str(wrapping["master"]), wrapping["wrapped"]) for wrapping in heads]
            bytes.fromhex(file_id)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise _damaged(path) from None
        if file_id != key_id:
            raise InvalidKey(
                f"{path} has the keys of subjects of another lake ({file_id}): this one needs"
                f" {key_id}"
            )
        master_id, data = _decrypted(path, file_id, wrappings, line, sealed)
        try:
            destroyed, count = _HEAD.unpack_from(data)
            nodes = {
                (depth, place): node for depth, place, node in _NODE.iter_unpack(data[_HEAD.size :])
            }
        except struct.error:
            raise _damaged(path) from None
        # A tree with a node less has keys that look destroyed.
        if len(nodes) != count:
            raise _damaged(path)
        return SubjectKeys(file_id, destroyed, nodes, master_id)

    def save(self, path: str, with_master: Master, former: Master | None = None) -> None:
        """Write the file durably, readable by its owner alone; a `former` master key opens it, too.
        Raises InvalidKey, OSError."""
        secret = os.urandom(envelope.SECRET_BYTES)
        head: dict[str, object] = {
            "id": self.id,
            "master": with_master.id,
            "wrapped": with_master.wrap(secret, self.id),
        }
        if former is not None:
            head["former"] = {"master": former.id, "wrapped": former.wrap(secret, self.id)}
        line = orjson.dumps(head)
        nodes = (_NODE.pack(*place, node) for place, node in sorted(self.nodes.items()))
        data = _HEAD.pack(self.destroyed, len(self.nodes)) + b"".join(nodes)
        sealed = envelope.encrypt(data, bytes.fromhex(self.id), secret, line)
        key_file.replace(path, line + b"\n" + sealed)

    @staticmethod
    def path_of(key_id: str) -> str:
        """The file of the keys with an id: that of LAKELOG_SUBJECT_KEYS, or in this folder."""
        path = os.environ.get("LAKELOG_SUBJECT_KEYS", "")
        if path and not os.path.isdir(path):
            return path
        return f"{path or os.path.dirname(master.default_path(key_id))}/{key_id}.subjects"

    @staticmethod
    def create(key_id: str, with_master: Master | None = None) -> str:
        """Write the file of a new lake, wrapped by a master key or that of `master.pick`; one that
        is there stays. Return its path. Raises InvalidKey, OSError."""
        path = SubjectKeys.path_of(key_id)
        key_file.refuse_in_lake(path, "the keys of subjects")
        os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
        with key_file.locked(path):
            if not os.path.exists(path):
                with_master = with_master or master.pick()
                SubjectKeys.generate(key_id, with_master).save(path, with_master)
        return path

    @staticmethod
    def destroy(key_id: str, places: Iterable[str]) -> int:
        """Destroy the keys at some places, durably, if they are there; return how many were ever
        destroyed. Raises InvalidKey, OSError."""
        path = SubjectKeys.path_of(key_id)
        with key_file.locked(path):
            present = SubjectKeys._present(path, key_id)
            keys = present.without(places)
            if keys.destroyed > present.destroyed:
                keys.save(path, master.find(keys.master_id))
        return keys.destroyed

    @staticmethod
    def places(key_id: str, subjects: Iterable[str]) -> tuple[str, ...]:
        """Return the places in the tree of the newest keys of subjects, 16 hex digits each. Raises
        InvalidKey."""
        keys = SubjectKeys._present(SubjectKeys.path_of(key_id), key_id)
        return tuple(f"{keys._leaf(name, keys.newest(name)):016x}" for name in subjects)

    @staticmethod
    def has_some(key_id: str, places: Iterable[str]) -> bool:
        """Whether the file has keys at some places, or does not open; one that is missing has none.
        Raises MissingPackage."""
        try:
            keys = SubjectKeys.load(SubjectKeys.path_of(key_id), key_id)
        except FileNotFoundError:
            return False
        except InvalidKey:
            return True
        return any(keys._node_above(int(place, 16)) is not None for place in places)

    @staticmethod
    def rotate(key_id: str, new: Master, former: Master | None = None) -> str:
        """Wrap the file by another master key, and by the `former` one while the lake still needs
        that; return its path. Raises InvalidKey, OSError."""
        path = SubjectKeys.path_of(key_id)
        with key_file.locked(path):
            SubjectKeys._present(path, key_id).save(path, new, former)
        return path

    @staticmethod
    def _present(path: str, key_id: str) -> SubjectKeys:
        try:
            return SubjectKeys.load(path, key_id)
        except FileNotFoundError:
            raise SubjectKeys.missing(path) from None

    @staticmethod
    def missing(path: str) -> InvalidKey:
        """Return the error for a file that is not there."""
        return InvalidKey(
            f"{path} is missing, which has the keys of the lake's subjects: set"
            " LAKELOG_SUBJECT_KEYS to their file, or take it from a copy"
        )

    def secret(self, subject: str, generation: int) -> bytes | None:
        """Return a key, 32 bytes; None for one that was destroyed."""
        # Destroyed keys are not in the tree: nodes are kept for what was not destroyed, and a key
        # is derived from the highest one above its leaf.
        leaf = self._leaf(subject, generation)
        depth = self._node_above(leaf)
        if depth is None:
            return None
        node = self.nodes[depth, leaf >> (DEPTH - depth)]
        for level in range(depth + 1, DEPTH + 1):
            node = _child(node, leaf >> (DEPTH - level) & 1)
        return node

    def _node_above(self, leaf: int) -> int | None:
        """Return the level of the node from which a leaf is derived, None where it was
        destroyed."""
        levels = range(DEPTH + 1)
        return next((d for d in levels if (d, leaf >> (DEPTH - d)) in self.nodes), None)

    def cipher(self, subject: str, generation: int) -> AESGCM | None:
        """Return what seals and opens under a key, None for one that was destroyed."""
        secret = self.secret(subject, generation)
        return None if secret is None else envelope.cipher_of(secret)

    def newest(self, subject: str) -> int:
        """Return the generation of a subject's key for what is written now. Raises InvalidKey."""
        for generation in range(GENERATIONS):
            if self.secret(subject, generation) is not None:
                return generation
        raise InvalidKey(
            f"the key of a subject was destroyed {GENERATIONS} times: it gets no other"
        )

    def without(self, places: Iterable[str]) -> SubjectKeys:
        """Return the same without the keys at some places; those that are gone are not counted
        again."""
        keys, count = replace(self, nodes=dict(self.nodes)), 0
        for place in places:
            leaf = int(place, 16)
            if (depth := keys._node_above(leaf)) is not None:
                keys._puncture(leaf, depth)
                count += 1
        return replace(keys, destroyed=self.destroyed + count)

    def _puncture(self, leaf: int, depth: int) -> None:
        """Put the nodes beside the way to a leaf in the place of the node above it."""
        node = self.nodes.pop((depth, leaf >> (DEPTH - depth)))
        for level in range(depth + 1, DEPTH + 1):
            place = leaf >> (DEPTH - level)
            self.nodes[level, place ^ 1] = _child(node, ~place & 1)
            node = _child(node, place & 1)

    def _leaf(self, subject: str, generation: int) -> int:
        message = struct.pack("<H", generation) + subject.encode("utf-8", "surrogatepass")
        return int.from_bytes(hmac.digest(bytes.fromhex(self.id), message, "sha256")[:8], "big")


def _decrypted(
    path: str, key_id: str, wrappings: list[tuple[str, str]], line: bytes, sealed: bytes
) -> tuple[str, bytes]:
    """Return the id of the master key that opens a file, and what that file has sealed. Raises
    InvalidKey."""
    refusals = []
    for master_id, wrapped in wrappings:
        try:
            secret = master.find(master_id).unwrap(wrapped, key_id)
            return master_id, envelope.decrypt(sealed, secret, line)
        except InvalidKey as error:
            reason = str(error).replace("the lake is encrypted", "they are wrapped")
            reason = f"{path}: the keys of subjects cannot be opened: {reason}"
            refusals.append(InvalidKey(reason))
        except envelope.NotDecrypted:
            refusals.append(_damaged(path))
    raise refusals[0]


def _damaged(path: str) -> InvalidKey:
    return InvalidKey(f"{path}: the keys of subjects are damaged: take the file from a copy")


def _child(node: bytes, bit: int) -> bytes:
    return hashlib.sha256(_CHILD + bytes((bit,)) + node).digest()
