"""What a watcher knows of one file that it follows, and the descriptor that it holds of it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from lakelog.ingest import lease
from lakelog.ingest.scan import FileState


@dataclass(slots=True)
class FollowedFile:
    """One file, by its inode: what was seen of it when it was read last, at `since`."""

    seen: FileState
    fd: int = -1
    since: float = 0.0
    held: bool = False
    """Whether its end was left, for more may belong to it."""
    unfinished: bool = False
    """Whether a last line without newline was left."""
    is_copy: bool = False
    """Whether all of it is a copy of another file."""
    arriving: tuple[int, int] = (0, 0)
    """Size and mtime of a packed file that waits to be read, at `since`."""


def is_open_for_writing(followed: FollowedFile) -> bool | None:
    """Whether a process has a file open for writing; None if that cannot be told."""
    if followed.fd >= 0:
        return lease.is_open_for_writing(followed.fd)
    with contextlib.suppress(OSError), open(followed.seen.path, "rb") as file:
        return lease.is_open_for_writing(file.fileno())
    return None


def close(followed: FollowedFile) -> None:
    """Close its descriptor, if one is held."""
    if followed.fd >= 0:
        os.close(followed.fd)
        followed.fd = -1
