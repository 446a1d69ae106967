"""Refs: the numbered moves of each branch, and tags.

A move is a checksummed document (document.py) linked as refs/heads/<branch>/<number>.json:
number, branch, prev (SHA-256 of the move before), commit, time (us), author, op, message,
snapshot (manifest digest), generation, wal {writer: last sealed sequence}, inline_from,
inline. Numbers are contiguous; the highest is the head. Time never repeats. Whoever links
number n+1 first has moved the branch; nobody ever writes an existing number.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import zstandard

from lakelog.closest import did_you_mean
from lakelog.errors import DamagedRef, UnknownRef
from lakelog.store import disk, document
from lakelog.store.layout import Layout, decode_name, parse_move, parse_packed

_PACKED_KEPT = 4
_HINT = {"branch", "number"}
_SEAL = struct.pack("<II4s", 0x184D2A5D, 36, b"LKP1")


@dataclass(frozen=True)
class Move:
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
    inline: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Head:
    """A branch's newest move and the SHA-256 of its bytes."""

    move: Move
    digest: str


@dataclass(frozen=True)
class Tag:
    """A name that does not move."""

    name: str
    snapshot: str
    time: int
    author: str
    message: str
    branch: str
    commit: str


class Refs:
    """Reading and linking the refs of one lake; remembers the head it saw last per branch."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._seen: dict[str, Head] = {}
        self._packed: dict[str, dict[int, bytes]] = {}

    def head(self, branch: str) -> Head:
        """Return the newest move. Raises UnknownRef for no such branch, DamagedRef."""
        seen = self._seen.get(branch)
        start = seen.move.number if seen else self._start(branch)
        number = self._newest(branch, start)
        while not self.exists(branch, number):  # packed since it was seen: it only looks newest
            number = self._newest(branch, self._start(branch))
        if seen is None or number != seen.move.number:
            seen = self.read_head(branch, number)
            self._seen[branch] = seen
        if seen.move.op == "delete":
            raise UnknownRef(f"branch {branch!r} was deleted")
        return seen

    def head_number(self, branch: str) -> int:
        """The number of the newest move, of a deleted branch too. Raises UnknownRef, DamagedRef."""
        return self._newest(branch, self._start(branch))

    def read_head(self, branch: str, number: int) -> Head:
        """Return move `number` with its digest. Raises DamagedRef, FileNotFoundError."""
        data = disk.read(self._layout.move(branch, number))
        return Head(self.decode(branch, number, data), document.digest(data))

    def read(self, branch: str, number: int) -> Move:
        """Return one move, packed or not. Raises DamagedRef, UnknownRef."""
        try:
            return self.read_head(branch, number).move
        except FileNotFoundError:
            data = self._unpacked(branch, number)
        if data is None:
            raise UnknownRef(f"branch {branch!r} has no move {number}")
        return self.decode(branch, number, data)

    def newest_first(self, branch: str) -> Iterator[Move]:
        """Yield the kept moves of a branch, packed ones too, remembering nothing. Raises
        DamagedRef, also where one is missing."""
        following = 0
        for number, data in self._files_backwards(branch):
            if following and number >= following:
                continue  # it is there both packed and as a file
            if following and number < following - 1:
                raise DamagedRef(self._layout.move(branch, following - 1), "the move is missing")
            yield self.decode(branch, number, data)
            following = number
        if following > 1:
            raise DamagedRef(self._layout.move(branch, following - 1), "the move is missing")

    def _files_backwards(self, branch: str) -> Iterator[tuple[int, bytes]]:
        """Yield (number, bytes) of moves with files of their own, then of packed ones."""
        directory = self._layout.head_dir(branch)
        own = filter(None, map(parse_move, disk.listing(directory)))
        with contextlib.suppress(FileNotFoundError):  # packed since it was listed: so is the rest
            for number in sorted(own, reverse=True):
                yield number, disk.read(self._layout.move(branch, number))
        for name in sorted(filter(parse_packed, disk.listing(directory)), reverse=True):
            yield from reversed(read_packed(f"{directory}/{name}").items())

    def link(self, move: Move) -> Head:
        """Make the next move; FileExistsError if the number is taken. The caller syncs."""
        data = encode_move(move)
        disk.create_whole(self._layout.move(move.branch, move.number), data)
        return Head(move, document.digest(data))

    def note(self, head: Head) -> None:
        """Remember a head that this process made, and advise others of it, if the disk lets us:
        the move is durable, and whoever has no hint lists."""
        self._seen[head.move.branch] = head
        branch, number = head.move.branch, head.move.number
        hint = document.encode({"branch": branch, "number": number})
        with contextlib.suppress(OSError):
            disk.replace_whole(self._layout.hint(branch), hint, sync=False)

    def forget(self) -> None:
        """Drop what was remembered (after a fork, or a repair)."""
        self._seen.clear()
        self._packed.clear()

    def exists(self, branch: str, number: int) -> bool:
        """Whether a move's own file is there."""
        return disk.exists(self._layout.move(branch, number))

    def branches(self) -> list[str]:
        """Names of the branches that have moves, deleted ones left out."""
        names = sorted(map(decode_name, disk.listing(self._layout.heads)))
        return [name for name in names if self.is_alive(name)]

    def all_branches(self) -> list[str]:
        """Names of all branches that ever had moves."""
        return sorted(map(decode_name, disk.listing(self._layout.heads)))

    def numbers(self, branch: str) -> list[int]:
        """All kept move numbers of a branch, packed ones too, ascending."""
        names = disk.listing(self._layout.head_dir(branch))
        found = {n for n in map(parse_move, names) if n is not None}
        for first, last in filter(None, map(parse_packed, names)):
            found.update(range(first, last + 1))
        return sorted(found)

    def tags(self) -> list[Tag]:
        """All tags by name. Raises DamagedRef."""
        return [self.tag(name) for name in self.tag_names()]

    def tag_names(self) -> list[str]:
        """Names of all tags, damaged ones included."""
        files = (n for n in sorted(disk.listing(self._layout.tags)) if n.endswith(".json"))
        return [decode_name(n[:-5]) for n in files if not n.startswith(".tmp-")]

    def no_branch(self, name: str) -> UnknownRef:
        """Return the error for a branch that does not exist."""
        near = did_you_mean(name, self.branches())
        return UnknownRef(f"no branch {name!r}: {near or 'see `lakelog branch --list`'}")

    def tag(self, name: str) -> Tag:
        """One tag. Raises UnknownRef, DamagedRef."""
        path = self._layout.tag(name)
        try:
            tag = Tag(**document.decode(disk.read(path)))
            if tag.name != name:
                raise document.NotIntact(f"it is the tag {tag.name!r}")
            return tag
        except FileNotFoundError:
            near = did_you_mean(name, self.tag_names())
            raise UnknownRef(f"no tag {name!r}: {near or 'see `lakelog tag --list`'}") from None
        except (document.NotIntact, TypeError) as error:
            raise DamagedRef(path, f"the tag is damaged: {error}") from None

    def link_tag(self, tag: Tag) -> None:
        """Make a tag durably; FileExistsError if the name is taken."""
        disk.create_whole(self._layout.tag(tag.name), document.encode(asdict(tag)))
        disk.sync_dir(self._layout.tags)

    def is_alive(self, branch: str) -> bool:
        """Whether the branch is there and not deleted; a damaged one is there."""
        try:
            self.head(branch)
        except UnknownRef:
            return False
        except DamagedRef:
            return True
        return True

    def life(self, branch: str) -> tuple[int, int]:
        """The number of a branch's newest move and its generation; (0, 0) if that is damaged."""
        try:
            move = self.head(branch).move
        except (UnknownRef, DamagedRef):
            return 0, 0
        return move.number, move.generation

    def is_same_life(self, branch: str, life: tuple[int, int]) -> bool:
        """Whether a branch is alive and was not deleted since, either."""
        number, generation = self.life(branch)
        if not self.is_alive(branch):
            return False
        if not number or not life[0] or generation == life[1]:
            return True  # it is damaged, or nothing but what adds to it was done
        since = itertools.takewhile(lambda m: m.number > life[0], self.newest_first(branch))
        return all(move.op != "delete" for move in since)

    def hinted(self, branch: str) -> int:
        """The number that the hint names, which was durable before the hint was; 0 for none."""
        try:
            body = document.decode(disk.read(self._layout.hint(branch)))
        except (OSError, document.NotIntact):
            return 0
        return int(body["number"]) if body.keys() == _HINT and body["branch"] == branch else 0

    def _start(self, branch: str) -> int:
        """A move number that exists: the hint's, else the highest in the listing."""
        hinted = self.hinted(branch)
        if hinted and self.exists(branch, hinted):
            return hinted
        numbers = map(parse_move, disk.listing(self._layout.head_dir(branch)))
        newest = max((n for n in numbers if n is not None), default=0)
        if newest < hinted:
            raise DamagedRef(self._layout.move(branch, hinted), "the move is missing")
        if not newest:
            raise UnknownRef(f"no branch {branch!r}: see `lakelog branch --list`")
        return newest

    def _newest(self, branch: str, known: int) -> int:
        """Probe known+1, +2, +4 ... and bisect: numbers are contiguous."""
        step = 1
        while self.exists(branch, known + step):
            known += step
            step *= 2
        while step > 1:
            step //= 2
            if self.exists(branch, known + step):
                known += step
        return known

    def decode(self, branch: str, number: int, data: bytes) -> Move:
        """Return the move that a file's bytes hold. Raises DamagedRef."""
        path = self._layout.move(branch, number)
        try:
            move = Move(**document.decode(data))
        except (document.NotIntact, TypeError) as error:
            raise DamagedRef(path, f"the move is damaged: {error}") from None
        if move.number != number or move.branch != branch:
            raise DamagedRef(path, "the move belongs to another place")
        return move

    def _unpacked(self, branch: str, number: int) -> bytes | None:
        """The bytes of a packed move. A packed file never changes, so the last few are kept."""
        directory = self._layout.head_dir(branch)
        for name in disk.listing(directory):
            span = parse_packed(name)
            if span is None or not span[0] <= number <= span[1]:
                continue
            path = f"{directory}/{name}"
            moves = self._packed.pop(path, None) or read_packed(path)
            self._packed[path] = moves
            for old in list(self._packed)[:-_PACKED_KEPT]:
                self._packed.pop(old, None)
            return moves.get(number)
        return None


