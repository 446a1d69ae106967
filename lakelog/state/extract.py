"""Extraction: making a fresh directory of an index and its chunks, which anybody may have forged.

Names were checked when the index was parsed. Each directory is opened from the fresh one on, name
by name and never through a link; files are created exclusively, so nothing that is there is
written to. Every chunk is checked before its bytes are written, and one is in memory at a time.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Callable, Iterator

from lakelog.chunks import state_files
from lakelog.chunks.state_index import StateEntry, StateIndex
from lakelog.errors import DamagedState
from lakelog.store.paths import INDEX, Paths

Progress = Callable[[int, int], None]
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL_BITS = 0o6000
_NODES = {"pipe": stat.S_IFIFO, "socket": stat.S_IFSOCK}
_ACL, _ACL_DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
_ACL_GROUP = 4


class Extraction:
    """Extracts one index; `notes` says which metadata this user may not set."""

    def __init__(self, paths: Paths, index: str, progress: Progress | None = None) -> None:
        self._paths, self._digest, self._progress = paths, index, progress
        self._owners = self._xattrs = self._devices = 0
        self._content = b""
        self._root = -1
        self._folder: tuple[bytes, int] = (b"", -1)
        self._done = 0

    def run(self, target: str) -> None:
        """Create `target` with all of the index in it, durably. Raises DamagedState, OSError; then
        the directory is there in part."""
        index = state_files.read_index(self._paths, self._digest)
        self._total = sum(size for _, size in index.chunks)
        self._chunks = self._read(index)
        os.mkdir(target, 0o700)
        self._root = os.open(target, _FOLDER)
        # What is made below must not inherit whom the directory around it lets in.
        for name in (_ACL, _ACL_DEFAULT):
            with contextlib.suppress(OSError):
                os.removexattr(self._root, name)
        self._folder = (b"", os.dup(self._root))
        try:
            for entry in index.entries[1:]:
                self._create(entry)
            # Children first: whatever is created in a directory changes its time.
            for entry in reversed([each for each in index.entries if each.kind == "dir"]):
                fd = os.dup(self._root) if not entry.path else self._open(entry.path)
                try:
                    self._set_metadata(fd, entry)
                    os.fsync(fd)
                finally:
                    os.close(fd)
        finally:
            os.close(self._folder[1])
            os.close(self._root)

    @property
    def notes(self) -> list[str]:
        """A line for each kind of metadata that could not be set."""
        notes = [f"the owner of {self._owners:,} files could not be set"] if self._owners else []
        if self._xattrs:
            notes.append(f"{self._xattrs:,} extended attributes could not be set")
        if self._devices:
            notes.append(f"{self._devices:,} devices were left out")
        return notes

    def _create(self, entry: StateEntry) -> None:
        parent, _, name = entry.path.rpartition(b"/")
        folder = self._in(parent)
        if entry.kind == "dir":
            os.mkdir(name, 0o700, dir_fd=folder)
        elif entry.kind == "link":
            os.symlink(entry.target, name, dir_fd=folder)
            self._set_metadata_by_name(folder, name, entry)
        elif entry.kind in _NODES:
            os.mknod(name, 0o600 | _NODES[entry.kind], dir_fd=folder)
            self._set_metadata_by_name(folder, name, entry)
        elif entry.kind == "device":
            self._devices += 1
        elif entry.kind == "hard":
            source, _, original = entry.target.rpartition(b"/")
            other = self._open(source) if source else os.dup(self._root)
            try:
                os.link(original, name, src_dir_fd=other, dst_dir_fd=folder, follow_symlinks=False)
            finally:
                os.close(other)
        else:
            fd = os.open(name, _NEW_FILE, 0o600, dir_fd=folder)
            try:
                self._write(fd, entry)
                self._set_metadata(fd, entry)
                os.fsync(fd)
            finally:
                os.close(fd)

    def _in(self, path: bytes) -> int:
        """Return the descriptor of a directory; the last one stays open."""
        if self._folder[0] != path:
            fd = self._open(path) if path else os.dup(self._root)
            os.close(self._folder[1])
            self._folder = (path, fd)
        return self._folder[1]

    def _open(self, path: bytes) -> int:
        """Open a directory from the fresh one on, name by name."""
        fd = os.dup(self._root)
        for name in path.split(b"/"):
            try:
                inner = os.open(name, _FOLDER, dir_fd=fd)
            finally:
                os.close(fd)
            fd = inner
        return fd

    def _write(self, fd: int, entry: StateEntry) -> None:
        for offset, length in entry.extents:
            at, end = offset, offset + length
            while at < end:
                while not self._content:
                    self._content = next(self._chunks)
                part = self._content[: end - at]
                self._content = self._content[len(part) :]
                view = memoryview(part)
                while view:
                    written = os.pwrite(fd, view, at)
                    view, at = view[written:], at + written
        os.ftruncate(fd, entry.size)

    def _read(self, index: StateIndex) -> Iterator[bytes]:
        for digest, size in index.chunks:
            content = state_files.read_chunk(self._paths, digest)
            if len(content) != size:
                path = self._paths.state_file(self._digest, INDEX)
                raise DamagedState(path, f"chunk {digest[:12]} has another length than it says")
            self._done += size
            if self._progress:
                self._progress(self._done, self._total)
            yield content

    def _set_metadata(self, fd: int, entry: StateEntry) -> None:
        mode = entry.mode
        # The owner first, since that clears what follows.
        try:
            os.fchown(fd, entry.uid, entry.gid)
        except (PermissionError, OverflowError):
            self._owners += 1
            mode &= ~_SPECIAL_BITS  # a program must not run as somebody else than it was meant to
        for name, value in entry.xattrs.items():
            if not self._set_xattr(fd, name, value) and name == _ACL:
                mode = _without_acl(mode, value)
        os.fchmod(fd, mode)
        os.utime(fd, ns=(entry.mtime, entry.mtime))

    def _set_xattr(self, fd: int, name: bytes, value: bytes) -> bool:
        try:
            os.setxattr(fd, name, value)
        except OSError:
            self._xattrs += 1
            return False
        return True

    def _set_metadata_by_name(self, folder: int, name: bytes, entry: StateEntry) -> None:
        try:
            os.chown(name, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
        except (PermissionError, OverflowError):
            self._owners += 1
        path = b"/proc/self/fd/%d/%s" % (folder, name)
        for key, value in entry.xattrs.items():
            with contextlib.suppress(OSError):
                os.setxattr(path, key, value, follow_symlinks=False)
                continue
            self._xattrs += 1
        if entry.kind != "link":
            os.chmod(path, entry.mode & ~_SPECIAL_BITS)
        times = (entry.mtime, entry.mtime)
        os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)


def _without_acl(mode: int, acl: bytes) -> int:
    """The mode of what cannot have its ACL: the group's bits are those of all whom the ACL names,
    and become the group's own."""
    for tag, bits, _ in struct.iter_unpack("<HHI", acl[4 : len(acl) // 8 * 8 - 4]):
        if tag == _ACL_GROUP:
            return mode & ~0o070 | int(bits & 7) << 3 & mode
    return mode & ~0o070
