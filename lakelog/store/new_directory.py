"""What a directory must be before a lake is created in it, and the directories of the lake."""

from __future__ import annotations

import os
from collections.abc import Iterator

from lakelog.disk import File, FileSystem, Folder, disk
from lakelog.errors import AlreadyExists, DamagedLake, InvalidName, LakeNotFound
from lakelog.paths import FileNames, Paths
from lakelog.store.lake_config import LakeConfig


def make_directories(paths: Paths) -> None:
    """Make the directories of a new lake, durably. Raises AlreadyExists, InvalidName, DamagedLake,
    UnsupportedStore, OSError."""
    require_unicode(paths.root)
    if os.path.exists(paths.config):
        raise AlreadyExists(f"a lake already exists at {paths.root}")
    if outer := _lake_above(paths.root):
        raise AlreadyExists(f"{paths.root} is inside the lake at {outer}: choose another directory")
    # What a run of this left that was killed may stay; anything else is somebody's data.
    foreign = [n for n in Folder(paths.root).names() if not n.startswith(disk.TEMPORARY)]
    if set(foreign) - {os.path.basename(d) for d in paths.directories()}:
        raise AlreadyExists(f"{paths.root} is not empty and not a lake: choose another directory")
    Folder(paths.root).make_for_lake()
    FileSystem(paths.root).probe()
    refuse_orphan(paths)
    for directory in paths.directories():
        Folder(directory).make()
    # Each parent is synced once, for all directories in it.
    for directory in {os.path.dirname(d) for d in paths.directories()}:
        Folder(directory).sync()
    Folder(os.path.dirname(paths.root)).sync()


def require_unicode(root: str) -> None:
    """Refuse a path that the engine does not take: nothing could be queried. Raises InvalidName."""
    try:
        root.encode()
    except UnicodeEncodeError:
        raise InvalidName(
            f"{root!r} cannot hold a lake: it is not valid Unicode: choose another path"
        ) from None


def _lake_above(root: str) -> str:
    """The lake that a directory is inside of, or ""."""
    folder = os.path.dirname(os.path.realpath(root))
    while not LakeConfig(Paths(folder)).exists():
        folder, child = os.path.dirname(folder), folder
        if folder == child:
            return ""
    return folder


def refuse_orphan(paths: Paths) -> None:
    """Refuse to create a lake where another one lost its lakelog.json. Raises DamagedLake."""
    # In this order, as nobody appends before lakelog.json is there.
    if _has_contents(paths) and not File(paths.config).exists():
        raise DamagedLake(paths.config, "it is missing, though the lake holds moves or events")


def not_found(paths: Paths, error: OSError) -> LakeNotFound:
    """Return the error for a place where no lakelog.json could be read. Raises DamagedLake where a
    lake lost it."""
    if isinstance(error, FileNotFoundError):
        refuse_orphan(paths)
    # Who works inside of a lake looks for ./lake there.
    if outer := _lake_above(paths.root):
        return LakeNotFound(f"no lake at {paths.root}, but at {outer}: name that one")
    return LakeNotFound(f"no lake at {paths.root}: create one with `lakelog init`")


def _has_contents(paths: Paths) -> bool:
    """Whether there are files that no creation makes, be it killed before it wrote lakelog.json."""
    names = _names_below(paths.heads)
    if any(n[0] != "." and n != "000000000001.json" for n in names):
        return True
    segments = f"{paths.root}/segments"
    return any(FileNames(_names_below(paths.wals)).wals) or any(
        FileNames(_names_below(segments)).digests
    )


def _names_below(folder: str) -> Iterator[str]:
    """Yield the names of the files in the directories of one."""
    for name in Folder(folder).names():
        if not File(f"{folder}/{name}").is_regular():
            yield from Folder(f"{folder}/{name}").names()
