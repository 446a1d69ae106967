"""Segments that the SQL engine cannot open itself, encrypted ones and those that are in a bucket: a
file system with names such as `lakelog://<lake>/<digest>.parquet`.

The engine reads ranges, and only what these touch is decrypted, or fetched (`block_ranges`). So
memory is bounded whatever the length of a segment. Segments never change, so what is known of one
stays true.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import os
from typing import Any

import fsspec  # type: ignore[import-untyped]

from lakelog.database.block_ranges import OPEN, SHARED
from lakelog.keys import VAULT

_PREFIX = "lakelog://"
_UNCHANGED = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_ROOTS: dict[str, str] = {}
"""The folders of segments, by the names of their lakes in this process."""


class EngineFiles(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """Such segments of this process's lakes."""

    protocol = "lakelog"
    cachable = False

    def open(self, path: str, mode: str = "rb", **_: object) -> Any:
        """Return a file for reading. Raises OSError, DamagedSegment."""
        if set(mode) & set("wax+"):
            raise PermissionError(f"{path}: segments never change")
        return _file(path)

    def info(self, path: str, **_: object) -> dict[str, str | int]:
        """Return what is known of a file: its name and the length of its plaintext."""
        return {"name": path, "size": _size_of(_path_of(path)), "type": "file"}

    def exists(self, path: str, **_: object) -> bool:
        """Whether a segment is there."""
        try:
            return _path_of(path) in OPEN or os.path.exists(_path_of(path))
        except FileNotFoundError:
            return False

    def glob(self, path: str, **_: object) -> list[str]:
        """Return the one file that a name names."""
        return [path]

    def modified(self, path: str) -> datetime.datetime:
        """Segments never change: a time, always the same."""
        return _UNCHANGED

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path


def engine_name(path: str) -> str:
    """Return the name by which the engine opens a file: its path, unless it is an encrypted
    segment, or one that is not here whole."""
    if path in OPEN and not os.path.exists(path):
        return f"{_lake_name(_lake_of(path))}{os.path.basename(path)}"
    root = next((root for root in VAULT.lakes if path.startswith(f"{root}segments/")), "")
    if not root or not VAULT.is_envelope(path):
        return path
    return f"{_lake_name(root)}{os.path.basename(path)}"


def folder_names() -> list[str]:
    """Return the beginnings of all names that `engine_name` gives in this process."""
    return [_lake_name(root) for root in {*VAULT.lakes, *SHARED}]


def _file(name: str) -> Any:
    path = _path_of(name)
    source = VAULT.file(path)
    return open(path, "rb") if source is path else source


@functools.lru_cache(maxsize=1 << 16)
def _size_of(path: str) -> int:
    """Return the length of the plaintext of a file."""
    if (blocks := OPEN.get(path)) is not None:
        return blocks.plain.size
    with VAULT.file(path) as file:
        return int(file.size)


def _lake_of(path: str) -> str:
    """Return the directory, with a slash, of the lake that has a segment."""
    return path[: path.rindex("segments/")]


def _lake_name(root: str) -> str:
    name = hashlib.sha256(root.encode()).hexdigest()[:16]
    _ROOTS[name] = f"{root}segments"
    return f"{_PREFIX}{name}/"


def _path_of(name: str) -> str:
    """Return the path that a name stands for. Raises FileNotFoundError for one of no lake."""
    lake, _, file = name.removeprefix(_PREFIX).partition("/")
    folder = _ROOTS.get(lake)
    if folder is None or "/" in file or file.startswith("."):
        raise FileNotFoundError(name)
    return f"{folder}/{file[:2]}/{file}"
