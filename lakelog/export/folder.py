"""Atomic output: a directory or file that appears complete or not at all.

It is written next to its destination as `.NAME.tmp-HEX`, synced, and renamed, so concurrent exports
to one name do not interfere. A killed export leaves such a directory or file, hidden from `ingest`
and `watch`; the next export to the same name removes it, because nobody holds its lock.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from lakelog.disk import File, Folder, OpenFile, disk
from lakelog.errors import ExportRefused
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import shutil
else:
    shutil = Lazy("shutil")

_LOCK = ".lock"
_AHEAD = 16 << 20
"""Bytes after which the disk begins to write them, while more are made."""


class _RawFile(io.FileIO):
    """Has the disk begin to write early: the sync at its end has little left to do."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "wb")
        self._begun = self._end = 0

    def write(self, data: Any) -> int:
        """Write bytes."""
        count = super().write(data)
        self._end += count
        if self._end - self._begun >= _AHEAD:
            OpenFile(self.fileno()).begin_writeback(self._begun, self._end)
            self._begun = self._end
        return count


class _OutputFile(io.BufferedWriter):
    """Where nobody closes it, as an export failed, what is still in memory is not written: on a
    full disk that would fail once more."""

    def __del__(self) -> None:
        self.raw.close()


def output_file(path: str) -> BinaryIO:
    """Open a file, pipe or device to write to."""
    return _OutputFile(_RawFile(path))


def require_free(path: str) -> None:
    """Raise ExportRefused if `path` is a file, or a directory with something in it."""
    if os.path.isdir(path) and not os.listdir(path):
        return
    if os.path.lexists(path):
        raise ExportRefused(f"{path} is in use: name a directory that is empty or not there yet")


@contextlib.contextmanager
def atomic_directory(path: str) -> Iterator[str]:
    """Yield a directory to write into; it is renamed to `path` when the block ends.

    Raises ExportRefused if the name is in use, before anything is written.
    """
    path = os.path.abspath(path)
    require_free(path)
    parent = os.path.dirname(path)
    Folder(parent).make_all()
    with scratch_directory(path) as temporary:
        yield temporary
        # The lock stays held through the open descriptor; the file must not become part of the
        # export.
        os.unlink(f"{temporary}/{_LOCK}")
        # Contents before the name: after a crash the name must never show an incomplete directory.
        _sync(temporary)
        require_free(path)
        try:
            os.replace(temporary, path)
        except OSError:
            require_free(path)  # another export may have taken the name just now
            raise
        Folder(parent).sync()


@contextlib.contextmanager
def scratch_directory(path: str) -> Iterator[str]:
    """Yield a directory beside `path` for what is needed until the block ends."""
    parent, name = os.path.split(os.path.abspath(path))
    # Before a new temporary directory exists, so that it cannot be taken for a leftover.
    _remove_leftovers(parent, name)
    temporary, lock = _claim(parent, name, is_dir=True)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(lock)


def _claim(parent: str, name: str, *, is_dir: bool) -> tuple[str, int]:
    """Make a temporary directory or file for `name`; return its path and its locked descriptor."""
    while True:
        temporary = f"{parent}/.{name}{disk.TEMPORARY}{disk.random_hex(6)}"
        if is_dir:
            os.mkdir(temporary)
        try:
            flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
            lock = os.open(f"{temporary}/{_LOCK}" if is_dir else temporary, flags, 0o666)
        except FileNotFoundError:
            if is_dir and os.path.isdir(parent):
                continue
            raise
        # Another export takes for a leftover what is not locked yet: then it is gone by now.
        if _lock(lock) and os.path.lexists(temporary):
            return temporary, lock
        os.close(lock)


def _lock(fd: int) -> bool:
    """Whether nobody else has the lock; True also where the file system has none."""
    try:
        return OpenFile(fd).lock()
    except OSError:
        return True


def _remove_leftovers(parent: str, name: str) -> None:
    """Remove leftovers of killed exports to this name; running ones hold their lock."""
    with contextlib.suppress(OSError):  # a leftover that cannot be removed does no harm
        for entry in Folder(parent).names():
            if entry.startswith(f".{name}{disk.TEMPORARY}"):
                _remove_unlocked(f"{parent}/{entry}")


def _remove_unlocked(leftover: str) -> None:
    """Remove a directory or file while holding its lock, so that nobody starts to use it."""
    is_dir = os.path.isdir(leftover)
    try:
        lock = os.open(f"{leftover}/{_LOCK}" if is_dir else leftover, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        os.rmdir(leftover)  # killed before it was locked, or about to be: then it is made again
        return
    with OpenFile.closing(lock):
        if not OpenFile(lock).lock():
            return
        if is_dir:
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            File(leftover).remove()


def _sync(root: str) -> None:
    """Make every file and directory below `root` durable."""
    for folder, _, names in os.walk(root):
        for name in names:
            with OpenFile.closing(os.open(f"{folder}/{name}", os.O_RDONLY)) as fd:
                OpenFile(fd).sync()
        Folder(folder).sync()


@contextlib.contextmanager
def atomic_file(path: str) -> Iterator[BinaryIO]:
    """Open a file that is renamed to `path` once complete; a device or pipe is written directly."""
    target = os.path.realpath(path)
    # A rename would replace the pipe or device instead of writing to it.
    if _is_special(target):
        with open(target, "wb") as device:
            yield device
        return
    parent, name = os.path.split(target)
    temporary = lock = None
    try:
        _remove_leftovers(parent, name)
        temporary, lock = _claim(parent, name, is_dir=False)
        with open(temporary, "wb") as file:
            yield file
        # Contents before the name, as for a directory; the lock's descriptor is of the same file.
        OpenFile(lock).sync()
        os.replace(temporary, target)
        Folder(parent).sync()
    except BaseException as error:
        if temporary:
            File(temporary).remove()
        # The user named `path`, and never heard of the temporary file.
        if isinstance(error, OSError) and str(error.filename).startswith(f"{parent}/.{name}."):
            error.filename, error.filename2 = path, None
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _is_special(path: str) -> bool:
    """Whether a path is a pipe or a device, which a rename would replace."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def sizes(root: str) -> dict[str, int]:
    """Return path, relative to `root`, to size in bytes of every file below it."""
    by_name = {}
    for folder, _, names in os.walk(root):
        for name in names:
            full = os.path.join(folder, name)
            by_name[os.path.relpath(full, root)] = os.path.getsize(full)
    return dict(sorted(by_name.items()))
