"""Opening a file of a lake that may come from somebody else: a regular one, of bounded length.

A pipe would wait for a writer that never comes, and a link to /dev/zero has no end.
"""

from __future__ import annotations

import os
import stat
from errno import EINVAL, ENODEV, ENXIO

DOCUMENT_MAX = 64 << 20
"""Bytes of a document, a manifest or packed moves at most: ten times what any lake has."""


class NotIntact(ValueError):
    """Raised for bytes that are not a document as it was written; the caller names the file."""


class NotRegular(OSError, NotIntact):
    """Raised for what has the name of a file and is a pipe, a device or a directory, or far longer
    than any file of its kind."""

    def __str__(self) -> str:
        return self.strerror or ""


def open_file(path: str) -> int:
    """Open a regular file for reading. Raises NotRegular, FileNotFoundError, OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (ENXIO, ENODEV):  # a socket, a device that is not there
            raise
        raise NotRegular(EINVAL, "it is no regular file", path) from None
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        reason = "it is a directory" if stat.S_ISDIR(mode) else "it is no regular file"
        raise NotRegular(EINVAL, reason, path)
    return fd
