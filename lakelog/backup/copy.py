"""A backup: one whole copy of a file as it was, and a document beside it that says what it is.

    app_20261120_140619.log.zst               the copy, as it was or packed with zstd
    app_20261120_140619.log.zst.backup.json   its document (store/document.py)

The time is UTC; -1, -2, ... follow it where a name is taken. A copy is written under a temporary
name, synced, read again and held against the SHA-256 of what was read of the file; then it gets
its name, and after that its document. What has a name is whole; what has a document was verified.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import zstandard

from lakelog.ingest.cursors import printable
from lakelog.ingest.inflate import MAGIC_MAX, compression
from lakelog.store import disk, document

DOCUMENT = ".backup.json"
PACKED = ".zst"
VERSION = 1
LEVEL = 3
_PIECE = 1 << 22
_TRIES = 3
_STEM_MAX = 160
_SUFFIX_MAX = 40
"""Bytes of a file's name that are kept, so that the copy's name is none too long."""
Stop = Callable[[], bool]


class FileChanged(OSError):
    """A file was rewritten or cut while it was copied; a later try may go well."""


class CopyStopped(Exception):
    """Whoever copies was told to end."""


@dataclass(frozen=True)
class Backup:
    """What is known of one copy. `path` is the copy's own; the document holds the rest.

    `raw` is the file's path as hex of its bytes, `sha256` and `size` those of the file as it was,
    `cursor` the key under which the lake knew it and `covered` how many bytes were published.
    """

    path: str
    number: int
    made: int
    source: str
    raw: str
    sha256: str
    size: int
    stored: int
    packed: bool
    mtime_ns: int
    mode: int
    uid: int
    gid: int
    device: int
    inode: int
    cursor: str = ""
    covered: int = 0

    @property
    def origin(self) -> str:
        """The path of the file that was copied, as the system takes it."""
        return os.fsdecode(bytes.fromhex(self.raw))

    def body(self) -> dict[str, Any]:
        """What the document holds."""
        kept = asdict(self)
        del kept["path"]
        return {"backup": VERSION, **kept}


@dataclass(frozen=True)
class VerifiedCopy:
    """A verified copy that has no name yet: where it is, and what it was made of."""

    path: str
    sha256: str
    size: int
    packed: bool
    status: os.stat_result


def read_document(path: str) -> Backup:
    """Return what the document of the copy at `path` says. Raises NotIntact, OSError."""
    body = document.decode(disk.read(path + DOCUMENT))
    if body.pop("backup", None) != VERSION:
        raise document.NotIntact("it is of a later lakelog, or no document of a backup")
    try:
        return Backup(path, **body)
    except TypeError:
        raise document.NotIntact("it is no document of a backup") from None


def name_of(name: str, made: int, ordinal: int, packed: bool) -> str:
    """Return the name of a copy: app.log.1 becomes app_20261120_140619.log.1."""
    stem, suffix = _halves(name)
    moment = datetime.datetime.fromtimestamp(made // 1_000_000, datetime.UTC)
    again = f"-{ordinal}" if ordinal else ""
    made_name = f"{stem}_{moment:%Y%m%d_%H%M%S}{again}{suffix}{PACKED if packed else ''}"
    made_name = f"dot{made_name}" if made_name.startswith(".") else made_name
    return f"{made_name}.copy" if made_name.endswith(DOCUMENT) else made_name


def copy(path: str, folder: str, packed: bool, stop: Stop) -> VerifiedCopy:
    """Copy a regular file to a temporary name in `folder`, and verify it by reading it again.

    A file that only grows is copied as far as it was long at the start. Raises FileChanged if it
    was rewritten meanwhile, OSError, CopyStopped.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        for _ in range(_TRIES):
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file", path)
            with contextlib.suppress(FileChanged):
                return _copy(fd, status, folder, packed, stop)
    finally:
        os.close(fd)
    raise FileChanged(errno.EAGAIN, "it changed while it was copied", path)


