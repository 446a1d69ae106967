"""Identity keys of a state, looked up one by one, without an engine: a light writer has none."""

from __future__ import annotations

import bisect
import mmap
import sys
from collections.abc import Iterable
from typing import Any

from lakelog.appends.versioned import StreamSubject
from lakelog.disk import File
from lakelog.entries import IdRun
from lakelog.errors import DamagedIds
from lakelog.store import Store

_HEADER = 64


class _OpenRun:
    """A run in memory: the first eight bytes of its keys and the last four, as numbers."""

    def __init__(self, data: Any, count: int) -> None:
        view, middle = memoryview(data), _HEADER + 8 * count
        self._high: Any = view[_HEADER:middle].cast("Q")
        self._low: Any = view[middle : middle + 4 * count].cast("I")

    def holds(self, high: int, low: int) -> bool:
        """Whether a key is in the run."""
        keys = self._high
        place = bisect.bisect_left(keys, high)
        while place < len(keys) and keys[place] == high:
            if self._low[place] == low:
                return True
            place += 1
        return False


class KnownKeys:
    """The identity keys of the states of one lake."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._runs: dict[str, _OpenRun] = {}
        self._state: tuple[IdRun, ...] = ()

    def of(self, runs: tuple[IdRun, ...]) -> KnownKeys:
        """Let these runs be those of the state that is asked. Raises DamagedIds."""
        if runs is not self._state:
            open_runs = {run.digest: self._runs.get(run.digest) or self._open(run) for run in runs}
            self._runs, self._state = open_runs, runs
        return self

    def holds(self, key: bytes) -> bool:
        """Whether the state has an identity key."""
        high, low = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")
        return any(run.holds(high, low) for run in self._runs.values())

    def last_version(self, subject: StreamSubject, expected: int = 0) -> int:
        """Return the last version of a stream in the state, 0 if it has none. `expected` is where
        to look first."""

        def has(version: int) -> bool:
            return version == 0 or self.holds(subject.key(version))

        low, step = expected if has(expected) else 0, 1
        while has(low + step):
            low, step = low + step, step * 2
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if has(middle) else (low, middle)
        return low

    def _open(self, run: IdRun) -> _OpenRun:
        path = self._store.paths.object("ids", run.digest)
        try:
            if not self._store.verified.is_intact(run.digest, path):
                raise DamagedIds(path, "the content does not match its name")
            with open(File(path).open(), "rb") as file:
                data: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (FileNotFoundError, ValueError):
            raise DamagedIds(path, "the id run is missing or empty") from None
        if len(data) != run.bytes or run.bytes != _HEADER + 12 * run.count:
            raise DamagedIds(path, "the id run does not have the shape its manifest names")
        # Its numbers are little-endian; on other machines they are turned around once.
        return _OpenRun(data if sys.byteorder == "little" else _swapped(data, run.count), run.count)


def _swapped(data: Any, count: int) -> bytes:
    middle = _HEADER + 8 * count
    numbers = [*_turned(data[_HEADER:middle], 8), *_turned(data[middle:], 4)]
    return data[:_HEADER] + b"".join(numbers)  # type: ignore[no-any-return]


def _turned(data: bytes, size: int) -> Iterable[bytes]:
    return (data[at : at + size][::-1] for at in range(0, len(data), size))
