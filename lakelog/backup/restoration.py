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
from lakelog.files.cursors import printable
from lakelog.store import disk


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
    if fault := copy.fault_of(backup):
        raise DamagedBackup(f"{printable(backup.path)}: {fault}")
    folder = os.path.dirname(target)
    disk.make_dirs(folder)
    # Readable for nobody else until owner and mode are those of the file.
    temporary = disk.write_pieces(folder, copy.contents(backup.path, backup.packed), mode=0o600)
    try:
        # What was written is read again: only then may it take the place of an existing file.
        if fault := copy.fault_of(dataclasses.replace(backup, path=temporary, packed=False)):
            raise DamagedBackup(f"{printable(target)}: {fault}")
        # Only root may give a file away; then it belongs to whoever restores it.
        with contextlib.suppress(PermissionError):
            os.chown(temporary, backup.uid, backup.gid)
        # After chown, which clears the set-user-id bits (chown(2)).
        os.chmod(temporary, stat.S_IMODE(backup.mode))
        os.utime(temporary, ns=(backup.mtime_ns, backup.mtime_ns))
        # link refuses a name that was taken since the check above; rename would replace that file.
        if force:
            disk.rename(temporary, target)
        else:
            disk.link(temporary, target)
    except FileExistsError:
        raise AlreadyExists(_exists_message(target)) from None
    finally:
        disk.unlink(temporary)
    # The caller says that the file is restored, so its name has to survive a power cut.
    disk.sync_dir(folder)
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
