"""A backup: a complete copy of a file, and a document next to it with its metadata.

    app_20261120_140619.log.zst               the copy, as it was or compressed with zstd
    app_20261120_140619.log.zst.backup.json   its document (lakelog/document)

The time is UTC; -1, -2, ... follow it where a name is taken. A copy is written under a temporary
name, synced, read again and compared with the SHA-256 of what was read from the file; then it gets
its name, and after that its document. What has a name is complete; what has a document was
verified.

Restoring a backup: the file as it was, whole or not at all, with its time and mode.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import zstandard

from lakelog import document
from lakelog.disk import File, Folder, NotIntact, OpenFile
from lakelog.errors import AlreadyExists, LakelogError
from lakelog.files import printable
from lakelog.lines import Source, compression

DOCUMENT = ".backup.json"
PACKED = ".zst"
VERSION = 1
LEVEL = 3
_BLOCK = 1 << 22
_TRIES = 3
_STEM_MAX = 160
_SUFFIX_MAX = 40
"""Bytes of a file's name that go into its copy's, which must not become too long."""
Stop = Callable[[], bool]


class FileChanged(OSError):
    """A file was rewritten or truncated while it was copied; a later attempt may succeed."""


class CopyStopped(Exception):
    """The caller asked to stop."""


@dataclass(frozen=True)
class Backup:
    """The metadata of one copy. `path` is the copy's own; the document holds the rest.

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
        """The path of the file that was copied, in the system's encoding."""
        return os.fsdecode(bytes.fromhex(self.raw))

    def body(self) -> dict[str, Any]:
        """Return the contents of the document."""
        fields = asdict(self)
        del fields["path"]
        return {"backup": VERSION, **fields}


@dataclass(frozen=True)
class VerifiedCopy:
    """A verified copy that has no name yet: where it is, and the file it was made from."""

    path: str
    sha256: str
    size: int
    is_packed: bool
    status: os.stat_result


def read_document(path: str) -> Backup:
    """Return the metadata in the document of the copy at `path`. Raises NotIntact, OSError."""
    body = document.decode(File(path + DOCUMENT).read())
    if body.pop("backup", None) != VERSION:
        raise NotIntact("it is of a later lakelog, or no document of a backup")
    try:
        return Backup(path, **body)
    except TypeError:
        raise NotIntact("it is no document of a backup") from None


def name_of(name: str, created: int, ordinal: int, is_packed: bool) -> str:
    """Return the name of a copy: app.log.1 becomes app_20261120_140619.log.1."""
    stem, suffix = _split_name(name)
    moment = datetime.datetime.fromtimestamp(created // 1_000_000, datetime.UTC)
    ordinal_suffix = f"-{ordinal}" if ordinal else ""
    copy_name = (
        f"{stem}_{moment:%Y%m%d_%H%M%S}{ordinal_suffix}{suffix}{PACKED if is_packed else ''}"
    )
    # A name that begins with a dot counts as a temporary one, which a scan of the directory skips.
    copy_name = f"dot{copy_name}" if copy_name.startswith(".") else copy_name
    # Else the copy of a file with this ending would be read as the document of another copy.
    return f"{copy_name}.copy" if copy_name.endswith(DOCUMENT) else copy_name


def copy(path: str, folder: str, is_packed: bool, stop: Stop) -> VerifiedCopy:
    """Copy a regular file to a temporary name in `folder`, and verify it by reading it again.

    A file that only grows is copied as far as it was long at the start. Raises FileChanged if it
    was rewritten meanwhile, OSError, CopyStopped.
    """
    # O_NONBLOCK: opening a FIFO would otherwise wait for somebody to write to it.
    with OpenFile.closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)) as fd:
        for _ in range(_TRIES):
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file", path)
            # Each try starts from the size of this moment, so that a file which only grows always
            # succeeds.
            with contextlib.suppress(FileChanged):
                return _copy(fd, status, folder, is_packed, stop)
    raise FileChanged(errno.EAGAIN, "it changed while it was copied", path)


def contents(path: str, is_packed: bool) -> Iterator[bytes]:
    """Yield the bytes of a copy, decompressed. Raises OSError, zstandard.ZstdError."""
    with open(path, "rb", buffering=0) as file:
        with contextlib.suppress(OSError, AttributeError):  # read the medium, not what we just had
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        # python-zstandard 0.25 stops after the first frame unless told otherwise: bytes behind it
        # would go unnoticed.
        unpack = zstandard.ZstdDecompressor().stream_reader
        reader: Any = unpack(file, read_across_frames=True) if is_packed else file
        while block := reader.read(_BLOCK):
            yield block


def fault_of(backup: Backup, stop: Stop = lambda: False) -> str:
    """Read a copy and return what is wrong with it; "" if it equals what was copied."""
    return _fault_in(backup.path, backup.packed, backup.sha256, backup.size, stop)


