"""Files that this machine has verified, so that not every short process hashes the lake again.

cache/verified.jsonl holds lines `digest size inode mtime_ns ctime_ns crc32`. A file counts as
verified while all of them still match; any change of the file changes its ctime. Lines that do
not parse are skipped. Deleting the file costs time, never correctness.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from collections.abc import Callable, Iterable

from lakelog.disk import DOCUMENT_MAX, File, NotRegular, OpenFile
from lakelog.entries import SegmentEntry
from lakelog.errors import DamagedSegment
from lakelog.paths import Paths

_Stamp = tuple[int, int, int, int]
"""Size, inode, mtime and ctime of a file."""
_SLACK = 1_000
"""This many lines of files that are gone do not matter."""
_HOLES_UP_TO = 1 << 30


class VerifiedFiles:
    """Verified files of one lake, shared through cache/verified.jsonl."""

    def __init__(
        self,
        paths: Paths,
        fetch: Callable[[list[tuple[str, str]]], list[tuple[str, str]]] | None = None,
    ) -> None:
        """`fetch` brings objects here, where a bucket has them; it returns those it hashed."""
        self._paths, self._fetch = paths, fetch
        self._lines: dict[str, bytes] | None = None
        """The newest line of each digest. Only those that are asked for are compared: a lake has
        thousands."""

    def holds(self, digest: str, path: str) -> bool:
        """Whether `path` was verified as it is now. Raises FileNotFoundError."""
        if self._fetch is not None:
            self.obtain([(digest, path)])
        return self._load().get(digest) == _line(digest, _stamp(path))

    def is_intact(self, digest: str, path: str) -> bool:
        """Whether the content of `path` has this digest; it is read unless it was verified as it is
        now. Raises FileNotFoundError."""
        if not self.holds(digest, path):
            if self.hash_file(path) != digest:
                return False
            self.add(digest, path)
        return True

    def require(self, segments: Iterable[SegmentEntry]) -> None:
        """Verify segments before their rows are read or rewritten: a flipped bit would get a valid
        digest. Raises DamagedSegment."""
        pairs: list[tuple[str, _Stamp]] = []
        files = [(entry.key, self._paths.object("segments", entry.key)) for entry in segments]
        self.obtain(files)  # several at once
        try:
            for key, path in files:
                try:
                    if self.holds(key, path):
                        continue
                    stamp, digest = _stamp(path), self.hash_file(path)
                except FileNotFoundError:
                    raise DamagedSegment(path, "the segment is missing") from None
                if digest != key:
                    raise DamagedSegment(path, "the content does not match its name")
                pairs.append((key, stamp))
        finally:
            self._note(pairs)

    def obtain(self, files: list[tuple[str, str]]) -> None:
        """Have objects here, by digest and path, that are about to be read."""
        if self._fetch is not None and (arrivals := self._fetch(files)):
            with contextlib.suppress(FileNotFoundError):  # a full cache drops some at once
                self.add_all(arrivals)

    def add(self, digest: str, path: str) -> None:
        """Remember a file that was just hashed or just written and hashed."""
        self.add_all([(digest, path)])

    def add_all(self, files: list[tuple[str, str]]) -> None:
        """Remember several files with one write."""
        self._note([(digest, _stamp(path)) for digest, path in files])

    def add_written(self, object_type: str, digests: Iterable[str]) -> None:
        """Remember objects that were just written and synced by us, so that the first query need
        not hash them."""
        if files := [(digest, self._paths.object(object_type, digest)) for digest in digests]:
            self.add_all(files)

    def renew(self, object_type: str, digests: Iterable[str]) -> None:
        """Remember objects that were given another name since they were verified: their ctime is
        another, and all else must be the same."""
        records, stamps = self._load(), list[tuple[str, _Stamp]]()
        for digest in digests:
            stamp = _stamp(self._paths.object(object_type, digest))
            record = self.parse(records.get(digest, b""))
            if record is not None and record[1][:3] == stamp[:3]:
                stamps.append((digest, stamp))
        self._note(stamps)

    def keep(self, is_wanted: Callable[[str], bool]) -> None:
        """Remove the lines of other digests, once most lines are of those.

        What another process adds meanwhile may be lost, and is then verified again.
        """
        # Read again: what other processes added since this one read the file must not be lost too.
        self._lines = None
        lines = self._load()
        live = {digest: line for digest, line in lines.items() if is_wanted(digest)}
        if len(lines) > _SLACK + 2 * len(live):
            intact = {digest: line for digest, line in live.items() if self.parse(line)}
            data = b"".join(line + b"\n" for line in intact.values())
            File(self._paths.verified).replace(data, sync=False)
            self._lines = intact

    def _note(self, stamps: list[tuple[str, _Stamp]]) -> None:
        if not stamps:
            return
        lines = {digest: _line(digest, stamp) for digest, stamp in stamps}
        # Who only adds need not read what is there: a first seal would wait for it.
        if self._lines is not None:
            self._lines.update(lines)
        try:
            File(self._paths.verified).append(b"".join(line + b"\n" for line in lines.values()))
        except OSError:
            # A read-only or full lake is verified again by the next process.
            self._load().update(lines)

    def _load(self) -> dict[str, bytes]:
        if self._lines is None:
            try:
                data = File(self._paths.verified).read(DOCUMENT_MAX)
            except OSError:
                data = b""
            lines = data.splitlines()
            self._lines = {line.partition(b" ")[0].decode(errors="replace"): line for line in lines}
        return self._lines

    @staticmethod
    def parse(line: bytes) -> tuple[str, _Stamp] | None:
        """Return (digest, stat) of a line, or None if it is not intact."""
        fields, _, crc = line.rpartition(b" ")
        members = fields.split(b" ")
        if len(members) != 5 or crc != b"%d" % zlib.crc32(fields):
            return None
        digest, size, inode, mtime, ctime = members
        return digest.decode(), (int(size), int(inode), int(mtime), int(ctime))

    @staticmethod
    def hash_file(path: str) -> str:
        """SHA-256 of a file, read in chunks; "" of what is none: a pipe or device, or a
        file that says it is long and is not there."""
        try:
            fd = File(path).open()
        except NotRegular:
            return ""
        with open(fd, "rb") as file:
            # To read a terabyte of nothing would take an hour. Copies of short ones may have holes.
            if os.fstat(fd).st_size > _HOLES_UP_TO and OpenFile(fd).has_holes():
                return ""
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()


def _line(digest: str, stamp: _Stamp) -> bytes:
    # With a checksum: a flipped bit in the digest would make another file count as verified.
    fields = b"%s %d %d %d %d" % (digest.encode(), *stamp)
    return b"%s %d" % (fields, zlib.crc32(fields))


def _stamp(path: str) -> _Stamp:
    # ctime as well: size and mtime of a file can be restored after a change, ctime cannot.
    status = os.stat(path)
    return status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns
