"""Refs: the numbered moves of each branch, and tags.

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

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from lakelog.errors import DamagedRef, UnknownRef
from lakelog.runtime.closest import did_you_mean
from lakelog.store import disk, document, regular_file
from lakelog.store.move_pack import PACKED, own_bytes, read_packed
from lakelog.store.paths import Paths, decode_name, is_encoded, parse_move, parse_packed

_PACKED_CACHED, _TEXTS_CACHED = 4, 64
_STAMP_NS = 50_000_000
"""After so long a changed directory has another time, which is in ticks of some milliseconds."""
_SNAPSHOT = re.compile(rb'"snapshot":"([0-9a-f]{64})"')
_LOOKS = 20
"""How often a directory is listed again because its files were packed meanwhile."""
IsSafe = Callable[[str], bool]
_HINT = {"branch", "number"}


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
    carried: bytes = field(default=b"", repr=False, compare=False)
    """The text of the manifest, if the move carries it."""


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
    carried: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True)
class PreparedFile:
    """The file of a move before it is linked: where it is until then, and its bytes."""

    temporary: str
    data: bytes


class MoveLocation(NamedTuple):
    """A move of a branch, or a tag, whose number is 0."""

    name: str
    number: int


class Refs:
    """Reads and links the refs of one lake; caches the last head of each branch."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._heads: dict[str, Head] = {}
        self._packed: dict[str, dict[int, bytes]] = {}
        self._texts: dict[str, tuple[bytes, str]] = {}
        self._durable: dict[str, str] = {}
        self._places: dict[str, MoveLocation] = {}
        self._places_of: tuple[int, object] = (0, None)

    def head(self, branch: str) -> Head:
        """Return the newest move. Raises UnknownRef for no such branch, DamagedRef."""
        head = self._heads.get(branch)
        start = head.move.number if head else self._start(branch)
        number = self._newest(branch, start)
        # The cached head may have been packed since: then nothing follows it that could be probed.
        while not self.exists(branch, number):
            number = self._newest(branch, self._start(branch))
        if head is None or number != head.move.number:
            head = self.read_head(branch, number)
            self._heads[branch] = head
        if head.move.op == "delete":
            raise UnknownRef(f"branch {branch!r} was deleted")
        return head

    def head_number(self, branch: str) -> int:
        """The number of the newest move, of a deleted branch too. Raises UnknownRef, DamagedRef."""
        return self._newest(branch, self._start(branch))

    def read_head(self, branch: str, number: int) -> Head:
        """Return move `number` with its digest. Raises DamagedRef, FileNotFoundError."""
        data = own_bytes(self._paths, branch, number)
        return Head(self.decode(branch, number, data), digest_of(data))

    def read(self, branch: str, number: int) -> Move:
        """Return one move, packed or not. Raises DamagedRef, UnknownRef."""
        try:
            return self.read_head(branch, number).move
        except FileNotFoundError:
            data = self._read_packed_move(branch, number)
        if data is None:
            if 0 < number < self.head_number(branch):
                raise UnknownRef(
                    f"move {number} of branch {branch!r} is outside the kept history: choose one"
                    " that `lakelog log` shows"
                )
            raise UnknownRef(f"branch {branch!r} has no move {number}")
        return self.decode(branch, number, data)

    def newest_first(self, branch: str) -> Iterator[Move]:
        """Yield the kept moves of a branch, packed ones too, without caching. Raises DamagedRef,
        also where one is missing."""
        following = 0
        # gc packs, then unlinks: so moves in files of their own are read first, and those that
        # vanish meanwhile are in a packed file that is listed afterwards.
        numbers = sorted(self._own(branch), reverse=True)
        with contextlib.suppress(FileNotFoundError):  # packed since it was listed: so is the rest
            for number in numbers:
                data = own_bytes(self._paths, branch, number)
                if following and number < following - 1:
                    break  # those between may have been packed since
                yield self.decode(branch, number, data)
                following = number
        while following != 1 and (pack := self._pack_below(branch, following)):
            # Numbers of its span that it does not hold were dropped, so they are not missing.
            for number, data in reversed(pack[1].items()):
                if not following or number < following:
                    yield self.decode(branch, number, data)
            following = pack[0]
        if following > 1:
            raise DamagedRef(self._paths.move(branch, following - 1), "the move is missing")

    def _own(self, branch: str) -> Iterator[int]:
        """Numbers of the moves with files of their own."""
        return filter(None, map(parse_move, disk.listing(self._paths.head_dir(branch))))

    def packs(self, branch: str) -> list[tuple[int, int, str]]:
        """Return (first, last, path) of each file of packed moves, in ascending order."""
        directory = self._paths.head_dir(branch)
        spans = ((parse_packed(name), name) for name in disk.listing(directory))
        return sorted((*span, f"{directory}/{name}") for span, name in spans if span)

    def _pack_below(self, branch: str, following: int) -> tuple[int, dict[int, bytes]] | None:
        """Return the moves of the packed file that goes up to a number, or of the last one if that
        is 0, and the first number of its span. Of several the one that begins first."""
        for _ in range(_LOOKS):
            packs = self.packs(branch)
            limit = following - 1 if following else max((pack[1] for pack in packs), default=0)
            with contextlib.suppress(FileNotFoundError):  # packed again since it was listed
                for low, final, path in packs:
                    if low <= limit <= final:
                        return low, read_packed(path)
                return None
        return None

    def link(
        self, move: Move, is_safe: IsSafe = lambda _: True, prepared: PreparedFile | None = None
    ) -> Head | None:
        """Link the next move; None unless `is_safe`, called right before with the path of its
        temporary file. FileExistsError if it is taken. The caller syncs the directory."""
        path = self._paths.move(move.branch, move.number)
        if prepared is None:
            data = encode_ref(move)
            prepared = PreparedFile(disk.write_temporary(os.path.dirname(path), data), data)
        try:
            # Between the check and the link there is no write or sync that could take long.
            if not is_safe(prepared.temporary):
                return None
            disk.link(prepared.temporary, path)
        finally:
            disk.unlink(prepared.temporary)
        return Head(move, digest_of(prepared.data))

    def sync(self, branch: str, digest: str) -> None:
        """Make a move that is there durable, by its digest; costs nothing if this process did."""
        if self._durable.get(branch) != digest:
            disk.sync_dir(self._paths.head_dir(branch))
            self._durable[branch] = digest

    def note(self, head: Head, *, hint: bool = True) -> None:
        """Cache a head that this process made, and replace the hint, if the disk has room: the move
        is durable by now, and whoever has no hint lists the directory."""
        branch, number = head.move.branch, head.move.number
        self._heads[branch] = head
        self._remember(head.move, self._paths.move(branch, number))
        if hint:
            hint_document = document.encode({"branch": branch, "number": number})
            with contextlib.suppress(OSError):
                disk.replace_whole(self._paths.hint(branch), hint_document, sync=False)

    def forget(self) -> None:
        """Clear the caches (after a fork, or a repair)."""
        self._heads.clear()
        self._packed.clear()
        self._texts.clear()
        self._durable.clear()
        self._places_of = (0, None)

    def exists(self, branch: str, number: int) -> bool:
        """Whether a move's own file is there."""
        return disk.exists(self._paths.move(branch, number))

    def branches(self) -> list[str]:
        """Names of the branches that have moves, deleted ones left out."""
        return [name for name in self.all_branches() if self.is_alive(name)]

    def all_branches(self) -> list[str]:
        """Names of all branches that ever had moves; what is no branch's is passed over."""
        names = filter(is_encoded, disk.listing(self._paths.heads))
        return sorted(decode_name(t) for t in names if not disk.is_file(f"{self._paths.heads}/{t}"))

    def numbers(self, branch: str) -> list[int]:
        """All kept move numbers of a branch, packed ones too, ascending."""
        for _ in range(_LOOKS):
            numbers = set(self._own(branch))
            with contextlib.suppress(FileNotFoundError):  # packed again since it was listed
                for low, high, path in self.packs(branch):
                    try:
                        numbers.update(self._pack(path))
                    # Its moves count as kept: reading one of them names the damaged file. A damaged
                    # name must not make billions of numbers.
                    except DamagedRef:
                        numbers.update(range(low, high + 1)[-PACKED:])
                break
        return sorted(numbers)

    def states(self) -> dict[str, MoveLocation]:
        """Return the states that readable moves name, and of each a move (branch, number) that
        names it, one that carries it if there is one; (tag, 0) for those that a tag carries."""
        branches = self.all_branches()
        folders = [self._paths.tags, *map(self._paths.head_dir, branches)]
        key = [(folder, _change_time(folder)) for folder in folders]
        # Reading all moves is expensive, so the answer is kept until a directory changes. One that
        # was read within the same tick as its last change may have changed again unnoticed.
        read_at, key_then = self._places_of
        if key_then == key and read_at > max(stamp for _, stamp in key) + _STAMP_NS:
            return self._places
        began = time.time_ns()
        plain, carrying = dict[str, MoveLocation](), dict[str, MoveLocation]()
        for branch in branches:
            for number, data in self._readable_moves(branch):
                # By pattern: parsing and hashing millions of moves would take minutes, and who
                # reads the move that is found checks it.
                match, carried = _SNAPSHOT.search(data), document.split(data)[1]
                if match:
                    states = carrying if carried else plain
                    states[match[1].decode()] = MoveLocation(branch, number)
        for name in self.tag_names():
            with contextlib.suppress(DamagedRef, UnknownRef):
                tag = self.tag(name)
                if tag.carried:
                    carrying.setdefault(tag.snapshot, MoveLocation(name, 0))
        self._places, self._places_of = plain | carrying, (began, key)
        return self._places

    def _readable_moves(self, branch: str) -> Iterator[tuple[int, bytes]]:
        """Yield (number, bytes) of every move that can be read, in no order."""
        for number in list(self._own(branch)):
            with contextlib.suppress(FileNotFoundError):
                yield number, own_bytes(self._paths, branch, number)
        for _, _, path in self.packs(branch):
            with contextlib.suppress(FileNotFoundError, DamagedRef):
                yield from read_packed(path).items()

    def recent_text(self, digest: str) -> bytes | None:
        """The text of a manifest that a move or tag read lately carries."""
        cached = self._texts.get(digest)
        return cached[0] if cached else None

    def carried_text(self, digest: str) -> bytes | None:
        """The text of a manifest if a ref read lately carries it and is on disk now."""
        cached = self._texts.get(digest)
        return cached[0] if cached and disk.exists(cached[1]) else None

    def find_text(self, digest: str) -> bytes | None:
        """The text of a manifest that some move or tag on disk carries now; may read them all."""
        if carried := self.carried_text(digest):
            return carried
        # First by what was read before; again because gc packs moves while they are looked for.
        for look in range(3):
            location = (self.states() if look else self._places).get(digest)
            if location is None:
                continue
            name, number = location
            with contextlib.suppress(DamagedRef, UnknownRef):
                ref = self.read(name, number) if number else self.tag(name)
                if ref.snapshot == digest and ref.carried:
                    return ref.carried
        return None

    def tags(self) -> list[Tag]:
        """All tags by name. Raises DamagedRef."""
        tags = list[Tag]()
        for name in self.tag_names():
            with contextlib.suppress(UnknownRef):  # deleted since it was listed
                tags.append(self.tag(name))
        return tags

    def tag_names(self) -> list[str]:
        """Names of all tags, damaged ones included."""
        files = (n for n in sorted(disk.listing(self._paths.tags)) if n.endswith(".json"))
        return [decode_name(n[:-5]) for n in files if not n.startswith(".")]

    def no_branch(self, name: str) -> UnknownRef:
        """Return the error for a branch that does not exist."""
        near = did_you_mean(name, self.branches())
        return UnknownRef(f"no branch {name!r}: {near or 'see `lakelog branch --list`'}")

    def tag(self, name: str) -> Tag:
        """One tag. Raises UnknownRef, DamagedRef."""
        path = self._paths.tag(name)
        try:
            body, carried = open_ref(disk.read(path, regular_file.DOCUMENT_MAX))
            tag = Tag(**body, carried=carried)
            # An intact file under another name would give another state.
            if tag.name != name:
                raise document.NotIntact(f"it is the tag {tag.name!r}")
            self._remember(tag, path)
            return tag
        except FileNotFoundError:
            near = did_you_mean(name, self.tag_names())
            raise UnknownRef(f"no tag {name!r}: {near or 'see `lakelog tag --list`'}") from None
        except (document.NotIntact, TypeError) as error:
            raise DamagedRef(path, f"the tag is damaged: {error}") from None

    def link_tag(self, tag: Tag) -> None:
        """Make a tag durably; FileExistsError if the name is taken."""
        disk.create_whole(self._paths.tag(tag.name), encode_ref(tag))
        disk.sync_dir(self._paths.tags)

    def replace_tag(self, tag: Tag) -> None:
        """Make or replace the tag of a remote's branch durably; no other tag changes (F7.10)."""
        disk.replace_whole(self._paths.tag(tag.name), encode_ref(tag))

    def is_alive(self, branch: str) -> bool:
        """Whether the branch is there and not deleted; a damaged one is there."""
        try:
            self.head(branch)
        except UnknownRef:
            return False
        except DamagedRef:
            pass
        return True

    def hint_number(self, branch: str) -> int:
        """The number that the hint names, 0 for none; that move was durable before the hint."""
        try:
            body = document.decode(disk.read(self._paths.hint(branch), regular_file.DOCUMENT_MAX))
        except (OSError, document.NotIntact):
            return 0
        return int(body["number"]) if body.keys() == _HINT and body["branch"] == branch else 0

    def _start(self, branch: str) -> int:
        """A move number that exists: the hint's, else the highest in the listing."""
        hinted = self.hint_number(branch)
        if hinted and self.exists(branch, hinted):
            return hinted
        numbers = map(parse_move, disk.listing(self._paths.head_dir(branch)))
        newest = max((n for n in numbers if n is not None), default=0)
        if newest < hinted:
            raise DamagedRef(self._paths.move(branch, hinted), "the move is missing")  # F11.3
        if not newest:
            raise UnknownRef(f"no branch {branch!r}: see `lakelog branch --list`")
        return newest

    def _newest(self, branch: str, number: int) -> int:
        """Probe number+1, +2, +4 ... and bisect: numbers are contiguous (F11.2)."""
        step = 1
        while self.exists(branch, number + step):
            number += step
            step *= 2
        while step > 1:
            step //= 2
            if self.exists(branch, number + step):
                number += step
        return number

    def decode(self, branch: str, number: int, data: bytes) -> Move:
        """Return the move that a file's bytes hold. Raises DamagedRef."""
        path = self._paths.move(branch, number)
        try:
            body, carried = open_ref(data)
            move = Move(**body, carried=carried)
        except (document.NotIntact, TypeError) as error:
            raise DamagedRef(path, f"the move is damaged: {error}") from None
        if move.number != number or move.branch != branch:
            raise DamagedRef(path, "the move belongs to another place")
        self._remember(move, path)
        return move

    def _remember(self, ref: Move | Tag, path: str) -> None:
        """Cache the text that a ref carries: whoever read the ref will ask for its state next."""
        if ref.carried:
            self._texts.pop(ref.snapshot, None)
            self._texts[ref.snapshot] = ref.carried, path
            for old in list(self._texts)[:-_TEXTS_CACHED]:
                self._texts.pop(old, None)

    def _read_packed_move(self, branch: str, number: int) -> bytes | None:
        """The bytes of a packed move, or None."""
        for _ in range(_LOOKS):
            with contextlib.suppress(FileNotFoundError):  # packed again since it was listed
                for low, high, path in self.packs(branch):
                    if low <= number <= high and number in (moves := self._pack(path)):
                        return moves[number]
                return None
        return None

    def _pack(self, path: str) -> dict[int, bytes]:
        """The moves of a packed file, cached. It may have been rewritten with fewer of them since,
        which does not matter: a move never changes."""
        moves = self._packed.pop(path, None) or read_packed(path)
        self._packed[path] = moves
        for old in list(self._packed)[:-_PACKED_CACHED]:
            self._packed.pop(old, None)
        return moves


def _change_time(folder: str) -> int:
    """When a directory was changed last, in ns; 0 where it is not there."""
    try:
        return os.stat(folder).st_mtime_ns
    except FileNotFoundError:
        return 0


def encode_ref(ref: Move | Tag) -> bytes:
    """Return the bytes of the file of a move or tag."""
    body = {f.name: getattr(ref, f.name) for f in fields(ref) if f.name != "carried"}
    return document.encode(body) + (ref.carried + b"\n" if ref.carried else b"")


def digest_of(data: bytes) -> str:
    """Return the digest by which the next move names this one: that of its document alone."""
    return document.digest(document.split(data)[0])


def open_ref(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the document in the file of a move or tag, and the text of the manifest that it
    carries, which has to be the one it names; other documents carry nothing. Raises NotIntact.
    """
    line, carried = document.split(data)
    body, manifest = document.decode(line), carried[:-1]
    # The checksum of the document does not cover this line: its digest is in the document.
    if carried and (carried[-1:] != b"\n" or document.digest(manifest) != body.get("snapshot")):
        raise document.NotIntact("the manifest in it is not the one that it names")
    return body, manifest


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
