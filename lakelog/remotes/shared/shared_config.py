"""What all machines of a shared lake have to know of its keys and protected fields (F22.17).

    config/<number>.json   a document {requires, encryption, protect}, created as moves are

The highest number holds. Whoever makes the next one has read it, so no change of another machine
is lost; lakelog.json of the bucket follows, for those that come later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from lakelog import document
from lakelog.disk import File, NotIntact
from lakelog.errors import DamagedLake, InvalidKey, NotAllowed, TransferRefused
from lakelog.keys import VAULT, KeyRing
from lakelog.paths import Paths
from lakelog.protect import Protection
from lakelog.remotes.shared.mirrored_volume import MirroredVolume
from lakelog.remotes.site import Site, requiring
from lakelog.store import AttachmentRegistry, LakeConfig
from lakelog.values import JsonObject

_SHARED = ("encryption", "protect")
_NUMBER = "config"
_CHANGES_MAX = 100
"""Changes that are taken at once."""


class SharedConfig:
    """The config of one bucket, as an attached directory has it. Methods raise Unreachable,
    TransferRefused, OSError."""

    def __init__(self, paths: Paths, volume: MirroredVolume, number: int) -> None:
        self._paths, self._volume, self._number = paths, volume, number
        self.learn: Callable[[], object] = lambda: None
        """Brings here what was erased."""
        if paths.keys is not None:
            VAULT.finders[paths.root] = self._find

    def take(self) -> bool:
        """Bring here what other machines have changed; whether there was anything. Raises
        InvalidKey where the keys are wrapped by a master key that is not here."""
        number, newest = self._number, b""
        with contextlib.suppress(FileNotFoundError):
            # Whoever gives a web page for any key has no last one; the next exchange takes more.
            while number < self._number + _CHANGES_MAX:
                newest = self._volume.bucket.read(_key(number + 1))
                number += 1
        if number == self._number:
            return False
        try:
            members = document.decode(newest)
            if not members.keys() <= {"requires", *_SHARED}:
                raise NotIntact("it has other members than this lakelog knows")
            self._unlock(members)
            if "protect" in members:
                self.learn()  # which keys were destroyed, before it is known how many
            self._adopt(number, members)
        except NotIntact as error:
            raise TransferRefused(f"{self._volume.url}: {_key(number)}: {error}: refused") from None
        return True

    def change(self, members: JsonObject) -> None:
        """Change members for all machines, and here. Raises NotAllowed where another machine has
        changed something since."""
        body = self._body()
        news = {name: body[name] for name in _SHARED if name in body} | members
        try:
            if self.take():
                raise FileExistsError
            self._volume.bucket.create(_key(self._number + 1), document.encode(news))
        except FileExistsError:
            self.take()
            raise NotAllowed(
                f"{self._volume.url}: another machine has just changed its keys or protected"
                " fields: look at them, and run it again"
            ) from None
        self._adopt(self._number + 1, news)

    def _unlock(self, members: JsonObject) -> None:
        if "encryption" in members:
            ring = KeyRing.of_json(members["encryption"])
            try:
                master = ring.find_master()
            except InvalidKey as error:
                raise InvalidKey(f"{self._volume.url}: nothing was exchanged: {error}") from None
            VAULT.unlock(self._paths.root, ring, master)
        if "protect" in members:
            Protection.of_json(members["protect"])

    def _adopt(self, number: int, members: JsonObject) -> None:
        site = Site(self._volume.remote)

        def required(body: JsonObject) -> JsonObject:
            return {**members, **requiring(body, *members.get("requires", ()))}

        if any(site.config().get(name) != value for name, value in members.items()):
            # Whoever made it may have died before it did so.
            site.change_config(required)
        LakeConfig(self._paths).change(
            lambda body: {
                **required(body),
                AttachmentRegistry.MEMBER: {**body[AttachmentRegistry.MEMBER], _NUMBER: number},
            }
        )
        self._number = number

    def _body(self) -> JsonObject:
        try:
            return document.decode(File(self._paths.config).read())
        except (FileNotFoundError, NotIntact) as error:
            raise DamagedLake(self._paths.config, str(error)) from None

    def _find(self, key_id: bytes) -> None:
        """Look for a data key that another process or machine has made."""
        ring = KeyRing.of_json(self._body()["encryption"])
        if key_id.hex() in ring.keys:
            VAULT.unlock(self._paths.root, ring)
        else:
            self.take()


def _key(number: int) -> str:
    return f"config/{number:012d}.json"
