"""Directories below a watched one that hold no input: lakes, and backups of its own files."""

from __future__ import annotations

from lakelog.store import disk
from lakelog.store.bootstrap import is_lake

MARK = ".lakelog-backups"
"""The file that marks a directory of backups; whoever writes there holds its lock."""


def is_apart(folder: str) -> bool:
    """Whether a directory is a lake, or holds backups: parts of files that came in already."""
    return is_lake(folder) or disk.exists(f"{folder}/{MARK}")