def _copy(
    fd: int, status: os.stat_result, folder: str, is_packed: bool, stop: Stop
) -> VerifiedCopy:
    # What is compressed already would not get smaller.
    is_packed = is_packed and not compression(os.pread(fd, Source.START, 0))
    digest = hashlib.sha256()
    blocks = _read_blocks(fd, status.st_size, digest, stop)
    # The document has the file's own mode, for restoring it. The copy must stay readable for its
    # owner, and is nothing to execute.
    mode = stat.S_IMODE(status.st_mode) & 0o666 | 0o600
    temporary = Folder(folder).write_pieces(
        _compress(blocks, status.st_size) if is_packed else blocks, mode=mode
    )
    try:
        # The size and time change as well when lines were only appended. Only if the bytes that
        # were copied are others now is the copy a mixture of two states.
        after = os.fstat(fd)
        if (after.st_size, after.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
            second_digest = hashlib.sha256()
            for _ in _read_blocks(fd, status.st_size, second_digest, stop):
                pass
            if second_digest.digest() != digest.digest():
                raise FileChanged(errno.EAGAIN, "it changed while it was copied")
        # The last check before the copy gets a name: what has a name counts as whole.
        fault = _fault_in(temporary, is_packed, digest.hexdigest(), status.st_size, stop)
        if fault:
            raise OSError(errno.EIO, f"the copy is not what was written: {fault}", temporary)
        os.utime(temporary, ns=(status.st_mtime_ns, status.st_mtime_ns))
    except BaseException:
        File(temporary).remove()
        raise
    return VerifiedCopy(temporary, digest.hexdigest(), status.st_size, is_packed, status)


def _read_blocks(fd: int, size: int, digest: Any, stop: Stop) -> Iterator[bytes]:
    """Yield the first `size` bytes of an open file, hashing them. Raises as `copy` does."""
    offset = 0
    while offset < size:
        if stop():
            raise CopyStopped
        block = os.pread(fd, min(size - offset, _BLOCK), offset)
        if not block:
            raise FileChanged(errno.EAGAIN, "it was truncated while it was copied")
        digest.update(block)
        offset += len(block)
        yield block


def _compress(blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    # The checksum of the frame lets `zstd -t` verify a backup where there is no lakelog.
    packer = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj(size=size)
    for block in blocks:
        yield packer.compress(block)
    yield packer.flush()


def _fault_in(path: str, is_packed: bool, sha256: str, size: int, stop: Stop) -> str:
    digest, length = hashlib.sha256(), 0
    try:
        for block in contents(path, is_packed):
            if stop():
                raise CopyStopped
            digest.update(block)
            length += len(block)
            # It is damaged whatever follows, and a crafted frame may unpack to any size.
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


def _split_name(name: str) -> tuple[str, str]:
    """Split a name where the time goes: before .log, or before its last extension."""
    # Before the first .log, so that app.log.1 keeps the ending by which it is known as rotated.
    # From the second character on: a file that is called .log has no other stem.
    dot = name.find(".log", 1)
    stem, suffix = (name[:dot], name[dot:]) if dot > 0 else os.path.splitext(name)
    if len(os.fsencode(suffix)) > _SUFFIX_MAX:
        stem, suffix = name, ""
    if len(os.fsencode(stem)) > _STEM_MAX:
        # Two long names that begin alike keep copies with different names.
        mark = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
        stem = f"{os.fsdecode(os.fsencode(stem)[:_STEM_MAX])}~{mark}"
    return stem, suffix


def describe(verified: VerifiedCopy, path: str, source: str, number: int, created: int) -> Backup:
    """Return the metadata of a copy that will be called `path`."""
    status = verified.status
    return Backup(
        path,
        number,
        created,
        printable(source),
        os.fsencode(source).hex(),
        verified.sha256,
        verified.size,
        os.stat(verified.path).st_size,
        verified.is_packed,
        status.st_mtime_ns,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_dev,
        status.st_ino,
    )


class DamagedBackup(LakelogError):
    """Raised when a copy differs from what was copied: choose an older one, see `backups
    verify`."""


def restore(backup: Backup, to: str | None = None, *, force: bool = False) -> str:
    """Write a backup back, to its old path or to `to` (a directory, or a path); return where.

    Raises AlreadyExists unless `force`, DamagedBackup, OSError; then nothing was changed.
    """
    target = os.path.abspath(to or backup.origin)
    if to is not None and (os.path.isdir(target) or to.endswith("/")):
        target = os.path.join(target, os.path.basename(backup.origin))
    if os.path.lexists(target):
        _may_replace(target, force)
    # Before anything is written: a damaged backup must not even create the directory.
    if fault := fault_of(backup):
        raise DamagedBackup(f"{printable(backup.path)}: {fault}")
    folder = os.path.dirname(target)
    Folder(folder).make_all()
    # Readable for nobody else until owner and mode are those of the file.
    temporary = Folder(folder).write_pieces(contents(backup.path, backup.packed), mode=0o600)
    try:
        # What was written is read again: only then may it take the place of an existing file.
        if fault := fault_of(dataclasses.replace(backup, path=temporary, packed=False)):
            raise DamagedBackup(f"{printable(target)}: {fault}")
        # Only root may give a file away; then it belongs to whoever restores it.
        with contextlib.suppress(PermissionError):
            os.chown(temporary, backup.uid, backup.gid)
        # After chown, which clears the set-user-id bits (chown(2)).
        os.chmod(temporary, stat.S_IMODE(backup.mode))
        os.utime(temporary, ns=(backup.mtime_ns, backup.mtime_ns))
        # link refuses a name that was taken since the check above; rename would replace that file.
        if force:
            File(temporary).rename(target)
        else:
            File(temporary).link(target)
    except FileExistsError:
        raise AlreadyExists(_exists_message(target)) from None
    finally:
        File(temporary).remove()
    # The caller says that the file is restored, so its name has to survive a power cut.
    Folder(folder).sync()
    return target


def _may_replace(target: str, force: bool) -> None:
    """Refuse to replace an existing path. Raises AlreadyExists, OSError."""
    if os.path.isdir(target) and not os.path.islink(target):
        raise OSError(errno.EISDIR, "this is a directory", target)
    if not force:
        raise AlreadyExists(_exists_message(target))


def _exists_message(target: str) -> str:
    name = printable(target)
    return f"{name} is there: --force replaces it, --to DIR puts it elsewhere"
