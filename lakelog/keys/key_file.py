"""Files of keys that people keep, outside of every lake."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from lakelog.errors import InvalidKey


def refuse_in_lake(path: str, owned: str) -> None:
    """Refuse a file in a lake, whose copies would have the key, too: `owned` is what the error says
    to keep elsewhere. Raises InvalidKey."""
    # The real path: a link in another place would be followed by every backup.
    folder = os.path.dirname(os.path.realpath(path))
    while not os.path.exists(f"{folder}/lakelog.json"):
        if folder == os.path.dirname(folder):
            return
        folder = os.path.dirname(folder)
    raise InvalidKey(f"{path} is in the lake {folder}: keep {owned} elsewhere")


def create(path: str, data: bytes, mode: int) -> None:
    """Write a new file durably, the whole of it or none. Raises FileExistsError, OSError."""
    temporary = f"{path}.{os.urandom(8).hex()}"
    _write(temporary, data, mode)
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a stick has no links
        _write(path, data, mode)
    finally:
        os.unlink(temporary)
    _sync_folder(path)


def replace(path: str, data: bytes) -> None:
    """Write a file in the place of another one, durably and at once, for its owner alone; the bytes
    of the old one are overwritten. Its lock is held. Raises OSError."""
    temporary = f"{path}.new"
    # Of one that was killed it may have keys that are to be destroyed now.
    with contextlib.suppress(FileNotFoundError):
        _overwrite(os.open(temporary, os.O_WRONLY | os.O_CLOEXEC))
        os.unlink(temporary)
    _write(temporary, data, 0o600)
    former = -1
    with contextlib.suppress(FileNotFoundError):
        former = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    os.replace(temporary, path)
    _sync_folder(path)
    if former >= 0:
        # It has no name any more. A file system that writes elsewhere keeps it for a while.
        _overwrite(former)


def _write(path: str, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)


def _overwrite(fd: int) -> None:
    """Overwrite a file and close it."""
    with os.fdopen(fd, "wb", buffering=0) as file:
        file.write(bytes(os.fstat(fd).st_size))
        os.fsync(fd)


def _sync_folder(path: str) -> None:
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the lock of a file that is replaced. Raises OSError."""
    fd = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
