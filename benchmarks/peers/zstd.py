"""zstd at level 19: how small the lines become when nothing else matters."""

from __future__ import annotations

import zstandard

from benchmarks.peers import files

LEVEL = 19
SAMPLE = 8_000_000
"""Bytes of lines that are compressed: as many as the window holds; more would take minutes."""


class Peer:
    """A compressed file."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.count = 0

    def load(self, path: str) -> None:
        """Compress the beginning of a file."""
        with open(path, "rb") as file:
            lines = b"".join(file.readlines(SAMPLE))
        self.count = lines.count(b"\n")
        with open(f"{self.root}/events.zst", "wb") as out:
            out.write(zstandard.ZstdCompressor(level=LEVEL).compress(lines))

    def size(self) -> int:
        """Bytes of the compressed file."""
        return files.size(self.root)
