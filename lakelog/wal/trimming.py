"""Trimming: WAL files whose every frame is sealed are removed, never shortened (F9.6).

A file is removed only when it is finished (END, a later file of its writer, or its lock taken by
us), its last sequence is covered by the head, the move that covers it is durable, and the segments
of the head are there. A frame that a dead writer left unfinished is kept in cache/cut and reported.
"""

from __future__ import annotations

import os

from lakelog.disk import File, Folder, NotRegular, OpenFile, disk
from lakelog.entries import SegmentEntry
from lakelog.paths import KEYS
from lakelog.refs import Head
from lakelog.store import Hosts, Store
from lakelog.wal import frames as wal
from lakelog.wal.tail import Tail, WalFile


def trim(
    store: Store, branch: str, tail: Tail, head: Head | None = None, *, is_kept: bool = True
) -> int:
    """Remove the finished and sealed WAL files of a branch; return how many were removed. The
    `head` of a deleted branch is given, of which history may have let the state go."""
    files = tail.scan()
    head = head or store.refs.head(branch)
    due = [
        (file, group[-1] is file)
        for writer, group in files.items()
        for file in group
        if _is_sealed(file, head.move.wal.get(writer))
    ]
    if not due or (is_kept and not _segments_present(store, head)):
        return 0
    # The head may be another process's, whose own sync has not returned: a power cut now would take
    # the move, and with these files the only other copy of its events.
    store.refs.sync(branch, head.digest)
    return sum(_remove(store, file, newest) for file, newest in due)


def _is_sealed(file: WalFile, mark: int | None) -> bool:
    # Of a damaged file nobody knows the last sequence; it stays for repair.
    is_intact = file.header is not None and file.damage is None and bool(file.frames)
    return mark is not None and is_intact and file.last <= mark


def _segments_present(store: Store, head: Head) -> bool:
    """Whether the segments of the recent entries are on disk; the newest seal is among them."""
    state = store.manifests.of(head.move)
    adds = [e for e in state.recent if isinstance(e, SegmentEntry)]
    return all(store.volume.exists(KEYS.object("segments", e.key)) for e in adds)


def _remove(store: Store, file: WalFile, newest: bool) -> bool:
    """Unlink one file under its lock; False if its writer lives or it grew."""
    try:
        fd = File(file.path).open()
    except (FileNotFoundError, NotRegular):
        return False
    with OpenFile.closing(fd):  # after the unlink: it holds the lock
        # A living writer, which holds the lock, may append to its newest file at any moment.
        if newest and not file.ended and (not _is_abandoned(store, file, fd)):
            return False
        # Written to since it was read: the last sequence is not the one that was compared.
        if not file.ended and _has_grown(file, fd):
            return False
        # Of earlier files the writer repeated a torn frame in the next one (F9.5).
        if newest and file.torn:
            keep_cut(store, file.path, file.end, os.pread(fd, file.torn, file.end))
        File(file.path).remove()
    return True


def _has_grown(file: WalFile, fd: int) -> bool:
    """Whether anything stands after the frames of a file that did not when it was read."""
    ending = os.pread(fd, os.fstat(fd).st_size - file.end, file.end)
    scan = wal.scan(ending, file.end, file.writer)
    return bool(scan.frames) or scan.ended or scan.torn != file.torn


def _is_abandoned(store: Store, file: WalFile, fd: int) -> bool:
    """Whether no writer holds the file; the lock of another machine counts only after the grace."""
    assert file.header is not None
    # In a container or on a mounted disk of another machine, our flock may not see that of its
    # writer. A writer that wrote nothing for the whole grace is taken for dead.
    if file.header.host != Hosts.own_name():
        age = disk.now_us() - os.fstat(fd).st_mtime_ns // 1000
        if age < store.settings.gc_grace_hours * 3_600_000_000:
            return False
    return OpenFile(fd).lock()


def keep_cut(store: Store, path: str, offset: int, data: bytes) -> None:
    """Keep the bytes of a torn last frame, once."""
    Folder(store.paths.cut).make()
    name = f"{store.paths.cut}/{os.path.basename(path)}-{offset}"
    if not File(name).exists():
        File(name).replace(data)
