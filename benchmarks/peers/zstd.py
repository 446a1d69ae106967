"""zstd at level 19: how small the lines become when nothing else matters."""

from __future__ import annotations

import zstandard

from benchmarks.peers import files

LEVEL = 19


class Peer:
    """A compressed file."""

    def __init__(self, root: str) -> None:
        self.root = root

    def load(self, path: str) -> None:
        """Compress a file on all cores."""
        with open(path, "rb") as lines, open(f"{self.root}/events.zst", "wb") as out:
            zstandard.ZstdCompressor(level=LEVEL, threads=-1).copy_stream(lines, out)
        files.sync(self.root)

    def size(self) -> int:
        """Bytes of the compressed file."""
        return files.size(self.root)
