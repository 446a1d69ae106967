"""Read leases (fcntl(2)): whether any process has a file open for writing."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def lease(fd: int) -> Iterator[bool]:
    """Keep writers from opening a file for a moment; yields False if one has it open.

    Where the system grants no leases it yields True and does not block writers.
    """
    granted = _request(fd)
    try:
        yield granted is not False
    finally:
        if granted:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def is_open_for_writing(fd: int) -> bool | None:
    """Whether a process has a file open for writing; None where the system grants no leases, as
    on network file systems and for files of other users."""
    granted = _request(fd)
    if granted:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return None if granted is None else not granted


def _request(fd: int) -> bool | None:
    """Whether a lease was granted; None where the system grants none."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)  # which is ignored unless asked for
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        # EAGAIN alone means that a writer has it open; other errors mean that no lease can be had
        # (another owner, a network file system).
        return False if error.errno == errno.EAGAIN else None
    except AttributeError:  # not on this system
        return None
    return True
