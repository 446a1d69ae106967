"""What a move of a branch is, what a tag is, and their bytes.

A move is a checksummed document (document.py) linked as refs/heads/<branch>/<number>.json:
number, branch, prev (SHA-256 of the move before), commit, time (us), author, op, message,
snapshot (manifest digest), generation, wal {writer: last sealed sequence}, inline_from,
inline. Numbers are contiguous; the highest is the head. Times do not repeat. Whoever links
number n+1 first has moved the branch; nobody ever writes an existing number.

After its document a move or tag may carry the text of the manifest that it names: one more line,
whose SHA-256 is `snapshot`. So a small state costs no file of its own. `prev` covers the document
alone, so that gc can drop the text of a state that is not kept, and the chain still holds.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from lakelog import document
from lakelog.disk import NotIntact
from lakelog.errors import LakelogError
from lakelog.keys import VAULT, LakeKeys
from lakelog.values import JsonObject

_ENCRYPTED = "lkn1:"
_MERGE_NOTE = re.compile(
    r"(\d+) events from (\d+) on came.*; move (\d+) of generation (\d+), state (\w+)$"
)


class Ref:
    """What a move and a tag have in common: their bytes, and who may read their messages."""

    message: str
    encrypted: str
    snapshot: str
    carried: bytes

    @staticmethod
    def digest_of(data: bytes) -> str:
        """Return the digest by which the next move names this one: that of its document alone."""
        return document.digest(document.split(data)[0])

    @staticmethod
    def document_of(data: bytes) -> tuple[JsonObject, bytes]:
        """Return the document in the file of a move or tag, and the text of the manifest that it
        carries, which has to be the one it names; other documents carry nothing. Raises NotIntact.
        """
        line, carried = document.split(data)
        body, manifest = document.decode(line), carried[:-1]
        # The checksum of the document does not cover this line: its digest is in the document.
        if carried and (carried[-1:] != b"\n" or document.digest(manifest) != body.get("snapshot")):
            raise NotIntact("the manifest in it is not the one that it names")
        return body, manifest

    @classmethod
    def _decoded(cls, data: bytes) -> Self:
        """Return what a file's bytes hold, wherever it belongs. Raises NotIntact, InvalidKey."""
        body, carried = cls.document_of(data)
        message = body.get("message")
        if isinstance(message, str) and message.startswith(_ENCRYPTED):
            try:
                body["message"] = VAULT.decrypt_line(message.encode()).decode()
            except ValueError as error:
                if isinstance(error, LakelogError):
                    raise
                raise NotIntact(f"its message: {error}") from None
            body["encrypted"] = message
        manifest = {"carried": carried}
        try:
            return cls(**body, **manifest)
        except TypeError as error:
            raise NotIntact(str(error)) from None

    def encode(self) -> bytes:
        """Return the bytes of the file of a move or tag."""
        body = dict(vars(self))
        carried: bytes = body.pop("carried")
        body["message"] = body.pop("encrypted") or body["message"]
        return document.encode(body) + (carried + b"\n" if carried else b"")

    def to_encrypt(self, keys: LakeKeys | None) -> Self:
        """Return this, of which the message will be encrypted on disk if there are keys."""
        if keys is None or not self.message or self.encrypted:
            return self
        line = keys.encrypt_line(self.message.encode(), is_fixed=True)
        return type(self)(**vars(self) | {"encrypted": line.decode()})


@dataclass(frozen=True)
class Move(Ref):
    """One step of a branch."""

    number: int
    branch: str
    prev: str
    commit: str
    time: int
    author: str
    op: str
    message: str
    snapshot: str
    generation: int
    wal: dict[str, int] = field(default_factory=dict)
    inline_from: int = 0
    inline: list[JsonObject] = field(default_factory=list)
    carried: bytes = field(default=b"", repr=False, compare=False)
    """The text of the manifest, if the move carries it."""
    encrypted: str = field(default="", repr=False, compare=False)
    """The message as it stands on disk, if that is encrypted."""

    @classmethod
    def decode(cls, data: bytes, branch: str, number: int) -> Self:
        """Return the move that a file's bytes hold. Raises NotIntact, InvalidKey."""
        move = cls._decoded(data)
        if move.number != number or move.branch != branch:
            raise NotIntact("it belongs to another place")
        return move


@dataclass(frozen=True)
class Head:
    """A branch's newest move and the SHA-256 of its bytes."""

    move: Move
    digest: str


@dataclass(frozen=True)
class CachedHead:
    """A head, the keys of its move and of the next one, and which file its move was read from."""

    head: Head
    key: str
    next_key: str
    identity: object


@dataclass(frozen=True)
class Tag(Ref):
    """A name that does not move."""

    name: str
    snapshot: str
    time: int
    author: str
    message: str
    branch: str
    commit: str
    carried: bytes = field(default=b"", repr=False, compare=False)
    encrypted: str = field(default="", repr=False, compare=False)

    @classmethod
    def decode(cls, data: bytes, name: str) -> Self:
        """Return the tag that a file's bytes hold. Raises NotIntact, InvalidKey."""
        tag = cls._decoded(data)
        # An intact file under another name would give another state.
        if tag.name != name:
            raise NotIntact(f"it is the tag {tag.name!r}")
        return tag


@dataclass(frozen=True)
class MergeNote:
    """What the message of a merge move says to programs (FORMAT.md F7.14): `count` events with the
    numbers from `first` on came, and the state `snapshot` of the move `number` at the remote, when
    its branch had that `generation`."""

    first: int
    count: int
    number: int
    generation: int
    snapshot: str

    def message(self, name: str, duplicates: int) -> str:
        """Return the message of the move that merges `name`, of which so many are `duplicates`."""
        come = f"{self.count} events from {self.first} on came" + (
            f", {duplicates} known" * bool(duplicates)
        )
        place = f"move {self.number} of generation {self.generation}, state {self.snapshot}"
        return f"{name}: {come}; {place}"

    @classmethod
    def of(cls, move: Move) -> MergeNote | None:
        """Return what a move says of a merge, None if it is none."""
        match = _MERGE_NOTE.search(move.message) if move.op == "merge" else None
        if match is None:
            return None
        count, first, number, generation = (int(match[group]) for group in range(1, 5))
        return cls(first, count, number, generation, match[5])


class MoveLocation(NamedTuple):
    """A move of a branch, or a tag, whose number is 0."""

    name: str
    number: int


def author() -> str:
    """Who makes a move: LAKELOG_AUTHOR, else user@host."""
    name = os.environ.get("LAKELOG_AUTHOR")
    if not name:
        user = os.environ.get("USER") or os.environ.get("LOGNAME") or f"uid{os.getuid()}"
        name = f"{user}@{os.uname().nodename}"
    return escape_text(name)


def escape_text(value: str) -> str:
    """Text of a user, with what is not valid Unicode escaped: documents are UTF-8."""
    return value.encode("utf-8", "backslashreplace").decode()
