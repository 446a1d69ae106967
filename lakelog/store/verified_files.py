"""What this machine has verified: so that a lake is not hashed again by every short process.

cache/verified.jsonl holds lines `digest size inode mtime_ns ctime_ns crc32`. A file counts as
verified while all of them still match; any change of the file changes its ctime. Lines that do
not parse are skipped. Deleting the file costs time, never correctness.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable

from lakelog.store import disk
from lakelog.store.paths import Paths

_CHUNK = 1 << 20
_FEW = 1_000
"""So many remembered files more than the lake has are no matter."""


class VerifiedFiles:
    """Verified files of one lake, shared through cache/verified.jsonl."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._known: dict[str, tuple[int, int, int, int]] | None = None

    def holds(self, digest: str, path: str) -> bool:
        """Whether `path` was verified as it is now. Raises FileNotFoundError."""
        return self._load().get(digest) == _print(path)

    def add(self, digest: str, path: str) -> None:
        """Remember a file that was just hashed or just written and hashed."""
        self.add_all([(digest, path)])

    def add_all(self, files: list[tuple[str, str]]) -> None:
        """Remember several files with one write."""
        lines = []
        for digest, path in files:
            seen = _print(path)
            self._load()[digest] = seen
            lines.append(_line(digest, seen))
        try:
            disk.append_line(self._paths.verified, "".join(lines).encode())
        except OSError:
            return  # only thrift is lost: a read-only or full lake is verified again next time

    def keep(self, is_wanted: Callable[[str], bool]) -> None:
        """Forget the files of other digests, once most of what is remembered is of those.

        What another process adds meanwhile may be lost, and is then verified again.
        """
        self._known = None
        known = self._load()
        kept = {digest: seen for digest, seen in known.items() if is_wanted(digest)}
        if len(known) > _FEW + 2 * len(kept):
            data = "".join(_line(digest, seen) for digest, seen in kept.items()).encode()
            disk.replace_whole(self._paths.verified, data, sync=False)
            self._known = kept

    def _load(self) -> dict[str, tuple[int, int, int, int]]:
        if self._known is None:
            self._known = {}
            try:
                text = disk.read(self._paths.verified)
            except OSError:
                text = b""
            for line in text.splitlines():
                parsed = parse(line)
                if parsed:
                    self._known[parsed[0]] = parsed[1]
        return self._known


def _line(digest: str, seen: tuple[int, int, int, int]) -> str:
    text = " ".join([digest, *map(str, seen)])
    return f"{text} {zlib.crc32(text.encode())}\n"


def parse(line: bytes) -> tuple[str, tuple[int, int, int, int]] | None:
    """Return (digest, stat) of a line, or None if it is not intact."""
    text, _, crc = line.rpartition(b" ")
    parts = text.split(b" ")
    if len(parts) != 5 or crc != str(zlib.crc32(text)).encode():
        return None
    size, inode, mtime, ctime = (int(p) for p in parts[1:])
    return parts[0].decode(), (size, inode, mtime, ctime)


def hash_file(path: str) -> str:
    """SHA-256 of a file, read in chunks."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            sha.update(chunk)
    return sha.hexdigest()


def _print(path: str) -> tuple[int, int, int, int]:
    status = os.stat(path)
    return status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns
