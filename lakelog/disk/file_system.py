"""What the storage of a lake must support: names that are given once, and locks that exclude."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from lakelog.disk import disk
from lakelog.disk.file import OpenFile
from lakelog.disk.lock_file import LockFile
from lakelog.errors import UnsupportedStore

# Shared between kernels: flock and link of one machine may not bind another (F16.1).
_REMOTE_TYPES = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse", "9p", "ceph", "virtiofs")


@dataclass(frozen=True, slots=True)
class FileSystem:
    """What a directory is on."""

    root: str

    def probe(self) -> None:
        """Refuse a file system without create-if-absent `link` or excluding `flock`."""
        self.refuse_remote()
        path = disk.write_temporary(self.root, b"probe\n")
        second_name = disk.temporary_path(self.root)
        try:
            disk.link(path, second_name)
            # Publishing is decided by this very refusal, so it is tried rather than believed.
            try:
                disk.link(path, second_name)
                raise UnsupportedStore(
                    f"{self.root}: link does not refuse a taken name; use a local disk"
                )
            except FileExistsError:
                pass
            self._probe_lock(path)
        except PermissionError as error:
            raise UnsupportedStore(
                f"{self.root}: link is not allowed here ({error}); use a local disk"
            ) from None
        finally:
            disk.unlink(path)
            disk.unlink(second_name)

    def _probe_lock(self, path: str) -> None:
        with OpenFile.closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as fd:
            if not disk.lock(fd) or not LockFile(path).is_held():
                raise UnsupportedStore(f"{self.root}: flock does not exclude; use a local disk")

    def refuse_remote(self) -> None:
        """Refuse one shared between kernels, by type, where the system lists its mounts."""
        try:
            mounts = disk.read("/proc/self/mounts").decode("utf-8", "surrogateescape").splitlines()
        except OSError:
            return
        best, fs_type, path = "", "", os.path.realpath(self.root)
        for line in mounts:
            _, point, name, *_ = line.split(" ")
            # The kernel writes spaces and backslashes of a mount point as octal escapes.
            point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)
            inside = path == point or path.startswith(point.rstrip("/") + "/")
            # The longest mount point holds the path; of equal ones the later mount is on top.
            if inside and len(point) >= len(best):
                best, fs_type = point, name
        if fs_type in _REMOTE_TYPES or fs_type.startswith("fuse."):
            raise UnsupportedStore(
                f"{self.root} is on {fs_type}: lakelog appends on local disks only"
            )
