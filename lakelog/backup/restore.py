"""Restoring a backup: the file as it was, whole or not at all, with its time and mode."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import stat

from lakelog.backup import copy
from lakelog.backup.copy import Backup
from lakelog.errors import AlreadyExists, LakelogError
from lakelog.ingest.cursors import printable
from lakelog.store import disk


class DamagedBackup(LakelogError):
    """Raised when a copy is not what was copied: choose an older one, see `backups verify`."""


def restore(chosen: Backup, to: str | None = None, *, force: bool = False) -> str:
    """Write a backup back, to its old path or to `to` (a directory, or a path); return where.

    Raises AlreadyExists unless `force`, DamagedBackup, OSError; then nothing was changed.
    """
    target = os.path.abspath(to or chosen.origin)
    if to is not None and (os.path.isdir(target) or to.endswith("/")):
        target = os.path.join(target, os.path.basename(chosen.origin))
    if os.path.lexists(target):
        _may_replace(target, force)
    if fault := copy.fault_of(chosen):
        raise DamagedBackup(f"{printable(chosen.path)}: {fault}")
    folder = os.path.dirname(target)
    disk.make_dirs(folder)
    made = disk.write_pieces(folder, copy.contents(chosen.path, chosen.packed), mode=0o600)
    try:
        if fault := copy.fault_of(dataclasses.replace(chosen, path=made, packed=False)):
            raise DamagedBackup(f"{printable(target)}: {fault}")
        with contextlib.suppress(PermissionError):
            os.chown(made, chosen.uid, chosen.gid)
        os.chmod(made, stat.S_IMODE(chosen.mode))
        os.utime(made, ns=(chosen.mtime_ns, chosen.mtime_ns))
        if force:
            disk.rename(made, target)
        else:
            disk.link(made, target)
    except FileExistsError:
        raise AlreadyExists(_taken(target)) from None
    finally:
        disk.unlink(made)
    disk.sync_dir(folder)
    return target


def _may_replace(target: str, force: bool) -> None:
    """Refuse to replace what is there. Raises AlreadyExists, OSError."""
    if os.path.isdir(target) and not os.path.islink(target):
        raise OSError(errno.EISDIR, "this is a directory", target)
    if not force:
        raise AlreadyExists(_taken(target))


def _taken(target: str) -> str:
    name = printable(target)
    return f"{name} is there: --force replaces it, --to DIR puts it elsewhere"
