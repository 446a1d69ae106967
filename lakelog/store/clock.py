"""The order of appends on this host: stamps that grow, whatever the wall clock does.

Of two rows with one id the earlier counts, and in the tail `ingested_at` says which (F12.6). Were
the clock set back, a later append would win over one that was acknowledged and seen. So a frame is
stamped after every frame that was acknowledged before it began: a Lamport clock whose highest value
stands in cache/clock, read before a frame is made and raised before its append returns.

    cache/clock: i64 highest stamp (us), little-endian; 16 bytes, the boot that it belongs to

It is never synced. After a power cut the WAL itself tells: the first stamp of a boot looks there.
"""

from __future__ import annotations

import functools
import hashlib
import mmap
import struct
from collections.abc import Callable

from lakelog.store import disk

AHEAD = 3_600_000_000
"""Stamps so far ahead of the wall clock (us) come from a clock that was wrong: once the frames that
bear them are sealed, stamps go back to the wall clock. Moves keep to the same bound."""
_STAMP = struct.Struct("<q")
_BOOT = 16


class Clock:
    """Stamps for one writer. `newest` returns the highest stamp that is still in the WAL."""

    def __init__(self, path: str, newest: Callable[[], int]) -> None:
        self._path, self._newest = path, newest
        self._map: mmap.mmap | None = None
        self._last, self._is_old = 0, True

    def stamp(self) -> int:
        """Microseconds since 1970, above every stamp passed on before this call."""
        if self._is_old:
            self.close()
            self._open()
        shared = _STAMP.unpack_from(self._map)[0] if self._map else 0
        return max(disk.now_us(), shared + 1, self._last + 1)

    def pass_on(self, stamp: int) -> None:
        """Let no later frame of this host be stamped below; call before the append returns."""
        self._last = stamp
        if self._map and _STAMP.unpack_from(self._map)[0] < stamp:
            _STAMP.pack_into(self._map, 0, stamp)

    def look_again(self) -> None:
        """Open the file anew at the next stamp: the cache may have been deleted, and a clock that
        was years ahead may have been put right since."""
        self._is_old = True

    def close(self) -> None:
        """Let the file go; the next stamp opens it again."""
        if self._map:
            self._map.close()
        self._map, self._is_old = None, True

    def _open(self) -> None:
        """Open the file; on the first stamp of a boot, or far ahead, ask the WAL what is true."""
        self._is_old = False
        try:
            self._map = disk.map_shared(self._path, _STAMP.size + _BOOT)
        except (OSError, ValueError):  # a cache that cannot be written: we order our own appends
            return
        known = _STAMP.unpack_from(self._map)[0]
        boot = _boot()
        if self._map[_STAMP.size :] == boot and known <= disk.now_us() + AHEAD:
            return
        self._last = newest = self._newest()
        if _STAMP.unpack_from(self._map)[0] == known:  # else another writer was quicker
            _STAMP.pack_into(self._map, 0, newest)
            self._map[_STAMP.size :] = boot


def following(last: int, now: int) -> int:
    """The time of a move after one of time `last`, both in microseconds: later, unless that came
    from a clock that was far ahead."""
    return now if last > now + AHEAD else max(now, last + 1)


@functools.cache
def _boot() -> bytes:
    """What tells this start of the machine from others; nothing where the system does not say."""
    try:
        text = disk.read("/proc/sys/kernel/random/boot_id")
    except OSError:
        text = b""
    return hashlib.sha256(text).digest()[:_BOOT]
