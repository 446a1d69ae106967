"""Which erasures may know a row: those of its origin, and those of rows of its time.

    cache/erased_rows.json    of which files of `erasures/` it is, and what each of them says

To know a row by its place or content, it has to be hashed, and the rows of all erasures to be read:
most rows that come are of an origin, or of a time, of which nothing was erased (F23.9).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

from lakelog import document
from lakelog.erased import documents
from lakelog.erased.documents import ErasuresCache
from lakelog.erased.records import NO_TIMES, ErasedRows
from lakelog.paths import Paths
from lakelog.runtime.lazy import LazyProperty


class RowOutline(NamedTuple):
    """What to know of the rows of an erasure before one reads them: the `salt`; the fingerprints of
    their origins (hex), None if the erasure does not say; the least and the greatest time (us) of
    those that are known by their content."""

    salt: str
    origins: list[str] | None
    earliest: int
    latest: int

    @staticmethod
    def of(salt: str, rows: ErasedRows) -> RowOutline:
        """Return that of such rows."""
        origins = None if rows.origins is None else sorted(origin.hex() for origin in rows.origins)
        return RowOutline(salt, origins, *rows.times)


class RowIndex:
    """The outlines of erasures by their keys."""

    def __init__(self, outlines: dict[str, RowOutline]) -> None:
        self.outlines = outlines

    @LazyProperty
    def _of_origin(self) -> dict[str, dict[str | None, list[str]]]:
        """By salt the keys of the erasures that know rows of an origin; None is any origin."""
        by_salt: dict[str, dict[str | None, list[str]]] = {}
        for key, outline in self.outlines.items():
            of_salt = by_salt.setdefault(outline.salt, {})
            for origin in (None,) if outline.origins is None else outline.origins:
                of_salt.setdefault(origin, []).append(key)
        return by_salt

    @staticmethod
    def of_lake(paths: Paths) -> RowIndex:
        """Return that of all erasures of a lake. Raises DamagedRef."""
        try:
            cache = ErasuresCache(paths, paths.erased_rows)
        except FileNotFoundError:
            return RowIndex({})
        notes = cache.body.get("rows", {})
        if not cache.is_current:
            fresh = {}
            for key in documents.keys(paths):
                with contextlib.suppress(FileNotFoundError):
                    fresh[key] = _note(paths, key, notes.get(key), cache)
            cache.keep({"rows": fresh}, is_new=fresh != notes)
            notes = fresh
        return RowIndex({key: RowOutline(*outline) for key, (_, outline) in notes.items()})

    @staticmethod
    def of_key(paths: Paths, key: str) -> RowIndex:
        """Return that of one erasure, if there is one. Raises DamagedRef."""
        with contextlib.suppress(FileNotFoundError):
            return RowIndex({key: _outline(paths, key)})
        return RowIndex({})

    @property
    def spans(self) -> dict[str, tuple[int, int]]:
        """The least and the greatest time (us) of the rows that erasures know by their contents, by
        the keys of those that know any."""
        spans = {key: (each.earliest, each.latest) for key, each in self.outlines.items()}
        return {key: span for key, span in spans.items() if span != NO_TIMES}

    def of_times(self, earliest: int, latest: int) -> dict[str, list[str]]:
        """Return by their salt the keys of the erasures that may know rows between two times (us)
        by their contents."""
        keys: dict[str, list[str]] = {}
        for key, outline in self.outlines.items():
            if outline.earliest <= latest and earliest <= outline.latest:
                keys.setdefault(outline.salt, []).append(key)
        return keys

    def of_origin(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Return by their salt the keys of the erasures that may know rows of an origin, which may
        have had other names earlier, by their places."""
        keys: dict[str, list[str]] = {}
        names = tuple(names)
        for salt, of_salt in self._of_origin.items():
            digests = (documents.fingerprint(salt, name).hex() for name in names)
            of_names = [key for digest in digests for key in of_salt.get(digest, ())]
            if all_keys := [*of_salt.get(None, ()), *of_names]:
                keys[salt] = all_keys
        return keys


def _note(paths: Paths, key: str, note: list[Any] | None, cache: ErasuresCache) -> list[Any]:
    """Return the stamp of the rows of an erasure, empty if it may not tell another change, and
    their outline; as noted if they are as then. Raises DamagedRef, FileNotFoundError."""
    try:
        status = os.stat(f"{paths.erasures}/{key}.rows")
        stamp = [status.st_ino, status.st_ctime_ns, status.st_size]
        if not cache.is_settled(status.st_ctime_ns):
            stamp = []
    except FileNotFoundError:
        stamp = [0]
    if note is not None and stamp and note[0] == stamp:
        return note
    return [stamp, list(_outline(paths, key))]


def _outline(paths: Paths, key: str) -> RowOutline:
    salt = documents.read(f"{paths.erasures}/{key}.json", _salt)
    return RowOutline.of(salt, ErasedRows.of_key(paths, key))


def _salt(data: bytes) -> str:
    """Return the salt of an erasure. Raises NotIntact, KeyError."""
    salt: str = document.decode(data)["salt"]
    return salt
