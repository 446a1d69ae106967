"""The lake at a remote: its id, the heads of its branches and its tags, read and published.

Numbers of moves are taken once, so `put_new` of the next number is the compare-and-swap of a
branch, there as in a lake (F9.4).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lakelog.errors import TransferRefused
from lakelog.remotes import remote as remotes
from lakelog.remotes import untrusted
from lakelog.remotes.objects import Name, path_of
from lakelog.remotes.remote import Remote
from lakelog.remotes.untrusted import NotBelieved
from lakelog.store import disk, document
from lakelog.store.clock import following
from lakelog.store.paths import FORMAT, OBJECTS, Paths, encode_name, parse_move
from lakelog.store.ref import Head, Move, Tag, author, digest_of, encode_ref

_NAMES_MAX = 100_000
"""Branches or tags of a remote at most."""
_NUMBER_MAX = 10**12 - 1
_KEYS = Paths("/")
"""Keys are the paths of a lake, without the slash in front."""
CONFIG = "lakelog.json"
_SIGNATURES = _KEYS.signatures.lstrip("/")
_SIGNATURE_MAX = 64 << 10


def key_of(name: Name) -> str:
    """Return the key of an object."""
    return path_of(_KEYS, name).lstrip("/")


class Site:
    """The lake at one remote."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote

    @property
    def url(self) -> str:
        """Its address."""
        return self.remote.url

    def lake_id(self) -> str:
        """The id of the lake there, "" where there is none. Raises TransferRefused."""
        try:
            data = remotes.read(self.remote, CONFIG)
        except FileNotFoundError:
            return ""
        with self._refusing():
            return untrusted.lake_id(data)[0]

    def create(self) -> str:
        """Make the remote a lake without branches, or find that it is one; return its id."""
        there = self.lake_id()
        if there:
            self._raise_format()
            return there
        strangers = [name for name in self._listed("") if not name.startswith(disk.TEMPORARY)]
        if set(strangers) - {*OBJECTS, "states", "refs", "wal", "gc", "cache", "remotes"}:
            raise TransferRefused(f"{self.url} is not empty and no lake: choose another place")
        body = {"format": FORMAT, "lake": disk.random_hex(), "settings": {}}
        remotes.put_new(self.remote, CONFIG, document.encode(body))
        return self.lake_id()  # of two that created it at once, one was first

    def _raise_format(self) -> None:
        data = remotes.read(self.remote, CONFIG)
        body = document.decode(data)
        if body["format"] < FORMAT:
            self.remote.replace(CONFIG, document.encode({**body, "format": FORMAT}))

    def branches(self) -> list[str]:
        """Names of the branches there, deleted ones included."""
        return self._names("refs/heads", "")

    def tags(self) -> list[str]:
        """Names of the tags there."""
        return self._names("refs/tags", ".json")

    def head(self, branch: str, start: int = 0) -> Head | None:
        """Return the newest move of a branch, None where there is none. `start` is a number that
        may exist. Raises TransferRefused for a damaged one."""
        number = self._newest(branch, start)
        return self.move(branch, number) if number else None

    def move(self, branch: str, number: int) -> Head | None:
        """Return one move that has a file of its own, else None."""
        try:
            data = remotes.read(self.remote, _move_key(branch, number))
        except FileNotFoundError:
            return None
        with self._refusing():
            return Head(untrusted.move(data, branch, number), digest_of(data))

    def tag(self, name: str) -> tuple[Tag, bytes] | None:
        """Return a tag and the bytes of its file, None where it is not there."""
        try:
            data = remotes.read(self.remote, _tag_key(name))
        except FileNotFoundError:
            return None
        with self._refusing():
            return untrusted.tag(data, name), data

    def put_tag(self, name: str, data: bytes, *, replace: bool) -> bool:
        """Store a tag; False if another one has its name and is not to be replaced."""
        if replace:
            remotes.retrying(lambda: self.remote.replace(_tag_key(name), data))
            return True
        return remotes.put_new(self.remote, _tag_key(name), data)

    def signatures(self) -> list[str]:
        """File names of the signatures there."""
        return self._listed(_SIGNATURES)

    def signature(self, file: str) -> bytes | None:
        """Return the bytes of a signature, None where it is not there."""
        try:
            return remotes.read(self.remote, f"{_SIGNATURES}/{file}", _SIGNATURE_MAX)
        except FileNotFoundError:
            return None

    def put_signature(self, file: str, data: bytes, *, replace: bool) -> None:
        """Store a signature; one that is there is kept unless it is to be replaced."""
        key = f"{_SIGNATURES}/{file}"
        if replace:
            remotes.retrying(lambda: self.remote.replace(key, data))
        else:
            remotes.put_new(self.remote, key, data)

    def advance(
        self, branch: str, head: Head | None, snapshot: str, carried: bytes, *, rewind: bool
    ) -> Move | None:
        """Make a state the newest of a branch; None if somebody moved it since `head`."""
        # As a rollback does: the watermarks there stay, for what is sealed there stays sealed.
        previous = head.move if head else None
        move = Move(
            number=previous.number + 1 if previous else 1,
            branch=branch,
            prev=head.digest if head else "",
            commit=disk.random_hex(),
            time=following(previous.time if previous else 0, disk.now_us()),
            author=author(),
            op="push",
            message="",
            snapshot=snapshot,
            generation=previous.generation + rewind if previous else 0,
            wal=previous.wal if previous else {},
            carried=carried,
        )
        if not remotes.put_new(self.remote, _move_key(branch, move.number), encode_ref(move)):
            return None
        hint = document.encode({"branch": branch, "number": move.number})
        # A reader that has no hint lists the moves.
        with contextlib.suppress(OSError):
            self.remote.replace(_hint_key(branch), hint)
        return move

    def remove_damaged_head(self, branch: str, start: int = 0) -> bool:
        """Remove the newest move of a branch if its file is damaged; whether it was."""
        number = self._newest(branch, start)
        key = _move_key(branch, number)
        try:
            untrusted.move(remotes.read(self.remote, key), branch, number)
        except (NotBelieved, FileNotFoundError):
            if number:
                remotes.retrying(lambda: self.remote.remove(key))
            return bool(number)
        return False

    def _newest(self, branch: str, start: int) -> int:
        """Find the newest move without listing, from one that exists (F11.2)."""
        number = max(start, self._hinted(branch))
        if not number or not self._exists(branch, number):
            listed = self._listed(f"refs/heads/{encode_name(branch)}")
            number = max(filter(None, map(parse_move, listed)), default=0)
            if not number:
                return 0
        step = 1
        while self._exists(branch, number + step):
            number, step = number + step, step * 2
            if number > _NUMBER_MAX:
                raise TransferRefused(f"{self.url}: branch {branch!r} has no end: refused")
        while step > 1:
            step //= 2
            if self._exists(branch, number + step):
                number += step
        return number

    def _hinted(self, branch: str) -> int:
        try:
            body = document.decode(remotes.read(self.remote, _hint_key(branch), 4_096))
        except (FileNotFoundError, document.NotIntact):
            return 0
        number = body.get("number")
        return number if isinstance(number, int) and 0 < number < 10**12 else 0

    def _exists(self, branch: str, number: int) -> bool:
        key = _move_key(branch, number)
        return remotes.retrying(lambda: self.remote.size(key)) is not None

    def _names(self, folder: str, ending: str) -> list[str]:
        files = (n for n in self._listed(folder) if n.endswith(ending))
        names = (untrusted.name_in(n[: len(n) - len(ending)]) for n in files)
        return sorted(filter(None, names))

    def _listed(self, folder: str) -> list[str]:
        return remotes.retrying(lambda: list(self._bounded(folder)))

    def _bounded(self, folder: str) -> Iterator[str]:
        for count, name in enumerate(self.remote.names(folder)):
            if count >= _NAMES_MAX:
                raise TransferRefused(f"{self.url}: more than {_NAMES_MAX:,} names in {folder}")
            yield name

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except NotBelieved as error:
            raise TransferRefused(f"{self.url}: {error}: refused, nothing was changed") from None


def _move_key(branch: str, number: int) -> str:
    return _KEYS.move(branch, number).lstrip("/")


def _hint_key(branch: str) -> str:
    return _KEYS.hint(branch).lstrip("/")


def _tag_key(name: str) -> str:
    return _KEYS.tag(name).lstrip("/")
