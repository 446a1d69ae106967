"""Removing an ingested file: only when nothing of it can be lost.

All of this must hold, checked in this order, the file itself last: it is finished (rotated, or not
written to for the time that was asked for); its newest backup was made from the file as it is, and
is intact; the cursor in the published state covers every byte; its bytes still equal those of the
backup; no process has it open for writing (a read lease, where the system grants one).

What remains is the moment between the last check and the unlink. With a lease, a writer that opens
the file then waits until it is over, and writes to a file without a name; without one (network file
systems, files of other users) it may also have written since the last check. A watcher has the file
open and reads such lines in its next round.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from contextlib import closing

from lakelog.backup import copy
from lakelog.backup.copy import Backup, Stop
from lakelog.disk import File, Folder, OpenFile
from lakelog.files import CursorIndex, FileCursor, FileState, LogName, printable
from lakelog.lines import Source
from lakelog.store import Store

QUIET = 10.0
"""Seconds for which a rotated file must not have been written to."""
_BLOCK = 1 << 22


def is_finished(file: FileState, now_s: float, after: float | None) -> bool:
    """Whether no process should write to a file any more: its name is that of a rotated or
    compressed file and it was left alone for a while, or it was left alone for `after` seconds."""
    quiet = now_s - file.mtime_ns / 1e9
    rotated = LogName(file.path).is_rotated
    return (rotated and quiet >= QUIET) or (after is not None and quiet >= after)


def covering(store: Store, branch: str, path: str, label: str | None) -> FileCursor | None:
    """Return the published cursor of a file if it covers every byte of it, else None.

    Raises OSError.
    """
    state = store.state(branch)
    with closing(Source(path)) as source:
        cursor = CursorIndex(FileCursor.of_state(store, state)).by_inode(source, label)
        # A byte beyond what was published refutes it, also one that was written after the file was
        # opened.
        source.limit = None
        covers_all = cursor is not None and not source.read(1) and not source.broken
    return cursor if covers_all else None


def remove(
    store: Store, branch: str, file: FileState, newest: Backup, *, label: str | None, stop: Stop
) -> str:
    """Remove a finished file; return "" if it is gone, else the reason why it stays.

    Raises OSError, CopyStopped.
    """
    # Unlinking would remove the link, and keep the file that was backed up.
    if os.path.islink(file.path):
        return "it is a link"
    # O_NOFOLLOW: the name may have become a link since the look above.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    with OpenFile.closing(os.open(file.path, flags)) as fd:
        status = os.fstat(fd)
        if (status.st_size, status.st_mtime_ns) != (newest.size, newest.mtime_ns):
            return "it changed since its backup"
        # From here on the backup is the only other copy, so it is read again and not trusted for
        # having been intact when it was written.
        if fault := copy.fault_of(newest, stop):
            return f"its backup {printable(newest.path)} is damaged: {fault}"
        # By descriptor: the name may lead to another file by now.
        if covering(store, branch, f"/dev/fd/{fd}", label) is None:
            return "not all of it is published"
        # The bytes are compared last and under the lease, so that no writer comes between this look
        # and the unlink (where the system grants leases).
        with OpenFile(fd).lease() as no_writer:
            if no_writer is False:
                return "a process has it open for writing"
            if _digest(fd, stop) != newest.sha256:
                return "its bytes are not those of its backup"
            return _unlink(fd, file.path, status)


def _unlink(fd: int, path: str, before: os.stat_result) -> str:
    """Remove the name, if it still names this very file, unchanged."""
    # Both are asked again: the name may lead to another file, and without a lease somebody may have
    # written since `before`.
    status, current = os.fstat(fd), os.stat(path, follow_symlinks=False)
    if not os.path.samestat(status, current):
        return "another file has its name now"
    if (status.st_size, status.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        return "it changed just now"
    File(path).remove()
    # If a crash brings the name back, the next round removes it again.
    with contextlib.suppress(OSError):
        Folder(os.path.dirname(path)).sync()
    return ""


def _digest(fd: int, stop: Stop) -> str:
    digest, offset = hashlib.sha256(), 0
    while block := os.pread(fd, _BLOCK, offset):
        if stop():
            raise copy.CopyStopped
        digest.update(block)
        offset += len(block)
    return digest.hexdigest()
