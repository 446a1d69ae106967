"""What a restore asks of file systems: directories that no link leads out of, syncing one as a
whole, exchanging two names, and locks of directories."""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator

from lakelog.disk import OpenFile
from lakelog.errors import StateRefused

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PATIENCE = 300.0
"""Seconds for which somebody waits who saves or restores a directory that another does."""
_RENAME_EXCHANGE = 2
# File systems and kernels say in several ways that they do not have it. The last: of a directory of
# a lower layer.
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV)
_MEMORY = (b"tmpfs", b"ramfs", b"devtmpfs", b"hugetlbfs")
_ESCAPE = re.compile(rb"\\(\d{3})")
"""How white space stands in the paths of a list of mounts."""
_GET_FLAGS, _FIXED = 0x80086601, 0x30
"""FS_IOC_GETFLAGS; the flags for what is immutable or only appended to."""


def open_inside(root: int, path: bytes) -> int:
    """Open a directory from an open one on, name by name and never through a link."""
    fd = os.dup(root)
    # O_NOFOLLOW of each name: a link in the middle would lead elsewhere.
    for name in path.split(b"/") if path else ():
        try:
            inner = os.open(name, FOLDER, dir_fd=fd)
        finally:
            os.close(fd)
        fd = inner
    return fd


def shown(path: bytes) -> str:
    """Return a path as text that can be printed."""
    return os.fsdecode(path).encode("utf-8", "replace").decode()


def sync(fd: int) -> bool:
    """Have all be written that the file system of an open file holds; whether that is durable then,
    and an error since the file was opened would have been raised."""
    if not is_synced_whole():
        # All file systems: what cannot be told as durable is at least on its way.
        os.sync()
        return False
    if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return True


def is_synced_whole() -> bool:
    """Whether one call makes all files of a file system durable, or says that it did not."""
    if sys.platform != "linux":
        return False
    # Before Linux 5.8 it says nothing of what could not be written.
    return tuple(int(n) for n in re.findall(r"\d+", os.uname().release)[:2]) >= (5, 8)


def is_in_memory(device: int) -> bool:
    """Whether the file system of a device never writes its pages to a disk."""
    return _type_of(device) in _MEMORY


def is_layered(directory: str) -> bool:
    """Whether directories may be of a lower layer, as those of an image are in its containers:
    these cannot be renamed."""
    return _type_of(os.stat(directory).st_dev) == b"overlay"


def _type_of(device: int) -> bytes:
    """Return the type of the file system of a device, empty where nothing says it."""
    number = f"{os.major(device)}:{os.minor(device)}".encode()
    for line in _mounts():
        # The line's optional fields end with a dash, and the type follows.
        facts, _, source = line.partition(b" - ")
        if facts.split()[2] == number:
            return source.split()[0]
    return b""


def _mounts() -> Iterator[bytes]:
    """Yield a line for each mount, none where nothing says them."""
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", "rb") as mounts:
        yield from mounts


def mounts_in(directory: str) -> set[bytes]:
    """Return the mount points in a real path, relative to it; itself is b""."""
    top, inner = os.fsencode(directory), set[bytes]()
    # Not os.path.ismount: a part of the same file system may be mounted, or a single file.
    for line in _mounts():
        path = _ESCAPE.sub(lambda octal: bytes([int(octal[1], 8)]), line.split()[4])
        if path == top or path.startswith(top.rstrip(b"/") + b"/"):
            inner.add(path[len(top) :].lstrip(b"/"))
    return inner


def is_fixed(path: str) -> bool:
    """Whether a file or directory has a flag (`chattr +i`, `+a`) by which nobody may rename it, or
    what is in it."""
    flags = array.array("l", [0])
    # Of links and of file systems that have no flags, there are none to ask for.
    with (
        contextlib.suppress(OSError),
        OpenFile.closing(
            os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        ) as fd,
    ):
        fcntl.ioctl(fd, _GET_FLAGS, flags)
    return bool(flags[0] & _FIXED)


def exchange(folder: int, path: bytes, other_path: bytes) -> bool:
    """Exchange two names of an open directory in one step; False where the system cannot. Raises
    OSError."""
    # glibc has it since 2.28; the system may be older.
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(folder, path, folder, other_path, _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), os.fsdecode(other_path))


@contextlib.contextmanager
def holding(directories: Iterable[str], *, shared: bool) -> Iterator[None]:
    """Hold directories against those who restore them, and if not `shared` against those who save
    them, in whatever lake. Raises StateRefused after PATIENCE."""
    with contextlib.ExitStack() as stack:
        # In one order, so that two who hold several do not wait for each other.
        for path in sorted(set(directories)):
            fd = _lock(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            if fd >= 0:
                stack.callback(os.close, fd)
        yield


def _lock(path: str, operation: int) -> int:
    """Return a descriptor that holds the flock of a directory, -1 where it cannot be opened."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return -1  # it is not there, or whoever reads it next says why that cannot be
        try:
            # Locks are of the file, and the name may mean another one by now.
            fcntl.flock(fd, operation | fcntl.LOCK_NB)
            # A restore puts another directory in its place, and then lets go of this one.
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except BlockingIOError:
            if time.monotonic() > end:
                os.close(fd)
                raise StateRefused(
                    f"{path} is being saved or restored by another process: wait for it"
                ) from None
        except FileNotFoundError:
            pass
        except OSError:
            return fd  # a file system without such locks
        os.close(fd)
        time.sleep(0.02)
