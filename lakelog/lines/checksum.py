"""The CRC-32 of what was read of a file, whose parts are summed up beside each other."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

_POLYNOMIAL, _BYTE = 0xEDB88320, 1 << 23
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

    As crc32_combine of zlib: a byte of zero behind a text multiplies its CRC by x to the 8, and so
    many of them by a power of that.
    """
    return _behind(crc, length) ^ next_crc


def of_zeros(length: int) -> int:
    """Return the CRC-32 of so many bytes of zero, without a look at any."""
    # The register begins with all bits set, and its bits are inverted at the end.
    return _behind(_ALL_BITS, length) ^ _ALL_BITS


def _behind(crc: int, length: int) -> int:
    """Return what so many bytes of zero behind a text make of its CRC."""
    for bit in range(length.bit_length()):
        if length >> bit & 1:
            crc = _product(_power(bit), crc)
    return crc


@functools.cache
def _power(exponent: int) -> int:
    """Return x to 8 times two to this power: what so many bytes of zero multiply by."""
    return _product(_power(exponent - 1), _power(exponent - 1)) if exponent else _BYTE


def _product(a: int, b: int) -> int:
    """Multiply polynomials modulo that of CRC-32, whose highest bit is of x to the 0."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (b & 1) * _POLYNOMIAL
    return product