def contents(path: str, packed: bool) -> Iterator[bytes]:
    """Yield what a copy holds, unpacked. Raises OSError, zstandard.ZstdError."""
    with open(path, "rb", buffering=0) as file:
        with contextlib.suppress(OSError, AttributeError):  # read the medium, not what we just had
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        unpack = zstandard.ZstdDecompressor().stream_reader
        reader: Any = unpack(file, read_across_frames=True) if packed else file
        while piece := reader.read(_PIECE):
            yield piece


def fault_of(backup: Backup, stop: Stop = lambda: False) -> str:
    """Read a copy and return what is wrong with it, "" if it is what was copied."""
    return _fault(backup.path, backup.packed, backup.sha256, backup.size, stop)


def _copy(fd: int, status: os.stat_result, folder: str, packed: bool, stop: Stop) -> VerifiedCopy:
    packed = packed and not compression(os.pread(fd, MAGIC_MAX, 0))
    digest = hashlib.sha256()
    read = _pieces(fd, status.st_size, digest, stop)
    mode = stat.S_IMODE(status.st_mode) & 0o666 | 0o600
    made = disk.write_pieces(folder, _packing(read, status.st_size) if packed else read, mode=mode)
    try:
        after = os.fstat(fd)
        if (after.st_size, after.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
            again = hashlib.sha256()
            for _ in _pieces(fd, status.st_size, again, stop):
                pass
            if again.digest() != digest.digest():
                raise FileChanged(errno.EAGAIN, "it changed while it was copied")
        fault = _fault(made, packed, digest.hexdigest(), status.st_size, stop)
        if fault:
            raise OSError(errno.EIO, f"the copy is not what was written: {fault}", made)
        os.utime(made, ns=(status.st_mtime_ns, status.st_mtime_ns))
    except BaseException:
        disk.unlink(made)
        raise
    return VerifiedCopy(made, digest.hexdigest(), status.st_size, packed, status)


def _pieces(fd: int, size: int, digest: Any, stop: Stop) -> Iterator[bytes]:
    """Yield the first `size` bytes of an open file, hashing them. Raises as `copy` does."""
    at = 0
    while at < size:
        if stop():
            raise CopyStopped
        piece = os.pread(fd, min(size - at, _PIECE), at)
        if not piece:
            raise FileChanged(errno.EAGAIN, "it was truncated while it was copied")
        digest.update(piece)
        at += len(piece)
        yield piece


def _packing(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    packer = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj(size=size)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def _fault(path: str, packed: bool, sha256: str, size: int, stop: Stop) -> str:
    digest, length = hashlib.sha256(), 0
    try:
        for piece in contents(path, packed):
            if stop():
                raise CopyStopped
            digest.update(piece)
            length += len(piece)
            if length > size:
                break
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    except zstandard.ZstdError as error:
        return f"it cannot be unpacked: {error}"
    if length != size:
        return f"it has {'more than ' * (length > size)}{min(length, size):,} of {size:,} bytes"
    return "" if digest.hexdigest() == sha256 else "its bytes are not those that were copied"


def _halves(name: str) -> tuple[str, str]:
    """Cut a name where the time goes: before .log, or its last ending."""
    at = name.find(".log", 1)
    stem, suffix = (name[:at], name[at:]) if at > 0 else os.path.splitext(name)
    if len(os.fsencode(suffix)) > _SUFFIX_MAX:
        stem, suffix = name, ""
    if len(os.fsencode(stem)) > _STEM_MAX:
        mark = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
        stem = f"{os.fsdecode(os.fsencode(stem)[:_STEM_MAX])}~{mark}"
    return stem, suffix


def described(copied: VerifiedCopy, path: str, source: str, number: int, made: int) -> Backup:
    """Return what is known of a copy that is to be called `path`."""
    status = copied.status
    return Backup(
        path,
        number,
        made,
        printable(source),
        os.fsencode(source).hex(),
        copied.sha256,
        copied.size,
        os.stat(copied.path).st_size,
        copied.packed,
        status.st_mtime_ns,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_dev,
        status.st_ino,
    )
