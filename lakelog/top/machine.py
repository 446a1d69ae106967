"""The machine, and the processes that have files of a lake open, by what /proc says."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass

# Looking at the open files of all processes takes milliseconds.
_SCAN_EVERY = 5.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class MachineFigures:
    """Shares of all processors, load, bytes of memory; of the lake's processes how many there are,
    their share of one processor, and their bytes. None is what the system does not say."""

    busy: float | None = None
    load: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    disk_free: int | None = None
    processes: int = 0
    processes_busy: float = 0.0
    processes_bytes: int = 0


class MachineMeter:
    """Measures between two calls of `measure`."""

    def __init__(self, path: str) -> None:
        self._root = os.path.realpath(path)
        self._stat: tuple[int, int] | None = None
        self._ticks: dict[int, int] = {}
        self._measured, self._scanned = 0.0, -_SCAN_EVERY
        self._pids: tuple[int, ...] = ()

    def measure(self) -> MachineFigures:
        """Return the figures since the last call, where there is one."""
        moment = time.monotonic()
        if moment - self._scanned >= _SCAN_EVERY:
            self._scanned, self._pids = moment, _users_of(self._root)
        ticks, size = dict[int, int](), 0
        for pid in self._pids:
            with contextlib.suppress(OSError, ValueError, IndexError):
                # Behind the last bracket: the name of a program may have brackets and spaces in it.
                fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
                # utime and stime, fields 14 and 15 of proc(5).
                ticks[pid] = int(fields[11]) + int(fields[12])
                size += int(_read(f"/proc/{pid}/statm").split()[1]) * _PAGE
        span = moment - self._measured
        # Only processes that were there before: a new one has spent its time earlier.
        spent = sum(n - self._ticks[pid] for pid, n in ticks.items() if pid in self._ticks)
        is_new = not self._measured
        self._ticks, self._measured = ticks, moment
        used, total = _memory()
        return MachineFigures(
            self._busy(),
            _load(),
            used,
            total,
            _disk_free(self._root),
            len(ticks),
            0.0 if is_new else max(spent, 0) / _TICKS / max(span, 1e-9),
            size,
        )

    def _busy(self) -> float | None:
        try:
            times = [int(field) for field in _read("/proc/stat").split(b"\n", 1)[0].split()[1:9]]
        except (OSError, ValueError):
            return None
        # idle and iowait, fields 4 and 5.
        total, busy = sum(times), sum(times) - times[3] - times[4]
        before, self._stat = self._stat, (busy, total)
        # Counters of a container may go backwards.
        if before is None or total <= before[1]:
            return None
        return min(max((busy - before[0]) / (total - before[1]), 0.0), 1.0)


def _users_of(root: str) -> tuple[int, ...]:
    """The processes of this user that have a file below a directory open, ourselves left out."""
    pids = []
    # Other systems have no /proc, or one without descriptors.
    for name in os.listdir("/proc") if os.path.isdir("/proc/self/fd") else ():
        if not name.isdigit() or int(name) == os.getpid():
            continue
        # Processes of other users cannot be looked into.
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{name}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{name}/fd/{descriptor}").startswith(f"{root}/"):
                        pids.append(int(name))
                        break
    return tuple(pids)


def _memory() -> tuple[int | None, int | None]:
    try:
        lines = _read("/proc/meminfo").splitlines()
        sizes = {line.split(b":")[0]: int(line.split()[1]) * 1024 for line in lines}
        # MemAvailable, as what is free without swapping; MemFree leaves out caches that can be
        # dropped.
        return sizes[b"MemTotal"] - sizes[b"MemAvailable"], sizes[b"MemTotal"]
    except (OSError, ValueError, KeyError, IndexError):
        return None, None


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _disk_free(path: str) -> int | None:
    try:
        status = os.statvfs(path)
    except OSError:
        return None
    # For this user: root's reserve is not.
    return status.f_bavail * status.f_frsize


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(65_536)
