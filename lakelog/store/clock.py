"""The order of appends on this host: stamps that grow, whatever the wall clock does.

Of two rows with one id the earlier counts, and in the tail `ingested_at` says which (F12.6). Were
the clock set back, a later append would win over one that was acknowledged and seen. So a frame is
stamped after every frame that was acknowledged before it began: a Lamport clock whose highest value
is in cache/clock, read before a frame is encoded and raised before its append returns.

    cache/clock: i64 highest stamp (us), little-endian; 16 bytes, the boot that it belongs to

It is never synced: the first stamp after a boot looks for the highest one in the WALs.
"""

from __future__ import annotations

import functools
import hashlib
import mmap
import struct
from collections.abc import Callable

from lakelog.disk import File, disk

_STAMP = struct.Struct("<q")
_BOOT = 16


class Clock:
    """Stamps for one writer. `newest` returns the highest stamp that is still in a WAL."""

    AHEAD = 3_600_000_000
    """Stamps this far ahead of the wall clock (us) come from a clock that was wrong: once the
    frames that carry them are sealed, stamps return to the wall clock. Moves have the same bound
    (F7.3)."""

    def __init__(self, path: str, newest: Callable[[], int]) -> None:
        self._path, self._newest = path, newest
        self._map: mmap.mmap | None = None
        self._last, self._is_old = 0, True

    def stamp(self) -> int:
        """Microseconds since 1970, above every stamp that was published before this call."""
        if self._is_old:
            self.close()
            self._open()
            self._is_old = False
        # Two writers may read the same value: then neither was acknowledged before the other.
        shared = _STAMP.unpack_from(self._map)[0] if self._map else 0
        return max(disk.now_us(), shared + 1, self._last + 1)

    def advance(self, stamp: int) -> None:
        """Publish a stamp: later frames of this host get higher ones. Call before the append
        returns."""
        self._last = stamp
        if self._map and _STAMP.unpack_from(self._map)[0] < stamp:
            _STAMP.pack_into(self._map, 0, stamp)

    def reopen(self) -> None:
        """Open the file again at the next stamp: the cache may have been deleted, and a clock that
        was years ahead may have been corrected since."""
        self._is_old = True

    def close(self) -> None:
        """Close the file; the next stamp opens it again."""
        # Forgotten first: Ctrl-C between the two must not leave a map that is closed.
        closing, self._map, self._is_old = self._map, None, True
        if closing:
            closing.close()

    def _open(self) -> None:
        """Open the file; on the first stamp of a boot, or far ahead, ask the WAL what is true."""
        try:
            self._map = File(self._path).map_shared(_STAMP.size + _BOOT)
        except (OSError, ValueError):  # a cache that cannot be written: we order our own appends
            return
        shared = _STAMP.unpack_from(self._map)[0]
        boot = self.boot_id()
        if self._map[_STAMP.size :] == boot and shared <= disk.now_us() + self.AHEAD:
            return
        # The file is never synced, so after a power cut it may be behind frames that are in a WAL.
        self._last = newest = self._newest()
        if _STAMP.unpack_from(self._map)[0] == shared:  # else another writer was quicker
            _STAMP.pack_into(self._map, 0, newest)
            self._map[_STAMP.size :] = boot

    @staticmethod
    def following(previous_us: int, now_us: int) -> int:
        """The time of a move after one of time `previous_us`, both in microseconds: later, unless
        that came from a clock that was far ahead."""
        return now_us if previous_us > now_us + Clock.AHEAD else max(now_us, previous_us + 1)

    @staticmethod
    @functools.cache
    def boot_id() -> bytes:
        """What identifies this boot of the machine; empty where the system does not say."""
        try:
            identifier = File("/proc/sys/kernel/random/boot_id").read()
        except OSError:
            identifier = b""
        return hashlib.sha256(identifier).digest()[:_BOOT]
