"""Refs: the numbered moves of each branch, and tags, in their order and by name (ref.py).

Numbers are contiguous; the highest is the head. Whoever links number n+1 first has moved the
branch; nobody ever writes an existing number.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lakelog import document
from lakelog.disk import Begun, NotIntact
from lakelog.errors import DamagedRef, UnknownRef
from lakelog.keys import LakeKeys
from lakelog.paths import KEYS, FileNames
from lakelog.refs.ref import CachedHead, Head, Move, MoveLocation, Ref, Tag
from lakelog.refs.tag_refs import TagRefs
from lakelog.runtime.closest import did_you_mean
from lakelog.volume import TICK_NS, MovePack, Volume

_PACKED_CACHED = 4
_SNAPSHOT = re.compile(rb'"snapshot":"([0-9a-f]{64})"')
_LOOKS = 20
"""How often a directory is listed again because its files were packed meanwhile."""
IsSafe = Callable[[Begun], bool]
_HINT, _HINT_MAX = {"branch", "number"}, 4_096
_NUMBER_MAX = 10**12 - 1


@dataclass(frozen=True)
class PreparedMove:
    """A move before it is linked: what it will be, and its file until then."""

    head: Head
    file: Begun


class Refs(TagRefs):
    """Reads and links the refs of one lake; caches the last head of each branch."""

    def __init__(
        self,
        volume: Volume,
        decode_move: Callable[[bytes, str, int], Move] = Move.decode,
        decode_tag: Callable[[bytes, str], Tag] = Tag.decode,
        keys: Callable[[], LakeKeys | None] = lambda: None,
    ) -> None:
        """What decodes raises NotIntact; `keys` returns what encrypts messages, if the lake is
        encrypted."""
        super().__init__(volume, decode_tag, keys)
        self._decode_move = decode_move
        self._heads: dict[str, CachedHead] = {}
        self.exchanges = 0
        """How often another copy of the lake may have taken the place of the one that was read."""
        self._packed: dict[str, dict[int, bytes]] = {}
        self._durable: dict[str, str] = {}
        self._places: dict[str, MoveLocation] = {}
        self._places_of: tuple[int, object] = (0, None)

    def head(self, branch: str) -> Head:
        """Return the newest move. Raises UnknownRef for no such branch, DamagedRef."""
        cached, volume = self._heads.get(branch), self._volume
        # In this order: the newest move is packed only once others follow it.
        if (
            cached is None
            or volume.exists(cached.next_key)
            or volume.identity(cached.key) != cached.identity
        ):
            cached = self._look(branch, cached)
        if cached.head.move.op == "delete":
            raise UnknownRef(f"branch {branch!r} was deleted")
        return cached.head

    def _look(self, branch: str, cached: CachedHead | None) -> CachedHead:
        """Read the newest move of a branch, if it is not the one that is cached."""
        identity = self._volume.identity
        if cached is not None and identity(cached.key) != cached.identity:
            # It was packed, or an older copy of the lake or another one took the place of this one:
            # there moves have the same numbers and say something else.
            self.forget()
            self.exchanges += 1
            cached = None
        number = self._newest(branch, cached.head.move.number if cached else self._start(branch))
        # It may have been packed since: then nothing follows it that could be probed.
        while not self.exists(branch, number):
            number = self._newest(branch, self._start(branch))
        if cached is None or number != cached.head.move.number:
            # Before its bytes: of a file that is replaced meanwhile it is another one.
            file = identity(KEYS.move(branch, number))
            cached = self._cache(self.read_head(branch, number), file)
        return cached

    def _cache(self, head: Head, identity: object) -> CachedHead:
        branch, number = head.move.branch, head.move.number
        keys = KEYS.move(branch, number), KEYS.move(branch, number + 1)
        cached = self._heads[branch] = CachedHead(head, *keys, identity)
        return cached

    def head_number(self, branch: str, start: int = 0) -> int:
        """The number of the newest move, of a deleted branch too; `start` is one that may exist.
        Raises UnknownRef, DamagedRef."""
        if not (start and self.exists(branch, start)):
            start = self._start(branch)
        return self._newest(branch, start)

    def read_head(self, branch: str, number: int) -> Head:
        """Return move `number` with its digest. Raises DamagedRef, FileNotFoundError."""
        data = self._own_bytes(branch, number)
        return Head(self.decode(branch, number, data), Ref.digest_of(data))

    def _own_bytes(self, branch: str, number: int) -> bytes:
        """Return the bytes of a move with a file of its own. Raises DamagedRef,
        FileNotFoundError."""
        key = KEYS.move(branch, number)
        try:
            return self._volume.read(key)
        except NotIntact as error:
            raise self._damaged(key, f"the move is damaged: {error}") from None

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

    def was_at(self, head: Head, number: int, commit: str) -> bool:
        """Whether a branch that is at a head ever had the move of a number, of which the commit
        begins so: it had not if another copy of the lake took the place of the one that has."""
        if number > head.move.number:
            return False
        try:
            is_head = number == head.move.number
            move = head.move if is_head else self.read(head.move.branch, number)
        except (UnknownRef, DamagedRef):
            return True  # gc dropped the move, or it is damaged: nothing tells any more
        return move.commit.startswith(commit)

    def newest_first(self, branch: str) -> Iterator[Move]:
        """Yield the kept moves of a branch, packed ones too, without caching. Raises DamagedRef,
        also where one is missing."""
        following = 0
        # gc packs, then unlinks: so moves in files of their own are read first, and those that
        # vanish meanwhile are in a packed file that is listed afterwards.
        numbers = sorted(self._own(branch), reverse=True)
        with contextlib.suppress(FileNotFoundError):  # packed since it was listed: so is the rest
            for number in numbers:
                data = self._own_bytes(branch, number)
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
            raise self._damaged(KEYS.move(branch, following - 1), "the move is missing")

    def _own(self, branch: str) -> list[int]:
        """Numbers of the moves with files of their own."""
        return FileNames(self._volume.names(KEYS.head_dir(branch))).moves

    def packs(self, branch: str) -> list[tuple[int, int, str]]:
        """Return (first, last, location) of each file of packed moves, in ascending order."""
        return [
            (*span, self._volume.location(KEYS.packed(branch, *span)))
            for span in self._packs(branch)
        ]

    def _packs(self, branch: str) -> list[tuple[int, int]]:
        """Return the first and last number of each file of packed moves, in ascending order."""
        return sorted(FileNames(self._volume.names(KEYS.head_dir(branch))).packs)

    def _read_pack(self, branch: str, low: int, high: int) -> dict[int, bytes]:
        """Return the moves of a packed file. Raises DamagedRef, FileNotFoundError."""
        key = KEYS.packed(branch, low, high)
        try:
            return MovePack(branch, low, high).decode(self._volume.read(key))
        except NotIntact as error:
            raise self._damaged(key, f"packed moves are damaged: {error}") from None

    def _pack_below(self, branch: str, following: int) -> tuple[int, dict[int, bytes]] | None:
        """Return the moves of the packed file that goes up to a number, or of the last one if that
        is 0, and the first number of its span. Of several the one that begins first."""
        for _ in range(_LOOKS):
            packs = self._packs(branch)
            limit = following - 1 if following else max((pack[1] for pack in packs), default=0)
            with contextlib.suppress(FileNotFoundError):  # packed again since it was listed
                for low, high in packs:
                    if low <= limit <= high:
                        return low, self._read_pack(branch, low, high)
                return None
        return None

    def prepare(self, move: Move, pending_files: list[Begun]) -> PreparedMove:
        """Write the file of a move, which is finished with `pending_files`."""
        move = move.to_encrypt(self._keys())
        data = move.encode()
        file = self._volume.stage(KEYS.move(move.branch, move.number), data)
        pending_files.append(file)
        return PreparedMove(Head(move, Ref.digest_of(data)), file)

    def link(
        self, move: Move, is_safe: IsSafe = lambda _: True, prepared: PreparedMove | None = None
    ) -> Head | None:
        """Link the next move, which is `prepared` and finished, or is written here; None unless
        `is_safe`, called right before with its file. FileExistsError if the number is taken. The
        caller syncs the directory."""
        if prepared is None:
            pending_files = list[Begun]()
            prepared = self.prepare(move, pending_files)
            self._volume.finish(pending_files)
        try:
            # Between the check and the link there is no write or sync that could take long.
            if not is_safe(prepared.file):
                return None
            self._volume.link(prepared.file, KEYS.move(move.branch, move.number))
        finally:
            self._volume.drop(prepared.file)
        return prepared.head

    def sync(self, branch: str, digest: str) -> None:
        """Make a move that is there durable, by its digest; costs nothing if this process did."""
        if self._durable.get(branch) != digest:
            self._volume.sync(KEYS.head_dir(branch))
            self._durable[branch] = digest

    def note(self, head: Head, *, hint: bool = True) -> None:
        """Cache a head that this process made, and replace the hint, if the disk has room: the move
        is durable by now, and whoever has no hint lists the directory."""
        branch, number = head.move.branch, head.move.number
        key = KEYS.move(branch, number)
        self._cache(head, self._volume.identity(key))
        self._remember(head.move, key)
        if hint:
            hint_document = document.encode({"branch": branch, "number": number})
            with contextlib.suppress(OSError):
                self._volume.replace(KEYS.hint(branch), hint_document, sync=False)

    def forget(self) -> None:
        """Clear the caches (after a fork, or a repair)."""
        self._heads.clear()
        self._packed.clear()
        self._texts.clear()
        self._durable.clear()
        self._places_of = (0, None)

    def exists(self, branch: str, number: int) -> bool:
        """Whether a move's own file is there."""
        return self._volume.exists(KEYS.move(branch, number))

    def branches(self) -> list[str]:
        """Names of the branches that have moves, deleted ones left out."""
        return [name for name in self.all_branches() if self.is_alive(name)]

    def all_branches(self) -> list[str]:
        """Names of all branches that ever had moves; what is no branch's is passed over."""
        return sorted(FileNames(self._volume.folders(KEYS.heads)).refs)

    def numbers(self, branch: str) -> list[int]:
        """All kept move numbers of a branch, packed ones too, ascending."""
        for _ in range(_LOOKS):
            numbers = set(self._own(branch))
            with contextlib.suppress(FileNotFoundError):  # packed again since it was listed
                for low, high in self._packs(branch):
                    try:
                        numbers.update(self._pack(branch, low, high))
                    # Its moves count as kept: reading one of them names the damaged file. A damaged
                    # name must not make billions of numbers.
                    except DamagedRef:
                        numbers.update(range(low, high + 1)[-MovePack.MOVES_MAX :])
                break
        return sorted(numbers)

    def states(self) -> dict[str, MoveLocation]:
        """Return the states that readable moves name, and of each a move (branch, number) that
        names it, one that carries it if there is one; (tag, 0) for those that a tag carries."""
        branches = self.all_branches()
        folders = [KEYS.tags, *map(KEYS.head_dir, branches)]
        key = [(folder, self._volume.change_time(folder)) for folder in folders]
        # Reading all moves is expensive, so the answer is kept until a directory changes. One that
        # was read within the same tick as its last change may have changed again unnoticed.
        read_at, key_then = self._places_of
        if key_then == key and read_at > max(stamp for _, stamp in key) + TICK_NS:
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
                yield number, self._own_bytes(branch, number)
        for low, high in self._packs(branch):
            with contextlib.suppress(FileNotFoundError, DamagedRef):
                yield from self._read_pack(branch, low, high).items()

    def carriers(self) -> Iterator[Move]:
        """Yield the readable moves that carry the text of their state, in no order."""
        for branch in self.all_branches():
            for number, data in self._readable_moves(branch):
                if document.split(data)[1]:
                    with contextlib.suppress(DamagedRef):
                        yield self.decode(branch, number, data)

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

    def no_branch(self, name: str) -> UnknownRef:
        """Return the error for a branch that does not exist."""
        near = did_you_mean(name, self.branches())
        return UnknownRef(f"no branch {name!r}: {near or 'see `lakelog branch --list`'}")

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
            body = document.decode(self._volume.read(KEYS.hint(branch), _HINT_MAX))
        except (OSError, NotIntact):
            return 0
        number = body.get("number")
        if body.keys() != _HINT or body["branch"] != branch or not isinstance(number, int):
            return 0
        return number if 0 < number <= _NUMBER_MAX else 0

    def _start(self, branch: str) -> int:
        """A move number that exists: the hint's, else the highest in the listing."""
        hinted = self.hint_number(branch)
        if hinted and self.exists(branch, hinted):
            return hinted
        newest = max(self._own(branch), default=0)
        if newest < hinted:
            raise self._damaged(KEYS.move(branch, hinted), "the move is missing")  # F11.3
        if not newest and not self._volume.change_time(KEYS.heads):
            place = self._volume.location(KEYS.heads)
            raise UnknownRef(f"no branch {branch!r}: {place} is gone: was the lake moved?")
        if not newest:
            raise UnknownRef(f"no branch {branch!r}: see `lakelog branch --list`")
        return newest

    def _newest(self, branch: str, number: int) -> int:
        """Probe number+1, +2, +4 ... and bisect: numbers are contiguous (F11.2)."""
        step = 1
        while self.exists(branch, number + step):
            number += step
            step *= 2
            if number > _NUMBER_MAX:
                raise self._damaged(KEYS.head_dir(branch), f"branch {branch!r} has no end")
        while step > 1:
            step //= 2
            if self.exists(branch, number + step):
                number += step
        return number

    def decode(self, branch: str, number: int, data: bytes) -> Move:
        """Return the move that a file's bytes hold. Raises DamagedRef."""
        key = KEYS.move(branch, number)
        try:
            move = self._decode_move(data, branch, number)
        except NotIntact as error:
            raise self._damaged(key, f"the move is damaged: {error}") from None
        self._remember(move, key)
        return move

    def _read_packed_move(self, branch: str, number: int) -> bytes | None:
        """The bytes of a packed move, or None."""
        for _ in range(_LOOKS):
            with contextlib.suppress(FileNotFoundError):  # packed again since it was listed
                for low, high in self._packs(branch):
                    if low <= number <= high:
                        moves = self._pack(branch, low, high)
                        if number in moves:
                            return moves[number]
                return None
        return None

    def _pack(self, branch: str, low: int, high: int) -> dict[int, bytes]:
        """The moves of a packed file, cached. It may have been rewritten with fewer of them since,
        which does not matter: a move never changes."""
        key = KEYS.packed(branch, low, high)
        moves = self._packed.pop(key, None) or self._read_pack(branch, low, high)
        self._packed[key] = moves
        for old in list(self._packed)[:-_PACKED_CACHED]:
            self._packed.pop(old, None)
        return moves
