"""All writes, syncs, links and unlinks of a lake go through this module, and no other.

Rules: sync a file, then the directory that names it; the pointer moves last; create-if-absent
is `link` (rename overwrites and so decides nothing); after a failed write or sync the caller
must abandon that descriptor for good, since the kernel may mark lost pages clean (F9.1, F9.5).
Failures of the disk stay OSError. Tests replace these functions to crash or reorder them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lakelog.disk import modes, regular_file
from lakelog.keys import VAULT

TEMPORARY = ".tmp-"
_BLOCK = 1 << 16
_ZEROS = bytes(_BLOCK)
_IN_PLACE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""How a file that is there is written to: never through a link, which may lead out of the lake."""
_NAMED: dict[str, tuple[int, int]] = {}
"""Directories whose names this process has synced, with device and inode."""
_NAMED_MOST = 8192


def now_us() -> int:
    """Microseconds since 1970, by this host's clock."""
    return time.time_ns() // 1000


def random_hex(size: int = 16) -> str:
    """`size` random bytes as hex."""
    return os.urandom(size).hex()


def write_all(fd: int, data: bytes) -> None:
    """Write every byte, or raise OSError."""
    count = os.write(fd, data)
    # A nearly full disk or a signal makes `write` stop short without an error.
    if count != len(data):
        view = memoryview(data)
        while count < len(data):
            count += os.write(fd, view[count:])


def write_blocks(fd: int, data: bytes, zeros: int = 0) -> None:
    """Like `write_all`, and then so many zeros, for a file that is overwritten in parts later.

    What one call writes Linux may cache as one piece (from 6.16 on for ext4), of which every later
    write and sync checks each block.
    """
    if len(data) <= _BLOCK and not zeros:
        return write_all(fd, data)
    padding = min(zeros, -len(data) % _BLOCK)
    data += _ZEROS[:padding]
    for start in range(0, len(data), _BLOCK):
        write_all(fd, data[start : start + _BLOCK])
    # Of one block, which stays in the processor's cache: a megabyte of them has to be made first.
    for start in range(padding, zeros, _BLOCK):
        write_all(fd, _ZEROS[: zeros - start])


def truncate(fd: int, size: int) -> None:
    """Shorten a file; not durable until it is synced."""
    os.ftruncate(fd, size)


def sync_file(fd: int) -> None:
    """Make a file's data durable; not its name."""
    # fdatasync also writes the size, without which the data could not be read; not the times.
    os.fdatasync(fd)


def begin_writeback(fd: int, start: int, stop: int) -> None:
    """Have the disk begin to write bytes that were just written; a later sync then waits less."""
    # Linux begins to write dirty pages that are advised as not needed, and drops the clean ones, of
    # which there are none yet. What is no file, or a system that has no such advice, needs none.
    with contextlib.suppress(AttributeError, OSError):
        os.posix_fadvise(fd, start, stop - start, os.POSIX_FADV_DONTNEED)


def sync_dir(path: str) -> None:
    """Make the entries of a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def create(path: str, mode: int = 0o644) -> int:
    """Create a file that must not exist; return its descriptor."""
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, mode)
    modes.show(fd, path, mode)
    return fd


def close(fd: int) -> None:
    """Close a descriptor."""
    os.close(fd)


def link(source: str, target: str) -> None:
    """Give a file a second name; FileExistsError if that name is taken."""
    os.link(source, target)


def unlink(path: str) -> None:
    """Remove a name; no error if it is gone."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def rename(source: str, target: str) -> None:
    """Replace `target`; decides no race, so only for advice and derived files."""
    os.replace(source, target)


def make_dirs(path: str) -> None:
    """Make a directory and its parents, each durably."""
    missing = []
    # From the outside in: a synced directory below an unsynced one can vanish with it.
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        make_dir(directory)
        sync_dir(os.path.dirname(directory))


