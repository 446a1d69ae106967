"""What file systems do that differs: syncing one as a whole, and exchanging two names."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import sys

_AT_CWD, _RENAME_EXCHANGE = -100, 2
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
_MEMORY = (b"tmpfs", b"ramfs", b"devtmpfs", b"hugetlbfs")


def sync(fd: int) -> bool:
    """Have all be written that the file system of an open file holds; whether that is durable then,
    and an error since the file was opened would have been raised."""
    if not is_synced_whole():
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
    number = f"{os.major(device)}:{os.minor(device)}".encode()
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", "rb") as mounts:
        for line in mounts:
            facts, _, source = line.partition(b" - ")
            if facts.split()[2] == number:
                return source.split()[0] in _MEMORY
    return False


def exchange(one: str, other: str) -> bool:
    """Exchange two names in one step; False where the system cannot. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    rename = getattr(libc, "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_CWD, os.fsencode(one), _AT_CWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), one, None, other)
