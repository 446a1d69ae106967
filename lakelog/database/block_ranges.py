"""Segments of a bucket that are read by ranges: blocks of them, each checked by its hash (F22.16).

    cache/ranges/<digest>   the blocks that were read, at their places in a file with holes

What a block of that file is worth its hash says, whenever it is read: a hole is one that is wrong.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Protocol

from lakelog.disk import File, Folder
from lakelog.errors import DamagedSegment, TransferRefused
from lakelog.keys import VAULT
from lakelog.paths import Paths

BLOCK, HASH = 1 << 16, 32
"""Bytes of a block, and of the hash of one."""
LEAST = 4 << 20
"""Shorter segments are fetched whole: ranges would take as many requests, one after the other."""
_OPEN_MAX = 1024
_TOGETHER = 128
"""Blocks of one request at most."""
SHARED: set[str] = set()
"""The lakes of this process whose segments are in a bucket, by their directories."""
OPEN: dict[str, SegmentBlocks] = {}
"""Segments that can be read so, by the paths that they have when they are here whole."""


class PlainBytes(Protocol):
    """Bytes that are read by ranges."""

    size: int

    def read(self, start: int, length: int) -> bytes:
        """Return bytes from `start` on: fewer at the end."""


class SegmentBlocks:
    """One segment of `size` bytes, which `fetch(start, length)` reads in the bucket. Threads share
    it; it is right only if the hashes were checked against its entry."""

    def __init__(
        self,
        paths: Paths,
        digest: str,
        size: int,
        hashes: bytes,
        fetch: Callable[[int, int], bytes],
    ) -> None:
        self.size, self._hashes, self._fetch = size, hashes, fetch
        self._digest, self._cached = digest, f"{paths.ranges}/{digest}"
        self._path = paths.object("segments", digest)

    @staticmethod
    def hashes_of(data: bytes) -> bytes:
        """Return the hashes of all blocks of a segment, one after another; b"" of a short one."""
        if len(data) < LEAST:
            return b""
        view = memoryview(data)
        starts = range(0, len(data), BLOCK)
        return b"".join(hashlib.sha256(view[n : n + BLOCK]).digest() for n in starts)

    @staticmethod
    def hash_bytes(size: int) -> int:
        """How many bytes the hashes of a segment of so many have at most."""
        return HASH * (size // BLOCK + 1)

    @staticmethod
    def root_of(hashes: bytes) -> str:
        """Return what the entry of a segment says of its hashes, "" where it has none."""
        return hashlib.sha256(hashes).hexdigest()[:32] if hashes else ""

    @staticmethod
    def share(paths: Paths) -> None:
        """Note that segments of a lake are in a bucket, before its engine is opened."""
        SHARED.add(f"{paths.root}/")

    @staticmethod
    def is_shared(paths: Paths) -> bool:
        """Whether that was noted."""
        return f"{paths.root}/" in SHARED

    @staticmethod
    def is_open(path: str) -> bool:
        """Whether the segment with this path is read by ranges while it is not here."""
        return path in OPEN

    def open(self, path: str) -> bool:
        """Have it read by ranges while it is not here whole; False if too many are."""
        if len(OPEN) >= _OPEN_MAX and path not in OPEN:
            return False
        with contextlib.suppress(OSError):  # without it blocks are fetched each time
            Folder(os.path.dirname(self._cached)).make()
        OPEN[path] = self
        return True

    @functools.cached_property
    def plain(self) -> PlainBytes:
        """What of it the engine reads: its plaintext, or it itself. Raises as `read` does, and
        DamagedSegment."""
        try:
            return (VAULT.ranges(self.size, self.read) if VAULT.lakes else None) or self
        except ValueError as error:
            raise DamagedSegment(self._path, str(error)) from None

    def read(self, start: int, length: int) -> bytes:
        """Return bytes, those of blocks that are not here from the bucket. Raises TransferRefused,
        Unreachable, FileNotFoundError."""
        stop = min(start + length, self.size)
        if stop <= start:
            return b""
        blocks = range(start // BLOCK, -(-stop // BLOCK))
        data = dict(self._present(blocks))
        missing = (number for number in blocks if number not in data)
        # Those that stand together are one request.
        for _, run in itertools.groupby(enumerate(missing), lambda pair: pair[1] - pair[0]):
            numbers = [number for _, number in run]
            for begin in range(0, len(numbers), _TOGETHER):
                data |= self._fetched(numbers[begin : begin + _TOGETHER])
        first = blocks.start * BLOCK
        return b"".join(data[number] for number in blocks)[start - first : stop - first]

    def _present(self, blocks: range) -> Iterator[tuple[int, bytes]]:
        with contextlib.suppress(FileNotFoundError), open(self._cached, "rb") as file:
            for number in blocks:
                file.seek(number * BLOCK)
                if self._is_right(number, block := file.read(BLOCK)):
                    yield number, block

    def _fetched(self, numbers: list[int]) -> dict[int, bytes]:
        start = numbers[0] * BLOCK
        data = self._fetch(start, min(len(numbers) * BLOCK, self.size - start))
        blocks = {n: data[i * BLOCK : (i + 1) * BLOCK] for i, n in enumerate(numbers)}
        if not all(self._is_right(number, block) for number, block in blocks.items()):
            raise TransferRefused(
                f"segment {self._digest[:12]} is damaged in the bucket: run `lakelog repair` on a"
                " machine that has it"
            )
        with contextlib.suppress(OSError):
            File(self._cached).write_at(start, data)
        return blocks

    def _is_right(self, number: int, block: bytes) -> bool:
        expected = self._hashes[number * HASH : (number + 1) * HASH]
        return hashlib.sha256(block).digest() == expected


class BlockReader(io.RawIOBase):
    """A segment as a file that the engine reads."""

    def __init__(self, blocks: SegmentBlocks) -> None:
        super().__init__()
        self._plain, self._place = blocks.plain, 0
        self.size = self._plain.size

    def read(self, size: int = -1) -> bytes:
        """Return bytes from where it stands."""
        data = self._plain.read(self._place, self.size if size < 0 else size)
        self._place += len(data)
        return data

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be read from any byte on."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.size}
        self._place = starts[whence] + offset
        return self._place

    def tell(self) -> int:
        """Where it stands."""
        return self._place


def reader(path: str) -> BlockReader | None:
    """Return what reads a segment by ranges, None where it is not read so, or is here whole by now:
    then it may have gone from the bucket."""
    blocks = OPEN.get(path)
    return None if blocks is None or os.path.exists(path) else BlockReader(blocks)


VAULT.elsewhere = reader
