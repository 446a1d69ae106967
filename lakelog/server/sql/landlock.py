"""Landlock: what the kernel lets this process open, for good (Linux 5.13, landlock(7)).

It binds the thread that asks for it and those that are made later, so it comes before the engine,
which makes threads. A kernel without it refuses the first call.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""Numbers of the system calls, the same on all machines."""
_VERSION, _PATH_BENEATH = 1, 1
_NO_NEW_PRIVILEGES = 38
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14
"""Rights that a single file can have; the last is to truncate it."""
_FILES = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}
"""All rights of files that a version knows; since version 5 also ioctl on devices."""
_FILES_SINCE_5 = (1 << 16) - 1
_NETWORK = 0b11
"""To bind and to connect TCP, since version 4."""
_SCOPES = 0b11
"""Sockets in the abstract name space, and signals, of other processes, since version 6."""
READ, LIST, WRITE = _READ_FILE | _READ_DIR | _EXECUTE, _READ_DIR, (1 << 15) - 1


def version() -> int:
    """Return the version of the kernel's Landlock, 0 where there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        return max(int(libc.syscall(_CREATE_RULESET, None, 0, _VERSION)), 0)
    except (AttributeError, OSError):
        return 0


def restrict(rights: Iterable[tuple[str, int]]) -> bool:
    """Let this thread open only what stands below paths, each with its rights; paths that are not
    there are left out. Return whether the kernel does it. Raises OSError."""
    number = version()
    if not number:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    all_files = _FILES.get(number, _FILES[3] if number < 5 else _FILES_SINCE_5)
    network = _NETWORK if number >= 4 else 0
    scopes = _SCOPES if number >= 6 else 0
    # Earlier versions know a shorter structure.
    size = {1: 8, 2: 8, 3: 8, 4: 16, 5: 16}.get(number, 24)
    # What no rule allows is refused for all rights that are handled: those the kernel knows.
    attributes = struct.pack("=QQQ", all_files, network, scopes)[:size]
    ruleset = _checked(libc, libc.syscall(_CREATE_RULESET, attributes, size, 0))
    try:
        for path, allowed in rights:
            _allow(libc, ruleset, path, allowed & all_files)
        # The kernel refuses unprivileged processes that could still gain rights by exec.
        _checked(libc, libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
        _checked(libc, libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return True


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, allowed: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    # A path that is missing grants nothing; one that appears later stays closed.
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            allowed &= _OF_FILES
        rule = struct.pack("=Qi", allowed, fd)
        _checked(libc, libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))
    finally:
        os.close(fd)


def _checked(libc: ctypes.CDLL, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)
