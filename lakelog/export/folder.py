"""An output directory or file that appears whole or not at all.

It is made beside its name, in `.NAME.tmp-HEX`, synced, and renamed. A killed export leaves such a
directory and never one that looks whole; the next export to the same name removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from typing import BinaryIO

from lakelog.errors import ExportRefused
from lakelog.store import disk

_LOCK = ".lock"


def refuse_taken(path: str) -> None:
    """Raise ExportRefused if `path` is a file, or a directory with something in it."""
    if os.path.isdir(path) and not os.listdir(path):
        return
    if os.path.lexists(path):
        raise ExportRefused(f"{path} is in use: name a directory that is empty or not there yet")


@contextlib.contextmanager
def building(path: str) -> Iterator[str]:
    """Yield a directory to write into; it takes the name `path` once the block is done.

    Raises ExportRefused if the name is in use, before anything is written.
    """
    path = os.path.abspath(path)
    refuse_taken(path)
    parent, name = os.path.split(path)
    disk.make_dirs(parent)
    _remove_leftovers(parent, name)
    made = f"{parent}/.{name}{disk.TEMPORARY}{disk.random_hex(6)}"
    disk.make_dir(made)
    lock = os.open(f"{made}/{_LOCK}", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield made
        os.unlink(f"{made}/{_LOCK}")
        _sync(made)
        refuse_taken(path)
        os.replace(made, path)
        disk.sync_dir(parent)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _remove_leftovers(parent: str, name: str) -> None:
    """Remove what killed exports to this name left; living ones hold their lock."""
    for entry in disk.listing(parent):
        left = f"{parent}/{entry}"
        if entry.startswith(f".{name}{disk.TEMPORARY}") and not disk.is_locked(f"{left}/{_LOCK}"):
            shutil.rmtree(left, ignore_errors=True)


def _sync(root: str) -> None:
    """Make every file and directory below `root` durable."""
    for folder, _, names in os.walk(root):
        for name in names:
            fd = os.open(f"{folder}/{name}", os.O_RDONLY)
            try:
                disk.sync_file(fd)
            finally:
                os.close(fd)
        disk.sync_dir(folder)


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[BinaryIO]:
    """Open a file that takes its name only once it is whole; a device or pipe is written to."""
    target = os.path.realpath(path)
    if _is_special(target):
        with open(target, "wb") as device:
            yield device
        return
    made = f"{target}.tmp"
    try:
        with open(made, "wb") as file:
            yield file
        os.replace(made, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(made)
        if isinstance(error, OSError) and error.filename == made:
            error.filename, error.filename2 = path, None
        raise


def _is_special(path: str) -> bool:
    """Whether a path is a pipe or a device, which nothing can be renamed onto."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def sizes(root: str) -> dict[str, int]:
    """Return path, relative to `root`, to size in bytes of every file below it."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            full = os.path.join(folder, name)
            found[os.path.relpath(full, root)] = os.path.getsize(full)
    return dict(sorted(found.items()))
