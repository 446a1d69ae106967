"""What a query process is bound to before it opens the engine: resources, and files by Landlock."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Iterable

from lakelog.server.sql import landlock
from lakelog.store.paths import Paths

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
    # For good, and not of a stranger's: threads that are there already would stay free.
    return landlock.restrict(
        [
            *((f"{paths.root}/{name}", landlock.READ) for name in of_lake),
            (paths.root, landlock.LIST),
            (spill, landlock.WRITE),
            *((path, landlock.READ) for path in {*_OF_MACHINE, *_of_python()}),
            ("/dev/null", landlock.READ | landlock.WRITE),
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


# Libraries are read when they are first used, which may be in the middle of a query.
def _of_python() -> list[str]:
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    return [*prefixes, *(os.path.abspath(path) for path in sys.path if path)]


def _die_with_parent() -> None:
    try:
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    except (AttributeError, OSError):  # another system: it ends at the end of its input
        return
