"""The documents of erasures, read by whoever needs little of them or all.

What was erased stands in them as salted digests.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from lakelog.disk import DOCUMENT_MAX, File, Folder, NotIntact
from lakelog.errors import DamagedRef
from lakelog.paths import Paths

_T = TypeVar("_T")


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
