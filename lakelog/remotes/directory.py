"""A directory as a remote: a lake like any other, which may be in use.

Everything is written as a lake writes it (F9.1), so its readers, publishers and gc need not know
of remotes. While a push names objects it holds the lock of gc, whose runs then end before or begin
after it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping

from lakelog.disk import File, Folder, LockFile, disk
from lakelog.errors import TransferRefused
from lakelog.paths import KEYS
from lakelog.remotes.remote import Remote, in_parallel

_PIECE = 1 << 20
_LOCK_WAIT = 600.0
"""Seconds to wait for a lock of the other lake."""


class DirectoryRemote(Remote):
    """The files below a directory."""

    def __init__(self, root: str) -> None:
        self.url = os.path.abspath(root)
        self._changed: set[str] = set()

    def stream(self, key: str, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes of a file."""
        # Whoever can write there may have made a pipe, at which an open would wait.
        with self._explaining(key):
            fd = os.open(self._path(key), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise TransferRefused(f"{self.url}: {key} is no file: refused")
        with open(fd, "rb", buffering=0) as file:
            file.seek(start)
            while chunk := file.read(_PIECE):
                yield chunk

    def names(self, folder: str) -> Iterator[str]:
        """Yield the names in a folder."""
        absent = (FileNotFoundError, NotADirectoryError)
        with contextlib.suppress(*absent), os.scandir(self._path(folder)) as entries:
            for entry in entries:
                yield entry.name

    def lengths(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield the files of a folder with their lengths."""
        absent = (FileNotFoundError, NotADirectoryError)
        with contextlib.suppress(*absent), os.scandir(self._path(folder)) as entries:
            for entry in entries:
                # Not the target of a link: an object is a plain file, and a link might lead
                # anywhere.
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False):
                        yield entry.name, entry.stat(follow_symlinks=False).st_size

    def size(self, key: str) -> int | None:
        """The length of a file, None if it is not there."""
        try:
            with self._explaining(key):
                return os.path.getsize(self._path(key))
        except FileNotFoundError:
            return None

    def stamp(self, key: str) -> float | None:
        """When a file was written, in seconds by the file system's clock; None if it is not
        there."""
        try:
            return os.stat(self._path(key)).st_mtime
        except FileNotFoundError:
            return None

    def now(self) -> float:
        """The time by the file system's clock."""
        # The time is asked of the file system that stamps: over NFS it may be another clock than
        # ours.
        key = f"cache/clock-{disk.random_hex(8)}"
        self.replace(key, b"")
        try:
            return self.stamp(key) or 0.0
        finally:
            self.remove(key)

    def put(self, key: str, read_chunks: Callable[[], Iterator[bytes]], size: int) -> None:
        """Store an object; its name is durable after `flush`."""
        path = self._path(key)
        folder = self._folder(key)
        temporary = Folder(folder).write_pieces(read_chunks())
        try:
            # Not a link: what has the name may be short or damaged.
            File(temporary).rename(path)
        except BaseException:
            File(temporary).remove()
            raise
        self._changed.add(folder)

    def put_new(self, key: str, data: bytes) -> bool:
        """Store a file that must not exist."""
        path = self._path(key)
        folder = self._folder(key)
        # Before, too: a power cut must not take the move before this one (F9.3, step 4).
        # create_whole links: of two pushes the one that comes second finds the name taken.
        Folder(folder).sync()
        try:
            File(path).create(data)
        except FileExistsError:
            return False
        finally:
            Folder(folder).sync()
        return True

    def replace(self, key: str, data: bytes) -> None:
        """Store a file in the place of another."""
        self._folder(key)
        File(self._path(key)).replace(data)

    def remove(self, key: str) -> None:
        """Remove a file, durably."""
        File(self._path(key)).remove()
        with contextlib.suppress(FileNotFoundError):
            Folder(os.path.dirname(self._path(key))).sync()

    def flush(self) -> None:
        """Sync the folders of new objects."""
        # Together: a journal makes those durable at once that wait for it at the same time.
        for folder, _ in in_parallel(Folder.sync, list(map(Folder, self._changed))):
            self._changed.discard(folder.path)

    @contextlib.contextmanager
    def publishing(self, objects: Mapping[str, int]) -> Iterator[None]:
        """Hold the lock of gc."""
        with self._held(f"{KEYS.cache}/gc.lock", "gc runs there"):
            yield

    @contextlib.contextmanager
    def holding_config(self) -> Iterator[None]:
        """Hold the lock of those who change lakelog.json there."""
        with self._held(KEYS.config_lock, "its keys are being changed"):
            yield

    @contextlib.contextmanager
    def _held(self, key: str, reason: str) -> Iterator[None]:
        lock = f"{self._folder(key)}/{os.path.basename(key)}"
        # A claim would open it, and a pipe there could block for ever.
        if os.path.lexists(lock) and not stat.S_ISREG(os.lstat(lock).st_mode):
            raise TransferRefused(f"{lock} is no file: refused")
        ends = time.monotonic() + _LOCK_WAIT
        while True:
            with LockFile(lock).claim() as alone:
                if alone:
                    yield
                    return
            if time.monotonic() > ends:
                raise TransferRefused(f"{self.url}: {reason}: try again when that has ended")
            time.sleep(0.05)

    def _folder(self, key: str) -> str:
        """Make the folder of a file that is to be written, and return its path.

        Refuses links below the remote: whoever can write there could lead a push anywhere.
        """
        folder = self.url
        for name in key.split("/")[:-1]:
            folder = f"{folder}/{name}"
            if os.path.islink(folder):
                raise TransferRefused(f"{folder} is a link: refused, nothing was changed")
        with self._explaining(key):
            # Before there is a lakelog.json, too: all who share the directory have to read it.
            Folder(self.url).make_for_lake()
            Folder(folder).make_all()
        return folder

    @contextlib.contextmanager
    def _explaining(self, key: str) -> Iterator[None]:
        """Raise TransferRefused where something else is in the place of a file or folder."""
        try:
            yield
        # A file where a folder was expected is as good as nothing: whoever reads it finds no
        # object.
        except NotADirectoryError:
            raise FileNotFoundError(f"{self.url}: {key} is not there") from None
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EEXIST, errno.ENODEV):
                raise
            raise TransferRefused(f"{self.url}: {key} is no file: refused") from None

    def _path(self, key: str) -> str:
        return f"{self.url}/{key}"
