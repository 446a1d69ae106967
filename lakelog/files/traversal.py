"""Traversal of directories, however deeply they are nested, and paths by names that are text.

Directories below a watched one that hold no input: lakes, and backups of its own files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress

from lakelog.disk import File
from lakelog.store.bootstrap import is_lake

_ESCAPED = re.compile(rb"\\x([89a-f][0-9a-f])")
Listing = tuple[str, list[str], list[str]]
"""A directory, and the names of directories and of other files in it, both sorted."""


def path_of(name: str) -> str:
    """Return the path of a file whose name was made printable, its bytes that are no UTF-8 escaped.
    A path that exists as it is written is that one."""
    if "\\x" not in name or os.path.lexists(name):
        return name
    path = os.fsdecode(_ESCAPED.sub(lambda m: bytes([int(m[1], 16)]), os.fsencode(name)))
    return path if os.path.lexists(path) else name


def walk(root: str, on_error: Callable[[OSError], None] = lambda _: None) -> Iterator[Listing]:
    """Yield what `os.walk` does, which before Python 3.12 fails below a thousand levels.

    What the caller takes out of the names of directories is not entered, nor are links. A directory
    that cannot be listed goes to `on_error`.
    """
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        names, files = list[str](), list[str]()
        links = set[str]()
        try:
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    is_folder = False
                    with suppress(OSError):
                        is_folder = entry.is_dir()
                    (names if is_folder else files).append(entry.name)
                    if entry.is_symlink():
                        links.add(entry.name)
        except OSError as error:
            on_error(error)
            continue
        yield folder, names, files
        waiting += [os.path.join(folder, name) for name in reversed(names) if name not in links]


MARK = ".lakelog-backups"
"""The file that marks a directory of backups; whoever writes there holds its lock."""


def is_apart(folder: str) -> bool:
    """Whether a directory is a lake, or holds backups: parts of files that came in already."""
    return is_lake(folder) or File(f"{folder}/{MARK}").exists()
