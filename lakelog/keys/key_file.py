"""Files of keys that people keep, outside of every lake."""

from __future__ import annotations

import os

from lakelog.errors import InvalidKey


def refuse_in_lake(path: str, owned: str) -> None:
    """Refuse a file in a lake, whose copies would have the key, too: `owned` is what the error says
    to keep elsewhere. Raises InvalidKey."""
    folder = os.path.dirname(os.path.realpath(path))
    while not os.path.exists(f"{folder}/lakelog.json"):
        if folder == os.path.dirname(folder):
            return
        folder = os.path.dirname(folder)
    raise InvalidKey(f"{path} is in the lake {folder}: keep {owned} elsewhere")


def create(path: str, data: bytes, mode: int) -> None:
    """Write a new file durably. Raises FileExistsError, OSError."""
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
