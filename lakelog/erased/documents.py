"""The documents of erasures, read by whoever needs little of them or all.

What was erased stands in them as salted digests. A file of `cache/` may have what is needed of all
of them (F23.8, F23.9).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from lakelog import document
from lakelog.disk import DOCUMENT_MAX, File, Folder, NotIntact
from lakelog.errors import DamagedRef
from lakelog.paths import Paths
from lakelog.values import JsonObject
from lakelog.volume import TICK_NS

_T = TypeVar("_T")
PRINT = 16
"""Bytes of a fingerprint."""


def keys(paths: Paths) -> set[str]:
    """Return the keys of the erasures of a lake."""
    names = Folder(paths.erasures).names()
    return {
        name.removesuffix(".json")
        for name in names
        if name.endswith(".json") and name != "states.json" and not name.startswith(".")
    }


def of(paths: Paths, keys: Iterable[str], decode: Callable[[bytes], _T]) -> Iterator[_T]:
    """Yield what the documents of erasures say, but those that are gone. Raises DamagedRef."""
    for key in keys:
        with contextlib.suppress(FileNotFoundError):
            yield read(f"{paths.erasures}/{key}.json", decode)


def read(path: str, decode: Callable[[bytes], _T]) -> _T:
    """Return what a document says. Raises DamagedRef, FileNotFoundError."""
    try:
        return decode(File(path).read(DOCUMENT_MAX))
    except (NotIntact, KeyError, TypeError, ValueError) as error:
        raise DamagedRef(path, f"the erasure is damaged: {error}") from None


def salted(salt: str, value: str) -> str:
    """Return the digest by which an erasure knows a text."""
    return hashlib.sha256(bytes.fromhex(salt) + value.encode("utf-8", "surrogatepass")).hexdigest()


def fingerprint(salt: str, *values: object) -> bytes:
    """Return the fingerprint by which an erasure knows some values of a row."""
    joined = "\0".join("" if value is None else f"{value}" for value in values)
    return bytes.fromhex(salted(salt, joined))[:PRINT]


class ErasuresCache:
    """A file of `cache/` with what is needed of all documents; `body` has what it says, nothing if
    it is of another folder, and `is_current` whether nothing changed in the folder since."""

    def __init__(self, paths: Paths, path: str) -> None:
        """Read it. Raises FileNotFoundError in a lake without erasures."""
        status, self._looked_at = os.stat(paths.erasures), time.time_ns()
        self._file = File(path)
        self._version = [status.st_ino, status.st_ctime_ns]
        self.body: JsonObject = {}
        self.is_current = False
        with contextlib.suppress(OSError, NotIntact, KeyError, TypeError, ValueError):
            body = document.decode(self._file.read(DOCUMENT_MAX))
            if body["version"][0] == status.st_ino:  # and not that of a copy
                self.body, self.is_current = body, body["version"] == self._version

    def is_settled(self, changed_ns: int) -> bool:
        """Whether what changed then cannot have changed again and kept its time: within a tick."""
        return self._looked_at > changed_ns + TICK_NS

    def keep(self, body: JsonObject, *, is_new: bool) -> None:
        """Write it anew if that says something new, or for good now. Nothing depends on it."""
        is_settled = self.is_settled(self._version[1])
        version = self._version if is_settled else [self._version[0], 0]
        encoded = document.encode({"version": version, **body})
        if (is_new or is_settled) and len(encoded) <= DOCUMENT_MAX:
            self._file.keep(encoded)
