"""What of the bucket was read here: fetched when first asked for, checked, and bounded.

A file is dropped only if the bucket has it and nobody here has read it for ten minutes; those that
were read longest ago go first. When each was read is noted in cache/fetched.jsonl, which may be
deleted.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator

import orjson

from lakelog.disk import File, Folder
from lakelog.paths import KEYS, OBJECTS, FileName, FileNames, Paths
from lakelog.remotes import remote as remotes
from lakelog.remotes.shared.mirrored_volume import MirroredVolume

BYTES = 10 << 30
"""Bytes of segments that stay here unless another bound is given."""
_RESTING_SECONDS = 600
_NOTED_AGAIN = 60
_CHECKED_AFTER = 64 << 20
"""Bytes fetched after which the size of the cache is looked at again."""
_READS_MAX = 1 << 16
"""Objects of which a process remembers when they were read, at most."""
_LINE, _LOG_SPARE = 80, 1 << 20
"""Bytes of a line of the log, and by how much it may exceed two lines for each file."""


class SegmentCache:
    """The objects of a bucket that are in an attached directory."""

    def __init__(self, paths: Paths, volume: MirroredVolume, limit: int) -> None:
        self._paths, self._volume, self._limit = paths, volume, limit
        self._log = f"{paths.cache}/fetched.jsonl"
        self._read_at: dict[str, float] = {}
        self._fetched, self._looked_at = 0, -math.inf

    def fetch(self, files: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], set[str]]:
        """Fetch objects that are about to be read and are not here, several at once; return those
        that came, each hashed on its way, and the digests of those that the bucket lacks. Raises
        Unreachable, TransferRefused."""
        absent = [(digest, path) for digest, path in files if not File(path).exists()]
        self._note([digest for digest, _ in files])
        if not absent:
            return [], set()
        if self._volume.ask is not None:
            self._volume.ask({"keys": [self._key(path) for _, path in absent]})
            return [], set()  # who was asked knows of those that are gone
        # What another process brought meanwhile was not hashed by this one.
        outcomes = dict(remotes.in_parallel(self._fetch, absent, only_reads=True))
        fetched = [file for file, is_ours in outcomes.items() if is_ours]
        self._fetched += sum(os.path.getsize(path) for _, path in fetched)
        if self._fetched >= min(_CHECKED_AFTER, self._limit):
            self._fetched = 0
            self.shrink()
        return fetched, {digest for (digest, _), is_ours in outcomes.items() if is_ours is None}

    def _fetch(self, file: tuple[str, str]) -> bool | None:
        try:
            return self._volume.fetch(self._key(file[1]))
        except FileNotFoundError:
            return None  # whoever reads it says what that means

    def _key(self, path: str) -> str:
        return os.path.relpath(path, self._paths.root)

    def _note(self, digests: list[str]) -> None:
        """Note that objects are read now."""
        time_now = time.time()
        due = [d for d in digests if not 0 <= time_now - self._read_at.get(d, 0) <= _NOTED_AGAIN]
        if len(self._read_at) + len(due) > _READS_MAX:
            self._read_at.clear()  # each costs one more line
        self._read_at.update(dict.fromkeys(due[:_READS_MAX], time_now))
        if due:
            lines = b"".join(orjson.dumps([digest, int(time_now)]) + b"\n" for digest in due)
            try:
                File(self._log).append(lines)
            except OSError:
                return  # a full disk only loses the order in which files are dropped

    def shrink_if_due(self) -> None:
        """The same as `shrink`, but not each second: it looks at every file, and none goes that
        came just now."""
        if time.monotonic() - self._looked_at >= _RESTING_SECONDS / 10:
            self.shrink()

    def shrink(self) -> int:
        """Drop segments beyond the bound, those read longest ago first; return how many bytes."""
        self._looked_at = time.monotonic()
        files = list(self._segments())
        excess = sum(size for _, _, size, _ in files) - self._limit
        if excess <= 0 and self._log_bytes() <= 2 * _LINE * len(files) + _LOG_SPARE:
            return 0
        read_at, freed, remaining = self._last_reads(), 0, {digest for digest, *_ in files}
        time_now = time.time()
        resting = time_now - _RESTING_SECONDS
        last_reads = {d: max(read_at.get(d, 0), stamp) for d, _, _, stamp in files}
        # What a clock that was ahead wrote must not keep a file for as long.
        last_reads = {
            d: read_time if read_time <= time_now else resting
            for d, read_time in last_reads.items()
        }
        for digest, path, size, _ in sorted(files, key=lambda file: last_reads[file[0]]):
            if freed >= excess or last_reads[digest] > resting:
                break
            # What is not published yet is nowhere else.
            if path.startswith(self._paths.cache) or self._volume.bucket.exists(self._key(path)):
                File(path).remove()
                freed += size
                remaining.discard(digest)
        remaining_reads = ((d, int(t)) for d, t in read_at.items() if d in remaining)
        lines = b"".join(orjson.dumps(pair) + b"\n" for pair in remaining_reads)
        File(self._log).replace(lines, sync=False)
        return freed

    def _log_bytes(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return os.path.getsize(self._log)
        return 0

    def _segments(self) -> Iterator[tuple[str, str, int, float]]:
        """Yield (digest, path, bytes, when it came) of the segments that are here, of those that
        are read by ranges, and of files of names."""
        root = f"{self._paths.root}/segments"
        for folder in FileNames(Folder(root).names()).hex_dirs:
            for name in Folder(f"{root}/{folder}").names():
                path = f"{root}/{folder}/{name}"
                digest = FileName(name).digest
                if digest and name.endswith(OBJECTS["segments"]):
                    with contextlib.suppress(FileNotFoundError):  # others drop them, too
                        status = os.stat(path)
                        yield digest, path, status.st_size, status.st_ctime
        for folder in (self._paths.ranges, f"{self._paths.root}/{KEYS.names}"):
            for name in Folder(folder).names():
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(path := f"{folder}/{name}")
                    yield name, path, 512 * status.st_blocks, status.st_mtime

    def _last_reads(self) -> dict[str, float]:
        reads: dict[str, float] = {}
        try:
            lines = File(self._log).read().splitlines()
        except FileNotFoundError:
            return reads
        for line in lines:
            try:
                digest, moment = orjson.loads(line)
            except ValueError:
                continue
            reads[str(digest)] = float(moment)
        return reads
