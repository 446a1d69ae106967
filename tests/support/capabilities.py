"""Capabilities of Linux: root can give up those that let it read every file."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

_VERSION = 0x20080522
# CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, as bits of the first word.
_READS_ALL = 1 << 1 | 1 << 2
_OWNS_ALL = 1 << 3


@contextlib.contextmanager
def bound_by_modes(*, owns_all: bool = True) -> Iterator[None]:
    """Let modes of files bind this thread, and those that it starts, as they bind any user; and
    unless it `owns_all`, let others' files be others'."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    # Effective, permitted and inheritable, twice: 64 bits of each.
    words = (ctypes.c_uint32 * 6)()
    _check(libc.capget(header, words))
    effective = words[0]
    words[0] = effective & ~(_READS_ALL if owns_all else _READS_ALL | _OWNS_ALL)
    _check(libc.capset(header, words))
    try:
        yield
    finally:
        words[0] = effective
        _check(libc.capset(header, words))


def _check(result: int) -> None:
    if result:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