def make_object_dir(path: str) -> None:
    """Make the directory of an object where it is missing (F1.7), durably.

    Its name is synced by each process that uses it first: another may have made it and died before.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        make_dirs(path)
        status = os.stat(path)
    else:
        if _NAMED.get(path) == (status.st_dev, status.st_ino):
            return
        sync_dir(os.path.dirname(path))
    if len(_NAMED) >= _NAMED_MOST:
        _NAMED.clear()
    _NAMED[path] = status.st_dev, status.st_ino


def make_dir(path: str) -> None:
    """Make a directory if it is not there."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
        modes.follow(path)


def remove_dir(path: str) -> None:
    """Remove an empty directory if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)


def temporary_path(directory: str) -> str:
    """A fresh temporary path in `directory`; gc removes temporary files that are left over."""
    return f"{directory}/{TEMPORARY}{random_hex(8)}"


def write_temporary(directory: str, data: bytes) -> str:
    """Write and sync a file; return its temporary path."""
    data = VAULT.guarded(f"{directory}/", data) if VAULT.lakes else data
    return write_pieces(directory, (data,))


def write_pieces(
    directory: str, chunks: Iterable[bytes], *, sync: bool = True, mode: int = 0o644
) -> str:
    """Write a file piece by piece, so that it need not fit in memory; return its temporary path."""
    # In the directory of its later name: `link` does not cross file systems.
    path = temporary_path(directory)
    fd = create(path, mode)
    try:
        for chunk in chunks:
            with naming(directory):
                write_all(fd, chunk)
        if sync:
            with naming(directory):
                sync_file(fd)
    except BaseException:
        unlink(path)
        raise
    finally:
        close(fd)
    return path


@contextlib.contextmanager
def naming(directory: str) -> Iterator[None]:
    """Say which disk is full: of a lake and its remote or backup it may be either."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            error.filename = error.filename or directory
        raise


def create_whole(path: str, data: bytes) -> None:
    """Make `path` appear whole or not at all; FileExistsError if it is there. Not yet durable:
    the caller syncs the directory."""
    data = VAULT.guarded(path, data) if VAULT.lakes else data
    temporary = write_temporary(os.path.dirname(path), data)
    try:
        link(temporary, path)
    finally:
        unlink(temporary)


def put_object(path: str, data: bytes) -> None:
    """Write a content-addressed file durably; being there already is fine."""
    make_object_dir(os.path.dirname(path))
    with contextlib.suppress(FileExistsError):
        create_whole(path, data)
    sync_dir(os.path.dirname(path))


@dataclass(frozen=True)
class Begun:
    """A file that was written and is not durable yet; `path` is the name that it gets, if any."""

    fd: int
    temporary: str
    path: str = ""

    def abandon(self) -> None:
        """Remove it."""
        close(self.fd)
        unlink(self.temporary)

    @staticmethod
    def finish(files: list[Begun]) -> None:
        """Make files durable, then their names, as `finish` does."""
        finish(files)


def begin_file(directory: str, data: bytes, path: str = "") -> Begun:
    """Write a temporary file and let the disk begin with it; `finish` makes it durable.

    Files that the disk has begun with together are waited for sooner than one after the other.
    """
    data = VAULT.guarded(path or f"{directory}/", data) if VAULT.lakes else data
    temporary = temporary_path(directory)
    fd = create(temporary)
    try:
        with naming(directory):
            write_all(fd, data)
        begin_writeback(fd, 0, len(data))
    except BaseException:
        close(fd)
        unlink(temporary)
        raise
    return Begun(fd, temporary, path)


def begin_object(path: str, data: bytes) -> Begun:
    """The same for a content-addressed file."""
    make_object_dir(os.path.dirname(path))
    return begin_file(os.path.dirname(path), data, path)


def finish(files: list[Begun]) -> None:
    """Make files durable, then the names that they get; the list is empty then. An error leaves
    none of the temporary files, and some of the names."""
    placed = [file for file in files if file.path]
    try:
        for file in files:
            sync_file(file.fd)
        # As in `put_object`: a name that is taken means the same bytes.
        for file in placed:
            with contextlib.suppress(FileExistsError):
                link(file.temporary, file.path)
    except BaseException:
        while files:
            files.pop().abandon()
        raise
    # Taken from the list first: if this is interrupted, nobody closes the same number twice.
    while files:
        close(files.pop().fd)
    for file in placed:
        unlink(file.temporary)
    for directory in sorted({os.path.dirname(file.path) for file in placed}):
        sync_dir(directory)


