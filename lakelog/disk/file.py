"""A file by its path, and one that is open by its descriptor; all they do is done by `disk`."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from lakelog.disk import disk, regular_file
from lakelog.disk.disk import Begun


@dataclass(frozen=True, slots=True)
class File:
    """A file of a lake, by its path; whether it is there is asked each time."""

    path: str

    def read(self, longest: int = -1) -> bytes:
        """All its bytes, which are at most `longest`, if that is given. Raises NotRegular."""
        return disk.read(self.path, longest)

    def pieces(self, size: int = 1 << 22) -> Iterator[bytes]:
        """Yield its bytes. Raises NotRegular."""
        with open(self.open(), "rb", buffering=0) as file:
            while chunk := file.read(size):
                yield chunk

    def open(self) -> int:
        """Open it for reading. Raises NotRegular, FileNotFoundError, OSError."""
        return regular_file.open_file(self.path)

    def exists(self) -> bool:
        """Whether its name is there now."""
        return disk.exists(self.path)

    def is_regular(self) -> bool:
        """Whether it is there, and a regular file."""
        return disk.is_file(self.path)

    def is_open_as(self, fd: int) -> bool:
        """Whether an open file has its name."""
        return disk.is_same(self.path, fd)

    def identity(self) -> tuple[int, int, int] | None:
        """What no other file has that ever was at its path; None if there is none that can be seen.

        With the time, as the inode of a file that was removed is used again.
        """
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_ctime_ns

    def open_new(self) -> int:
        """Create it, which must not be there; return its descriptor."""
        return disk.create(self.path)

    def create(self, data: bytes) -> None:
        """Make it appear whole or not at all, durably after a sync of its folder; FileExistsError
        if it is there."""
        disk.create_whole(self.path, data)

    def put(self, data: bytes) -> None:
        """Write an object durably; being there already is fine."""
        disk.put_object(self.path, data)

    def begin(self, data: bytes) -> Begun:
        """Begin with an object that is durable once it is finished."""
        return disk.begin_object(self.path, data)

    def replace(self, data: bytes, *, sync: bool = True) -> None:
        """Replace it in one step; for advice and derived files only."""
        disk.replace_whole(self.path, data, sync=sync)

    def keep(self, data: bytes) -> None:
        """Replace it by what is derived, unsynced, and only if the disk has room: its reader checks
        what it has, and derives it again. Its folder is made if it is missing."""
        with contextlib.suppress(OSError):
            disk.make_dir(os.path.dirname(self.path))
            disk.replace_whole(self.path, data, sync=False)

    def append(self, data: bytes) -> None:
        """Append to it, unsynced; a torn line is for its reader to skip."""
        disk.append_line(self.path, data)

    def write_at(self, start: int, data: bytes) -> None:
        """Write into it, unsynced: its reader checks what it has."""
        disk.write_at(self.path, start, data)

    def map_shared(self, size: int) -> mmap.mmap:
        """Map what processes change in place; it is created with zeros if it is missing."""
        return disk.map_shared(self.path, size)

    def link(self, path: str) -> None:
        """Give it a second name; FileExistsError if that is taken."""
        disk.link(self.path, path)

    def become_object(self, path: str) -> None:
        """Give this temporary file, which is synced, the name of its content, durably."""
        folder = os.path.dirname(path)
        disk.make_object_dir(folder)
        try:
            # Taken means the same bytes are there: objects are named by their content.
            with contextlib.suppress(FileExistsError):
                disk.link(self.path, path)
        finally:
            disk.unlink(self.path)
        # Even if it was there: whoever made it may not have synced the directory yet.
        disk.sync_dir(folder)

    def rename(self, path: str) -> None:
        """Put it in the place of another, for advice and derived files only."""
        disk.rename(self.path, path)

    def remove(self) -> None:
        """Remove its name; no error if it is gone."""
        disk.unlink(self.path)


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that is open; its user closes it."""

    fd: int

    @staticmethod
    @contextlib.contextmanager
    def closing(fd: int) -> Iterator[int]:
        """Close a descriptor at the end."""
        try:
            yield fd
        finally:
            disk.close(fd)

    def write(self, data: bytes) -> None:
        """Write every byte, or raise OSError."""
        disk.write_all(self.fd, data)

    def write_blocks(self, data: bytes, zeros: int = 0) -> None:
        """The same, and so many zeros, for a file that is overwritten in parts later."""
        disk.write_blocks(self.fd, data, zeros)

    def truncate(self, size: int) -> None:
        """Shorten it; not durable until it is synced."""
        disk.truncate(self.fd, size)

    def begin_writeback(self, start: int, stop: int) -> None:
        """Have the disk begin to write what was just written; a later sync then waits less."""
        disk.begin_writeback(self.fd, start, stop)

    def sync(self) -> None:
        """Make its data durable; not its name."""
        disk.sync_file(self.fd)

    def lock(self, *, wait: bool = False) -> bool:
        """Take its exclusive lock; False if another holds it."""
        return disk.lock(self.fd, wait=wait)

    def identity(self) -> tuple[int, int]:
        """What no other file has while this one is open: its device and inode."""
        status = os.fstat(self.fd)
        return status.st_dev, status.st_ino

    def has_holes(self) -> bool:
        """Whether parts of it were never written; its offset is moved."""
        size = os.fstat(self.fd).st_size
        return bool(size) and os.lseek(self.fd, 0, os.SEEK_HOLE) < size

    def close(self) -> None:
        """Close it."""
        disk.close(self.fd)

    @contextlib.contextmanager
    def lease(self) -> Iterator[bool | None]:
        """Keep writers from opening it for a moment; yields False if one has it open, None where
        the system grants no leases, as on network file systems and for files of other users."""
        granted = self._request_lease()
        try:
            yield granted
        finally:
            if granted:
                fcntl.fcntl(self.fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    def is_open_for_writing(self) -> bool | None:
        """Whether a process has it open for writing; None where the system does not say."""
        with self.lease() as granted:
            return None if granted is None else not granted

    def _request_lease(self) -> bool | None:
        """Whether a read lease (fcntl(2)) was granted; None where the system grants none."""
        try:
            fcntl.fcntl(self.fd, fcntl.F_SETSIG, signal.SIGURG)  # which is ignored unless asked for
            fcntl.fcntl(self.fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            # EAGAIN alone means that a writer has it open; other errors mean that no lease can be
            # had (another owner, a network file system).
            return False if error.errno == errno.EAGAIN else None
        except AttributeError:  # not on this system
            return None
        return True
