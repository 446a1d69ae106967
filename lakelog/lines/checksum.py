"""The CRC-32 of what was read of a file, whose parts are summed up beside each other."""

from __future__ import annotations

import functools
import itertools
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

_POLYNOMIAL = 0xEDB88320
_ALL_BITS = 0xFFFFFFFF


class Checksum:
    """The CRC-32 of bytes in their order, behind some whose own is `start`; None if that is.

    Waiting for what another process sums up would keep chunks in memory, so what comes behind it is
    summed up by itself, and both are joined once the value is asked for.
    """

    def __init__(self, start: int | None, pool: ThreadPoolExecutor) -> None:
        """`pool` has one thread: there, what was begun before is known."""
        self._start, self._pool = start, pool
        self._runs: list[tuple[Callable[[], int], int]] = []
        self._goes_on = False

    def add(self, blocks: Iterable[bytes | memoryview], length: int) -> None:
        """Add `length` bytes, summed up in parallel with work on what follows."""
        if self._start is None:
            return
        before, size = self._runs.pop() if self._goes_on else (int, 0)
        run = self._pool.submit(
            lambda: functools.reduce(lambda crc, part: zlib.crc32(part, crc), blocks, before())
        )
        self._runs.append((run.result, size + length))
        self._goes_on = True

    def add_sum(self, crc: Callable[[], int], length: int) -> None:
        """Add `length` bytes of which another process knows the CRC-32."""
        self._runs.append((crc, length))
        self._goes_on = False

    def add_zeros(self, length: int) -> None:
        """Add so many bytes of zero."""
        self.add_sum(lambda: of_zeros(length), length)

    def value(self) -> int | None:
        """Return the CRC-32 of all that was added. Raises what another process failed with."""
        for crc, length in self._runs if self._start is not None else ():
            self._start = joined(self._start or 0, crc(), length)
        self._runs, self._goes_on = [], False
        return self._start


def joined(crc: int, next_crc: int, length: int) -> int:
    """Return the CRC-32 of two texts, one after the other, by those of each; `length` is that of
    the second.

    As crc32_combine of zlib: a byte of zero behind a text is a linear map of its CRC, and so many
    of them are powers of that map.
    """
    return _behind(crc, length) ^ next_crc


def of_zeros(length: int) -> int:
    """Return the CRC-32 of so many bytes of zero, without a look at any."""
    # The register begins with all bits set, and its bits are inverted at the end.
    return _behind(_ALL_BITS, length) ^ _ALL_BITS


def _behind(crc: int, length: int) -> int:
    """Return what so many bytes of zero behind a text make of its CRC, a linear map."""
    for power in itertools.count():
        if not length:
            break
        if length & 1:
            crc = _times(_zeros(power), crc)
        length >>= 1
    return crc


@functools.cache
def _zeros(power: int) -> Sequence[int]:
    """Return what two to this power of zero bytes behind it make of each bit of a CRC."""
    if power:
        return _twice(_zeros(power - 1))
    bit = [_POLYNOMIAL, *(1 << number for number in range(31))]
    return _twice(_twice(_twice(bit)))


def _twice(matrix: Sequence[int]) -> Sequence[int]:
    return [_times(matrix, row) for row in matrix]


def _times(matrix: Sequence[int], vector: int) -> int:
    product = 0
    for row in matrix:
        if vector & 1:
            product ^= row
        vector >>= 1
    return product