def encode_move(move: Move) -> bytes:
    """Return the bytes of a move's file."""
    return document.encode(asdict(move))


def encode_packed(moves: list[bytes]) -> bytes:
    """Fold moves' files, oldest first, into one: a zstd frame, and a skippable frame that holds
    the SHA-256 of all before it (magic 0x184D2A5D, size 36, "LKP1", 32 bytes)."""
    data = zstandard.ZstdCompressor(level=9).compress(b"".join(moves)) + _SEAL
    return data + hashlib.sha256(data).digest()


def read_packed(path: str) -> dict[int, bytes]:
    """Return {number: file bytes} of a packed file. Raises DamagedRef."""
    span = parse_packed(os.path.basename(path)) or (0, 0)
    data = disk.read(path)
    try:
        if len(data) < 44 or hashlib.sha256(data[:-32]).digest() != data[-32:]:
            raise document.NotIntact("its checksum does not match")
        lines = zstandard.ZstdDecompressor().decompress(data[:-44]).splitlines(keepends=True)
        moves = {document.decode(line)["number"]: line for line in lines}
        if list(moves) != list(range(span[0], span[1] + 1)):
            raise document.NotIntact("it holds other moves than its name says")
        return moves
    except (zstandard.ZstdError, document.NotIntact) as error:
        raise DamagedRef(path, f"packed moves are damaged: {error}") from None


def packed_lines(data: bytes) -> dict[int, bytes]:
    """Return the moves that can be read in the bytes of a packed file, damaged or not."""
    reader, text = zstandard.ZstdDecompressor().decompressobj(), b""
    with contextlib.suppress(zstandard.ZstdError):
        for at in range(0, len(data), 64):
            text += reader.decompress(data[at : at + 64])
    found = {}
    for line in text.splitlines(keepends=True):
        with contextlib.suppress(document.NotIntact):
            found[document.decode(line)["number"]] = line
    return found


def author() -> str:
    """Who makes a move: LAKELOG_AUTHOR, else user@host."""
    named = os.environ.get("LAKELOG_AUTHOR")
    if not named:
        user = os.environ.get("USER") or os.environ.get("LOGNAME") or f"uid{os.getuid()}"
        named = f"{user}@{os.uname().nodename}"
    return in_unicode(named)


def in_unicode(text: str) -> str:
    """Text of a user, with what is no Unicode written as an escape: documents are UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()
