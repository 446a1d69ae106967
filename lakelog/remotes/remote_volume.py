"""A remote as a volume (store/volume.py): refs and manifests there are read and written as here.

Each request is made again where it was interrupted, and what is read is bounded.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from lakelog.disk import Begun, disk
from lakelog.errors import TransferRefused
from lakelog.remotes import remote as remotes
from lakelog.remotes.remote import DOCUMENT_MAX, Remote

_NAMES_MAX = 100_000
"""Names of a folder of a remote at most, such as its branches or the moves of one."""
_NO_FILE = -1


class RemoteVolume:
    """The files of a remote. Methods raise Unreachable, TransferRefused, OSError."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._staged: dict[str, bytes] = {}

    def location(self, key: str) -> str:
        """Where a file is: the address of the remote, and its key."""
        return f"{self._remote.url}: {key}"

    def read(self, key: str, longest: int = DOCUMENT_MAX) -> bytes:
        """Return the bytes of a file. Raises FileNotFoundError, TransferRefused if it is longer."""
        return remotes.read(self._remote, key, min(longest, DOCUMENT_MAX))

    def exists(self, key: str) -> bool:
        """Whether a file is there now."""
        return remotes.retrying(lambda: self._remote.size(key)) is not None

    def identity(self, key: str) -> object:
        """The same of all files: no other lake takes the place of one there."""
        return True if self.exists(key) else None

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder; none if it is not there."""
        return remotes.retrying(lambda: list(self._bounded_names(folder)))

    def _bounded_names(self, folder: str) -> Iterator[str]:
        for count, name in enumerate(self._remote.names(folder)):
            if count >= _NAMES_MAX:
                raise TransferRefused(
                    f"{self._remote.url}: more than {_NAMES_MAX:,} names in {folder}"
                )
            yield name

    def folders(self, folder: str) -> list[str]:
        """Return the names in a folder: a remote does not say which of them are files."""
        # Readers look at each name anyway, and a folder of a remote costs a request.
        return self.names(folder)

    def stamp(self, key: str) -> int:
        """Now, for a file that is there: a push keeps gc off by other means. Raises
        FileNotFoundError."""
        if not self.exists(key):
            raise FileNotFoundError(self.location(key))
        return time.time_ns()

    def stamp_of(self, file: Begun) -> int:
        """Now, as `stamp`."""
        return time.time_ns()

    def change_time(self, folder: str) -> int:
        """Now, as nobody knows when a name there changed."""
        return time.time_ns()

    def create(self, key: str, data: bytes) -> None:
        """Create a file durably; FileExistsError if the name is taken."""
        if not remotes.put_new(self._remote, key, data):
            raise FileExistsError(self.location(key))

    def put(self, key: str, data: bytes) -> None:
        """Create an object durably; one that is there has the same bytes."""
        if not self.exists(key):
            # An object may be stored again, whole; asking first spares the bytes.
            remotes.put(self._remote, key, data)
            remotes.retrying(self._remote.flush)

    def replace(self, key: str, data: bytes, *, sync: bool = True) -> None:
        """Create or replace a file in one step, durably."""
        remotes.retrying(lambda: self._remote.replace(key, data))

    def remove(self, key: str) -> None:
        """Remove a file, if it is there."""
        remotes.retrying(lambda: self._remote.remove(key))

    def make_folder(self, folder: str) -> None:
        """Folders there appear with their files."""

    def sync(self, folder: str) -> None:
        """Names are durable as soon as a remote has given them."""

    def stage(self, key: str, data: bytes) -> Begun:
        """Keep the bytes of a file until `link`: a remote has no names for what is not whole."""
        # Without a file descriptor: nothing was opened anywhere.
        file = Begun(_NO_FILE, disk.random_hex())
        self._staged[file.temporary] = data
        return file

    def finish(self, files: list[Begun]) -> None:
        """Nothing is sent before `link`."""
        files.clear()

    def deliver(self, keys: Iterable[str]) -> None:
        """A push has sent them."""

    def abandon(self, files: list[Begun]) -> None:
        """Drop files that are not finished."""
        while files:
            self.drop(files.pop())

    def link(self, file: Begun, key: str) -> None:
        """Create a staged file durably; FileExistsError if the name is taken."""
        self.create(key, self._staged[file.temporary])

    def drop(self, file: Begun) -> None:
        """Drop a staged file."""
        self._staged.pop(file.temporary, None)
