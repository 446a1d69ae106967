"""Removing a file that was taken in: only when nothing of it can be lost.

All of this must hold, looked at in this order, the file itself last: it is finished (rotated, or
not written to for as long as was asked); its newest backup is that of the file as it is, and reads
back as what was copied; the cursor in the published state covers every byte; its bytes are still
those of the backup; nobody has it open for writing (a read lease, where the system has them).

What remains is the moment between the last look and the unlink. With a lease a writer that comes
then waits until it is over, and only writes to a file without a name; without one (network file
systems, files of other users) it may also have written since the last look. A watcher holds
the file open and reads what was written so at its next round.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from contextlib import closing

from lakelog.backup import copy
from lakelog.backup.copy import Backup, Stop
from lakelog.ingest import cursors
from lakelog.ingest.cursors import Cursor, CursorIndex
from lakelog.ingest.identity import of_inode
from lakelog.ingest.lease import lease
from lakelog.ingest.rotation import is_rotated
from lakelog.ingest.scan import FileState
from lakelog.ingest.source import Source
from lakelog.store import disk
from lakelog.store.bootstrap import Store

QUIET = 10.0
"""Seconds for which a rotated file must not have been written to."""
_PIECE = 1 << 22


def is_finished(seen: FileState, now: float, after: float | None) -> bool:
    """Whether nobody should write to a file any more: its name is that of a rotated or packed file
    and it was left alone for a while, or it was left alone for `after` seconds."""
    quiet = now - seen.mtime_ns / 1e9
    rotated = is_rotated(seen.path)
    return (rotated and quiet >= QUIET) or (after is not None and quiet >= after)


def covering(store: Store, branch: str, path: str, label: str | None) -> Cursor | None:
    """Return the published cursor of a file if it covers every byte there is, else None.

    Raises OSError.
    """
    state = store.state(branch)
    with closing(Source(path)) as source:
        cursor = of_inode(source, CursorIndex(store.manifests.entries(state, "cursor")), label)
        source.limit = None
        done = cursor is not None and not source.read(1) and not source.broken
    return cursor if done else None


def remove(
    store: Store, branch: str, seen: FileState, kept: Backup, *, label: str | None, stop: Stop
) -> str:
    """Remove a finished file; return "" if it is gone, else why it stays.

    Raises OSError, Stopped.
    """
    if os.path.islink(seen.path):
        return "it is a link"
    fd = os.open(seen.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        before = os.fstat(fd)
        if not _is_as(before, kept):
            return "it changed since its backup"
        if fault := copy.fault_of(kept, stop):
            return f"its backup {cursors.printable(kept.path)} is damaged: {fault}"
        if covering(store, branch, f"/dev/fd/{fd}", label) is None:
            return "not all of it is published"
        with lease(fd) as alone:
            if not alone:
                return "a process has it open for writing"
            if _digest(fd, stop) != kept.sha256:
                return "its bytes are not those of its backup"
            return _unlink(fd, seen.path, before)
    finally:
        os.close(fd)


def _unlink(fd: int, path: str, before: os.stat_result) -> str:
    """Take the name away, if it still names this very file as it was."""
    now, named = os.fstat(fd), os.stat(path, follow_symlinks=False)
    if not os.path.samestat(now, named):
        return "another file has its name now"
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        return "it changed just now"
    disk.unlink(path)
    with contextlib.suppress(OSError):
        disk.sync_dir(os.path.dirname(path))
    return ""


def _is_as(status: os.stat_result, kept: Backup) -> bool:
    return (status.st_size, status.st_mtime_ns) == (kept.size, kept.mtime_ns)


def _digest(fd: int, stop: Stop) -> str:
    digest, at = hashlib.sha256(), 0
    while piece := os.pread(fd, _PIECE, at):
        if stop():
            raise copy.CopyStopped
        digest.update(piece)
        at += len(piece)
    return digest.hexdigest()
