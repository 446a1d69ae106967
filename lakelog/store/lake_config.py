"""lakelog.json: what makes a directory a lake, and says how it is read.

It names the format, the lake and its settings, and has the data keys of an encrypted lake, which
fields are protected, and the bucket of a shared one. A process takes keys and protected fields from
it into `VAULT` and `PROTECTIONS`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from lakelog import document, keys
from lakelog.disk import DOCUMENT_MAX, File, Folder, LockFile, NotIntact, OpenFile
from lakelog.errors import DamagedLake
from lakelog.keys import VAULT
from lakelog.paths import FORMAT, PLAIN_FORMAT, Paths
from lakelog.protect import PROTECTIONS, Protection
from lakelog.settings import Settings
from lakelog.store.machine import Machine

if TYPE_CHECKING:
    from lakelog.keys import KeyRing
    from lakelog.values import JsonObject

_CHANGES = "changes"
"""The member that counts the changes of a directory: settings come and go, and one that was there
before would be followed by what followed it."""


def _changes(config: bytes | JsonObject) -> int:
    body = config if isinstance(config, dict) else document.decode(config)
    return int(body.get(_CHANGES, 0))


class LakeConfig:
    """The lakelog.json of a directory."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def exists(self) -> bool:
        """Whether the directory is a lake."""
        return File(self._paths.config).exists()

    def read(self) -> JsonObject:
        """Return what it says now; nothing if it is gone or damaged."""
        try:
            return document.decode(File(self._paths.config).read(DOCUMENT_MAX))
        except (FileNotFoundError, NotIntact):
            return {}

    def read_to_change(self) -> JsonObject:
        """Return what it says: data keys and more, which a new one must not lose. Raises
        DamagedLake."""
        body = self.read()
        if not body:
            raise DamagedLake(
                self._paths.config, "it is gone or damaged: run `lakelog repair` first"
            )
        return body

    def create(
        self,
        lake_id: str,
        settings: Settings,
        number: int = PLAIN_FORMAT,
        ring: KeyRing | None = None,
        protection: Protection | None = None,
    ) -> None:
        """Write one of format `number`, which makes the directory a lake; FileExistsError if there
        is one."""
        body = {"format": number, "lake": lake_id, "settings": settings.unlike()}
        body |= {"format": FORMAT, **ring.config_members()} if ring else {}
        body |= {"format": FORMAT, **protection.config_members(body)} if protection else {}
        File(self._paths.config).create(document.encode(body))
        Folder(self._paths.root).sync()

    def change(self, members: Callable[[JsonObject], JsonObject]) -> None:
        """Replace it by one with what `members` makes of it. Raises DamagedLake."""
        with self._alone():
            self.read_to_change()
            is_ours = False
            while not is_ours:
                # Of who pushes over SFTP, holds no lock, and may sleep: it would take ours back.
                data = self._followed(File(self._paths.config).read(DOCUMENT_MAX))
                body = document.decode(data)
                news = {**body, **members(body)}
                if news != body:
                    news[_CHANGES] = _changes(body) + 1
                following = document.encode(news)
                self.renew(following)
                is_ours = news == body or self._follow(data, following)
                if not is_ours:
                    self.renew(data)

    def _followed(self, data: bytes) -> bytes:
        """Return what those who hold no lock have made of a lakelog.json."""
        while (following := self._follower(data)) and _changes(following) == _changes(data):
            data = following
        return data

    def _follower(self, data: bytes) -> bytes:
        """Return what a lakelog.json was followed by, b"" for nothing."""
        file = File(self._paths.next_config(document.digest(data)))
        try:
            following = file.read(DOCUMENT_MAX)
            document.decode(following)
        except FileNotFoundError:
            return b""
        except NotIntact as error:
            raise DamagedLake(file.path, f"{error}: remove it") from None
        return following

    def _follow(self, data: bytes, following: bytes) -> bool:
        """Note by what a lakelog.json was followed; False where another one was faster."""
        path = self._paths.next_config(document.digest(data))
        Folder(self._paths.gc).make_all()
        try:
            File(path).create(following)
        except FileExistsError:
            if self._followed(data) != data:
                return False
            File(path).replace(following)  # somebody has put an older lakelog.json back
        Folder(self._paths.gc).sync()
        return True

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from changing it: of two at once, the one that read it before the
        other wrote it would take back a data key under which events were written meanwhile."""
        Folder(self._paths.cache).make_all()
        with LockFile(self._paths.config_lock).claim() as alone:
            if not alone:
                OpenFile(alone.fd).lock(wait=True)
            yield

    def renew(self, data: bytes) -> None:
        """Replace it; whose lake it is stays as it was, and the processes of the lake get to know
        what it says of protected fields."""
        paths = self._paths
        with Machine.rebinding(paths) as bind:
            temporary = Folder(paths.root).write(data)
            try:
                bind(temporary)
                File(temporary).rename(paths.config)
            except BaseException:
                File(temporary).remove()
                raise
            Folder(paths.root).sync()
        before = PROTECTIONS.get(paths.root)
        self.protect(document.decode(data))
        if PROTECTIONS.get(paths.root) == before:
            return
        # Who appends looks at this folder each time, and so learns of it (`refresh_protection`).
        Folder(paths.erasures).make_all()
        File(Folder(paths.erasures).write(b"protected\n")).remove()

    def open_keys(self, body: JsonObject) -> None:
        """Open the data keys that it holds, if the lake is encrypted. Raises InvalidKey."""
        if "encryption" in body:
            VAULT.unlock(self._paths.root, keys.KeyRing.of_json(body["encryption"]))
            VAULT.finders.setdefault(self._paths.root, self._find)
        elif VAULT.lakes:
            VAULT.forget_lake(self._paths.root)

    def _find(self, key_id: bytes) -> None:
        """Look for a data key that another process has made. Raises InvalidKey."""
        ring = keys.KeyRing.of_json(self.read().get("encryption"))
        if key_id.hex() in ring.keys:
            VAULT.unlock(self._paths.root, ring)

    def protect(self, body: JsonObject) -> None:
        """Note which fields of the lake are protected. Raises InvalidKey."""
        if body.get("protect"):
            fresh = Protection.of_json(body["protect"])
            # What it has opened stays opened.
            if PROTECTIONS.get(self._paths.root) != fresh:
                PROTECTIONS[self._paths.root] = fresh
        elif PROTECTIONS and "protect" not in body:
            PROTECTIONS.pop(self._paths.root, None)
