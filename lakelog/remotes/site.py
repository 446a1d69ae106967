"""The lake at a remote: its id, the heads of its branches and its tags, read and published.

Numbers of moves are taken once, so creating the next one is the compare-and-swap of a branch, there
as in a lake (F9.4). What a remote has may be anybody's: its moves and tags are read with suspicion.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from lakelog import document
from lakelog.disk import disk
from lakelog.errors import DamagedRef, TransferRefused, UnknownRef
from lakelog.paths import KEYS, OBJECTS
from lakelog.refs import Head, Move, Refs, Tag, author
from lakelog.remotes import untrusted
from lakelog.remotes.objects import Name, path_of
from lakelog.remotes.remote import Remote
from lakelog.remotes.remote_volume import RemoteVolume
from lakelog.remotes.untrusted import NotBelieved
from lakelog.store import Clock
from lakelog.values import JsonObject

CONFIG = KEYS.config
_SIGNATURE_MAX = 64 << 10
_CHANGES_MAX = 100
"""Versions of a lakelog.json that follow each other while one more is made."""


def key_of(name: Name) -> str:
    """Return the key of an object."""
    return path_of(KEYS, name)


def requiring(body: JsonObject, *names: str) -> JsonObject:
    """Return what a lakelog.json requires of its readers, and these, as its member (F15.8)."""
    return {"requires": sorted({*(body.get("requires") or ()), *names})}


WITHOUT_MOVE = "no move there: push it again from a lake that has it"
"""What is said of a branch that has a folder there and nothing in it."""


class Site:
    """The lake at one remote."""

    def __init__(self, remote: Remote) -> None:
        self.remote, self.volume, self.url = remote, RemoteVolume(remote), remote.url
        self._refs = Refs(self.volume, untrusted.move, untrusted.tag)

    def lake_id(self) -> str:
        """The id of the lake there, "" where there is none. Raises TransferRefused."""
        return self._read_config()[0]

    def require_lake(self, hint: str = "") -> str:
        """Return the id of the lake there. Raises TransferRefused where there is none."""
        if lake_id := self.lake_id():
            return lake_id
        raise TransferRefused(f"{self.url}: there is no lake: check the address{hint}")

    def lake_format(self) -> int:
        """The format of the lake there, 0 where there is none. Raises TransferRefused."""
        return int(self.config().get("format", 0))

    def config(self) -> dict[str, Any]:
        """Return what the lakelog.json there holds, nothing where there is none. Raises
        TransferRefused."""
        return self._read_config()[1]

    def _read_config(self) -> tuple[str, dict[str, Any]]:
        try:
            data = self.volume.read(CONFIG)
        except FileNotFoundError:
            return "", {}
        with self._refusing():
            return untrusted.lake_id(data)

    def change_config(self, members: Callable[[JsonObject], JsonObject]) -> JsonObject:
        """Replace the lakelog.json there by one with what `members` makes of it; return what it
        says then. Of two that do so at once both do (F8.20). Raises TransferRefused."""
        with self.remote.holding_config():
            data, is_replaced = self.volume.read(CONFIG), False
            for _ in range(_CHANGES_MAX):
                with self._refusing():
                    _, body = untrusted.lake_id(data)
                # Compared as JSON, which has no tuples: what never equals would change for ever.
                news = document.encode({**body, **members(body)})
                if news == document.encode(body):
                    news = b""
                following = self._follow(KEYS.next_config(document.digest(data)), news)
                if is_replaced and not following:
                    return body
                # Also by that of another one: who died before it did so, or sleeps and will do it
                # too late, and then looks what follows, as we do now.
                data = following or data
                self.volume.replace(CONFIG, data)
                is_replaced = True
        raise TransferRefused(f"{self.url}: its lakelog.json changes all the time: try again")

    def _follow(self, key: str, news: bytes) -> bytes:
        """Return what follows a lakelog.json: our news if there are any and nothing has followed it
        yet, b"" for nothing."""
        if news and self._put(key, news, replace=False):
            return news
        try:
            return self.volume.read(key)
        except FileNotFoundError:
            return b""

    def create(
        self, number: int, members: dict[str, Any] | None = None, *, is_known: bool = False
    ) -> str:
        """Make the remote a lake without branches, or find that it is one; return its id. It has
        at least the format `number` afterwards, and a new one these `members` of lakelog.json.
        Raises TransferRefused where one `is_known` and gone."""
        config = self.config()
        if is_known and not config:
            # As of a disk that is not mounted: what is pushed would go to another one.
            raise TransferRefused(
                f"{self.url}: the lake that was there is gone: mount its disk, or make another by"
                " `lakelog push --repair`"
            )
        if config and config["format"] < number:
            self.change_config(lambda body: {"format": max(number, body["format"])})
        return str((config or self.make_lake(number, members or {}))["lake"])

    def make_lake(self, number: int, members: dict[str, Any]) -> dict[str, Any]:
        """Make the remote a lake, where there was none just now; return what its lakelog.json
        says. Raises TransferRefused where something else is."""
        names = self.volume.names("")
        if CONFIG in names:
            return self.config()  # of two at once, one was first
        # Temporary files are what an interrupted first push left.
        strangers = [name for name in names if not name.startswith(disk.TEMPORARY)]
        if set(strangers) - {*OBJECTS, "states", "refs", "wal", "gc", "cache", "remotes"}:
            raise TransferRefused(f"{self.url} is not empty and no lake: choose another place")
        body = {"format": number, "lake": disk.random_hex(), "settings": {}, **members}
        is_ours = self._put(CONFIG, document.encode(body), replace=False)
        return body if is_ours else self.config()

    def branches(self) -> list[str]:
        """Names of the branches there, deleted ones included."""
        return self._refs.all_branches()

    def tags(self) -> list[str]:
        """Names of the tags there."""
        return self._refs.tag_names()

    def head(self, branch: str, start: int = 0) -> Head | None:
        """Return the newest move of a branch, None where there is none. `start` is a number that
        may exist. Raises TransferRefused for one that is damaged, or listed without its bytes."""
        try:
            with self._refusing():
                # The hint of the newest number costs one look; without it the log is searched by
                # doubling.
                return self._refs.read_head(branch, self._refs.head_number(branch, start))
        except UnknownRef:
            return None
        except FileNotFoundError:
            # A registry may lose a blob whose tag it keeps: a branch without events would hide it.
            raise TransferRefused(
                f"{self.url}: the newest move of branch {branch!r} is listed there, but its bytes"
                " are gone: `lakelog push --repair` from a lake that has it"
            ) from None

    def move(self, branch: str, number: int) -> Move | None:
        """Return one move, packed or not, None where it is not kept. Raises TransferRefused."""
        try:
            with self._refusing():
                return self._refs.read(branch, number)
        except UnknownRef:
            return None

    def tag(self, name: str) -> tuple[Tag, bytes] | None:
        """Return a tag and the bytes of its file, None where it is not there."""
        try:
            # Tags come after the branch, so that something may have changed.
            with self._refusing(f"tag {name!r}: ", "refused"):
                return self._refs.read_tag(name)
        except FileNotFoundError:
            return None

    def put_tag(self, name: str, data: bytes, *, replace: bool) -> bool:
        """Store a tag; False if another one has its name and is not to be replaced."""
        return self._put(KEYS.tag(name), data, replace=replace)

    def _put(self, key: str, data: bytes, *, replace: bool) -> bool:
        try:
            (self.volume.replace if replace else self.volume.create)(key, data)
        except FileExistsError:
            return False
        return True

    def signatures(self) -> list[str]:
        """File names of the signatures there."""
        return self.volume.names(KEYS.signatures)

    def signature(self, file: str) -> bytes | None:
        """Return the bytes of a signature, None where it is not there."""
        try:
            return self.volume.read(f"{KEYS.signatures}/{file}", _SIGNATURE_MAX)
        except FileNotFoundError:
            return None

    def put_signature(self, file: str, data: bytes, *, replace: bool) -> None:
        """Store a signature; one that is there is kept unless it is to be replaced."""
        self._put(f"{KEYS.signatures}/{file}", data, replace=replace)

    def advance(
        self,
        branch: str,
        head: Head | None,
        snapshot: str,
        carried: bytes,
        *,
        rewind: bool,
        op: str = "push",
    ) -> Move | None:
        """Make a state the newest of a branch; None if somebody moved it since `head`."""
        # As a rollback does: the watermarks there stay, for what is sealed there stays sealed.
        previous = head.move if head else None
        move = Move(
            number=previous.number + 1 if previous else 1,
            branch=branch,
            prev=head.digest if head else "",
            commit=disk.random_hex(),
            time=Clock.following(previous.time if previous else 0, disk.now_us()),
            author=author(),
            op=op,
            message="",
            snapshot=snapshot,
            generation=previous.generation + rewind if previous else 0,
            wal=previous.wal if previous else {},
            carried=carried,
        )
        try:
            new_head = self._refs.link(move)
        except FileExistsError:
            return None
        if new_head is None:
            # Nobody took the number, but the branch was deleted meanwhile.
            return None
        self._refs.note(new_head)
        return new_head.move

    def remove_damaged_head(self, branch: str, start: int = 0) -> bool:
        """Remove the newest move of a branch if its file is damaged or gone; whether it was."""
        # Only the newest: a damaged move in the middle is no obstacle to the next push.
        number = self._refs.head_number(branch, start)
        try:
            self._refs.read_head(branch, number)
        except (DamagedRef, FileNotFoundError):
            self.volume.remove(KEYS.move(branch, number))
            return True
        return False

    @contextlib.contextmanager
    def _refusing(
        self, what: str = "", outcome: str = "refused, nothing was changed"
    ) -> Iterator[None]:
        try:
            yield
        except (DamagedRef, NotBelieved) as error:
            reason = error.reason if isinstance(error, DamagedRef) else error
            raise TransferRefused(f"{self.url}: {what}{reason}: {outcome}") from None
