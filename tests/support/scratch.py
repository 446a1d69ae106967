"""Where tests make what they throw away: in memory while there is room for it, else on the disk."""

from __future__ import annotations

import os

MEMORY = "/dev/shm"
BYTES = 256_000_000
INODES = 200_000
"""Small files: memory may run out of inodes before it runs out of bytes."""


def memory() -> str | None:
    """The file system in memory while it has room for BYTES and INODES, else None."""
    try:
        left = os.statvfs(MEMORY)
    except OSError:
        return None
    # A file system that has no limit of inodes says that it has none at all.
    has_inodes = left.f_favail > INODES or not left.f_files
    return MEMORY if has_inodes and left.f_bavail * left.f_frsize > BYTES else None
