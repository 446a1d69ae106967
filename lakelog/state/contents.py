"""Contents: the files of a saved state directory, each by the parts of chunks that hold it."""

from __future__ import annotations

import bisect
import hashlib
import itertools
from collections.abc import Iterator

from lakelog import chunks
from lakelog.chunks import StateEntry, StateIndex
from lakelog.store.paths import Paths

ChunkRange = tuple[str, int, int]
"""The digest of a chunk, and the range of bytes in it."""


class Contents:
    """The files of one index, by their paths; a hard link has the content of its target."""

    def __init__(self, paths: Paths, index: StateIndex) -> None:
        self._paths, self._chunks = paths, index.chunks
        self.entries = {entry.path: entry for entry in index.entries}
        starts = itertools.accumulate((entry.stored for entry in index.entries), initial=0)
        self._starts = dict(zip(self.entries, starts, strict=False))
        self._ends = list(itertools.accumulate(size for _, size in index.chunks))
        self._last = ("", b"")

    def file(self, path: bytes) -> StateEntry | None:
        """Return the file of a path, None for another or no entry."""
        entry = self.entries.get(path)
        if entry is not None and entry.kind == "hard":
            # Links lead to files only, never to links.
            entry = self.entries[entry.target]
        return entry if entry is not None and entry.kind == "file" else None

    def parts(self, file: StateEntry) -> list[tuple[int, ChunkRange]]:
        """Return the data of a file: where in the file each part of a chunk belongs."""
        slices, start = [], self._starts[file.path]
        for offset, length in file.extents:
            at, end = start, start + length
            while at < end:
                # The chunk in which this byte lies; ends are sorted.
                number = bisect.bisect_right(self._ends, at)
                digest, size = self._chunks[number]
                chunk_start = self._ends[number] - size
                stop = min(end, self._ends[number])
                slices.append((offset + at - start, (digest, at - chunk_start, stop - chunk_start)))
                at = stop
            start = end
        return slices

    def read(self, file: StateEntry) -> Iterator[bytes]:
        """Yield the content of a file, zeros in its holes. Raises DamagedState."""
        position = 0
        for offset, (digest, low, high) in self.parts(file):
            yield from _zeros(offset - position)
            # Many small files are in one chunk.
            if self._last[0] != digest:
                self._last = digest, chunks.StateFiles(self._paths).read_chunk(digest)
            yield self._last[1][low:high]
            position = offset + high - low
        yield from _zeros(file.size - position)

    def digest(self, file: StateEntry) -> bytes:
        """Return the SHA-256 of the content of a file. Raises DamagedState."""
        sha256 = hashlib.sha256()
        for block in self.read(file):
            sha256.update(block)
        return sha256.digest()


def _zeros(count: int) -> Iterator[bytes]:
    for offset in range(0, count, 1 << 20):
        yield bytes(min(1 << 20, count - offset))
