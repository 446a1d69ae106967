"""The table `files`: which files were ingested, and where their rows came from.

A row of `events` that was read from a file has that file's `origin`, so the two join by it. Sizes
are those of a state; of the present one, files that this machine can still see are measured again.
"""

from __future__ import annotations

import os

from lakelog.files import cursors
from lakelog.files.file_cursor import FileCursor
from lakelog.files.traversal import path_of
from lakelog.libraries import pa
from lakelog.store import hosts
from lakelog.store.bootstrap import Store
from lakelog.store.manifest import Manifest

NAME = "files"
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".parquet", ".arrow", ".feather")


def table(store: Store, state: Manifest, *, is_present: bool) -> pa.Table:
    """Return the files of a state, by path; `is_present` if it is the newest of its branch."""
    entries = sorted(cursors.of_state(store, state), key=lambda c: (c.name, c.origin))
    sizes = [_size(c) if is_present else c.size for c in entries]
    lags = [_behind(c, size) for c, size in zip(entries, sizes, strict=True)]
    looked = [c.looked // 1000 if c.looked else None for c in entries]
    columns = {
        "path": pa.array([c.name for c in entries], pa.string()),
        "host": pa.array([c.host or None for c in entries], pa.string()),
        "origin": pa.array([c.origin for c in entries], pa.string()),
        "size": pa.array(sizes, pa.int64()),
        "consumed": pa.array([c.bytes for c in entries], pa.int64()),
        "behind": pa.array(lags, pa.int64()),
        "lines": pa.array([c.lines for c in entries], pa.int64()),
        "read_at": pa.array(looked, pa.timestamp("us", "UTC")),
    }
    return pa.table(columns)


def _size(cursor: FileCursor) -> int:
    """The size of a file now, where this machine has it under its name, else when it was read."""
    try:
        status = os.stat(path_of(cursor.name))
    except (OSError, ValueError):
        return cursor.size
    is_it = cursor.host == hosts.host_name() and cursor.identity == (status.st_dev, status.st_ino)
    return status.st_size if is_it else cursor.size


def _behind(cursor: FileCursor, size: int) -> int | None:
    """How many bytes are not consumed yet; None of files that count in other bytes."""
    return None if cursor.name.endswith(_PACKED) else max(size - cursor.bytes, 0)
