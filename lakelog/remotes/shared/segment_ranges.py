"""Which segments of a bucket are read by ranges: long ones of which a query needs few rows."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from lakelog.database import SegmentBlocks
from lakelog.disk import File
from lakelog.entries import SegmentEntry
from lakelog.errors import TransferRefused
from lakelog.paths import KEYS, Paths
from lakelog.remotes import remote as remotes
from lakelog.remotes.shared.mirrored_volume import MirroredVolume
from lakelog.remotes.shared.names import NameIndex


class SegmentRanges:
    """Opens them in one directory. Safe for threads."""

    def __init__(self, paths: Paths, volume: MirroredVolume, names: NameIndex) -> None:
        self._paths, self._volume, self._names = paths, volume, names
        if importlib.util.find_spec("fsspec") is not None:  # through which the engine reads them
            SegmentBlocks.share(paths)

    def open(self, entries: Iterable[SegmentEntry]) -> set[str]:
        """Have those of segments read by ranges that are not here, and of which it is known what
        each block is; return their digests."""
        if not SegmentBlocks.is_shared(self._paths):
            return set()
        absent = [e for e in entries if e.blocks and not File(self._path(e)).exists()]
        outcomes = remotes.in_parallel(self._open, absent, only_reads=True)
        return {entry.key for entry, is_open in outcomes if is_open}

    def _path(self, entry: SegmentEntry) -> str:
        return self._paths.object("segments", entry.key)

    def _open(self, entry: SegmentEntry) -> bool:
        path, key = self._path(entry), KEYS.object("segments", entry.key)
        if SegmentBlocks.is_open(path):
            return True
        hashes = self._names.hashes(entry.key, SegmentBlocks.hash_bytes(entry.bytes))
        # Whoever can write to the bucket can write hashes of other bytes there, and no entry.
        if SegmentBlocks.root_of(hashes) != entry.blocks:
            return False

        def fetch(start: int, length: int) -> bytes:
            try:
                return remotes.retrying(lambda: self._volume.piece(key, start, length))
            except FileNotFoundError:
                if self._volume.ask is None:
                    self._volume.require_lake()
                message = f"{self._volume.url}: {key} is not there any more: run the query again"
                raise TransferRefused(message) from None

        return SegmentBlocks(self._paths, entry.key, entry.bytes, hashes, fetch).open(path)
