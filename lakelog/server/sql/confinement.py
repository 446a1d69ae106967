"""What a query process is bound to before it opens the engine: resources, and files by Landlock.

Landlock lets the kernel bind what this process opens, for good (Linux 5.13, landlock(7)): the
thread that asks for it and those that are made later, so it comes before the engine, which makes
threads. A kernel without it refuses the first call.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterable

from lakelog.disk import OpenFile
from lakelog.paths import Paths

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


def landlock_version() -> int:
    """Return the version of the kernel's Landlock, 0 where there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        return max(int(libc.syscall(_CREATE_RULESET, None, 0, _VERSION)), 0)
    except (AttributeError, OSError):
        return 0


def restrict(rights: Iterable[tuple[str, int]]) -> bool:
    """Let this thread open only what stands below paths, each with its rights; paths that are not
    there are left out. Return whether the kernel does it. Raises OSError."""
    number = landlock_version()
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
    with OpenFile.closing(_checked(libc.syscall(_CREATE_RULESET, attributes, size, 0))) as ruleset:
        for path, allowed in rights:
            _allow(libc, ruleset, path, allowed & all_files)
        # The kernel refuses unprivileged processes that could still gain rights by exec.
        _checked(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
        _checked(libc.syscall(_RESTRICT_SELF, ruleset, 0))
    return True


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, allowed: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    # A path that is missing grants nothing; one that appears later stays closed.
    except OSError:
        return
    with OpenFile.closing(fd):
        if not os.path.isdir(path):
            allowed &= _OF_FILES
        rule = struct.pack("=Qi", allowed, fd)
        _checked(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)


_FILES_MAX = 4096
_DIE_WITH_PARENT = 1
_NICE = 5
OF_LAKE = "wal segments ids manifests refs gc erasures cache lakelog.json".split()
"""What a query reads of a lake: not its tokens, keys, policy and states."""
_OF_MACHINE = (
    *("/usr", "/lib", "/lib64", "/opt", "/etc/ld.so.cache", "/etc/localtime", "/etc/timezone"),
    *(
        "/proc/self",
        "/proc/meminfo",
        "/proc/cpuinfo",
        "/proc/stat",
        "/proc/sys/vm",
        "/proc/sys/kernel",
    ),
    *("/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm", "/dev/urandom"),
)
"""What libraries and the engine read: it ends the process where it may not see the machine."""


def confine(
    paths: Paths, spill: str, memory: int, spill_bytes: int, of_lake: Iterable[str] = OF_LAKE
) -> bool:
    """Bind this process for good; return whether the kernel bounds the files that it opens: of the
    lake those below `of_lake`, and to write to those below `spill`."""
    _die_with_parent()
    os.nice(_NICE)  # who stores events goes first
    # No core dump: it would hold what the query read, in a file that nobody guards.
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, spill_bytes)
    _lower(resource.RLIMIT_NOFILE, _FILES_MAX)
    # Not RLIMIT_AS: libraries and mapped files take address space and no memory.
    _lower(resource.RLIMIT_DATA, memory)
    # A write beyond the limit is an error and no end.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # Libraries are read when they are first used, which may be in the middle of a query.
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    python = {*prefixes, *(os.path.abspath(path) for path in sys.path if path)}
    # For good, and not of a stranger's: threads that are there already would stay free.
    return restrict(
        [
            *((f"{paths.root}/{name}", READ) for name in of_lake),
            (paths.root, LIST),
            (spill, WRITE),
            *((path, READ) for path in {*_OF_MACHINE, *python}),
            ("/dev/null", READ | WRITE),
        ]
    )


def allow_processor(seconds: float) -> None:
    """Bound the processor time from now on, for the case that nobody is left to end a query."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # The processor time that the process has used already is no part of this query's.
    limit = int(usage.ru_utime + usage.ru_stime + seconds * (os.cpu_count() or 1)) + 5
    # The hard limit stays, or the next query could not raise the soft one again.
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def _lower(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, hard))


def _die_with_parent() -> None:
    try:
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    except (AttributeError, OSError):  # another system: it ends at the end of its input
        return
