"""Whose the files of a lake are that several users write to: the lake's, whoever made them.

Root may have made a lock or a branch in the lake of an application, or one of several users whose
lake belongs to a group of theirs. What all of them write to has the owner and the mode of the lake.
"""

from __future__ import annotations

import contextlib
import os
import stat

_CONFIG = "lakelog.json"
_LEVELS = 5
_BEGUN: set[str] = set()
"""Directories in which this process makes a lake."""


def begin(lake: str) -> None:
    """Treat what is made in a directory from now on as in the lake that it will be."""
    _BEGUN.add(lake)


def follow(path: str) -> None:
    """Give a directory or a file that is shared the owner and mode of the lake that it is in, as
    far as this user may; what is in none stays."""
    lake = _lake_of(path)
    if lake is None:
        return
    with contextlib.suppress(OSError):
        status = os.stat(path, follow_symlinks=False)
        if os.geteuid() not in (0, status.st_uid):
            return
        if (status.st_uid, status.st_gid) != (lake.st_uid, lake.st_gid):
            with contextlib.suppress(OSError):  # only root gives away what is its own
                os.chown(path, lake.st_uid, lake.st_gid, follow_symlinks=False)
        is_dir = stat.S_ISDIR(status.st_mode)
        mode = lake.st_mode & (0o2777 if is_dir else 0o666)
        if not stat.S_ISLNK(status.st_mode) and mode != stat.S_IMODE(status.st_mode):
            os.chmod(path, mode)


def show(fd: int, path: str, mode: int) -> None:
    """Let those read a new file who may read the lake that it is in, where the umask of this user
    hides it from them; not beyond `mode`."""
    present = stat.S_IMODE(os.fstat(fd).st_mode)
    hidden = mode & 0o444 & ~present
    # What one of several users stores, all have to read: a lake is read as a whole.
    if hidden and (lake := _lake_of(path)) is not None and lake.st_mode & hidden:
        with contextlib.suppress(OSError):
            os.fchmod(fd, present | lake.st_mode & hidden)


def _lake_of(path: str) -> os.stat_result | None:
    folder = os.path.dirname(path)
    for _ in range(_LEVELS):
        if folder in _BEGUN or os.path.exists(f"{folder}/{_CONFIG}"):
            return os.stat(folder)
        folder = os.path.dirname(folder)
    return None