def replace_whole(path: str, data: bytes, *, sync: bool = True) -> None:
    """Replace a file in one step; for advice and derived files only."""
    directory = os.path.dirname(path)
    data = VAULT.guarded(path, data) if VAULT.lakes else data
    temporary = write_pieces(directory, (data,), sync=sync)
    try:
        rename(temporary, path)
    except BaseException:
        unlink(temporary)
        raise
    if sync:
        sync_dir(directory)


def append_line(path: str, data: bytes) -> None:
    """Append to a derived file, unsynced; a torn line is for its reader to skip."""
    if VAULT.lakes:
        VAULT.refuse_appending(path)
    # O_APPEND and one write: lines of two processes do not overwrite each other.
    fd = _open_shared(path, os.O_APPEND | os.O_WRONLY)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def write_at(path: str, start: int, data: bytes) -> None:
    """Write into a derived file, which may have holes, unsynced: its reader checks what it has."""
    with open(_open_shared(path, os.O_WRONLY), "wb") as file:
        os.pwrite(file.fileno(), data, start)


def map_shared(path: str, size: int) -> mmap.mmap:
    """Map a derived file of `size` bytes that processes change in place, never synced; it is
    created with zeros if it is missing."""
    fd = _open_shared(path, os.O_RDWR)
    try:
        # One byte at the end: what another process wrote before it meanwhile stays.
        if os.fstat(fd).st_size < size:
            os.pwrite(fd, bytes(1), size - 1)
        return mmap.mmap(fd, size)
    finally:
        os.close(fd)


def read(path: str, longest: int = -1) -> bytes:
    """All bytes of a file of at most `longest`, if that is given; small ones in a third of the time
    that a file object takes. Those of the cache of an encrypted lake are decrypted. Raises
    NotRegular."""
    data = _read(path, longest)
    return VAULT.decrypt_cache(path, data) if VAULT.lakes else data


def _read(path: str, longest: int) -> bytes:
    fd = regular_file.open_file(path)
    try:
        size = os.fstat(fd).st_size
        if size > longest >= 0:
            raise regular_file.NotRegular(errno.EFBIG, f"it has {size:,} bytes", path)
        data = os.read(fd, size + 1)  # one more, so that a file that grew is noticed
        if len(data) == size and size:
            return data
        blocks = [data]  # it grew, is larger than one read takes, or has no size, as in /proc
        while blocks[-1]:
            blocks.append(os.read(fd, _BLOCK))
        return b"".join(blocks)
    finally:
        os.close(fd)


def listing(path: str) -> list[str]:
    """Names in a directory; none if it is not there."""
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []


def is_file(path: str) -> bool:
    """Whether a regular file is there."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    # Other errors do not say that it is none, so they are raised.
    except (FileNotFoundError, NotADirectoryError):
        return False


def exists(path: str) -> bool:
    """Whether a name is there now."""
    try:
        os.stat(path)
    # Other errors (EIO, EACCES) do not say that it is gone, so they are raised.
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def is_same(path: str, fd: int) -> bool:
    """Whether `path` names an open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def lock(fd: int, *, wait: bool = False) -> bool:
    """Take the exclusive flock of an open file; False if another holds it."""
    try:
        # Not lockf: closing any descriptor of the file would drop a record lock.
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def open_lock(path: str) -> int:
    """Open a lock file, which whoever writes to the lake may hold."""
    try:
        return _open_shared(path, os.O_RDWR)
    except PermissionError:  # it takes no more to lock what another user made
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_RDONLY | _IN_PLACE)
        raise


def _open_shared(path: str, flags: int) -> int:
    """Open a file that every user of the lake writes to; it is created if it is missing."""
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, flags | _IN_PLACE)
    fd = os.open(path, flags | os.O_CREAT | _IN_PLACE, 0o644)
    modes.follow(path)
    return fd
